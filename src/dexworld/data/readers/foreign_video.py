"""Frames of videos that others made: long groups of pictures, B-frames, open groups, uneven frame times.

Frame i is the i-th picture shown, whatever its time stamp and wherever it lies in the file. `frame_table` reads the
order from the packets, so no index is guessed from a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from dexworld.data.video import MAX_SIDE, VideoError
from dexworld.data.video_frames import FrameTable, frame_table
from dexworld.track import frame_numbers

_UNREADABLE = (av.FFmpegError, OSError, ValueError, MemoryError)


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
        count = count or len(frame_table(self.path).times)  # a fragmented file has no table of frames in its header
        return count, height, width, float(rate or 0.0)

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

    @property
    def timestamps(self) -> np.ndarray:
        """(T,) seconds at which each frame is shown, the first at 0; strictly increasing, not always even."""
        table = self._table()
        times = table.times[self.first : self.first + len(self)]
        return (times - times[0]) * float(table.time_base)

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be decoded.
        """
        wanted = self.first + frame_numbers(indices, len(self), str(self.path))
        if len(wanted) == 0:
            return np.empty((0, *self.size, 3), dtype=np.uint8)
        table = self._table()
        try:
            frames = np.empty((len(wanted), *self.size, 3), dtype=np.uint8)
        except MemoryError as error:
            raise VideoError(f"{self.path}: frames of {self.size} pixels don't fit into memory") from error
        table.fill(frames, self.path, {int(number): np.flatnonzero(wanted == number) for number in np.unique(wanted)})
        return frames

    def _table(self) -> FrameTable:
        table, length = frame_table(self.path), self._header[0]
        if len(table.times) != length:
            raise VideoError(f"{self.path}: {len(table.times)} of {length} frames are there; it is truncated")
        return table

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
        length, own = self._header[0], self.size
        height, width = size or own
        averaging = Interpolation.AREA if (height, width) != own else None
        converter, index, last_time = VideoReformatter(), 0, None
        try:
            with _opened(self.path) as container:
                for frame in container.decode(container.streams.video[0]):
                    here = f"{self.path}: frame {index}"
                    if frame.pts is None or (last_time is not None and frame.pts <= last_time):
                        raise VideoError(f"{here} has time {frame.pts} after {last_time}")
                    if index >= length:
                        raise VideoError(f"{self.path}: more frames are decoded than the {length} of the header")
                    if frame.is_corrupt:
                        raise VideoError(f"{here} is damaged")
                    if (frame.height, frame.width) != own:
                        raise VideoError(f"{here} has {frame.height} x {frame.width} pixels, the header says {own}")
                    yield converter.reformat(frame, width, height, pixel_format, interpolation=averaging, threads=1)
                    index, last_time = index + 1, frame.pts
        except VideoError:
            raise
        except _UNREADABLE as error:
            raise VideoError(f"{self.path}: frame {index} can't be decoded as {pixel_format} ({error})") from error
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
