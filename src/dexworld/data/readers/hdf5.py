"""Reading HDF5 files that others wrote: every failure is a CorruptEpisodeError that names the file and the key.

HDF5 (2.0) itself doesn't survive two kinds of damage: text whose type became a list crashes the process, and it walks a
heap of texts for ever whose free space has no size. Both are found before the library is asked to read.
"""

import functools
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dexworld.data.readers.arrays import check_numbers
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError

MAX_BYTES = 4 * 2**30  # of one array; more is a damaged header
MAX_RATIO = 1100  # bytes to a stored byte; gzip packs no better
MAX_UNSTORED = 2**20  # bytes of an array that lie nowhere in the file and are read as zeros
MAX_SCANNED = 256 * 2**20  # bytes; larger files are not searched for heaps
_UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError)
_HEAP = b"GCOL\x01\x00\x00\x00"  # signature, version 1, reserved (HDF5 file format specification, section III.E)
_HEADER = 16  # bytes, of a heap and of an object in it
_SMALLEST = 4096  # bytes of a heap
_SAFE_CLASSES = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.BITFIELD, h5py.h5t.ENUM)


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading, without a lock: shared file systems often have none.

    Raises CorruptEpisodeError naming the file when it is missing, truncated or no HDF5, when its damage would end or
    hang the process, and for anything that h5py raises while it is open. A VideoError names its own file, and passes.
    """
    try:
        status = path.stat()
        if _SMALLEST <= status.st_size <= MAX_SCANNED:
            _check_heaps(path, status.st_size, status.st_mtime_ns)
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (CorruptEpisodeError, VideoError):
        raise
    except _UNREADABLE as error:
        raise CorruptEpisodeError(f"{path}: can't be read as HDF5 ({type(error).__name__}: {error})") from error


@functools.lru_cache(maxsize=4096)
def _check_heaps(path: Path, size: int, changed: int) -> None:
    """Refuse a file with a heap of texts that HDF5 would walk for ever: step through every heap as the library does.

    size, changed: bytes and time of change in nanoseconds; a file is searched once until it changes (3 MB take 1 ms).
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        size = min(size, len(content))
        place = content.find(_HEAP, 0, size - 8)
        while place >= 0:
            (length,) = struct.unpack_from("<Q", content, place + 8)
            # the library itself refuses a heap of another size
            at, end = place + _HEADER, place + length if _SMALLEST <= length <= size - place else 0
            while at + _HEADER <= end:
                number, _, space = struct.unpack_from("<HH4xQ", content, at)
                step = space if number == 0 else _HEADER + (space + 7) // 8 * 8
                if step == 0:
                    raise CorruptEpisodeError(f"{path}: the heap of texts at byte {place} is damaged at byte {at}")
                at += step
            place = content.find(_HEAP, place + 1, size - 8)


def is_plain(kind: h5py.h5t.TypeID) -> bool:
    """Whether an HDF5 type is numbers or text, alone or in an array: what can be read without trusting its lengths."""
    while kind.get_class() == h5py.h5t.ARRAY:
        kind = kind.get_super()
    return kind.get_class() in _SAFE_CLASSES


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


def numbers(file: h5py.File, key: str, shape: tuple[int | None, ...], limit: float) -> np.ndarray:
    """The dataset `key` as float64, finite and of sensible size.

    shape: as for `read_array`. limit: the largest magnitude that makes sense, in the data's own unit; larger is damage.
    Raises CorruptEpisodeError naming file, key and, for values, the first bad row.
    """
    values = np.asarray(read_array(file, key, shape), dtype=np.float64)
    check_numbers(values, limit, f"{file.filename}: {key}")
    return values


def per_row(file: h5py.File, key: str, rows: int, limit: float) -> np.ndarray:
    """The dataset `key`, one number or array per row, as (rows, width); checks and errors as for `numbers`."""
    node = file.get(key)
    further = node.ndim - 1 if isinstance(node, h5py.Dataset) else 0
    return numbers(file, key, (rows, *[None] * further), limit).reshape(rows, -1)


def group(file: h5py.File, key: str) -> h5py.Group:
    """The group `key`. Raises CorruptEpisodeError when there is none."""
    node = file.get(key)
    if not isinstance(node, h5py.Group):
        raise CorruptEpisodeError(f"{file.filename}: group {key} is missing")
    return node


def attribute(node: h5py.Group | h5py.Dataset, name: str) -> Any:
    """One attribute, text as str; None where there is none, or one that can't be read without trusting its lengths."""
    if name not in node.attrs or not is_plain(node.attrs.get_id(name).get_type()):
        return None
    value = node.attrs[name]
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, (np.generic, np.ndarray)) and value.size == 1:
        value = value.item()
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value
