"""What can be measured on an episode's pictures: that they decode, move when the hands do, and show something."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dexworld.data.episode_figures import Figures, Finding, Limits, Projected, best_frame
from dexworld.data.resize import Fit
from dexworld.track import Track

CHUNK = 32  # frames decoded at once
STRIDE = 4  # every fourth pixel of every fourth row is compared
SNAPSHOT_WIDTH = 384  # pixels


@dataclass(frozen=True)
class Snapshot:
    """One frame to look at. image: (h, w, 3) uint8, scaled down. pixels: (42, 2) in it. visible: (42,) bool."""

    episode: str
    frame: int
    task: str
    image: np.ndarray
    pixels: np.ndarray
    visible: np.ndarray


def picture_figures(
    figures: Figures, episode: Track, shown: Projected, limits: Limits, every_frame: bool
) -> tuple[list[Finding], Snapshot]:
    """Decode frames, count into `figures`, and keep the one with the most visible keypoints.

    every_frame: decode all of them; otherwise the first two, the last two, and two that show the hands. Raises
    VideoError naming the frame that can't be decoded.
    """
    best = best_frame(shown)
    pairs = {0, max(0, min(best, len(episode) - 2)), max(0, len(episode) - 2)}
    wanted = sorted({frame for first in pairs for frame in (first, first + 1) if frame < len(episode)} | {best})
    frozen: list[int] = []
    black: list[int] = []
    kept: np.ndarray = np.zeros(0)
    previous: np.ndarray = np.zeros(0)
    before = -2
    for frame, picture in _pictures(episode, None if every_frame else wanted):
        small = picture[::STRIDE, ::STRIDE].astype(np.int16)
        figures.decoded += 1
        if small.mean() < limits.dark and small.std() < limits.dark:
            black.append(frame)
        if before == frame - 1:
            figures.compared += 1
            if np.abs(small - previous).mean() < limits.still:
                figures.identical += 1
                if _moves(shown, before, limits.moved * episode.frames.size[1]):
                    frozen.append(frame)
        previous, before = small, frame
        if frame == best:
            kept = picture.copy()
    figures.black += len(black)
    findings = []
    if frozen:
        findings.append(Finding("frozen-frames", f"{len(frozen)} of {figures.compared} compared", frozen[0]))
    if black:
        findings.append(Finding("black-frames", f"{len(black)} of {figures.decoded} decoded", black[0]))
    return findings, _snapshot(episode, kept, best, shown)


def _moves(shown: Projected, frame: int, limit_px: float) -> bool:
    """Whether keypoints move, in the middle, by more than `limit_px` from `frame` to the next."""
    both = shown.visible[frame] & shown.visible[frame + 1]
    if not both.any():
        return False
    moved = np.linalg.norm(shown.pixels[frame + 1][both] - shown.pixels[frame][both], axis=-1)
    return bool(np.median(moved) > limit_px)


def _pictures(episode: Track, wanted: list[int] | None) -> Iterator[tuple[int, np.ndarray]]:
    """(frame number, picture), in order; all of them when `wanted` is None."""
    frames = episode.frames
    sequential = getattr(frames, "sequential", None)
    if wanted is None and sequential is not None:  # long groups of pictures are decoded once
        yield from enumerate(sequential())
        return
    numbers = list(range(len(episode))) if wanted is None else wanted
    for start in range(0, len(numbers), CHUNK):
        chunk = numbers[start : start + CHUNK]
        yield from zip(chunk, frames.read(chunk), strict=True)


def _snapshot(episode: Track, picture: np.ndarray, frame: int, shown: Projected) -> Snapshot:
    height, width = picture.shape[:2]
    smaller = min(1.0, SNAPSHOT_WIDTH / width)
    fit = Fit((height, width), (max(1, round(height * smaller)), max(1, round(width * smaller))))
    image = fit.images(torch.from_numpy(np.ascontiguousarray(picture))).numpy()
    pixels, visible = fit.pixels(shown.pixels[frame]), shown.visible[frame]
    return Snapshot("", frame, episode.task, image, np.where(visible[:, None], pixels, 0.0), visible)
