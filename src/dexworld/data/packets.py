"""Packets to pictures without a container: open files and decoders, kept per thread of a process.

Opening a video of many episodes parses a table of every frame in it, and a seek searches that table: more work than
decoding a window of nine frames.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from dexworld.data.video import VideoError

MAX_OPEN_FILES = 128
MAX_READ = 1 << 29  # bytes; more is asked for by a damaged table only
DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, OverflowError, MemoryError)
Settings = tuple[tuple[str, Any], ...]
Value = TypeVar("Value")


class PerThread(Generic[Value]):
    """The most recently used values by key, one set per thread of a process; a forked child begins with none.

    A child shares file positions with its parent, and threads share a decoder's state: neither may be handed on.
    """

    def __init__(self, capacity: int, close: Callable[[Value], Any]) -> None:
        self._capacity, self._close = capacity, close
        self._local = threading.local()

    def get(self, key: Any, make: Callable[[], Value]) -> Value:
        """The value of `key`, made if it is not there."""
        values = self._values()
        if key in values:
            values.move_to_end(key)
            return values[key]
        value = values[key] = make()
        if len(values) > self._capacity:
            self._close(values.popitem(last=False)[1])
        return value

    def forget(self, key: Any) -> None:
        """Close the value of `key`, if there is one: it is made anew when it is next asked for."""
        value = self._values().pop(key, None)
        if value is not None:
            self._close(value)

    def _values(self) -> OrderedDict[Any, Value]:
        if getattr(self._local, "process", None) != os.getpid():
            # Kept and never touched: freeing a decoder in a child may wait for threads that only the parent has.
            self._local.inherited = getattr(self._local, "values", None)
            self._local.process, self._local.values = os.getpid(), OrderedDict()
        return self._local.values


class Decoder:
    """One codec's decoder with the head of its stream; single-threaded, used again for every run of packets.

    name: FFmpeg's decoder. extradata: what the container keeps for it. settings: sizes and colours, where the container
    alone has them.
    """

    def __init__(self, name: str, extradata: bytes, settings: Settings = ()) -> None:
        self.context: Any = av.CodecContext.create(name, "r")
        for field, value in settings:
            setattr(self.context, field, value)
        self.context.thread_count = 1
        self.context.options = {"err_detect": "explode"}  # stop at damage instead of painting over it
        if extradata:
            self.context.extradata = extradata
        self._convert = VideoReformatter()

    def rgb(self, picture: Any, size: tuple[int, int]) -> np.ndarray:
        """A decoded picture as (H, W, 3) uint8, without a copy. Raises VideoError when (H, W) is not `size`."""
        if (picture.height, picture.width) != size:
            raise VideoError(f"{picture.height} x {picture.width} pixels, not {size[0]} x {size[1]}")
        plane: Any = self._convert.reformat(picture, format="rgb24", threads=1).planes[0]
        return np.ndarray((*size, 3), np.uint8, plane, strides=(plane.line_size, 3, 1))


_descriptors: PerThread[int] = PerThread(MAX_OPEN_FILES, os.close)
DECODERS: PerThread[Decoder] = PerThread(16, lambda decoder: None)


def decoder_of(name: str, extradata: bytes, settings: Settings = ()) -> Decoder:
    """This thread's decoder; opening one costs as much as several frames. Raises VideoError for an unusable head."""
    try:
        return DECODERS.get((name, extradata, settings), lambda: Decoder(name, extradata, settings))
    except DECODE_ERRORS as error:
        raise VideoError(f"no decoder {name} opens with this head ({error})") from error


def identity(path: Path) -> tuple[str, int, int, int]:
    """What tells a file from another that took its name: name, inode, size and time of change.

    Raises VideoError when there is no such file.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise VideoError(f"{path}: can't be opened ({error.strerror})") from error
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns


def opened(path: Path) -> int:
    """A descriptor of a file, kept open among the most recently used. Raises VideoError when it can't be opened."""
    try:
        return _descriptors.get(identity(path), lambda: os.open(path, os.O_RDONLY))
    except OSError as error:
        raise VideoError(f"{path}: can't be opened ({error.strerror})") from error


def contents_at(descriptor: int, offsets: list[int], sizes: list[int]) -> list[Any]:
    """The bytes of packets of an open file, by one read where they lie one behind the other.

    Raises VideoError when the file ends before, or when no packets are that large.
    """
    ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
    if ends[:-1] != offsets[1:]:
        return [contents_at(descriptor, [offset], [size])[0] for offset, size in zip(offsets, sizes, strict=True)]
    first, count = offsets[0], ends[-1] - offsets[0]
    if min(sizes) <= 0 or not count <= MAX_READ:
        raise VideoError(f"packets of {count} bytes: their places are damaged")
    content = memoryview(os.pread(descriptor, count, first))
    if len(content) != count:
        raise VideoError("the file is truncated")
    return [content[offset - first : end - first] for offset, end in zip(offsets, ends, strict=True)]
