"""Reading HDF5 files that others wrote: every failure is a CorruptEpisodeError that names the file and the key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dexworld.data.hdf5_damage import check_heaps, is_plain
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError

MAX_BYTES = 4 * 2**30  # of one array; more is a damaged header
MAX_RATIO = 1100  # bytes to a stored byte; gzip packs no better
MAX_UNSTORED = 2**20  # bytes of an array that lie nowhere in the file and are read as zeros
_UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError)


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading, without a lock: shared file systems often have none.

    Raises CorruptEpisodeError naming the file when it is missing, truncated or no HDF5, and for anything that h5py
    raises while it is open; for damage, too, that would end or hang the process. A VideoError names its own file, and
    passes.
    """
    check_heaps(path)
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
        if node.nbytes > min(MAX_BYTES, MAX_UNSTORED + MAX_RATIO * node.id.get_storage_size()):
            raise CorruptEpisodeError(f"{where} claims {node.nbytes} bytes; the file is damaged")
        return node[()]
    except CorruptEpisodeError:
        raise
    except _UNREADABLE as error:
        raise CorruptEpisodeError(f"{where} can't be read ({type(error).__name__}: {error})") from error


def attribute(node: h5py.Group | h5py.Dataset, name: str) -> Any:
    """One attribute as text, a number, an array or a list of texts; None where there is none.

    One of a type that can't be read without trusting its lengths is given as a text that says so.
    """
    if name not in node.attrs:
        return None
    kind = node.attrs.get_id(name).get_type()
    return _plain(node.attrs[name]) if is_plain(kind) else _unread(kind)


def attributes(node: h5py.Group | h5py.Dataset) -> dict[str, Any]:
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
            found[name] = _plain(node[()]) if is_plain(kind) else _unread(kind)

    group.visititems(keep)
    return found


def _unread(kind: h5py.h5t.TypeID) -> str:
    return f"not read: HDF5 type of class {kind.get_class()}"


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
