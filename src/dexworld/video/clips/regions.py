"""Where the hands act in a clip: the region that a world model has to change, and the rest that it has to leave alone.

The interaction region of a frame is what differs between the true video and the static video (objects that moved, arms,
shadows), together with the rendered hands, each widened a little. Outside it the static video already is the answer.

Real clips differ from their static video everywhere: sensor grain, H.264 noise, another exposure, a reconstruction that
is softer and a pixel or two off. So a pixel counts as changed only where, after smoothing and after the frame's overall
difference in brightness is taken out, its colour leaves the range of colours that the static video has around it.
All lengths are shares of the frame height, so a clip and its smaller copy have the same region.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.video.clips.hand_video import HAND_THRESHOLD


@dataclass(frozen=True)
class RegionConfig:
    """Thresholds of the interaction region.

    change: grey levels (0 to 255) by which a smoothed colour must leave the static video's range, in any channel.
    hand: sum of R, G and B (0 to 765) from which a pixel of the hand video is a hand; the paper's mask uses 100.
    smoothing, slack, dilation: shares of the frame height: side of the box that averages grain away, misalignment that
    is forgiven, and how far the region grows. speck: share of the frame's pixels; smaller changes are noise.
    """

    change: float = 20.0
    hand: int = HAND_THRESHOLD
    smoothing: float = 0.02
    slack: float = 0.01
    dilation: float = 0.025
    speck: float = 0.0008

    def __post_init__(self) -> None:
        if not 0 < self.change < 255 or not 0 < self.hand < 765:
            raise ValueError(f"a region needs 0 < change < 255 and 0 < hand < 765, not {self.change} and {self.hand}")
        for name, limit in (("smoothing", 0.5), ("slack", 0.5), ("dilation", 0.5), ("speck", 1)):
            if not 0 <= getattr(self, name) < limit:
                raise ValueError(f"{name} is a share of the frame, 0 to {limit}, not {getattr(self, name)}")


def interaction_region(
    truth: np.ndarray, static: np.ndarray, hands: np.ndarray, config: RegionConfig = RegionConfig()
) -> np.ndarray:
    """The interaction region (F, H, W) bool of a clip: changed pixels and hands of every frame, widened.

    truth, static, hands: the clip's aligned videos, (F, H, W, 3) uint8. Raises ValueError when their shapes differ.
    """
    for name, video in (("static", static), ("hands", hands)):
        if video.shape != truth.shape:
            raise ValueError(f"the {name} video is {video.shape}; it must be as large as the truth, {truth.shape}")
    grown = config.dilation * truth.shape[1]
    return dilated(changed_pixels(truth, static, config) | hand_pixels(hands, config), grown)


def hand_pixels(hands: np.ndarray, config: RegionConfig = RegionConfig()) -> np.ndarray:
    """Where the hand video (F, H, W, 3) uint8 shows a hand on its black ground: (F, H, W) bool."""
    return hands.sum(axis=-1, dtype=np.int32) > config.hand


def changed_pixels(video: np.ndarray, static: np.ndarray, config: RegionConfig = RegionConfig()) -> np.ndarray:
    """Where a video (F, H, W, 3) uint8 really differs from the static one, noise left out: (F, H, W) bool."""
    return np.stack([_changed(*pair, config) for pair in zip(video, static, strict=True)])  # frame by frame: memory


def _changed(image: np.ndarray, static: np.ndarray, config: RegionConfig) -> np.ndarray:
    height = image.shape[0]
    radius, slack = reach(config.smoothing * height / 2), reach(config.slack * height)
    channels = (torch.from_numpy(np.ascontiguousarray(frame)).float().permute(2, 0, 1) for frame in (image, static))
    colours, ground = (box_mean(each, radius) for each in channels)
    difference = (colours - ground).flatten(1)
    colours = colours - difference.median(dim=1).values[:, None, None]  # exposure: most of a frame doesn't change
    above = colours - maximum(ground, slack)
    below = -maximum(-ground, slack) - colours
    changed = torch.maximum(above, below).amax(dim=0) > config.change
    return without_specks(changed.numpy(), config.speck)


def without_specks(mask: np.ndarray, share: float) -> np.ndarray:
    """`mask` (H, W) bool without what is alone.

    A speck is `share` of the frame's area. A pixel stays where the square around it, twice as wide as a speck, holds
    that many pixels or more.
    """
    area = share * mask.size
    radius = reach(np.sqrt(area))
    filled = box_mean(torch.from_numpy(mask)[None].float(), radius)[0] * (2 * radius + 1) ** 2
    return mask & (filled.numpy() >= max(area, 1))


def dilated(mask: np.ndarray, radius_px: float) -> np.ndarray:
    """A mask (F, H, W) bool grown by a square of the given radius, in pixels, rounded as by `reach`."""
    radius = reach(radius_px)
    return np.stack([maximum(torch.from_numpy(frame)[None].float(), radius)[0].numpy() > 0 for frame in mask])


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
