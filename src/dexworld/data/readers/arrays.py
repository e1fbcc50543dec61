"""Numbers out of foreign files: checks before they are believed, and the poses and matrices made of them."""

import math
from typing import Any

import numpy as np
import torch

from dexworld.data.hand_checks import exchanged_sides
from dexworld.data.rigid_poses import poses_of
from dexworld.data.source import CorruptEpisodeError
from dexworld.geometry import rotation_from_euler_xyz

WORLD = 1e4  # metres from the world's origin; beyond is damage
RIGID = 1e-3  # largest deviation from a rotation's unit columns and right angles


def check_numbers(values: np.ndarray, limit: float, where: str) -> None:
    """Raise CorruptEpisodeError, starting with `where`, unless (T, ...) `values` are finite and within `limit`."""
    rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    finite = np.isfinite(rows)
    for complaint, bad in (
        ("holds NaN or Inf", ~finite),
        (f"holds values beyond {limit:g}", np.where(finite, np.abs(rows), 0.0) > limit),
    ):
        if bad.any():
            raise CorruptEpisodeError(f"{where} {complaint} (first at row {int(np.argmax(bad.any(axis=1)))})")


def is_rigid(poses: np.ndarray) -> np.ndarray:
    """Which of (..., 4, 4) are finite rigid transforms inside the world: (...,) bool; NaN fails every comparison."""
    entries = np.ascontiguousarray(poses.reshape(-1, 16).T)
    x, y, z = (entries[[column, column + 4, column + 8]] for column in range(3))
    third = np.stack([x[row - 2] * y[row - 1] - x[row - 1] * y[row - 2] for row in range(3)])  # x cross y
    skew = np.abs((x * x).sum(axis=0) - 1) + np.abs((y * y).sum(axis=0) - 1) + np.abs((x * y).sum(axis=0))
    good = (skew < RIGID) & (np.abs(third - z).max(axis=0) < RIGID)
    good &= np.abs(entries[12:15]).max(axis=0) + np.abs(entries[15] - 1) < RIGID
    good &= np.abs(entries[[3, 7, 11]]).max(axis=0) <= WORLD
    return good.reshape(poses.shape[:-2])


def check_rigid(poses: np.ndarray, where: str) -> None:
    """Raise CorruptEpisodeError, starting with `where`, unless (T, 4, 4) are rotations with a translation.

    Mirroring matrices are refused: they come from a left-handed frame or from swapped axes.
    """
    bad = ~is_rigid(poses)
    if bad.any():
        row = int(np.argmax(bad))
        if np.linalg.det(poses[row, :3, :3]) < 0:
            raise CorruptEpisodeError(f"{where} mirrors at row {row}; its axes must be right-handed")
        raise CorruptEpisodeError(f"{where} is no rigid transform at row {row}")


def poses_from_euler(vectors: np.ndarray) -> np.ndarray:
    """Transforms (..., 4, 4) from (..., 6): x, y, z in metres and extrinsic x-y-z Euler angles in radians."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return poses_of(rotation_from_euler_xyz(torch.from_numpy(vectors[..., 3:].copy())).numpy(), vectors[..., :3])


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """The (3, 3) pinhole matrix of focal lengths and principal point in pixels."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def check_pinhole(matrix: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Raise CorruptEpisodeError unless (3, 3) `matrix` may belong to frames of (height, width) pixels.

    Asked for: no skew, a field of view of 5 to 170 degrees, pixels square to 10 %, a centred principal point.
    """
    height, width = size
    fx, fy, (cx, cy) = matrix[0, 0], matrix[1, 1], matrix[:2, 2]
    if not (
        np.isfinite(matrix).all()
        and np.abs(matrix - pinhole(fx, fy, cx, cy)).max() < 1e-3 * width
        and math.tan(math.radians(2.5)) * 2 * fx < width < math.tan(math.radians(85)) * 2 * fx
        and 0.9 * fy < fx < 1.1 * fy
        and width / 4 < cx < 3 * width / 4
        and height / 4 < cy < 3 * height / 4
    ):
        cause = exchanged_sides(matrix, size)
        text = f"{matrix.tolist()} is no pinhole matrix for frames of {height} x {width}"
        raise CorruptEpisodeError(f"{where}: {text}" + (f" ({cause})" if cause else ""))


def simulator_seed(seed: Any) -> int | None:
    """The seed of a scene that our simulator wrote in a foreign layout, so that evaluation can refuse it later."""
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None
