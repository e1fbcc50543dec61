"""Where the frames of a video lie: packets, times and key frames; any frame by random access, all by decoding once.

A table is read once per file and kept. No container is opened to read a frame, with or without B-frames. This is the
only place that opens videos: what containers and streams differ in is settled here.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from dexworld.data.packets import DECODE_ERRORS, DECODERS, PerThread, contents_at, decoder_of, identity, opened
from dexworld.data.video import VideoError

MAX_TABLES = 64
PACKETS_PER_READ = 64
Convert = Callable[[av.VideoFrame], av.VideoFrame]
_DECODERS = {"av1": "libdav1d"}  # FFmpeg's own AV1 decoder needs a GPU


@dataclass(frozen=True)
class FrameTable:
    """Where the N frames of a video lie. Packets are in the order of decoding, times in the order shown.

    offsets, sizes, packet_times: (N,) bytes, bytes, ticks per packet. times: (N,) ticks, increasing. keys: (K,) packet
    numbers that decoding can start at; key_times: (K,) their ticks. tick: seconds. checksums: (N,) CRC-32 of packets
    where known.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    packet_times: np.ndarray
    times: np.ndarray
    keys: np.ndarray
    key_times: np.ndarray
    tick: float
    decoder: str
    extradata: bytes
    checksums: np.ndarray | None = None

    def nearest(self, indices: np.ndarray, start: float, fps: float, path: Path) -> np.ndarray:
        """Numbers of the pictures nearest to `start` + indices / fps seconds; indices are distinct.

        Raises VideoError when a picture is half a frame or more away, or is nearest to two of them.
        """
        ticks = (start + indices / fps) / self.tick
        after = np.searchsorted(self.times, ticks)
        before = np.maximum(after - 1, 0)
        after = np.minimum(after, len(self.times) - 1)
        nearer = np.abs(self.times[before] - ticks) <= np.abs(self.times[after] - ticks)
        shown = np.where(nearer, before, after)
        off = np.abs(self.times[shown] - ticks) * self.tick * fps
        if (off >= 0.5).any() or len(np.unique(shown)) != len(shown):
            frame = f"{path}: frame {indices[np.argmax(off)]} of the episode that starts at {start:.3f} s"
            raise VideoError(f"{frame} has no picture within half a frame of its time; video and labels don't fit")
        return shown

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
        file, decoder = opened(path), decoder_of(self.decoder, self.extradata)
        for (key, head), pending in self._runs(sorted(rows)).items():
            *_, last = pending.values()
            held = 0  # pictures that the decoder holds back
            try:
                for packet in self._packets(file, key, min(pending), last + 1 - head):
                    pictures = decoder.context.decode(packet)
                    held += 1 - len(pictures)
                    for picture in pictures:
                        number = pending.pop(picture.pts, None)
                        if number is not None:
                            frames[rows[number]] = decoder.rgb(picture, size)
                    if not pending:
                        break
                if held:  # nothing of this run may come out in the next, of another file perhaps
                    decoder.context.flush_buffers()
            except DECODE_ERRORS as error:
                DECODERS.forget((self.decoder, self.extradata))  # whatever state damage left it in
                frame = min(pending.values(), default=last) - first
                raise VideoError(f"{path}: frame {frame} of its episode can't be decoded ({error})") from error
            if pending:
                raise VideoError(f"{path}: frame {min(pending.values()) - first} of its episode is missing")
        return frames

    def _packets(self, file: int, key: int, earliest: int, least: int) -> Iterator[Any]:
        """Packets from number `key` on in the order of decoding; behind the last None, which drains a decoder.

        earliest: time of the first frame wanted. least: packets that are needed at least; they are read at once.
        """
        start, count, earliest = key, len(self.sizes), min(earliest, int(self.packet_times[key]))
        while start < count:
            end = min(start + min(max(least, 1), PACKETS_PER_READ), count)
            least -= end - start
            contents = contents_at(file, self.offsets[start:end].tolist(), self.sizes[start:end].tolist())
            checksums = [None] * len(contents) if self.checksums is None else self.checksums[start:end].tolist()
            times = self.packet_times[start:end].tolist()
            for content, time, checksum in zip(contents, times, checksums, strict=True):
                if checksum is not None and zlib.crc32(content) != checksum:
                    raise VideoError("its bytes are not those written")
                if time >= earliest:  # else it is shown before the key frame but stored behind it: it lacks a reference
                    packet = av.Packet(content)
                    packet.pts = time
                    yield packet
            start = end
        yield None

    def _runs(self, numbers: list[int]) -> dict[tuple[int, int], dict[int, int]]:
        """What decodes the sorted frame numbers with the least work: numbers by time for each packet to start at.

        The key is the packet and the number of its frame in the order shown.
        """
        times = self.times[numbers]
        starts = np.maximum(np.searchsorted(self.key_times, times, side="right") - 1, 0)
        heads = np.searchsorted(self.times, self.key_times[starts])
        runs: dict[tuple[int, int], dict[int, int]] = {}
        rows = zip(self.keys[starts].tolist(), heads.tolist(), times.tolist(), numbers, strict=True)
        for key, head, time, number in rows:
            runs.setdefault((key, head), {})[time] = number
        return runs


_tables: PerThread[FrameTable] = PerThread(MAX_TABLES, lambda table: None)


def frame_table(path: Path) -> FrameTable:
    """The table of a video file, read once and kept. Raises VideoError when the file can't be opened as a video."""
    return _tables.get(identity(path), lambda: _read_table(path))


def _read_table(path: Path) -> FrameTable:
    with open_stream(path) as stream:
        context = stream.codec_context
        rows = [(e.pos, e.size, e.timestamp, e.is_keyframe, e.is_discard) for e in stream.index_entries]
        if context.reorder_depth or len(rows) != stream.frames:  # else the index names all packets in the order shown
            packets = [each for each in stream.container.demux(stream) if each.size]
            rows = [(p.pos, p.size, p.pts, p.is_keyframe, p.is_discard) for p in packets]
        offsets, sizes, packet_times, is_key, is_cut = np.array(rows, dtype=np.int64).reshape(-1, 5).T.copy()
        times, keys = np.sort(packet_times[is_cut == 0]), np.flatnonzero(is_key)  # frames that are cut are references
        twice = np.flatnonzero(np.diff(times) <= 0)
        if len(times) == 0 or len(keys) == 0:
            raise VideoError(f"{path}: can't be opened as a video: {len(times)} frames without a key frame; remux it")
        if len(twice):
            numbers = f"frames {twice[0]} and {twice[0] + 1}"
            raise VideoError(f"{path}: {numbers} have the same time; remux it with distinct times")
        name = _DECODERS.get(context.codec.name, context.codec.name)
        coding = (float(stream.time_base), name, context.extradata or b"")
        return FrameTable(offsets, sizes, packet_times, times, keys, packet_times[keys], *coding)


@contextmanager
def open_stream(path: Path) -> Iterator[Any]:
    """The video stream of a file, decoding in one thread. What goes wrong becomes a VideoError that names the file."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is None or stream.codec_context is None:
                raise VideoError(f"{path}: holds no video stream of a codec that can be decoded")
            stream.codec_context.thread_count = 1
            yield stream
    except VideoError:
        raise
    except (*DECODE_ERRORS, TypeError) as error:
        raise VideoError(f"{path}: can't be opened as a video ({error})") from error


def decoded(
    path: Path, stream: Any, strict: bool = True, convert: Convert = lambda frame: frame
) -> Iterator[av.VideoFrame]:
    """Every picture of an open stream once, in the order shown, converted.

    strict: stop at damage instead of painting over it, and refuse times that don't increase and sizes that change.
    Raises VideoError naming the file and the frame.
    """
    number, before, context = 0, None, stream.codec_context
    size = (context.height, context.width)
    if strict:
        context.options = {"err_detect": "explode"}
    try:
        for frame in stream.container.decode(stream):
            here = f"{path}: frame {number}"
            if strict and (frame.pts is None or (before is not None and frame.pts <= before)):
                raise VideoError(f"{here} has time {frame.pts} after {before}")
            if strict and frame.is_corrupt:
                raise VideoError(f"{here} is damaged")
            if strict and (frame.height, frame.width) != size:
                raise VideoError(f"{here} has {frame.height} x {frame.width} pixels, the header says {size}")
            yield convert(frame)
            number, before = number + 1, frame.pts
    except VideoError:
        raise
    except DECODE_ERRORS as error:
        raise VideoError(f"{path}: frame {number} can't be decoded ({error})") from error
