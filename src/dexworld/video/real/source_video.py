"""Cuts a clip of one shape out of any video: variable frame rates, rotated phone videos and long films included."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
import torch

from dexworld.data.video import VideoError
from dexworld.video.clips.clip import ClipShape

ResizeRule = Literal["auto", "crop", "pad", "stretch"]
ShortRule = Literal["clone", "refuse"]
HandFrames = Literal["source", "clip"]
CROP_LIMIT = 0.2  # share of a source image that `auto` may cut off
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
Size = tuple[int, int]  # height, width
Box = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class ClipRules:
    """How source videos become clips of one shape."""

    shape: ClipShape = field(default_factory=ClipShape)
    """Frames, size and rate of the clips."""
    resize: ResizeRule = "auto"
    """`crop` the middle, `pad` with black bars, `stretch`; `auto` crops when that cuts off at most a fifth."""
    short: ShortRule = "clone"
    """A video that is too short: repeat its last frame, or refuse it."""
    start: float = 0.0
    """Second of the source at which the clip begins."""
    hand_frames: HandFrames = "source"
    """What a row of the hand file is: a frame of the `source` video, or of the prepared `clip`."""
    hamer_camera: bool = False
    """Hand files without intrinsics come from HaMeR and use its full-frame camera."""

    def __post_init__(self) -> None:
        for name, choices in (("resize", ResizeRule), ("short", ShortRule), ("hand_frames", HandFrames)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(get_args(choices))}")
        if not (np.isfinite(self.start) and self.start >= 0):
            raise ValueError(f"start is {self.start}; it must be 0 s or later")


@dataclass(frozen=True)
class Fit:
    """How a source image becomes a clip's: its `box` is scaled into `placed` of the target, the rest is black."""

    rule: ResizeRule
    source: Size
    target: Size
    box: Box
    placed: Box

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
        y, x = self.placed[2] / self.box[2], self.placed[3] / self.box[3]
        shift_x, shift_y = self.placed[1] - x * self.box[1], self.placed[0] - y * self.box[0]
        return np.array([[x, 0.0, shift_x], [0.0, y, shift_y], [0.0, 0.0, 1.0]])

    def apply(self, image: np.ndarray) -> np.ndarray:
        """A source image (h, w, 3) uint8 as a target image (H, W, 3) uint8. Raises ValueError for another size."""
        if image.shape[:2] != self.source:
            raise ValueError(f"the image is {image.shape[0]} x {image.shape[1]}, the rule was made for {self.source}")
        top, left, height, width = self.box
        part = torch.from_numpy(np.ascontiguousarray(image[top : top + height, left : left + width]))
        if self.placed[2:] != (height, width):
            planes, size = part.permute(2, 0, 1)[None].float(), self.placed[2:]
            planes = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
            part = planes[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)
        result = np.zeros((*self.target, 3), dtype=np.uint8)
        top, left, height, width = self.placed
        result[top : top + height, left : left + width] = part.numpy()
        return result

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        boxes = {name: list(getattr(self, name)) for name in ("source", "box", "placed")}
        return {"rule": self.rule, **boxes, "cut": round(self.cut, 4), "empty": round(self.empty, 4)}


def fit(source: Size, target: Size, rule: ResizeRule) -> Fit:
    """Decide how images of size `source` become `target`; the result's rule is never `auto`.

    The release compares the areas that cropping and padding lose. As shares of their image these are equal, so
    `CROP_LIMIT` decides.
    """
    whole, everything = (0, 0, *source), (0, 0, *target)
    if rule == "stretch":
        return Fit(rule, source, target, whole, everything)
    cropped = Fit("crop", source, target, _centred(target, source), everything)
    if rule == "crop" or (rule == "auto" and cropped.cut <= CROP_LIMIT):
        return cropped
    return Fit("pad", source, target, whole, _centred(source, target))


def _centred(shape: Size, room: Size) -> Box:
    """The largest centred box of the aspect ratio of `shape` in an image of size `room`."""
    height = min(room[0], max(1, round(room[1] * shape[0] / shape[1])))
    width = min(room[1], max(1, round(room[0] * shape[1] / shape[0])))
    return (room[0] - height) // 2, (room[1] - width) // 2, height, width


@dataclass(frozen=True)
class SourceClip:
    """A stretch of a video: frames (F, H, W, 3) uint8, the source frame `picked` (F,) of each, and how it was resized.

    cloned: how many frames at the end repeat the last source frame.
    """

    frames: np.ndarray
    picked: np.ndarray
    cloned: int
    fit: Fit

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for the record of a prepared clip."""
        ends = {"first_source_frame": int(self.picked[0]), "last_source_frame": int(self.picked[-1])}
        return {"resize": self.fit.to_json(), **ends, "cloned_frames": self.cloned}


def read_clip(path: Path, rules: ClipRules) -> SourceClip:
    """Cut a clip from a video. Each frame is the source frame nearest in time, never a blend.

    Raises VideoError when the file can't be decoded, has pixels that aren't square, ends before the clip starts, or is
    too short and `rules.short` is "refuse".
    """
    frames, fps, start, size = rules.shape.frames, rules.shape.fps, rules.start, (rules.shape.height, rules.shape.width)
    times = start + np.arange(frames) / fps
    images: list[np.ndarray] = []
    picked: list[int] = []
    shown: tuple[float, int, av.VideoFrame] | None = None
    rule: Fit | None = None

    def take(index: int, frame: av.VideoFrame, rule: Fit) -> None:
        images.append(images[-1] if picked and picked[-1] == index else rule.apply(_upright(frame)))
        picked.append(index)

    for index, (time, frame) in enumerate(_frames(path)):
        rule = rule or fit(_upright(frame).shape[:2], size, rules.resize)
        while len(images) < frames and times[len(images)] <= time:
            earlier = shown is not None and times[len(images)] - shown[0] <= time - times[len(images)]
            take(*(shown[1:] if shown is not None and earlier else (index, frame)), rule)
        shown = (time, index, frame)
        if len(images) == frames:
            break
    if rule is None or shown is None:
        raise VideoError(f"{path}: holds no frames")
    last = shown[0]
    cloned = int((times[len(images) :] > last + 0.5 / fps).sum())  # a frame is shown for a while
    if cloned == frames:
        raise VideoError(f"{path}: ends at {last:.2f} s, before the clip's start at {start:.2f} s")
    if cloned and rules.short == "refuse":
        missing = f"{cloned} frames before the clip's end at {times[-1]:.2f} s"
        raise VideoError(
            f"{path}: ends at {last:.2f} s, {missing}; take fewer frames, start earlier, or use short=clone"
        )
    while len(images) < frames:
        take(*shown[1:], rule)
    return SourceClip(np.stack(images), np.array(picked), cloned, rule)


def count_frames(path: Path) -> int:
    """Number of frames that decode. Raises VideoError when the file can't be decoded."""
    return sum(1 for _ in _frames(path))


def _frames(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Every frame in order, with its seconds since the first."""
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


def _upright(frame: av.VideoFrame) -> np.ndarray:
    turns = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 turns
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
