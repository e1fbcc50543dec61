"""Rotations, quaternions and transforms out of files, in NumPy. Quaternions are x, y, z, w."""

import numpy as np


def rotations_of(quaternions: np.ndarray) -> np.ndarray:
    """Rotations (T, 3, 3) of quaternions (T, 4) of any length but 0."""
    x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    entries = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(entries), -1, 0)


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """The unit quaternion (4,) of a rotation (3, 3), w >= 0: the eigenvector of Bar-Itzhack's matrix, which has
    no bad angles.
    """
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array(
        [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    vector = np.linalg.eigh(matrix)[1][:, -1]
    return vector * (1.0 if vector[3] >= 0 else -1.0)


def poses_of(rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Transforms (..., 4, 4) float64 from rotations (..., 3, 3) and positions (..., 3)."""
    poses = np.zeros((*positions.shape[:-1], 4, 4))
    poses[..., :3, :3], poses[..., :3, 3], poses[..., 3, 3] = rotations, positions, 1.0
    return poses
