"""Frames of a video in any order: of a whole file, of one episode in a file of many, or of a stored episode."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from dexworld.data.frame_table import Convert, FrameTable, decoded, frame_table, open_stream
from dexworld.data.video import MAX_SIDE, VideoError
from dexworld.track import frame_numbers


@dataclass(frozen=True)
class VideoFrames:
    """Frames of any video file that FFmpeg decodes, exact at every index. Holds no open file, so it can be pickled.

    first, count: a part of the video; by default the whole. Length, size and rate come from the container's header,
    read when first needed. uneven: frame i is the i-th picture shown, whatever its time. Otherwise it is the one
    nearest to i / fps, and one further than half a frame away is a VideoError. Every VideoError names the file and,
    where it is known, the frame in it.
    """

    path: Path
    first: int = 0
    count: int | None = None
    uneven: bool = False

    @cached_property
    def _header(self) -> tuple[int, tuple[int, int], float]:
        """Frames, height and width, frames per second."""
        with open_stream(self.path) as stream:
            (height, width), rate = (stream.codec_context.height, stream.codec_context.width), stream.average_rate
            entries = stream.index_entries
            count = sum(not entry.is_discard for entry in entries) if len(entries) == stream.frames else 0
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
            raise VideoError(f"{self.path}: frames of {height} x {width} pixels; the header is damaged")
        if not (rate or self.uneven):
            raise VideoError(f"{self.path}: the container names no frame rate; transcode it first")
        count = count or len(frame_table(self.path).times)  # a fragmented file has no table of frames in its header
        return count, (height, width), float(rate or 0.0)

    def __len__(self) -> int:
        return self._header[0] if self.count is None else self.count

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._header[1]

    @property
    def fps(self) -> float:
        """Mean frames per second as the container gives it; 0 when it gives none."""
        return self._header[2]

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be decoded.
        """
        wanted = self.first + frame_numbers(indices, len(self), str(self.path))
        if len(wanted) == 0:
            return np.empty((0, *self.size, 3), dtype=np.uint8)
        table = self._table()
        if not self.uneven:
            unique, places = np.unique(wanted, return_inverse=True)
            wanted = table.nearest(unique, table.times[0] * table.tick, self.fps, self.path)[places]
        try:
            return table.read(self.path, wanted, self.size)
        except MemoryError as error:
            raise VideoError(f"{self.path}: frames of {self.size} pixels don't fit into memory") from error

    def _table(self) -> FrameTable:
        table, length = frame_table(self.path), self._header[0]
        if len(table.times) != length:
            raise VideoError(f"{self.path}: {len(table.times)} of {length} frames are there; it is truncated")
        return table

    def pictures(self, size: tuple[int, int] | None = None, pixel_format: str = "rgb24") -> Iterator[av.VideoFrame]:
        """Every picture shown, once and in order, as a PyAV frame; with `uneven` these are the frames.

        size: (h, w) that they are scaled to by area averaging. Raises VideoError naming the frame that can't be decoded
        or is missing: whoever reaches the end has seen all T.
        """
        height, width = size or self.size
        averaging = Interpolation.AREA if (height, width) != self.size else None
        options: dict[str, Any] = {"interpolation": averaging, "threads": 1}
        convert = partial(VideoReformatter().reformat, width=width, height=height, format=pixel_format, **options)
        return islice(self._pictures(convert), self.first, None if self.count is None else self.first + self.count)

    def _pictures(self, convert: Convert) -> Iterator[av.VideoFrame]:
        """Of the whole video."""
        length, seen = self._header[0], 0
        with open_stream(self.path) as stream:
            for seen, picture in enumerate(decoded(self.path, stream, convert=convert), 1):
                if seen > length:
                    raise VideoError(f"{self.path}: more frames are decoded than the {length} of the header")
                yield picture
        if seen != length:
            raise VideoError(f"{self.path}: frame {seen} is missing: the video ends before it, of {length} frames")


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
        """See `VideoFrames.read`."""
        wanted = frame_numbers(indices, self.count, str(self.path))
        unique, places = np.unique(wanted, return_inverse=True)
        table, start = frame_table(self.path), self.first_frame / self.fps if self.start is None else self.start
        shown = table.nearest(unique, start, self.fps, self.path)
        return table.read(self.path, shown[places], self.size, self.first_frame)


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

    @cached_property
    def _table(self) -> FrameTable:
        (offsets, sizes, checksums), numbers = self.packets.T, np.arange(len(self))
        keys = numbers[:: self.group]
        coding = (1.0, self.decoder, self.extradata, checksums)
        return FrameTable(offsets, sizes, numbers, numbers, keys, keys, *coding)

    def read(self, indices: list[int]) -> np.ndarray:
        """See `VideoFrames.read`; VideoError for a frame whose bytes are damaged."""
        wanted = frame_numbers(indices, len(self), str(self.path))
        return self._table.read(self.path, wanted, self.size)
