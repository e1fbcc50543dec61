"""Colour augmentation of clips in torch, on whatever device the batch lies: one draw for all frames of a clip.

Colour jitter, grayscale and a small blur with the release's strengths and probabilities (DexWM release, pre-training
only). Each operation is that of torchvision for float images in [0, 1]. B clips, F frames; labels stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601 weights of red, green and blue, as torchvision rounds them
WIDTHS = np.array([0.4, 0.4, 0.4, 0.1])  # factors of brightness, contrast, saturation lie in 1 +- this; turns of hue
JITTER, GRAYSCALE, BLUR = 0.5, 0.2, 0.5  # probabilities
BLUR_SIGMA_PX = (0.1, 2.0)  # of a kernel of 3 x 3 pixels
CHANCES = 12  # random numbers that a clip's draw takes
CLIPS_PER_CALL = 16  # bounds the float copies


@dataclass(frozen=True)
class AugmentDraw:
    """What happens to each of B clips.

    factors: (B, 4) of brightness, contrast, saturation, and turns of hue. order: (B, 4) in which these are applied.
    jitter, grayscale, blur: (B,) bool. sigma_px: (B,) of the blur.
    """

    factors: np.ndarray
    order: np.ndarray
    jitter: np.ndarray
    grayscale: np.ndarray
    blur: np.ndarray
    sigma_px: np.ndarray


def draw_augmentation(chances: np.ndarray) -> AugmentDraw:
    """A draw for each row of `chances` (B, 12), numbers in [0, 1) from a generator or from `sampling.uniforms`."""
    if chances.ndim != 2 or chances.shape[1] != CHANCES:
        raise ValueError(f"chances have shape {chances.shape}, expected (B, {CHANCES})")
    low, high = BLUR_SIGMA_PX
    return AugmentDraw(
        np.array([1.0, 1.0, 1.0, 0.0]) + WIDTHS * (2.0 * chances[:, :4] - 1.0),
        np.argsort(chances[:, 4:8], axis=1, kind="stable"),
        chances[:, 8] < JITTER,
        chances[:, 9] < GRAYSCALE,
        chances[:, 10] < BLUR,
        low + (high - low) * chances[:, 11],
    )


def augment(frames: Tensor, draw: AugmentDraw) -> Tensor:
    """Frames (B, F, H, W, 3) uint8 with each clip's draw applied; uint8 on the same device, a new tensor."""
    shape, clips = tuple(frames.shape), len(draw.factors)
    if len(shape) != 5 or shape[-1] != 3 or frames.dtype != torch.uint8 or shape[0] != clips:
        raise ValueError(f"frames are {shape} {frames.dtype}, expected ({clips}, F, H, W, 3) uint8")
    result = frames.clone()
    changed = np.flatnonzero(draw.jitter | draw.grayscale | draw.blur)
    for start in range(0, len(changed), CLIPS_PER_CALL):
        chosen = changed[start : start + CLIPS_PER_CALL]
        places = torch.from_numpy(chosen).to(frames.device)
        images = _applied(frames[places].float() / 255.0, draw, chosen)
        result[places] = (images * 255.0).round().to(torch.uint8)
    return result


def _applied(images: Tensor, draw: AugmentDraw, clips: np.ndarray) -> Tensor:
    """Float images (b, F, H, W, 3) in [0, 1] of the clips numbered `clips` (b,), which it changes."""

    def change(mask: np.ndarray, numbers: np.ndarray, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        chosen = np.flatnonzero(mask)
        if len(chosen):
            places = torch.from_numpy(chosen).to(images.device)
            values = torch.from_numpy(numbers[clips[chosen]]).to(images).view(-1, 1, 1, 1, 1)
            images[places] = operation(images[places], values)

    for turn in range(4):
        for kind, operation in enumerate((_brightness, _contrast, _saturation, adjust_hue)):
            change(draw.jitter[clips] & (draw.order[clips, turn] == kind), draw.factors[:, kind], operation)
    change(draw.grayscale[clips], draw.sigma_px, lambda part, _: _gray(part).expand(-1, -1, -1, -1, 3))
    change(draw.blur[clips], draw.sigma_px, gaussian_blur)
    return images


def _gray(images: Tensor) -> Tensor:
    """(..., 3) to (..., 1)."""
    return (images * images.new_tensor(LUMA)).sum(dim=-1, keepdim=True)


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0.0, 1.0)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1.0 - factor) * _gray(images).mean(dim=(-3, -2, -1), keepdim=True)).clamp_(0.0, 1.0)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1.0 - factor) * _gray(images)).clamp_(0.0, 1.0)


def adjust_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Images (..., 3) in [0, 1] with their hue moved by `turns` of the colour circle; value and saturation stay.

    In HSV, a channel at hue h is v - v s max(0, min(k, 4 - k, 1)) with k = (n + 6 h) mod 6 and n = 5, 3, 1 for red,
    green and blue.
    """
    value, least = images.amax(dim=-1), images.amin(dim=-1)
    chroma = value - least
    red, green, blue = images.unbind(dim=-1)
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    moved = sixth / 6.0 + turns[..., 0]
    k = torch.remainder(images.new_tensor([5.0, 3.0, 1.0]) + 6.0 * moved[..., None], 6.0)
    weight = torch.minimum(torch.minimum(k, 4.0 - k), torch.ones_like(k)).clamp_(min=0.0)
    return value[..., None] - chroma[..., None] * weight


def gaussian_blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Images (..., H, W, 3) blurred by a 3 x 3 Gaussian of `sigma_px` (broadcast over them), borders reflected."""
    side = torch.exp(-0.5 / sigma_px.square())
    centre = 1.0 / (1.0 + 2.0 * side)
    side = side * centre
    for axis in (-3, -2):
        length = images.shape[axis]
        if length < 2:
            raise ValueError(f"images of {tuple(images.shape[-3:-1])} pixels are too small to blur")
        before = torch.cat([images.narrow(axis, 1, 1), images.narrow(axis, 0, length - 1)], dim=axis)
        after = torch.cat([images.narrow(axis, 1, length - 1), images.narrow(axis, length - 2, 1)], dim=axis)
        images = centre * images + side * (before + after)
    return images
