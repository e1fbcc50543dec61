"""Where hands are drawn in a recording: the ground truth that projected keypoints are checked against."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HandMasks:
    """Labels (T, H, W) uint8: 1 the left hand, 2 the right hand (or the robot's), 3 and 4 the arms behind them, else 0.

    A human wrist lies at the border of hand and arm, so a check of wrists counts both.
    """

    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.labels.ndim != 3 or self.labels.dtype != np.uint8:
            raise ValueError(f"labels must be (T, H, W) uint8, not {self.labels.shape} {self.labels.dtype}")

    def covers(self, frame: int, pixels: np.ndarray, side: str, margin: int = 0, arm: bool = False) -> np.ndarray:
        """Which pixels (N, 2), u and v, lie on the hand `side` of a frame, or at most `margin` whole pixels beside it.

        arm: whether the arm counts too. Pixels outside the picture lie on nothing.
        """
        label = {"left": 1, "right": 2}[side]
        wanted = np.isin(self.labels[frame], (label, label + 2) if arm else (label,))
        height, width = wanted.shape
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(wanted, margin), (2 * margin + 1,) * 2)
        grown = np.asarray(windows.any(axis=(-1, -2)))
        places = np.floor(pixels).astype(int)
        inside = (places >= 0).all(axis=-1) & (places < [width, height]).all(axis=-1)
        return inside & grown[places[:, 1].clip(0, height - 1), places[:, 0].clip(0, width - 1)]
