"""Frames of videos that others made: long groups of pictures, B-frames, open groups, uneven frame times.

Frame i is the i-th picture shown, whatever its time stamp and wherever it lies in the file. The order is read from the
packets once, without decoding, so that no index is ever guessed from a time: decoders that do so return frames that are
up to four frames late on open-group HEVC.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from dexworld.data.video import MAX_SIDE, VideoError
from dexworld.track import frame_numbers

SEEK_WORTH = 4  # frames that a seek costs: what the decoder holds back is decoded again
_UNREADABLE = (av.FFmpegError, OSError, ValueError, MemoryError)


@dataclass(frozen=True)
class PacketIndex:
    """Where the frames of a video lie, in the order they are shown.

    times: (T,) presentation times in ticks, strictly increasing. keys: (K,) indices of the frames that decoding can
    start at. key_dts: (K,) their decoding times in ticks.
    """

    times: np.ndarray
    keys: np.ndarray
    key_dts: np.ndarray


@dataclass(frozen=True)
class ForeignFrames:
    """Frames of any video file that FFmpeg decodes, exact at every index. Holds no open file, so it can be pickled.

    first, count: a part of the video; by default the whole. Length and size come from the container's header, read when
    first needed. Every error is a VideoError that names the file and, where it is known, the frame in it.
    """

    path: Path
    first: int = 0
    count: int | None = None

    @cached_property
    def _header(self) -> tuple[int, int, int, float]:
        """Frames, height, width, frames per second."""
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            height, width, rate = stream.codec_context.height, stream.codec_context.width, stream.average_rate
            count = sum(not entry.is_discard for entry in stream.index_entries)
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
            raise VideoError(f"{self.path}: frames of {height} x {width} pixels; the header is damaged")
        count = count or len(self._index.times)  # a fragmented file has no table of frames in its header
        return count, height, width, float(rate or 0.0)

    @cached_property
    def _index(self) -> PacketIndex:
        with _opened(self.path) as container:
            return _packet_index(container, self.path)

    def __len__(self) -> int:
        return self._header[0] if self.count is None else self.count

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._header[1], self._header[2]

    @property
    def fps(self) -> float:
        """Mean frames per second as the container gives it; 0 when it gives none."""
        return self._header[3]

    @cached_property
    def timestamps(self) -> np.ndarray:
        """(T,) seconds at which each frame is shown, the first at 0; strictly increasing, not always even."""
        with _opened(self.path) as container:
            base = float(container.streams.video[0].time_base)
        times = self._index.times[self.first : self.first + len(self)]
        return (times - times[0]) * base

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Each group of pictures is entered at most once, at its key frame, and left after the last frame wanted from it.
        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be decoded.
        """
        length, height, width, _ = self._header
        wanted = frame_numbers(indices, len(self), str(self.path))
        unique, places = np.unique(wanted + self.first, return_inverse=True)
        if len(unique) == 0:
            return np.empty((0, height, width, 3), dtype=np.uint8)
        to_rgb, decoded = VideoReformatter(), None
        with _opened(self.path) as container:
            # opening an H.264 file decodes its first frames, so the index is not left to its property here
            index = vars(self).get("_index") or _packet_index(container, self.path)
            vars(self)["_index"] = index
            if len(index.times) != length:
                raise VideoError(f"{self.path}: {len(index.times)} of {length} frames are there; it is truncated")
            runs = (_frames_from(container, index, *run, self.path) for run in _runs(index, unique.tolist()))
            for place, frame in enumerate(chain.from_iterable(runs)):
                picture = _picture(to_rgb, frame, (height, width), None, "rgb24", self.path, int(unique[place]))
                if decoded is None:  # only now is it known that the header's size is true
                    decoded = np.empty((len(unique), height, width, 3), dtype=np.uint8)
                decoded[place] = picture.to_ndarray()
        assert decoded is not None
        return decoded[places]

    def sequential(self, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
        """Every frame once, in order, as (h, w, 3) uint8 RGB; `size` (h, w) scales by area averaging while decoding.

        Raises VideoError naming the frame that can't be decoded or is missing: whoever reaches the end has seen all T.
        """
        return (picture.to_ndarray() for picture in self.pictures(size, "rgb24"))

    def pictures(self, size: tuple[int, int] | None = None, pixel_format: str = "yuv420p") -> Iterator[av.VideoFrame]:
        """Like `sequential`, but PyAV frames of a pixel format, to encode again without a detour over RGB."""
        end = None if self.count is None else self.first + self.count
        return islice(self._pictures(size, pixel_format), self.first, end)

    def _pictures(self, size: tuple[int, int] | None, pixel_format: str) -> Iterator[av.VideoFrame]:
        """Of the whole video."""
        length, own_size = self._header[0], self.size
        converter, index, last_time = VideoReformatter(), 0, None
        with _opened(self.path) as container:
            frames = container.decode(container.streams.video[0])
            while True:
                try:
                    frame = next(frames, None)
                except _UNREADABLE as error:
                    raise VideoError(f"{self.path}: frame {index} can't be decoded ({error})") from error
                if frame is None:
                    break
                if frame.pts is None or (last_time is not None and frame.pts <= last_time):
                    raise VideoError(f"{self.path}: frame {index} has time {frame.pts} after {last_time}")
                if index >= length:
                    raise VideoError(f"{self.path}: more frames are decoded than the {length} of the header")
                yield _picture(converter, frame, own_size, size, pixel_format, self.path, index)
                index, last_time = index + 1, frame.pts
        if index != length:
            raise VideoError(f"{self.path}: frame {index} is missing: the video ends before it, of {length} frames")


def _opened(path: Path) -> Any:
    """An open container with a video stream, decoding in one thread and stopping at damage instead of painting over."""
    try:
        container = av.open(str(path))
    except _UNREADABLE as error:
        raise VideoError(f"{path}: can't be opened as a video ({error})") from error
    context = container.streams.video[0].codec_context if container.streams.video else None
    if context is None:
        container.close()
        raise VideoError(f"{path}: holds no video stream of a codec that can be decoded")
    context.thread_count = 1
    context.options = {"err_detect": "explode"}
    return container


def _packet_index(container: Any, path: Path) -> PacketIndex:
    """Read every packet's times, without decoding."""
    shown: list[int] = []
    keys: list[tuple[int, int]] = []  # time, decoding time
    try:
        for packet in container.demux(container.streams.video[0]):
            if packet.size == 0 or packet.is_discard:  # the end of the stream, or cut away by an edit list
                continue
            if packet.pts is None or packet.dts is None:
                raise VideoError(f"{path}: packet {len(shown)} has no presentation time; remux it into an mp4 first")
            shown.append(packet.pts)
            if packet.is_keyframe:
                keys.append((packet.pts, packet.dts))
    except VideoError:
        raise
    except _UNREADABLE as error:
        raise VideoError(f"{path}: packet {len(shown)} can't be read ({error})") from error
    if not shown:
        raise VideoError(f"{path}: the video holds no frames")
    shown.sort()
    times = np.asarray(shown, dtype=np.int64)
    if len(times) > 1 and not (np.diff(times) > 0).all():
        twice = int(np.argmin(np.diff(times) > 0)) + 1
        raise VideoError(f"{path}: frames {twice - 1} and {twice} have the same time; remux it with distinct times")
    key_times, key_dts = np.asarray(sorted(keys), dtype=np.int64).reshape(-1, 2).T
    return PacketIndex(times, np.searchsorted(times, key_times).astype(np.int64), key_dts)


def _runs(index: PacketIndex, wanted: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Group the sorted, distinct indices `wanted` into (number of the key frame to start at, indices): one seek each.

    Decoding goes on over a key frame when it is so near that a seek would cost more. Number -1 is the file's start.
    """
    key, targets = -1, wanted[:1]
    for place, target in enumerate(wanted):
        own = int(np.searchsorted(index.keys, target, side="right")) - 1
        if place == 0:
            key = own
        elif own >= 0 and index.keys[own] > targets[-1] + SEEK_WORTH:
            yield key, targets
            key, targets = own, [target]
        else:
            targets.append(target)
    yield key, targets


def _frames_from(
    container: Any, index: PacketIndex, key: int, targets: list[int], path: Path
) -> Iterator[av.VideoFrame]:
    """Decode on from key frame number `key` and yield the frames of the sorted, distinct indices `targets`."""
    stream, pending, first, last = container.streams.video[0], list(targets), None, -1
    try:
        start = int(index.key_dts[key]) if key >= 0 else int(index.times[0])
        container.seek(start, stream=stream, backward=True)
        for packet in container.demux(stream):
            if first is None:
                first = packet.pts
                if key > 0 and first is not None and first > index.times[targets[0]]:  # the seek landed too late
                    yield from _frames_from(container, index, key - 1, targets, path)
                    return
            # Shown before the key frame but stored behind it: these lack a reference, and nothing later needs them.
            if key >= 0 and packet.pts is not None and packet.pts < first:
                continue
            for frame in packet.decode():
                found = int(np.searchsorted(index.times, frame.pts)) if frame.pts is not None else len(index.times)
                if found == len(index.times) or index.times[found] != frame.pts:
                    raise VideoError(f"{path}: near frame {pending[0]} comes a frame of unknown time {frame.pts}")
                if found <= last:
                    raise VideoError(f"{path}: frame {found} is decoded after frame {last}; its times are damaged")
                last = found
                if found > pending[0]:
                    raise VideoError(f"{path}: frame {pending[0]} is missing: frame {found} comes in its place")
                if found == pending[0]:
                    yield frame
                    pending.pop(0)
                if not pending:
                    return
    except VideoError:
        raise
    except _UNREADABLE as error:
        raise VideoError(f"{path}: frame {pending[0]} can't be decoded ({error})") from error
    raise VideoError(f"{path}: frame {pending[0]} is missing: the video ends before it")


def _picture(
    converter: VideoReformatter,
    frame: av.VideoFrame,
    expected: tuple[int, int],
    size: tuple[int, int] | None,
    pixel_format: str,
    path: Path,
    index: int,
) -> av.VideoFrame:
    """The frame in another format and size, once it is known to be whole and of the expected size."""
    if frame.is_corrupt:
        raise VideoError(f"{path}: frame {index} is damaged")
    if (frame.height, frame.width) != expected:
        found, said = f"{frame.height} x {frame.width} pixels", f"{expected[0]} x {expected[1]}"
        raise VideoError(f"{path}: frame {index} has {found}, the header says {said}")
    height, width = size or expected
    averaging = Interpolation.AREA if (height, width) != expected else None
    try:
        return converter.reformat(frame, width, height, pixel_format, interpolation=averaging, threads=1)
    except _UNREADABLE as error:
        raise VideoError(f"{path}: frame {index} can't be converted to {pixel_format} ({error})") from error
