"""Reading HDF5 files that others wrote: every failure is a CorruptEpisodeError that names the file and the key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError

MAX_BYTES = 4 * 2**30  # of one array; more is a damaged header
_UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError)


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading, without a lock: shared file systems often have none.

    Raises CorruptEpisodeError naming the file when it is missing, truncated or no HDF5, and for anything that h5py
    raises while it is open. A VideoError names its own file, and passes.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (CorruptEpisodeError, VideoError):
        raise
    except _UNREADABLE as error:
        raise CorruptEpisodeError(f"{path}: can't be read as HDF5 ({type(error).__name__}: {error})") from error


def read_array(file: h5py.File, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """The whole numeric dataset `key`, in one read. shape: what it must have; None allows any size on that axis.

    Raises CorruptEpisodeError naming file and key when it is missing, not numeric, of another shape, or unreadable.
    """
    where = f"{file.filename}: {key}"
    try:
        node = file.get(key)
        if not isinstance(node, h5py.Dataset):
            raise CorruptEpisodeError(f"{where} is missing" if node is None else f"{where} is no array")
        found, kind = node.shape, node.dtype
        fits = found is not None and len(found) == len(shape)
        if not fits or any(size not in (None, have) for size, have in zip(shape, found or (), strict=True)):
            wanted = tuple("any" if size is None else size for size in shape)
            raise CorruptEpisodeError(f"{where} has shape {found}, expected {wanted}")
        if kind.kind not in "fiub":
            raise CorruptEpisodeError(f"{where} holds {kind}, expected numbers")
        if node.nbytes > MAX_BYTES:
            raise CorruptEpisodeError(f"{where} claims {node.nbytes} bytes; the file is damaged")
        return node[()]
    except CorruptEpisodeError:
        raise
    except _UNREADABLE as error:
        raise CorruptEpisodeError(f"{where} can't be read ({type(error).__name__}: {error})") from error


def attributes(node: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The attributes as plain values: text as str, single numbers as Python numbers, the rest as arrays or lists."""
    return {name: _plain(value) for name, value in node.attrs.items()}


def read_everything(file: h5py.File) -> dict[str, Any]:
    """Every array of the file by its path ("group/name"), text decoded; plus its attributes under "attributes"."""
    found: dict[str, Any] = {"attributes": attributes(file)}

    def keep(name: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Dataset):
            if node.nbytes > MAX_BYTES:
                raise CorruptEpisodeError(f"{file.filename}: {name} claims {node.nbytes} bytes; the file is damaged")
            found[name] = _plain(node[()])

    file.visititems(keep)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return [_plain(item) for item in value.tolist()] if value.ndim else _plain(value.item())
    return value
