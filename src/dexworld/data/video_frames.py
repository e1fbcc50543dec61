"""Frames of a video in any order: of a whole file, of one episode in a file of many, or of a stored episode.

No container is opened to read a frame: a table says where each packet lies. The store keeps one per episode; of other
files it is read once, and a frame is found in it by its time, with or without B-frames.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np

from dexworld.data.packets import DECODE_ERRORS, DECODERS, PerThread, bytes_at, decoder_of, identity, opened
from dexworld.data.video import VideoError
from dexworld.track import frame_numbers

MAX_TABLES = 64
_DECODERS = {"av1": "libdav1d"}  # FFmpeg's own AV1 decoder needs a GPU


@dataclass(frozen=True)
class PackedFrames:
    """Frames first_frame to first_frame + count of a video file. Holds no open file, so it can be pickled.

    size: height and width. fps: frames per second. start: seconds into the file at which the first frame is shown; None
    takes first_frame / fps. Frame i is the picture nearest to start + i / fps; one further than half a frame away is a
    VideoError.
    """

    path: Path
    first_frame: int
    count: int
    size: tuple[int, int]
    fps: float
    start: float | None = None

    def __len__(self) -> int:
        return self.count

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, count), VideoError naming file and frame for one that can't be read.
        """
        wanted = frame_numbers(indices, self.count, str(self.path))
        if wanted.size == 0:
            return np.empty((0, *self.size, 3), dtype=np.uint8)
        unique, places = np.unique(wanted, return_inverse=True)
        table = frame_table(self.path)
        return table.read(self.path, self._shown(table, unique)[places], self.size, self.first_frame)

    def _shown(self, table: "FrameTable", indices: np.ndarray) -> np.ndarray:
        """Numbers in the file, in the order shown, of the episode's frames `indices`."""
        start = self.first_frame / self.fps if self.start is None else self.start
        ticks = (start + indices / self.fps) / float(table.time_base)
        after = np.searchsorted(table.times, ticks)
        before = np.maximum(after - 1, 0)
        after = np.minimum(after, len(table.times) - 1)
        nearer = np.abs(table.times[before] - ticks) <= np.abs(table.times[after] - ticks)
        shown = np.where(nearer, before, after)
        off = np.abs(table.times[shown] - ticks) * float(table.time_base) * self.fps
        if (off >= 0.5).any() or len(np.unique(shown)) != len(shown):
            worst = int(np.argmax(off))
            frame = f"{self.path}: frame {indices[worst]} of the episode that starts at {start:.3f} s"
            raise VideoError(f"{frame} has no picture within half a frame of its time; video and labels don't fit")
        return shown


@dataclass(frozen=True)
class VideoFrames:
    """All frames of a constant-rate video file; length and size come from its header. Can be pickled.

    Raises VideoError when the file can't be opened, and on reading when a frame can't be decoded.
    """

    path: Path

    @cached_property
    def _frames(self) -> "PackedFrames":
        with _stream(self.path) as stream:
            rate = stream.average_rate
            if not stream.frames or not rate:
                raise VideoError("the container names no frame count or rate; transcode it first")
            size = (stream.codec_context.height, stream.codec_context.width)
            start = float((stream.start_time or 0) * stream.time_base)
            return PackedFrames(self.path, 0, stream.frames, size, float(rate), start)

    def __len__(self) -> int:
        return self._frames.count

    @property
    def size(self) -> tuple[int, int]:
        return self._frames.size

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self._frames.fps

    def read(self, indices: list[int]) -> np.ndarray:
        """See `PackedFrames.read`."""
        return self._frames.read(indices)


@dataclass(frozen=True)
class StoredFrames:
    """T frames of one episode in the video of a store. Holds no open file, so it can be pickled.

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
        """As `PackedFrames.read`; VideoError for a frame whose bytes are damaged."""
        wanted = frame_numbers(indices, len(self), str(self.path))
        (offsets, sizes, checksums), numbers = self.packets.T, np.arange(len(self))
        keys, tick = numbers[:: self.group], Fraction(1, 1000)
        coding = (tick, self.decoder, self.extradata, checksums)
        return FrameTable(offsets, sizes, numbers, numbers, keys, keys, *coding).read(self.path, wanted, self.size)


@dataclass(frozen=True)
class FrameTable:
    """Where the N frames of a video lie. Packets are in the order of decoding, times in the order shown.

    offsets, sizes, packet_times: (N,) bytes, bytes, ticks per packet. times: (N,) ticks, increasing. keys: (K,) packet
    numbers that decoding can start at; key_times: (K,) their ticks. checksums: (N,) CRC-32 of packets where known.
    size: height and width by the header.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    packet_times: np.ndarray
    times: np.ndarray
    keys: np.ndarray
    key_times: np.ndarray
    time_base: Fraction
    decoder: str
    extradata: bytes
    checksums: np.ndarray | None = None
    size: tuple[int, int] = (0, 0)

    def read(self, path: Path, wanted: np.ndarray, size: tuple[int, int], first: int = 0) -> np.ndarray:
        """Frames (n, H, W, 3) uint8 RGB of the numbers `wanted` (n,), which may repeat, from the file `path`.

        Raises VideoError naming the file and the frame, counted from `first`.
        """
        frames = np.empty((len(wanted), *size, 3), dtype=np.uint8)
        rows: dict[int, list[int]] = {}
        for row, number in enumerate(wanted.tolist()):
            rows.setdefault(number, []).append(row)
        if not rows:
            return frames
        file = opened(path)
        for key, run in self._runs(sorted(rows)):
            decoder, pending = decoder_of(self.decoder, self.extradata), {int(self.times[each]): each for each in run}
            earliest = min(self.packet_times[key], self.times[run[0]])
            try:
                for number in range(key, len(self.sizes) + 1):
                    if number < len(self.sizes) and self.packet_times[number] < earliest:
                        continue  # shown before the key frame but stored behind it: it lacks a reference
                    for picture in decoder.context.decode(self._packet(file, number)):
                        shown = pending.pop(picture.pts, None)
                        if shown is not None:
                            frames[rows[shown]] = decoder.rgb(picture, size)
                    if not pending:
                        break
                decoder.context.flush_buffers()  # nothing of this run may come out in the next, of another file perhaps
            except DECODE_ERRORS as error:
                DECODERS.forget((self.decoder, self.extradata))  # whatever state damage left it in
                frame = min(pending.values(), default=run[-1]) - first
                raise VideoError(f"{path}: frame {frame} of its episode can't be decoded ({error})") from error
            if pending:
                raise VideoError(f"{path}: frame {min(pending.values()) - first} of its episode is missing")
        return frames

    def _packet(self, file: int, number: int) -> Any:
        """Packet `number` of an open file in the order of decoding; behind the last None, which drains a decoder."""
        if number == len(self.sizes):
            return None
        content = bytes_at(file, int(self.offsets[number]), int(self.sizes[number]))
        if self.checksums is not None and zlib.crc32(content) != self.checksums[number]:
            raise VideoError("its bytes are not those written")
        packet = av.Packet(content)
        packet.pts = packet.dts = int(self.packet_times[number])
        packet.time_base = self.time_base
        return packet

    def _runs(self, shown: list[int]) -> list[tuple[int, list[int]]]:
        """(packet to start at, frame numbers) that decode the sorted frame numbers `shown` with the least work."""
        starts = np.searchsorted(self.key_times, self.times[shown], side="right") - 1
        runs: dict[int, list[int]] = {}
        for number, key in zip(shown, self.keys[np.maximum(starts, 0)].tolist(), strict=True):
            runs.setdefault(key, []).append(number)
        return [*runs.items()]


_tables: PerThread[FrameTable] = PerThread(MAX_TABLES, lambda table: None)


def frame_table(path: Path) -> FrameTable:
    """The table of a video file, read once and kept. Raises VideoError when the file can't be opened as a video."""
    return _tables.get(identity(path), lambda: _read_table(path))


def _read_table(path: Path) -> FrameTable:
    with _stream(path) as stream:
        context = stream.codec_context
        rows = [(e.pos, e.size, e.timestamp, e.is_keyframe, e.is_discard) for e in stream.index_entries]
        if context.reorder_depth or not rows:  # shown in another order: only packets tell the times
            packets = [each for each in stream.container.demux(stream) if each.size]
            rows = [(p.pos, p.size, p.pts, p.is_keyframe, p.is_discard) for p in packets]
        offsets, sizes, packet_times, is_key, is_cut = np.array(rows, dtype=np.int64).reshape(-1, 5).T.copy()
        times, keys = np.sort(packet_times[is_cut == 0]), np.flatnonzero(is_key)  # frames that are cut are references
        twice = np.flatnonzero(np.diff(times) <= 0)
        if len(times) == 0 or len(keys) == 0:
            raise VideoError(f"its {len(times)} frames have no key frame; remux it")
        if len(twice):
            raise VideoError(f"frames {twice[0]} and {twice[0] + 1} have the same time; remux it with distinct times")
        name = _DECODERS.get(context.codec.name, context.codec.name)
        coding = (stream.time_base, name, context.extradata or b"")
        size = (context.height, context.width)
        return FrameTable(offsets, sizes, packet_times, times, keys, packet_times[keys], *coding, size=size)


@contextmanager
def _stream(path: Path) -> Iterator[Any]:
    """The video stream of a file; what goes wrong with it becomes a VideoError that names the file."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError("it holds no video stream")
            if container.streams.video[0].codec_context is None:
                raise VideoError("its codec is not known; the header is damaged")
            yield container.streams.video[0]
    except (*DECODE_ERRORS, TypeError) as error:
        raise VideoError(f"{path}: can't be opened as a video ({error})") from error
