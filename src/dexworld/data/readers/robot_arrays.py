"""Numbers of robots out of foreign files, checked before they are believed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dexworld.data.hdf5 import opened_hdf5, read_array
from dexworld.data.hdf5_damage import check_heaps, is_plain
from dexworld.data.source import CorruptEpisodeError


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file open for reading, once no damage is in it that would end the process. Every error is a
    CorruptEpisodeError that names the file."""
    check_heaps(path)
    with opened_hdf5(path) as file:
        yield file


def attribute(node: h5py.Group, name: str) -> Any:
    """One attribute as text, a number, an array or a list of texts; None where there is none.

    One of a type that can't be read without trusting its lengths is given as a text that says so.
    """
    if name not in node.attrs:
        return None
    kind = node.attrs.get_id(name).get_type()
    return _plain(node.attrs[name]) if is_plain(kind) else f"not read: HDF5 type of class {kind.get_class()}"


def attributes(node: h5py.Group) -> dict[str, Any]:
    """Every attribute by name, as `attribute` gives it."""
    return {name: attribute(node, name) for name in node.attrs.keys()}  # noqa: SIM118 (iterating reads the values)


def arrays(group: h5py.Group, images: bool = True) -> dict[str, Any]:
    """Every dataset below `group` by its path in it, numbers as arrays, text as str; images (T, H, W, C) on request."""
    found: dict[str, Any] = {}

    def keep(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(node, h5py.Dataset) or (not images and node.ndim == 4 and node.dtype == np.uint8):
            return
        kind = node.id.get_type()
        if node.dtype.kind in "fiub":
            found[name] = read_array(group.file, node.name, node.shape)
        else:
            found[name] = _plain(node[()]) if is_plain(kind) else f"not read: HDF5 type of class {kind.get_class()}"

    group.visititems(keep)
    return found


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


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [_plain(item) for item in value.reshape(-1).tolist()]
    return None if isinstance(value, h5py.Empty) else value.item() if isinstance(value, np.generic) else value
