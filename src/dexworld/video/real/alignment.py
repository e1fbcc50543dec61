"""Whether a static video shows the background of its interaction video, pixel on pixel and frame on frame.

Both are compared by their luminance, less its surroundings' mean, over the local contrast: this survives another
exposure and a soft rendering. Hands are left out. The cross-correlation gives the shift at which the two fit best, and
how well they fit there (1: equal).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.video.clips.hand_video import HAND_LEVEL
from dexworld.video.clips.regions import box_mean

SIDE = 144  # pixels; longer images are shrunk to about this first, which also evens out noise
SAMPLES = 9  # frames compared
LAGS = (-4, -2, -1, 1, 2, 4)  # frames by which a static video might be out of step
AGREEMENT_LIMIT = 0.3  # less agreement is another scene or camera path: other clips reach 0.1, true ones 0.5
SHIFT_LIMIT = 0.02  # of the image's width: a larger shift is called misaligned
SHIFT_NOTE = 0.0075  # of the image's width: a larger shift is worth knowing; the released Aria clips have 0.01 to 0.016
LAG_MARGIN = 0.05  # agreement that a lag must win before it is believed
_CONTRAST_FLOOR = 4.0  # of 255: weaker texture than this is noise
_SEARCH = 0.25  # of the image's size: shifts looked for
_LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Alignment:
    """How well a static video lies on its interaction video.

    agreement: median correlation of the backgrounds at the best common shift, -1 to 1; nan without texture. shift:
    (x, y) pixels by which the static video lies to the right and below. lag: frames by which it runs late (negative:
    early). width: of the images.
    """

    agreement: float
    shift: tuple[float, float]
    lag: int
    width: int

    @property
    def verdict(self) -> tuple[str, str]:
        """`misaligned`, or `shifted` for a small shift that costs sharpness, and the reason; ("", "") when neither."""
        shift = np.hypot(*self.shift) / self.width
        shifted = f"the static video is shifted by ({self.shift[0]:+.0f}, {self.shift[1]:+.0f}) pixels"
        if np.isnan(self.agreement):
            return "", ""
        if self.lag:
            return "misaligned", f"the static video runs {abs(self.lag)} frames {'late' if self.lag > 0 else 'early'}"
        if self.agreement < AGREEMENT_LIMIT:
            numbers = f"{self.agreement:.2f} (1 is equal, {AGREEMENT_LIMIT} the limit)"
            return "misaligned", f"the backgrounds agree only {numbers}: another scene or another camera path"
        if shift > SHIFT_LIMIT:
            return "misaligned", f"{shifted} ({SHIFT_LIMIT:.1%} of the width is the limit)"
        return ("shifted", shifted) if shift > SHIFT_NOTE else ("", "")

    def to_json(self) -> dict[str, Any]:
        """As JSON values; agreement is null when there was nothing to compare."""
        agreement = None if np.isnan(self.agreement) else round(self.agreement, 3)
        return {"agreement": agreement, "shift_px": list(self.shift), "lag_frames": self.lag}


def measure_alignment(interaction: np.ndarray, static: np.ndarray, hands: np.ndarray) -> Alignment:
    """Compare the videos (F, H, W, 3) uint8 of one triplet at `SAMPLES` frames."""
    frames, height, width, _ = interaction.shape
    factor = max(1, round(max(height, width) / SIDE))
    picked = np.unique(np.linspace(0, frames - 1, SAMPLES).round().astype(int))
    brightest = torch.from_numpy(hands[picked].max(axis=3)).float()
    free = functional.max_pool2d(brightest, factor) < HAND_LEVEL  # (n, h, w)
    moving = torch.stack([_texture(image, factor) for image in interaction[picked]]) * free
    still = torch.stack([_texture(image, factor) for image in static])

    def compared(rows: np.ndarray, lag: int) -> tuple[float, tuple[float, float]]:
        return _peak(moving[rows], still[picked[rows] + lag] * free[rows])

    agreement, shift = compared(np.arange(len(picked)), 0)
    best_gain, best_lag = LAG_MARGIN, 0
    for lag in LAGS if np.isfinite(agreement) else ():
        rows = np.flatnonzero((picked + lag >= 0) & (picked + lag < frames))
        if len(rows) >= max(3, len(picked) // 2):
            gain = compared(rows, lag)[0] - compared(rows, 0)[0]  # the same frames, or a busy one at the end decides
            best_gain, best_lag = max((best_gain, best_lag), (gain, lag))
    return Alignment(agreement, (shift[0] * factor, shift[1] * factor), best_lag, width)


def _texture(image: np.ndarray, factor: int) -> Tensor:
    """Luminance (h, w) of an image (H, W, 3) uint8, shrunk, without its local mean, over its local contrast."""
    luminance = functional.avg_pool2d((torch.from_numpy(image.astype(np.float32)) @ _LUMA)[None], factor)
    detail = luminance - box_mean(luminance, 4)
    return (detail / (box_mean(detail.square(), 8).sqrt() + _CONTRAST_FLOOR))[0]


def _peak(first: Tensor, second: Tensor) -> tuple[float, tuple[float, float]]:
    """Highest median correlation of two stacks (n, h, w) over all common shifts (x, y), and that shift of `second`."""
    height, width = first.shape[1:]
    window = _taper(height)[:, None] * _taper(width)
    first, second = first * window, second * window
    norm = (first.square().sum(dim=(1, 2)) * second.square().sum(dim=(1, 2))).sqrt()
    textured = norm > 1e-3 * height * width
    if not textured.any():
        return float("nan"), (0.0, 0.0)
    spectrum = torch.fft.rfft2(first[textured]).conj() * torch.fft.rfft2(second[textured])
    surfaces = torch.fft.irfft2(spectrum, s=(height, width)) / norm[textured, None, None]
    surface = np.fft.fftshift(np.median(surfaces.numpy(), axis=0))
    down, right = int(height * _SEARCH), int(width * _SEARCH)
    top, left = height // 2 - down, width // 2 - right
    surface = surface[top : top + 2 * down + 1, left : left + 2 * right + 1]
    row, column = np.unravel_index(np.argmax(surface), surface.shape)
    return float(surface[row, column]), (float(column - right), float(row - down))


def _taper(size: int) -> Tensor:
    """1 in the middle, falling to 0 over the outer eighths: an image's edges are no texture."""
    distance = torch.minimum(torch.arange(size) + 0.5, torch.arange(size).flip(0) + 0.5)
    return torch.sin((distance / (size / 8)).clamp(max=1.0) * (torch.pi / 2)).square()
