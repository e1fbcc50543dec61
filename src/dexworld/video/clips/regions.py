"""Where the hands act in a clip: the region that a world model has to change, and the rest that it has to leave alone.

The interaction region of a frame is what differs between the true video and the static video (objects that moved, arms,
shadows), together with the rendered hands, each widened a little. Outside it the static video already is the answer.

Real clips differ from their static video everywhere: sensor grain, H.264 noise, another exposure, a reconstruction that
is softer and a pixel or two off. So a pixel counts as changed only where, after smoothing and after the frame's overall
difference in brightness is taken out, its colour leaves the range of colours that the static video has around it.
All lengths are shares of the frame height, so a clip and its smaller copy have the same region.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.video.clips.hand_video import HAND_THRESHOLD

CHANGE = 20.0  # grey levels (0 to 255) by which a smoothed colour must leave the static video's range, in any channel
SMOOTHING = 0.02  # of the frame height: side of the box that averages grain away
SLACK = 0.01  # of the frame height: misalignment that is forgiven
DILATION = 0.025  # of the frame height: how far the region grows
SPECK = 0.0008  # of the frame's pixels: smaller changes are noise


def interaction_region(truth: np.ndarray, static: np.ndarray, hands: np.ndarray) -> np.ndarray:
    """The interaction region (F, H, W) bool of a clip: changed pixels and hands of every frame, widened.

    truth, static, hands: the clip's aligned videos, (F, H, W, 3) uint8. Raises ValueError when their shapes differ.
    """
    for name, video in (("static", static), ("hands", hands)):
        if video.shape != truth.shape:
            raise ValueError(f"the {name} video is {video.shape}; it must be as large as the truth, {truth.shape}")
    radius = reach(DILATION * truth.shape[1])
    mask = changed_pixels(truth, static) | hand_pixels(hands)
    return np.stack([maximum(torch.from_numpy(frame)[None].float(), radius)[0].numpy() > 0 for frame in mask])


def hand_pixels(hands: np.ndarray) -> np.ndarray:
    """Where the hand video (F, H, W, 3) uint8 shows a hand on its black ground: (F, H, W) bool."""
    return hands.sum(axis=-1, dtype=np.int32) > HAND_THRESHOLD


def changed_pixels(video: np.ndarray, static: np.ndarray) -> np.ndarray:
    """Where a video (F, H, W, 3) uint8 really differs from the static one, noise left out: (F, H, W) bool."""
    return np.stack([_changed(*pair) for pair in zip(video, static, strict=True)])  # frame by frame: memory


def _changed(image: np.ndarray, static: np.ndarray) -> np.ndarray:
    height = image.shape[0]
    radius, slack = reach(SMOOTHING * height / 2), reach(SLACK * height)
    channels = (torch.from_numpy(np.ascontiguousarray(frame)).float().permute(2, 0, 1) for frame in (image, static))
    colours, ground = (box_mean(each, radius) for each in channels)
    difference = (colours - ground).flatten(1)
    colours = colours - difference.median(dim=1).values[:, None, None]  # exposure: most of a frame doesn't change
    above = colours - maximum(ground, slack)
    below = -maximum(-ground, slack) - colours
    changed = torch.maximum(above, below).amax(dim=0) > CHANGE
    return without_specks(changed.numpy(), SPECK)


def without_specks(mask: np.ndarray, share: float) -> np.ndarray:
    """`mask` (H, W) bool without what is alone.

    A speck is `share` of the frame's area. A pixel stays where the square around it, twice as wide as a speck, holds
    that many pixels or more.
    """
    area = share * mask.size
    radius = reach(np.sqrt(area))
    filled = box_mean(torch.from_numpy(mask)[None].float(), radius)[0] * (2 * radius + 1) ** 2
    return mask & (filled.numpy() >= max(area, 1))


def reach(pixels: float) -> int:
    """A length as a whole number of pixels: rounded, but a positive one never vanishes."""
    return max(round(pixels), 1) if pixels > 0 else 0


def maximum(images: Tensor, radius: int) -> Tensor:
    """Largest value in the square of the given radius around every pixel of (C, H, W)."""
    side = 2 * radius + 1
    rows = functional.max_pool2d(images, (side, 1), stride=1, padding=(radius, 0))
    return functional.max_pool2d(rows, (1, side), stride=1, padding=(0, radius))


def box_mean(images: Tensor, radius: int) -> Tensor:
    """Mean over the square of the given radius around every pixel of (C, H, W), of what lies in the frame."""
    return functional.avg_pool2d(images, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
