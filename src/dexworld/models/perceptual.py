"""Perceptual distances of pictures as a loss: LPIPS with weights that the user gives, or one without weights."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dexworld.models.lpips import LPIPS

LEVELS = 4  # scales of the gradient distance: pixels of 1, 2, 4 and 8
FLOOR = 0.02  # gradient per pixel, of a [0, 1] range, below which differences are grain and count for little

PerceptualName = Literal["lpips", "gradient_distance"]


def gradient_maps(first: Tensor, second: Tensor) -> list[Tensor]:
    """Per scale, the relative gradient difference (N, h, w), 0 to 1, of images (N, 3, H, W) in [0, 1].

    The length of the difference of two pixels' colour gradients, over the sum of their lengths (plus `FLOOR`). Places
    and directions of edges count, brightness does not. Differentiable.
    """
    maps = []
    for level in range(LEVELS):
        if level:
            first, second = functional.avg_pool2d(first, 2), functional.avg_pool2d(second, 2)
        ours, theirs = _gradients(first), _gradients(second)
        maps.append((ours - theirs).norm(dim=1) / (ours.norm(dim=1) + theirs.norm(dim=1) + FLOOR))
    return maps


def _gradients(images: Tensor) -> Tensor:
    """(N, 6, H, W): differences to the next pixel, two directions of three colours."""
    wider = functional.pad(images, (0, 1, 0, 1), mode="replicate")
    return torch.cat([wider.diff(dim=3)[:, :, :-1], wider.diff(dim=2)[:, :, :, :-1]], dim=1)


class GradientDistance(nn.Module):
    """Multi-scale gradient distance, 0 (equal) to 1: the perceptual term where no weights are given."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances (N,) of images (N, 3, H, W) in [-1, 1]."""
        maps = gradient_maps((first + 1) / 2, (second + 1) / 2)
        return torch.stack([part.mean(dim=(1, 2)) for part in maps]).mean(dim=0)


def perceptual_distance(
    lpips_vgg: Path | str | None = None, lpips_heads: Path | str | None = None
) -> tuple[PerceptualName, nn.Module]:
    """The distance and its name: LPIPS when the files of its weights are given (see `LPIPS.from_files`).

    Raises ValueError when only one of the two is given, and what `LPIPS.from_files` raises.
    """
    if (lpips_vgg is None) != (lpips_heads is None):
        missing = "lpips_heads" if lpips_heads is None else "lpips_vgg"
        raise ValueError(f"LPIPS needs its VGG16 and its linear heads; {missing} is missing (docs/video_evaluation.md)")
    if lpips_vgg is None or lpips_heads is None:
        return "gradient_distance", GradientDistance()
    return "lpips", LPIPS.from_files(lpips_vgg, lpips_heads)
