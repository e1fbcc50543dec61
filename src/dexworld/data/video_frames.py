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

from dexworld.data.frame_table import Convert, FrameTable, decoded, frame_table, open_stream, quarter_turns, whole_index
from dexworld.data.video import MAX_SIDE, VideoError
from dexworld.track import frame_numbers


@dataclass(frozen=True)
class VideoFrames:
    """Frames of any video file that FFmpeg decodes, exact at every index. Holds no open file, so it can be pickled.

    first, count: a part of the video; by default the whole. Length, size and rate come from the container's header,
    read when first needed. Pictures are turned as the display matrix says. uneven: frame i is the i-th picture shown,
    whatever its time. Otherwise it is the one nearest to i / fps, and one further than half a frame away is a
    VideoError. Every VideoError names the file and, where it is known, the frame in it.
    """

    path: Path
    first: int = 0
    count: int | None = None
    uneven: bool = False

    @cached_property
    def _header(self) -> tuple[int, tuple[int, int], float, int]:
        """Frames, height and width as shown, frames per second, quarter turns."""
        with open_stream(self.path) as stream:
            (height, width), rate = (stream.codec_context.height, stream.codec_context.width), stream.average_rate
            if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
                raise VideoError(f"{self.path}: frames of {height} x {width} pixels; the header is damaged")
            times, tick = [each.timestamp for each in whole_index(stream) if not each.is_discard], stream.time_base
            turns = quarter_turns(self.path, stream, stream.container.demux(stream))
        count = len(times) or len(frame_table(self.path).times)  # fragmented files, Matroska and others: no whole index
        fps, steps = float(rate or 0.0), count - 1
        if count > 1 and not (times and abs(float((times[-1] - times[0]) * tick) * fps - steps) < 0.5):
            shown_for = frame_table(self.path).duration  # of B-frames the index has the times of decoding only
            if abs(shown_for * fps - steps) >= 0.5:  # no rate, or one that a frame shown for long spoils
                fps = steps / shown_for
        if not (fps or self.uneven):
            raise VideoError(f"{self.path}: the container names no frame rate; transcode it first")
        return count, (width, height) if turns % 2 else (height, width), fps, turns

    def __len__(self) -> int:
        return self._header[0] if self.count is None else self.count

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, as shown."""
        return self._header[1]

    @property
    def turns(self) -> int:
        """Quarter turns, counter-clockwise, from the stored pictures to the shown ones."""
        return self._header[3]

    @property
    def fps(self) -> float:
        """Frames per second as the container gives it, or of its times where that doesn't fit; 0 when neither is."""
        return self._header[2]

    @property
    def timestamps(self) -> np.ndarray:
        """(T,) seconds of the frames."""
        table = self._table()
        return (table.times * table.tick)[self.first : self.first + len(self)]

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

        size: (h, w) that they are scaled to by area averaging. pixel_format: pictures that are turned are rgb24 always.
        Raises VideoError naming the frame that can't be decoded or is missing: whoever reaches the end has seen all T.
        """
        height, width = size or self.size
        averaging, turns = Interpolation.AREA if (height, width) != self.size else None, self.turns
        options: dict[str, Any] = {"interpolation": averaging, "threads": 1}
        options |= {"format": "rgb24" if turns else pixel_format}
        options |= {"width": height, "height": width} if turns % 2 else {"width": width, "height": height}
        shown = self._pictures(partial(VideoReformatter().reformat, **options))
        if turns:
            arrays = (np.rot90(picture.to_ndarray(), turns).astype(np.uint8, "C") for picture in shown)
            shown = (av.VideoFrame.from_ndarray(array, format="rgb24") for array in arrays)
        return islice(shown, self.first, None if self.count is None else self.first + self.count)

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

    size: height and width as shown. fps: frames per second. start: seconds into the file of the first frame; None
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

    @property
    def turns(self) -> int:
        """See `VideoFrames.turns`."""
        return frame_table(self.path).turns

    def read(self, indices: list[int]) -> np.ndarray:
        """See `VideoFrames.read`."""
        wanted = frame_numbers(indices, self.count, str(self.path))
        unique, places = np.unique(wanted, return_inverse=True)
        table, start = frame_table(self.path), self.first_frame / self.fps if self.start is None else self.start
        shown = table.nearest(unique, start, self.fps, self.path)
        return table.read(self.path, shown[places], self.size, self.first_frame)


def check_unturned(frames: Any, labels: str) -> None:
    """Refuse frames of a video with a rotation flag: nothing tells whether `labels` are of the turned pictures."""
    if turns := getattr(frames, "turns", 0):
        degrees = f"a rotation flag turns its pictures by {90 * turns} degrees counter-clockwise"
        raise VideoError(
            f"{frames.path}: {degrees}, and nothing tells whether {labels} are those of the turned pictures; "
            "transcode it as they see it: `ffmpeg -i IN OUT` turns, `ffmpeg -noautorotate -i IN OUT` doesn't"
        )


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
