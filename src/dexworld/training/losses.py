"""Losses of the world model: latents, and the hands that can be read from them.

Heatmap targets are made on the device from (u, v, visible), never in the loader. B batch, T frames, K keypoints,
M visible keypoints of a batch, h x w heatmap size.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.actions import hand_motion
from dexworld.data.windows import Window
from dexworld.hands import TRACKED
from dexworld.track import Track
from dexworld.training.distributed import Processes

ItemsEach = Callable[[Tensor], Tensor]  # items in this process -> items of all processes over their number, above 0
own_items: ItemsEach = Processes().items_each  # of a process that sees the whole batch


def latent_loss(
    predicted: Tensor, target: Tensor, counted: Tensor | None = None, items_each: ItemsEach = own_items
) -> Tensor:
    """Mean squared error of latents (B, T, P, D), over the frames that `counted` (B, T) bool marks (default: all).

    items_each: what sums over a share of a batch are divided by, so that their mean is that of the whole batch.
    """
    error = (predicted.float() - target.float()).square().mean(dim=(-1, -2))
    if counted is None:
        return error.mean()
    return (error * counted).sum() / items_each(counted.sum())


def tracked_pixels(track: Track) -> tuple[Tensor, Tensor]:
    """Pixels (B, F, 12, 3) [u px, v px, depth m] of the tracked keypoints, and which of them a picture can show."""
    motion = hand_motion(track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)
    return motion.pixels, motion.visible & track.keypoints_shown[..., list(TRACKED)]


def inside_image(pixels: Tensor, visible: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Which visible keypoints (..., K) with pixels (..., K, 2 or more) lie inside an image of (height, width)."""
    u, v = pixels[..., 0], pixels[..., 1]
    return visible & (u >= 0) & (u < image_size[1]) & (v >= 0) & (v < image_size[0])


def keypoint_distances(model: Any, window: Window, image_size: tuple[int, int]) -> Tensor:
    """Pixels (M,) between the keypoints that a model reads from true latents and those that are seen, on the CPU."""
    pixels, visible = tracked_pixels(window.track)
    found, _ = model.keypoints(window.latents)
    counted = inside_image(pixels, visible, image_size)
    return (found - pixels[..., :2]).norm(dim=-1)[counted].float().cpu()


def gaussian_axes(
    pixels: Tensor, map_size: tuple[int, int], image_size: tuple[int, int], sigma_px: float
) -> tuple[Tensor, Tensor]:
    """Rows (M, h) and columns (M, w) whose outer product is a Gaussian of peak 1 around pixels (M, 2) [u, v].

    Heatmap cells are sampled at their centres; sigma_px is measured in image pixels.
    """

    def axis(coordinate: Tensor, cells: int, length: int) -> Tensor:
        centres = (torch.arange(cells, device=pixels.device, dtype=torch.float32) + 0.5) * (length / cells)
        return torch.exp(-0.5 * ((centres - coordinate[:, None].float()) / sigma_px).square())

    return axis(pixels[:, 1], map_size[0], image_size[0]), axis(pixels[:, 0], map_size[1], image_size[1])


def gaussian_maps(pixels: Tensor, map_size: tuple[int, int], image_size: tuple[int, int], sigma_px: float) -> Tensor:
    """Gaussian maps (M, h, w) of peak 1 around pixels (M, 2) [u, v] of an image of (height, width)."""
    rows, columns = gaussian_axes(pixels, map_size, image_size, sigma_px)
    return rows[:, :, None] * columns[:, None, :]


def keypoint_loss(
    logits: Tensor,
    pixels: Tensor,
    visible: Tensor,
    image_size: tuple[int, int],
    sigma_px: float,
    kind: Literal["mse", "cross_entropy"],
    items_each: ItemsEach = own_items,
) -> Tensor:
    """Hand-consistency loss of heatmap logits (..., K, h, w) against pixels (..., K, 2 or more) [u, v, ...].

    visible (..., K): keypoints that count; those outside the image don't. Zero when nothing is visible.
    `mse`: squared error against Gaussians of peak 1, mean over the map (DexWM paper, section 3.3). `cross_entropy`: of
    the softmax over h x w against Gaussians of sum 1.
    Departure from the release, which divides by all keypoints: the mean is over the visible ones, so the weight does
    not depend on how many hands a dataset shows. items_each: as in `latent_loss`.
    """
    counted = inside_image(pixels, visible, image_size)
    items = counted.sum()
    weight = items / items_each(items)  # 1 when this process sees the whole batch
    maps, centres = logits[counted].float(), pixels[counted][:, :2]
    if not len(maps):
        return logits.sum() * 0.0
    if kind == "mse":
        return weight * F.mse_loss(maps, gaussian_maps(centres, (maps.shape[1], maps.shape[2]), image_size, sigma_px))
    return weight * heatmap_cross_entropy(maps, centres, image_size, sigma_px).mean()


def heatmap_cross_entropy(maps: Tensor, centres: Tensor, image_size: tuple[int, int], sigma_px: float) -> Tensor:
    """Cross-entropy (M,) of the softmax of logits (M, h, w) against Gaussians of sum 1 around pixels (M, 2) [u, v]."""
    rows, columns = gaussian_axes(centres, (maps.shape[1], maps.shape[2]), image_size, sigma_px)
    rows, columns = (axis / axis.sum(dim=1, keepdim=True).clamp(min=1e-12) for axis in (rows, columns))
    # -sum target * log softmax = logsumexp - sum target * logit, as the target sums to 1: no target map is ever made.
    expected = torch.bmm(torch.bmm(rows[:, None, :], maps), columns[:, :, None])[:, 0, 0]
    return maps.flatten(1).logsumexp(dim=1) - expected
