"""Single frames of a prepared video, read by the place of their packets: no container is opened, nothing is searched.

A window costs one read per group of pictures and the decoding from each group's key frame to the last frame wanted from
it. Every packet that is decoded is compared with its checksum first, so a damaged byte is an error and never a picture.
"""

import os
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from dexworld.data.video import VideoError

MAX_OPEN_FILES = 128
_local = threading.local()


@dataclass(frozen=True)
class StoredFrames:
    """T frames of one episode in a prepared video. Holds no open file, so it can be pickled.

    packets: (T, 3) int64 offset, size and CRC-32 of each frame's packet. size: height and width. decoder: FFmpeg's name
    of the codec, extradata its head. group: frames from one key frame to the next, the first frame being one.
    """

    path: Path
    packets: np.ndarray
    size: tuple[int, int]
    decoder: str
    extradata: bytes
    group: int

    def __len__(self) -> int:
        return len(self.packets)

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one whose bytes are damaged.
        """
        wanted = np.asarray(indices, dtype=int)
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(
                f"{self.path}: frames {wanted.min()} to {wanted.max()} asked for, the episode holds 0 to "
                f"{len(self) - 1}"
            )
        frames = np.empty((len(wanted), *self.size, 3), dtype=np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted.tolist()):
            places.setdefault(index, []).append(place)
        file, pending = _file(self.path), sorted(places)
        while pending:
            start = pending[0] - pending[0] % self.group
            end = start + self.group
            inside = [index for index in pending if index < end]
            for index, picture in zip(inside, self._decoded(file, start, inside), strict=True):
                for place in places[index]:
                    frames[place] = picture
            pending = pending[len(inside) :]
        return frames

    def _decoded(self, file: int, start: int, wanted: list[int]) -> list[np.ndarray]:
        """The pictures of sorted indices within one group that starts at frame `start`."""
        last = wanted[-1]
        rows = self.packets[start : last + 1].tolist()
        first_byte, end_byte = rows[0][0], rows[-1][0] + rows[-1][1]
        content: Any = memoryview(_bytes_at(file, first_byte, end_byte - first_byte, self.path, start))
        decoder, pictures = _decoder(self.decoder, self.extradata), []
        for index, (offset, size, checksum) in enumerate(rows, start):
            packet = content[offset - first_byte : offset - first_byte + size]
            if len(packet) != size or zlib.crc32(packet) != checksum:
                raise VideoError(f"{self.path}: frame {index} is damaged: its bytes are not those written")
            try:
                decoded = decoder.context.decode(av.Packet(packet))
                if len(decoded) != 1 or (decoded[0].height, decoded[0].width) != self.size:
                    raise VideoError(f"{self.path}: frame {index} decodes to {len(decoded)} pictures of another size")
                if index in wanted:
                    pictures.append(decoder.convert.reformat(decoded[0], format="rgb24", threads=1).to_ndarray())
            except (av.FFmpegError, OSError) as error:
                _cache().decoders.clear()  # whatever state the damage left
                raise VideoError(f"{self.path}: frame {index} can't be decoded ({error})") from error
        return pictures


@dataclass
class _Decoder:
    context: Any
    convert: VideoReformatter


def _decoder(name: str, extradata: bytes) -> _Decoder:
    """This thread's decoder; opened once, since opening costs as much as several frames."""
    cache = _cache()
    key = (name, extradata)
    if key not in cache.decoders:
        context: Any = av.CodecContext.create(name, "r")
        context.thread_count = 1
        if extradata:
            context.extradata = extradata
        cache.decoders[key] = _Decoder(context, VideoReformatter())
    return cache.decoders[key]


class _Cache:
    """Open files and decoders of one thread of one process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.files: OrderedDict[str, int] = OrderedDict()
        self.decoders: dict[tuple[str, bytes], _Decoder] = {}

    def __del__(self) -> None:
        for file in self.files.values():
            os.close(file)


def _cache() -> _Cache:
    cache = getattr(_local, "cache", None)
    if cache is None or cache.process != os.getpid():  # a forked child starts its own
        cache = _local.cache = _Cache()
    return cache


def _file(path: Path) -> int:
    """A descriptor of `path`, kept open among the most recently used."""
    files, name = _cache().files, str(path)
    if name in files:
        files.move_to_end(name)
        return files[name]
    try:
        files[name] = os.open(name, os.O_RDONLY)
    except OSError as error:
        raise VideoError(f"{path}: can't be opened ({error})") from error
    if len(files) > MAX_OPEN_FILES:
        os.close(files.popitem(last=False)[1])
    return files[name]


def _bytes_at(file: int, offset: int, count: int, path: Path, frame: int) -> bytes:
    try:
        return os.pread(file, count, offset)
    except OSError as error:
        raise VideoError(f"{path}: frame {frame} can't be read ({error})") from error
