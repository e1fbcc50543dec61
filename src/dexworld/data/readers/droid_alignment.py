"""Which rows of a DROID trajectory belong to which frames of its video.

Row i is frame i in most episodes, but many videos of the release lack a frame (github.com/droid-dataset/droid, report
54). Where the recorder left the time of every frame beside the video (`SERIAL_timestamps.json`; missing for some,
report 51), these times decide which end it is missing from; else the first row is the first frame. Nothing is made up:
rows without a frame and frames without a row are left out, and the alignment counts them.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import h5py
import numpy as np

from dexworld.data.readers.droid_camera import DroidCamera
from dexworld.data.readers.foreign_video import ForeignFrames
from dexworld.data.readers.robot_arrays import numbers
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError
from dexworld.track import Frames, frame_numbers

MAX_ROWS = 100_000  # of a trajectory: almost two hours; more is a damaged header
AGREEING = 0.9  # share of equal times that settles a shift


@dataclass(frozen=True)
class Alignment:
    """Row `first_row + i` is seen in frame `first_frame + i`, for i < count.

    rows, frames: how many the trajectory and the video hold. by: `timestamps` when the times of capture say so, `index`
    when only the order does.
    """

    rows: int
    frames: int
    first_row: int
    first_frame: int
    count: int
    by: Literal["timestamps", "index"]

    @property
    def span(self) -> slice:
        """The rows that are used."""
        return slice(self.first_row, self.first_row + self.count)


@dataclass(frozen=True)
class CutFrames:
    """Frames `first` to `first + count` of a video: what it shares with its trajectory."""

    whole: ForeignFrames
    first: int
    count: int

    @property
    def path(self) -> Path:
        """The video file."""
        return self.whole.path

    def __len__(self) -> int:
        return self.count

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.whole.size

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB; errors as `ForeignFrames.read`, its frame numbers the file's."""
        wanted = frame_numbers(indices, self.count, str(self.path))
        return self.whole.read((wanted + self.first).tolist())

    def sequential(self, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
        """Every frame once, in order, as `ForeignFrames.sequential`."""
        return itertools.islice(self.whole.sequential(size), self.first, self.first + self.count)

    def pictures(self, size: tuple[int, int] | None = None, pixel_format: str = "yuv420p") -> Iterator[av.VideoFrame]:
        """Every frame once, in order, as `ForeignFrames.pictures`."""
        return itertools.islice(self.whole.pictures(size, pixel_format), self.first, self.first + self.count)


def aligned_frames(file: h5py.File, rows: int, camera: DroidCamera, tolerance: int) -> tuple[Alignment, Frames]:
    """Match the `rows` of an open trajectory.h5 to the camera's video, and the frames that have a row.

    Raises CorruptEpisodeError when the video can't be opened, shows two images side by side, or differs from the
    trajectory by more than `tolerance` frames.
    """
    try:
        frames = ForeignFrames(camera.video)
        count, (height, width) = len(frames), frames.size
    except VideoError as error:
        raise CorruptEpisodeError(str(error)) from error
    if width > 3 * height:
        raise CorruptEpisodeError(f"{camera.video}: {width} x {height} pixels are two stereo images side by side")
    if not 0 < rows <= MAX_ROWS or abs(rows - count) > tolerance:
        raise CorruptEpisodeError(
            f"{camera.video}: {count} frames, but {file.filename} has {rows} rows; they may differ by {tolerance}"
        )
    alignment = align(rows, count, tolerance, *_capture_times(file, camera, rows, count))
    if alignment.count == count:
        return alignment, frames
    return alignment, CutFrames(frames, alignment.first_frame, alignment.count)


def align(
    rows: int, frames: int, tolerance: int, received: np.ndarray | None = None, recorded: np.ndarray | None = None
) -> Alignment:
    """Match by times when at least nine in ten agree at one shift, else by order.

    received: (rows,) time at which the picture of each row was taken. recorded: (frames,) of each frame, same unit.
    """
    if received is not None and recorded is not None:
        for shift in sorted(range(-tolerance, tolerance + 1), key=abs):  # row i is seen in frame i + shift
            first_row, first_frame = max(0, -shift), max(0, shift)
            count = min(rows - first_row, frames - first_frame)
            if count < 1:
                continue
            same = received[first_row : first_row + count] == recorded[first_frame : first_frame + count]
            if same.mean() >= AGREEING:
                return Alignment(rows, frames, first_row, first_frame, count, "timestamps")
    return Alignment(rows, frames, 0, 0, min(rows, frames), "index")


def _capture_times(
    file: h5py.File, camera: DroidCamera, rows: int, frames: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """When each row's and each frame's picture was taken, in the recorder's own unit; None where no file says."""
    beside = camera.video.with_name(f"{camera.serial}_timestamps.json")
    key = f"observation/timestamp/cameras/{camera.serial}_frame_received"
    if not beside.is_file() or key not in file:
        return None, None
    try:
        recorded = np.asarray(json.loads(beside.read_text(encoding="utf-8")), dtype=np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise CorruptEpisodeError(f"{beside}: the times of the frames can't be read ({error})") from error
    if recorded.shape != (frames,):
        return None, None
    return numbers(file, key, (rows,), 1e18), recorded
