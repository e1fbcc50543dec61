"""Damage that HDF5 itself doesn't survive, found before its library is asked to read.

Two were met while readers were tested on damaged files (HDF5 2.0): text whose type was turned into a list crashes the
process, and a heap of texts in which free space has no size is walked for ever. Neither can be caught once it happens.
"""

import functools
import mmap
import struct
from pathlib import Path

import h5py

from dexworld.data.source import CorruptEpisodeError

MAX_SCANNED = 256 * 2**20  # bytes; larger files are not searched for heaps
_HEAP = b"GCOL\x01\x00\x00\x00"  # signature, version 1, reserved (HDF5 file format specification, section III.E)
_HEADER, _OBJECT = 16, 16  # bytes of the heap's header and of an object's
_SMALLEST = 4096
_SAFE_CLASSES = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.BITFIELD, h5py.h5t.ENUM)


def check_heaps(path: Path) -> None:
    """Raise CorruptEpisodeError when a heap of variable-length text in the file would be walked for ever.

    Files above 256 MiB are not searched; others once, until they change (3 MB take 1 ms). Raises CorruptEpisodeError as
    well when the file can't be read at all.
    """
    try:
        status = path.stat()
        if _SMALLEST <= status.st_size <= MAX_SCANNED:
            _scan(path, status.st_size, status.st_mtime_ns)
    except CorruptEpisodeError:
        raise
    except (OSError, ValueError) as error:
        raise CorruptEpisodeError(f"{path}: can't be read ({error})") from error


@functools.lru_cache(maxsize=4096)
def _scan(path: Path, size: int, changed: int) -> None:
    """Check every heap of a file as it was at `changed` (nanoseconds)."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(_HEAP)
        while place >= 0:
            _walk(content, place, min(size, len(content)), path)
            place = content.find(_HEAP, place + 1)


def _walk(content: mmap.mmap, place: int, file_size: int, path: Path) -> None:
    """Step through the objects of one heap as the library does."""
    (size,) = struct.unpack_from("<Q", content, place + 8)
    if not _SMALLEST <= size <= file_size - place:
        return  # the library refuses such a heap by itself
    at, end = place + _HEADER, place + size
    while at + _OBJECT <= end:
        number, _, length = struct.unpack_from("<HH4xQ", content, at)
        step = length if number == 0 else _OBJECT + (length + 7) // 8 * 8
        if step == 0:
            raise CorruptEpisodeError(f"{path}: the heap of texts at byte {place} is damaged at byte {at}")
        at += step


def is_plain(kind: h5py.h5t.TypeID) -> bool:
    """Whether an HDF5 type is numbers or text, alone or in an array: what can be read without trusting its lengths."""
    while kind.get_class() == h5py.h5t.ARRAY:
        kind = kind.get_super()
    return kind.get_class() in _SAFE_CLASSES
