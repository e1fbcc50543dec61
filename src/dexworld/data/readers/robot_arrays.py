"""Numbers of robots out of foreign HDF5 files, checked before they are believed."""

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
    rows = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
    finite = np.isfinite(rows)
    for complaint, bad in (
        ("holds NaN or Inf", ~finite),
        (f"holds values beyond {limit:g}", np.where(finite, np.abs(rows), 0.0) > limit),
    ):
        if bad.any():
            first = int(np.argmax(bad.any(axis=1)))
            raise CorruptEpisodeError(f"{file.filename}: {key} {complaint} (first at row {first})")
    return values
