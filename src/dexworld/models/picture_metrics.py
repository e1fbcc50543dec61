"""How close a video is to the truth, pixel by pixel: PSNR and SSIM, over the whole frame or inside a region of it.

Definitions are those of the paper's script: PSNR from the mean squared error over all frames of a clip (never a mean of
the frames' PSNRs), SSIM with an 11 x 11 Gaussian window of sigma 1.5, frames scaled to [0, 1].
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.pictures import psnr_of_mse

WINDOW, SIGMA = 11, 1.5  # side and deviation of the SSIM window in pixels
K1, K2 = 0.01, 0.03  # stabilising constants of the SSIM paper


def check_videos(prediction: np.ndarray, truth: np.ndarray) -> None:
    """ValueError unless both are (F, H, W, 3) uint8 of one shape, with frames at least as large as an SSIM window."""
    for name, video in (("the prediction", prediction), ("the truth", truth)):
        if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or video.size == 0:
            raise ValueError(f"{name} must be (F, H, W, 3) uint8 and not empty, not {video.shape} {video.dtype}")
    if prediction.shape != truth.shape:
        raise ValueError(f"the prediction is {prediction.shape} and the truth {truth.shape}; compare equal shapes")
    if min(truth.shape[1:3]) < WINDOW:
        raise ValueError(f"frames of {truth.shape[1]} x {truth.shape[2]} are smaller than the SSIM window, {WINDOW}")


def check_mask(mask: np.ndarray, shape: tuple[int, ...]) -> None:
    """ValueError unless `mask` is (F, H, W) bool for a video of `shape` (F, H, W, 3)."""
    if mask.dtype != bool or mask.shape != tuple(shape[:3]):
        raise ValueError(f"a region of a video {shape} must be {tuple(shape[:3])} bool, not {mask.shape} {mask.dtype}")


def psnr(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """PSNR in dB of a clip (F, H, W, 3) uint8 over the pixels in a mask (F, H, W) bool; None where it is empty."""
    return psnr_of(squared_error_map(prediction, truth), mask)


def psnr_of(error_map: np.ndarray, mask: np.ndarray | None = None) -> float | None:
    """PSNR in dB of a map of squared errors (F, H, W), over a mask (F, H, W) bool; None where it is empty."""
    mean = masked_mean(error_map, mask)
    return None if mean is None else psnr_of_mse(mean)


def squared_error_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Squared error (F, H, W) float32 of every pixel, mean over the colours, of frames scaled to [0, 1]."""
    check_videos(prediction, truth)
    difference = prediction.astype(np.float32) - truth.astype(np.float32)
    return np.square(difference / 255).mean(axis=-1)


def masked_mean(values: np.ndarray, mask: np.ndarray | None) -> float | None:
    """Mean of (F, H, W) over a mask of the same shape, or over everything; None where the mask is empty."""
    if mask is None:
        return float(values.mean(dtype=np.float64))
    return float(values.sum(where=mask, dtype=np.float64)) / int(mask.sum()) if mask.any() else None


def region_means(frames: Iterable[Sequence[Tensor]], masks: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Means over regions of maps that are coarser than the frames, such as distances of network features.

    frames: for every frame, L maps (h, w), each of a size of its own. masks: (F, H, W) bool or None for everything.
    Returns for every mask the L means over all frames, a coarse pixel counting by the share of the mask in it; None for
    an empty mask.
    """
    sums: list[Any] = [0] * len(masks)  # (2, L): of the values, and of the shares
    for index, maps in enumerate(frames):
        for number, mask in enumerate(masks):
            shares = [torch.ones_like(part) if mask is None else _coarse(mask[index], part) for part in maps]
            values = [float((part * share).sum()) for part, share in zip(maps, shares, strict=True)]
            sums[number] = sums[number] + np.array([values, [float(share.sum()) for share in shares]])
    return [each[0] / each[1] if each[1].all() else None for each in sums]


def _coarse(mask: np.ndarray, like: Tensor) -> Tensor:
    """The share of a mask (H, W) bool in every pixel of a coarser map."""
    share = torch.from_numpy(mask)[None].float()
    return functional.adaptive_avg_pool2d(share, (like.shape[0], like.shape[1]))[0].to(like.device)


def ssim_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """SSIM (F, H, W) float32 around every pixel, mean over colours; frames are mirrored outside, as in torchmetrics.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.
    """
    check_videos(prediction, truth)
    return np.stack([_frame_ssim(*pair) for pair in zip(prediction, truth, strict=True)])  # frame by frame: memory


def _frame_ssim(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    a, b = (torch.from_numpy(np.ascontiguousarray(x)).float().permute(2, 0, 1) / 255 for x in (prediction, truth))
    mean_a, mean_b, square_a, square_b, product = _smoothed(torch.stack([a, b, a * a, b * b, a * b]))  # (3, H, W) each
    variances = (square_a - mean_a**2).clamp(min=0) + (square_b - mean_b**2).clamp(min=0)
    covariance = product - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + K1**2) / (mean_a**2 + mean_b**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variances + K2**2)
    return (luminance * structure).mean(dim=0).numpy()


def _smoothed(images: Tensor) -> Tensor:
    """Gaussian mean around every pixel of (N, 3, H, W), which is mirrored outside the frame."""
    offsets = torch.arange(WINDOW, dtype=images.dtype) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    channels = functional.pad(images.flatten(0, 1)[None], (WINDOW // 2,) * 4, mode="reflect")
    count = channels.shape[1]
    down = weights.view(1, 1, -1, 1).repeat(count, 1, 1, 1)  # one group a channel: 10 x faster than one image a channel
    smooth = functional.conv2d(functional.conv2d(channels, down, groups=count), down.mT, groups=count)
    return smooth[0].unflatten(0, images.shape[:2])
