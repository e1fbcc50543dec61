"""Errors of predictions in pixels: of decoded pictures, of keypoints, of points on objects.

Latents of two encoders can't be compared; these can. All are divided by the error of "nothing changes", which is that
of the true first frame and so the same for every model. Sums are (T,) arrays as in `open_loop_metrics`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

MOVED_PX = 2.0  # a point that is nearer to its place in the first frame stands still
# figure: the sums that it is the ratio of, and the same read from latents of true frames, as far as a reader can get
RATIOS = {
    "picture_mse_ratio": ("picture_mse", "copy_last_picture_mse"),
    "picture_mse_ratio_true_latents": ("true_latents_picture_mse", "copy_last_picture_mse"),
    "keypoint_px_ratio": ("keypoint_px", "copy_last_keypoint_px"),
    "keypoint_px_ratio_true_latents": ("true_latents_keypoint_px", "copy_last_keypoint_px"),
    "found_point_px_ratio": ("found_point_px", "copy_last_point_px"),
    "found_point_px_ratio_true_latents": ("true_latents_found_point_px", "copy_last_point_px"),
    "followed_point_px_ratio": ("followed_point_px", "copy_last_point_px"),
    "followed_point_px": ("followed_point_px", "moved_points"),
    "copy_last_point_px": ("copy_last_point_px", "moved_points"),
}

Sums = dict[str, np.ndarray]


def picture_sums(decode: Any, predicted: dict[str, Tensor], images: np.ndarray) -> Sums:
    """Mean squared error, of values in [0, 1], of decoded latents (T, P, D), by prefix.

    images: (T + 1, H, W, 3) uint8, the true frames; the first one is what copying shows.
    """
    truth = torch.from_numpy(images).float() / 255

    def error(pictures: Tensor) -> np.ndarray:
        return (pictures - truth[1:]).square().mean(dim=(1, 2, 3)).double().numpy()

    sums = {f"{prefix}picture_mse": error(decode(each).cpu().float() / 255) for prefix, each in predicted.items()}
    return sums | {"copy_last_picture_mse": error(truth[:1])}


def keypoint_distances(read: dict[str, Tensor], pixels: Tensor, view: Tensor) -> Sums:
    """Distances of keypoints (T, 12, 2) from the true pixels (T + 1, 12, 2), by prefix, where `view` (T, 12) counts."""
    places = read | {"copy_last_": pixels[:1]}
    return {f"{prefix}keypoint_px": _summed(each - pixels[1:], view) for prefix, each in places.items()}


def point_sums(head: Any, latents: Tensor, predicted: Tensor, motion: Any, pixels: Tensor, visible: Tensor) -> Sums:
    """Distances of points that moved, as a point head reads them from predicted latents and follows them under hands.

    latents: (T + 1, P, D) of the true frames; predicted: (T, P, D). motion: (1, T) the hands'. pixels: (T + 1, Q, 2),
    NaN where unknown, and visible (T + 1, Q) true points. A point counts where the first frame shows it, until it
    leaves the picture, whether it is hidden or not.
    """
    size = pixels.new_tensor([head.image_size[1], head.image_size[0]])
    inside = ((pixels >= 0) & (pixels < size)).all(-1).cumprod(dim=0).bool()  # NaN compares false
    chosen = inside[0] & visible[0].bool()
    places = pixels[:, chosen]
    counted = inside[1:, chosen] & ((places[1:] - places[:1]).norm(dim=-1) > MOVED_PX)
    start = places[:1].to(latents)
    looks = head.look(head.maps(latents[:1]), start)
    found = {
        name: head.read(head.find(looks, head.maps(each)[None])[0])[0]
        for name, each in (("found_", predicted), ("true_latents_found_", latents[1:]))
    }
    followed = head.follow(looks, start, motion).pixels[0].mean(dim=1)  # (T, Q, 2), over the opinions
    read = found | {"followed_": followed, "copy_last_": start}
    sums = {f"{prefix}point_px": _summed(each - places[1:].to(each), counted) for prefix, each in read.items()}
    return sums | {"moved_points": counted.sum(-1).double().numpy()}


def _summed(difference: Tensor, counted: Tensor) -> np.ndarray:
    """Sums (T,) over points of the lengths of differences (T, Q, 2) that count."""
    lengths = difference.cpu().double().norm(dim=-1)
    return torch.where(counted.cpu(), lengths, 0.0).sum(-1).numpy()
