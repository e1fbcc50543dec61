"""Reads any video at chosen times: variable frame rates, rotated phone videos and long films included."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from dexworld.data.video import VideoError
from dexworld.video.clip_rules import Fit, ResizeRule, ShortRule, fit

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


@dataclass(frozen=True)
class SourceClip:
    """A stretch of a video as frames of one shape.

    frames: (F, H, W, 3) uint8. picked: (F,) index of the source frame that each was taken from. cloned: frames at the
    end that repeat the last source frame. fit: how images were resized.
    """

    frames: np.ndarray
    picked: np.ndarray
    cloned: int
    fit: Fit

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for the record of a prepared clip."""
        return {
            "resize": self.fit.to_json(),
            "first_source_frame": int(self.picked[0]),
            "last_source_frame": int(self.picked[-1]),
            "cloned_frames": self.cloned,
        }


def read_clip(
    path: Path,
    frames: int,
    fps: float,
    size: tuple[int, int],
    resize: ResizeRule = "auto",
    short: ShortRule = "clone",
    start: float = 0.0,
) -> SourceClip:
    """Take `frames` frames at `fps` from `start` seconds on; each is the source frame nearest in time, never a blend.

    size: (height, width) of the clip. short: what to do when the video ends before the clip does: repeat its last
    frame, or refuse. Raises VideoError when the file can't be decoded, starts after `start`, has pixels that aren't
    square, or is too short and `short` is "refuse".
    """
    times = start + np.arange(frames) / fps
    images: list[np.ndarray] = []
    picked: list[int] = []
    rule: Fit | None = None

    def take(index: int, frame: av.VideoFrame) -> None:
        assert rule is not None
        images.append(images[-1] if picked and picked[-1] == index else rule.apply(_upright(frame)))
        picked.append(index)

    previous: tuple[float, int, av.VideoFrame] | None = None
    for index, (time, frame) in enumerate(_frames(path)):
        rule = rule or fit(_upright_size(frame), size, resize)
        while len(images) < frames and times[len(images)] <= time:
            earlier = previous is not None and times[len(images)] - previous[0] <= time - times[len(images)]
            if earlier and previous is not None:
                take(*previous[1:])
            else:
                take(index, frame)
        if len(images) == frames:
            return SourceClip(np.stack(images), np.array(picked), 0, rule)
        previous = (time, index, frame)
    if rule is None or previous is None:
        raise VideoError(f"{path}: holds no frames")
    end = previous[0] + 0.5 / fps  # a frame is shown for a while
    cloned = int((times[len(images) :] > end).sum())
    if cloned == frames:
        raise VideoError(f"{path}: ends at {previous[0]:.2f} s, before the clip's start at {start:.2f} s")
    if cloned and short == "refuse":
        raise VideoError(
            f"{path}: ends at {previous[0]:.2f} s, {cloned} frames before the clip's end at {times[-1]:.2f} s; "
            "take fewer frames, start earlier, or let the last frame be repeated (short=clone)"
        )
    while len(images) < frames:
        take(*previous[1:])
    return SourceClip(np.stack(images), np.array(picked), cloned, rule)


def count_frames(path: Path) -> int:
    """Number of frames that decode. Raises VideoError when the file can't be decoded."""
    return sum(1 for _ in _frames(path))


def _frames(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Seconds since the first frame, and the frame, of every frame in order."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            aspect = stream.sample_aspect_ratio
            if aspect and aspect != 1:
                raise VideoError(f"{path}: its pixels aren't square ({aspect}); transcode it to square pixels first")
            origin = None
            for frame in container.decode(stream):
                if frame.time is None:
                    raise VideoError(f"{path}: a frame has no time stamp; transcode it first")
                origin = frame.time if origin is None else origin
                yield frame.time - origin, frame
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: can't be decoded ({error})") from error


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 turns


def _upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    return (frame.width, frame.height) if _quarter_turns(frame) % 2 else (frame.height, frame.width)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _quarter_turns(frame)))
