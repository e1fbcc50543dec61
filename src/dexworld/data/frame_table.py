"""Where the frames of a video lie: packets, times and key frames; any frame by random access, all by decoding once.

A table is read once per file and kept. No container is opened to read a frame, with or without B-frames. This is the
only place that opens videos: what containers and streams differ in is settled here.
"""

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np

from dexworld.data.packets import DECODE_ERRORS, DECODERS, PerThread, contents_at, decoder_of, identity, opened
from dexworld.data.video import VideoError
from dexworld.errors import warn_once

MAX_TABLES = 64
PACKETS_PER_READ = 64
MAX_HEAD = 64  # bytes that a container writes before a packet's own
Convert = Callable[[av.VideoFrame], av.VideoFrame]
_DECODERS = {"av1": "libdav1d"}  # FFmpeg's own AV1 decoder needs a GPU
_SETTINGS = ("height", "width", "pix_fmt", "color_range", "colorspace", "color_primaries", "color_trc")
_HDR = {16: "PQ", 18: "HLG"}  # transfer functions (ITU-T H.273)
_MATRICES = re.compile(rb"mvhd(?:\0.{35}|\x01.{47})(.{36})|tkhd(?:\0.{39}|\x01.{51})(.{36})", re.S)  # of mp4
_IDENTITY = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
_TURNS = {(0, 0, 0, 0): 0, (1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}  # by matrix


@dataclass(frozen=True)
class FrameTable:
    """Where the N frames of a video lie. Packets are in the order of decoding, times in the order shown.

    offsets, sizes, packet_times: (N,) bytes, bytes, ticks per packet. times: (N,) ticks, increasing. keys: (K,) packet
    numbers that decoding can start at; key_times: (K,) their ticks. tick: seconds. checksums: (N,) CRC-32 of packets
    where known. settings: of the decoder. turns: quarter turns, counter-clockwise, that show the pictures upright.
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
    settings: tuple[tuple[str, Any], ...] = ()
    turns: int = 0

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the last."""
        return float(self.times[-1] - self.times[0]) * self.tick

    @cached_property
    def unevenness(self) -> str:
        """How uneven the times are, in words; "" for steps within a tenth of their mean, or two ticks."""
        steps = np.diff(self.times) * self.tick
        if len(steps) == 0 or np.ptp(steps) <= max(0.1 * steps.mean(), 2.01 * self.tick):
            return ""
        return f"frame times are uneven: {1000 * steps.min():.0f} to {1000 * steps.max():.0f} ms apart"

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
            first, rate = self.times[0] * self.tick, (len(self.times) - 1) / max(self.duration, self.tick)
            even = f"the video shows {rate:.4g} frames per second from {first:.3f} to {first + self.duration:.3f} s"
            frame = f"frame {indices[np.argmax(off)]} of {fps:.4g} per second from {start:.3f} s"
            fault = f"{frame} has no picture within half a frame of its time; video and labels don't fit"
            raise VideoError(f"{path}: {self.unevenness or even}; {fault}")
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
        file, stored = opened(path), size[::-1] if self.turns % 2 else size
        coding = self.decoder, self.extradata, self.settings
        for (key, head), pending in self._runs(sorted(rows)).items():
            starts, tried = [(key, head)], False
            while starts:
                (key, head), decoder, held = starts.pop(), decoder_of(*coding), 0
                *_, last = pending.values()
                try:
                    for packet in self._packets(file, key, min(pending), last + 1 - head):
                        pictures = decoder.context.decode(packet)
                        held += 1 - len(pictures)  # pictures that the decoder holds back
                        for picture in pictures:
                            number = pending.pop(picture.pts, None)
                            if number is not None:
                                pixels = decoder.rgb(picture, stored)
                                frames[rows[number]] = np.rot90(pixels, self.turns) if self.turns else pixels
                        if not pending:
                            break
                    if held:  # nothing of this run may come out in the next, of another file perhaps
                        decoder.context.flush_buffers()
                except DECODE_ERRORS as error:
                    DECODERS.forget(coding)  # whatever state damage left it in
                    starts, tried = self._group_before(key) if not tried else [], True
                    if not (starts and pending):
                        frame = min(pending.values(), default=last) - first
                        raise VideoError(f"{path}: frame {frame} of its episode can't be decoded ({error})") from error
            if pending:
                raise VideoError(f"{path}: frame {min(pending.values()) - first} of its episode is missing")
        return frames

    def _packets(self, file: int, key: int, earliest: int, least: int) -> Iterator[Any]:
        """Packets from number `key` on in the order of decoding; behind the last None, which drains a decoder.

        earliest: time of the first frame wanted. least: packets that are needed at least; they are read at once.
        """
        start, count, key_time = key, len(self.sizes), int(self.packet_times[key])
        earliest = min(earliest, key_time)
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
                    packet.is_keyframe = time == key_time  # PNG's decoder adds other pictures to the one before
                    yield packet
            start = end
        yield None

    def _group_before(self, key: int) -> list[tuple[int, int]]:
        """Where to start instead of packet `key`: an open group of H.264 may name pictures of the group before."""
        earlier = [] if self.checksums is not None else self.keys[self.keys < key][-1:].tolist()
        return [(each, int(np.searchsorted(self.times, self.packet_times[each]))) for each in earlier]

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
        context, packets = stream.codec_context, stream.container.demux(stream)
        rows = [(e.pos, e.size, e.timestamp, e.is_keyframe, e.is_discard) for e in whole_index(stream)]
        if context.reorder_depth or not rows:  # else the index names all packets in the order shown
            packets = [each for each in packets if each.size]
            places = [each.pos for each in packets] if _is_mp4(stream) else _places_of(path, packets)
            ticks = [each.dts if each.pts is None else each.pts for each in packets]
            if context.reorder_depth and stream.container.format.name == "avi":
                raise VideoError(f"{path}: AVI keeps no times of B-frames; transcode it")
            flags = ((each.size, each.is_keyframe, each.is_discard) for each in packets)
            rows = [(at, size, time, *flags) for at, time, (size, *flags) in zip(places, ticks, flags, strict=True)]
        offsets, sizes, packet_times, is_key, is_cut = np.array(rows, dtype=np.int64).reshape(-1, 5).T.copy()
        keys = np.flatnonzero(is_key)
        if len(keys) == 0:
            raise VideoError(f"{path}: can't be opened as a video: {len(rows)} frames without a key frame; remux it")
        whole = (is_cut == 0) & (packet_times >= packet_times[keys[0]])  # frames that are cut remain as references
        whole[: keys[0]] = False  # like frames shown before the first key frame, these lack a reference
        times = np.sort(packet_times[whole])
        twice = np.flatnonzero(np.diff(times) <= 0)
        if len(times) == 0:
            raise VideoError(f"{path}: can't be opened as a video: its edit list cuts every frame; transcode it")
        if len(twice):
            numbers = f"frames {twice[0]} and {twice[0] + 1}"
            raise VideoError(f"{path}: {numbers} have the same time; remux it with distinct times")
        name = _DECODERS.get(context.codec.name, context.codec.name)
        settings = tuple((field, getattr(context, field)) for field in _SETTINGS if getattr(context, field) is not None)
        extradata, turns = context.extradata or b"", quarter_turns(path, stream, packets)
        coding = (float(stream.time_base), name, extradata, None, settings, turns)
        return FrameTable(offsets, sizes, packet_times, times, keys, packet_times[keys], *coding)


def _places_of(path: Path, packets: list[Any]) -> list[int]:
    """Offsets of packets in a file whose container gives only the places of their heads, as Matroska and AVI do."""
    file, places = opened(path), []
    for packet in packets:
        start = -1 if packet.pos is None else packet.pos
        ahead = os.pread(file, packet.size + MAX_HEAD, start).find(bytes(packet)) if start >= 0 else -1
        if ahead < 0:  # MPEG-TS, and Matroska with compressed headers
            raise VideoError(f"{path}: no frame lies in one piece; remux it: `ffmpeg -i IN -c copy OUT.mp4`")
        places.append(start + ahead)
    return places


def _is_mp4(stream: Any) -> bool:
    return "mp4" in stream.container.format.name


def whole_index(stream: Any) -> list[Any]:
    """Entries of an open stream's index in the order of decoding; [] where the file doesn't name every frame in one."""
    entries = list(stream.index_entries)
    return entries if _is_mp4(stream) and len(entries) == stream.frames else []


_turns: PerThread[int] = PerThread(MAX_TABLES, lambda turns: None)


def quarter_turns(path: Path, stream: Any, packets: Iterable[Any]) -> int:
    """Quarter turns of a file by the first picture that decodes, kept; see `turns_of`. Uses up the open stream."""

    def read() -> int:
        context = stream.codec_context
        if _is_mp4(stream) and _has_no_matrix(path):
            return 0
        for packet in (each for each in packets if each.is_keyframe and each.size):
            try:
                copy = av.Packet(bytes(packet))  # without the mark of a frame that is cut
                pictures = context.decode(copy) or context.decode(None)
                context.flush_buffers()
            except DECODE_ERRORS:
                continue  # whoever reads that frame will be told
            if pictures:
                return turns_of(path, pictures[0])
        return 0

    return _turns.get(identity(path), read)


def _has_no_matrix(path: Path) -> bool:
    """Whether the headers of an mp4 file hold the identity alone for a display matrix; spares decoding a picture."""
    with open(path, "rb") as file:
        size = 8
        while size >= 8 and len(head := file.read(16)) == 16:
            size = int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4])
            if head[4:8] == b"moov":
                found = _MATRICES.findall(head + file.read(size))
                return bool(found) and all(movie + track == _IDENTITY for movie, track in found)
            file.seek(size - 16, 1)
    return False


def turns_of(path: Path, picture: Any) -> int:
    """Quarter turns, counter-clockwise as `np.rot90` turns, that the display matrix of a picture asks for.

    Raises VideoError for a matrix that mirrors, or turns by another angle.
    """
    matrices = [bytes(each) for each in picture.side_data if each.type.name == "DISPLAYMATRIX"]
    if not matrices:
        return 0
    across, down, _, across_2, down_2 = (round(each / 65536) for each in np.frombuffer(matrices[0], np.int32)[:5])
    matrix = (across, down, across_2, down_2)
    if matrix not in _TURNS:
        raise VideoError(f"{path}: its display matrix {matrix} mirrors or shears the picture; transcode it without one")
    return _TURNS[matrix]


@contextmanager
def open_stream(path: Path) -> Iterator[Any]:
    """The video stream of a file, decoding in one thread. What goes wrong becomes a VideoError that names the file."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is None or stream.codec_context is None:
                raise VideoError(f"{path}: holds no video stream of a codec that can be decoded")
            stream.codec_context.thread_count = 1
            if stream.codec_context.color_trc in _HDR:
                transfer = _HDR[stream.codec_context.color_trc]
                untoned = f"{transfer} video is decoded without tone mapping; convert it to BT.709 for its colours"
                warn_once(str(path.parent), transfer, untoned)
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
        for frame in _whole_pictures(path, stream):
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


def _whole_pictures(path: Path, stream: Any) -> Iterator[av.VideoFrame]:
    """Pictures of an open stream without the lead-in that lacks a reference, which `_read_table` leaves out, too."""
    first = None
    for packet in stream.container.demux(stream):
        if packet.size and first is None and packet.is_keyframe:
            first = packet.dts if packet.pts is None else packet.pts
        if first is not None and (packet.pts is None or packet.pts >= first):
            yield from packet.decode()
    if first is None:
        raise VideoError(f"{path}: holds no key frame; transcode it")
