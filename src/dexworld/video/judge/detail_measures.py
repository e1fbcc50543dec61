"""How sharp a video is, and how far samples of one clip are apart: what a single mean video lacks."""

from collections.abc import Sequence

import numpy as np


def sharpness(video: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float | None:
    """Mean colour step between neighbouring pixels over the truth's, in a mask (F, H, W): 1 is as sharp as the truth.

    Both videos are (F, H, W, 3) uint8. None where the mask is empty or the truth is flat.
    """
    ours, theirs = (_colour_steps(each)[mask].sum() for each in (video, truth))
    return float(ours / theirs) if theirs > 0 else None


def _colour_steps(video: np.ndarray) -> np.ndarray:
    """(F, H, W) mean absolute difference to the right and the lower neighbour, summed."""
    values = video.astype(np.float32)
    steps = np.zeros(video.shape[:3], dtype=np.float32)
    steps[:, :, :-1] += np.abs(np.diff(values, axis=2)).mean(axis=-1)
    steps[:, :-1] += np.abs(np.diff(values, axis=1)).mean(axis=-1)
    return steps


def spread(videos: Sequence[np.ndarray], mask: np.ndarray) -> float | None:
    """Standard deviation over samples (F, H, W, 3) uint8, in levels of 255: root mean square in a mask (F, H, W).

    None for one sample or an empty mask.
    """
    if len(videos) < 2 or not mask.any():
        return None
    return float(np.sqrt(np.var(np.stack([video[mask] for video in videos]), axis=0, ddof=1).mean()))
