"""The explicit rules that turn a video of any size, rate and length into a clip of one shape."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
import torch

from dexworld.data.video import VideoError

ResizeRule = Literal["auto", "crop", "pad", "stretch"]
ShortRule = Literal["clone", "refuse"]
CROP_LIMIT = 0.2  # share of a source image that `auto` may cut off


@dataclass(frozen=True)
class Fit:
    """How a source image becomes a clip's image: a box of it is scaled and laid into the target, the rest is black.

    rule: what was decided (never `auto`). source, target: (height, width). box: (top, left, height, width) of the
    source that is kept. placed: (top, left, height, width) of the target that it fills.
    """

    rule: ResizeRule
    source: tuple[int, int]
    target: tuple[int, int]
    box: tuple[int, int, int, int]
    placed: tuple[int, int, int, int]

    @property
    def cut(self) -> float:
        """Share of the source's area that is cut off."""
        return 1.0 - self.box[2] * self.box[3] / (self.source[0] * self.source[1])

    @property
    def empty(self) -> float:
        """Share of the target's area that is black bars."""
        return 1.0 - self.placed[2] * self.placed[3] / (self.target[0] * self.target[1])

    @property
    def target_from_source(self) -> np.ndarray:
        """(3, 3) matrix from source to target pixels; multiply intrinsics by it from the left."""
        scale_y, scale_x = self.placed[2] / self.box[2], self.placed[3] / self.box[3]
        return np.array(
            [
                [scale_x, 0.0, self.placed[1] - scale_x * self.box[1]],
                [0.0, scale_y, self.placed[0] - scale_y * self.box[0]],
                [0.0, 0.0, 1.0],
            ]
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """A source image (h, w, 3) uint8 as a target image (H, W, 3) uint8. Raises ValueError for another size."""
        if image.shape[:2] != self.source:
            raise ValueError(f"the image is {image.shape[0]} x {image.shape[1]}, the rule was made for {self.source}")
        top, left, height, width = self.box
        part = torch.from_numpy(np.ascontiguousarray(image[top : top + height, left : left + width]))
        if self.placed[2:] != (height, width):
            part = torch.nn.functional.interpolate(
                part.permute(2, 0, 1)[None].float(), size=self.placed[2:], mode="bilinear", antialias=True
            )
            part = part[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)
        result = np.zeros((*self.target, 3), dtype=np.uint8)
        top, left, height, width = self.placed
        result[top : top + height, left : left + width] = part.numpy()
        return result

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for the record of a prepared clip."""
        return {
            "rule": self.rule,
            "source": list(self.source),
            "box": list(self.box),
            "placed": list(self.placed),
            "cut": round(self.cut, 4),
            "empty": round(self.empty, 4),
        }


def fit(source: tuple[int, int], target: tuple[int, int], rule: ResizeRule) -> Fit:
    """Decide how images of (height, width) `source` become `target`.

    crop: the largest centred box of the target's aspect ratio. pad: the whole image, centred between black bars.
    stretch: the whole image, its aspect ratio changed. auto: crop when that cuts off at most a fifth of the image, else
    pad. (The release compares the areas that cropping and padding lose; as shares of their image these are equal, so
    a limit decides here.) Raises ValueError for another rule or an empty size.
    """
    if rule not in get_args(ResizeRule):
        raise ValueError(f"the resize rule is {rule!r}; choose from {', '.join(get_args(ResizeRule))}")
    if min(*source, *target) < 1:
        raise ValueError(f"sizes must be positive, not {source} and {target}")
    (height, width), (target_height, target_width) = source, target
    whole, everything = (0, 0, height, width), (0, 0, target_height, target_width)
    box_height = min(height, max(1, round(width * target_height / target_width)))
    box_width = min(width, max(1, round(height * target_width / target_height)))
    box = ((height - box_height) // 2, (width - box_width) // 2, box_height, box_width)
    if rule == "stretch":
        return Fit(rule, source, target, whole, everything)
    cropped = Fit("crop", source, target, box, everything)
    if rule == "crop" or (rule == "auto" and cropped.cut <= CROP_LIMIT):
        return cropped
    placed_height = min(target_height, max(1, round(target_width * height / width)))
    placed_width = min(target_width, max(1, round(target_height * width / height)))
    top, left = (target_height - placed_height) // 2, (target_width - placed_width) // 2
    return Fit("pad", source, target, whole, (top, left, placed_height, placed_width))


# FROM source_video: Reads any video at chosen times: variable frame rates, rotated phone videos and long films included.
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
