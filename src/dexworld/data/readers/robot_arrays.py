"""Numbers of robots out of foreign files, checked before they are believed."""

from typing import Any

import h5py
import numpy as np

from dexworld.data.hdf5 import read_array
from dexworld.data.source import CorruptEpisodeError


def numbers(file: h5py.File, key: str, shape: tuple[int | None, ...], limit: float) -> np.ndarray:
    """The dataset `key` as float64, finite and of sensible size.

    shape: what it must have; None allows any size on that axis. limit: the largest magnitude that makes sense, in the
    data's own unit; larger is damage. Raises CorruptEpisodeError naming file, key and, for values, the first bad row.
    """
    values = np.asarray(read_array(file, key, shape), dtype=np.float64)
    check_numbers(values, limit, f"{file.filename}: {key}")
    return values


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


def rotations_of(quaternions: np.ndarray) -> np.ndarray:
    """Rotations (T, 3, 3) of quaternions (T, 4), x, y, z, w, of any length but 0."""
    x, y, z, w = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    entries = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(entries), -1, 0)


def check_rigid(poses: np.ndarray, where: str) -> None:
    """Raise CorruptEpisodeError, starting with `where`, unless (T, 4, 4) are rotations with a translation.

    Matrices that mirror are none: they come from a left-handed frame, or from swapped axes.
    """
    rotation = poses[:, :3, :3]
    skew = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    bad = ~(np.maximum(skew, np.abs(poses[:, 3] - (0, 0, 0, 1)).max(axis=1)) <= 1e-3)
    if bad.any():
        raise CorruptEpisodeError(f"{where} is no rigid transform at row {int(np.argmax(bad))}")
    mirrored = np.linalg.det(rotation) < 0
    if mirrored.any():
        raise CorruptEpisodeError(f"{where} mirrors at row {int(np.argmax(mirrored))}; its axes must be right-handed")


def rows_of(file: h5py.File, key: str) -> int:
    """How many rows the dataset `key` has. Raises CorruptEpisodeError when it is no array."""
    node = file.get(key)
    if not isinstance(node, h5py.Dataset) or not node.shape:
        raise CorruptEpisodeError(f"{file.filename}: {key} is missing or holds no rows")
    return int(node.shape[0])


def simulator_seed(metadata: dict[str, Any]) -> int | None:
    """The seed of a scene that our simulator wrote in a foreign layout, so that evaluation can refuse it later."""
    seed = metadata.get("dexworld_seed")
    return seed if isinstance(seed, int) and not isinstance(seed, bool) else None
