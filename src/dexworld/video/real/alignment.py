"""Whether a static video shows the background of its interaction video, pixel on pixel and frame on frame.

Both are compared by their luminance, less its surroundings' mean, over the local contrast: this survives another
exposure and a soft rendering. Hands are left out. The cross-correlation gives the shift at which the two fit best, and
how well they fit there (1: equal).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dexworld.video.clips.hand_video import HAND_LEVEL

SIDE = 144  # pixels; longer images are shrunk to about this first, which also evens out noise
SAMPLES = 9  # frames compared
LAGS = (-4, -2, -1, 1, 2, 4)  # frames by which a static video might be out of step
AGREEMENT_LIMIT = 0.3  # less agreement is another scene or camera path: other clips reach 0.1, true ones 0.5
SHIFT_LIMIT = 0.02  # of the image's width: a larger shift is called misaligned
SHIFT_NOTE = 0.0075  # of the image's width: a larger shift is worth knowing; the released Aria clips have 0.01 to 0.016
LAG_MARGIN = 0.05  # agreement that a lag must win before it is believed
_CONTRAST_FLOOR = 4.0  # of 255: weaker texture than this is noise
_SEARCH = 0.25  # of the image's size: shifts looked for
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


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
    def problem(self) -> str:
        """What is wrong, in words; "" when nothing is."""
        if np.isnan(self.agreement):
            return ""
        if self.lag:
            return f"the static video runs {abs(self.lag)} frames {'late' if self.lag > 0 else 'early'}"
        if self.agreement < AGREEMENT_LIMIT:
            numbers = f"{self.agreement:.2f} (1 is equal, {AGREEMENT_LIMIT} the limit)"
            return f"the backgrounds agree only {numbers}: another scene or another camera path"
        if np.hypot(*self.shift) > SHIFT_LIMIT * self.width:
            return f"{self._shifted()} ({SHIFT_LIMIT:.1%} of the width is the limit)"
        return ""

    @property
    def remark(self) -> str:
        """A small shift, in words, that is tolerated but costs sharpness; "" when there is none."""
        return "" if self.problem or np.hypot(*self.shift) <= SHIFT_NOTE * self.width else self._shifted()

    def _shifted(self) -> str:
        return f"the static video is shifted by ({self.shift[0]:+.0f}, {self.shift[1]:+.0f}) pixels"

    def to_json(self) -> dict[str, Any]:
        """As JSON values; agreement is null when there was nothing to compare."""
        agreement = None if np.isnan(self.agreement) else round(self.agreement, 3)
        return {"agreement": agreement, "shift_px": list(self.shift), "lag_frames": self.lag}


def measure_alignment(interaction: np.ndarray, static: np.ndarray, hands: np.ndarray) -> Alignment:
    """Compare the videos (F, H, W, 3) uint8 of one triplet at `SAMPLES` frames."""
    frames, height, width, _ = interaction.shape
    picked = np.unique(np.linspace(0, frames - 1, SAMPLES).round().astype(int))
    factor = max(1, round(max(height, width) / SIDE))
    free = ~(_blocks(hands[picked], factor).max(axis=(2, 4, 5)) >= HAND_LEVEL)
    moving = _texture(_luminance(interaction[picked], factor)) * free
    needed = np.unique(np.clip(picked[:, None] + np.array([0, *LAGS]), 0, frames - 1))
    textures = dict(zip(needed.tolist(), _texture(_luminance(static[needed], factor)), strict=True))

    def compared(rows: np.ndarray, lag: int) -> tuple[float, tuple[float, float]]:
        still = np.stack([textures[int(frame)] for frame in picked[rows] + lag])
        return _peak(moving[rows], still * free[rows])

    agreement, shift = compared(np.arange(len(picked)), 0)
    best_gain, best_lag = LAG_MARGIN, 0
    for lag in LAGS if np.isfinite(agreement) else ():
        rows = np.flatnonzero((picked + lag >= 0) & (picked + lag < frames))
        if len(rows) >= max(3, len(picked) // 2):
            gain = compared(rows, lag)[0] - compared(rows, 0)[0]  # the same frames, or a busy one at the end decides
            best_gain, best_lag = max((best_gain, best_lag), (gain, lag))
    return Alignment(agreement, (shift[0] * factor, shift[1] * factor), best_lag, width)


def _blocks(images: np.ndarray, factor: int) -> np.ndarray:
    """Images (n, H, W, 3) as blocks (n, h, factor, w, factor, 3); a rest at the edge is cut."""
    count, height, width = images.shape[0], images.shape[1] // factor, images.shape[2] // factor
    return images[:, : height * factor, : width * factor].reshape(count, height, factor, width, factor, 3)


def _luminance(images: np.ndarray, factor: int) -> np.ndarray:
    """Block means (n, h, w) of the luminance of (n, H, W, 3) uint8."""
    return _blocks(images, factor).sum(axis=(2, 4), dtype=np.uint32) @ _LUMA / factor**2


def _texture(images: np.ndarray) -> np.ndarray:
    """Luminance (n, h, w) without its local mean, over its local contrast."""
    detail = images - _blurred(images, 4)
    return detail / (np.sqrt(_blurred(detail**2, 8)) + _CONTRAST_FLOOR)


def _blurred(images: np.ndarray, radius: int) -> np.ndarray:
    """Box means over (2 radius + 1) squared pixels, the edge repeated."""
    size = 2 * radius + 1
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(images, pad, mode="edge"), axis=axis)
        upper, lower = np.split(sums, [size], axis=axis)[1], np.split(sums, [sums.shape[axis] - size], axis=axis)[0]
        images = (upper - lower) / size
    return images


def _peak(first: np.ndarray, second: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Highest median correlation of two stacks (n, h, w) over all common shifts (x, y), and that shift of `second`."""
    height, width = first.shape[1:]
    window = _taper(height)[:, None] * _taper(width)
    first, second = first * window, second * window
    norm = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    textured = norm > 1e-3 * height * width
    if not textured.any():
        return float("nan"), (0.0, 0.0)
    spectrum = np.conj(np.fft.rfft2(first[textured])) * np.fft.rfft2(second[textured])
    surface = np.median(np.fft.irfft2(spectrum, s=(height, width)) / norm[textured, None, None], axis=0)
    rows, columns = (np.arange(-int(size * _SEARCH), int(size * _SEARCH) + 1) for size in (height, width))
    surface = surface[np.ix_(rows, columns)]  # negative shifts are found at the end
    row, column = np.unravel_index(np.argmax(surface), surface.shape)
    return float(surface[row, column]), (float(columns[column]), float(rows[row]))


def _taper(size: int) -> np.ndarray:
    """1 in the middle, falling to 0 over the outer eighths: an image's edges are no texture."""
    distance = np.minimum(np.arange(size) + 0.5, np.arange(size)[::-1] + 0.5)
    return np.sin(np.minimum(distance / (size / 8), 1.0) * (np.pi / 2)) ** 2
