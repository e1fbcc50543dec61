"""Cuts a clip of one shape out of any video: variable frame rates, rotated phone videos and long films included."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
import torch

from dexworld.data.frame_table import decoded, open_stream, turns_of
from dexworld.data.resize import Box, Fit, Size
from dexworld.data.video import VideoError
from dexworld.video.clips.clip import ClipShape

ResizeRule = Literal["auto", "crop", "pad", "stretch"]
ShortRule = Literal["clone", "refuse"]
HandFrames = Literal["source", "clip"]
CROP_LIMIT = 0.2  # share of a source image that `auto` may cut off
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


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


def fit(source: Size, target: Size, rule: ResizeRule) -> tuple[ResizeRule, Fit]:
    """The rule, never `auto`, by which images of size `source` become `target`, and how.

    The release compares the areas that cropping and padding lose. As shares of their image these are equal, so
    `CROP_LIMIT` decides.
    """
    whole, everything = (0, 0, *source), (0, 0, *target)
    if rule == "stretch":
        return rule, Fit(source, target, whole, everything)
    cropped = Fit(source, target, _centred(target, source), everything)
    if rule == "crop" or (rule == "auto" and cropped.cut <= CROP_LIMIT):
        return "crop", cropped
    return "pad", Fit(source, target, whole, _centred(source, target))


def _centred(shape: Size, room: Size) -> Box:
    """The largest centred box of the aspect ratio of `shape` in an image of size `room`."""
    height = min(room[0], max(1, round(room[1] * shape[0] / shape[1])))
    width = min(room[1], max(1, round(room[0] * shape[1] / shape[0])))
    return (room[0] - height) // 2, (room[1] - width) // 2, height, width


@dataclass(frozen=True)
class SourceClip:
    """A stretch of a video: frames (F, H, W, 3) uint8, the source frame `picked` (F,) of each.

    rule, fit: how it was resized. cloned: how many frames at the end repeat the last source frame.
    """

    frames: np.ndarray
    picked: np.ndarray
    cloned: int
    rule: ResizeRule
    fit: Fit

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for the record of a prepared clip."""
        boxes = {name: list(getattr(self.fit, name)) for name in ("source", "box", "placed")}
        lost = {name: round(getattr(self.fit, name), 4) for name in ("cut", "empty")}
        ends = {"first_source_frame": int(self.picked[0]), "last_source_frame": int(self.picked[-1])}
        return {"resize": {"rule": self.rule, **boxes, **lost}, **ends, "cloned_frames": self.cloned}


def read_clip(path: Path, rules: ClipRules) -> SourceClip:
    """Cut a clip from a video. Each frame is the source frame nearest in time, never a blend.

    Raises VideoError when the file can't be decoded, has pixels that aren't square, ends before the clip starts, or is
    too short and `rules.short` is "refuse".
    """
    shape, start = rules.shape, rules.start
    times = start + np.arange(shape.frames) / shape.fps
    images: list[np.ndarray] = []
    picked: list[int] = []
    last: tuple[float, int, av.VideoFrame] | None = None  # the frame before: seconds, number, picture
    chosen: tuple[ResizeRule, Fit] | None = None

    def take(index: int, frame: av.VideoFrame, fit: Fit) -> None:
        same = picked and picked[-1] == index
        images.append(images[-1] if same else fit.images(torch.from_numpy(_upright(path, frame))).numpy())
        picked.append(index)

    for index, (time, frame) in enumerate(_frames(path)):
        chosen = chosen or fit(_upright(path, frame).shape[:2], (shape.height, shape.width), rules.resize)
        while len(images) < shape.frames and times[len(images)] <= time:
            earlier = last is not None and times[len(images)] - last[0] <= time - times[len(images)]
            take(*(last[1:] if last is not None and earlier else (index, frame)), chosen[1])
        last = (time, index, frame)
        if len(images) == shape.frames:
            break
    if chosen is None or last is None:
        raise VideoError(f"{path}: holds no frames")
    cloned = int((times[len(images) :] > last[0] + 0.5 / shape.fps).sum())  # a frame is shown for a while
    if cloned == shape.frames:
        raise VideoError(f"{path}: ends at {last[0]:.2f} s, before the clip's start at {start:.2f} s")
    if cloned and rules.short == "refuse":
        missing = f"{cloned} frames before the clip's end at {times[-1]:.2f} s"
        raise VideoError(
            f"{path}: ends at {last[0]:.2f} s, {missing}; take fewer frames, start earlier, or use short=clone"
        )
    while len(images) < shape.frames:
        take(*last[1:], chosen[1])
    return SourceClip(np.stack(images), np.array(picked), cloned, *chosen)


def videos_of(path: Path) -> dict[str, Path]:
    """Videos by name: those of a folder at any depth, or one. Raises ValueError for none, or for two of one name."""
    if path.is_file():
        return {path.stem: path}
    found: dict[str, Path] = {}
    for video in sorted(path.rglob("*")):
        if video.suffix.lower() not in SUFFIXES or video.name.startswith(".") or not video.is_file():
            continue
        name = video.relative_to(path).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{video} and {found[name].name} would be one triplet; rename one of them")
        found[name] = video
    if not found:
        raise ValueError(f"{path}: holds no videos ({', '.join(SUFFIXES)})")
    return found


def file_of_video(path: Path, name: str, *suffixes: str) -> Path:
    """The file of a video in a folder, of the first suffix that is there; or the one file that was given for it."""
    places = [path] if path.is_file() else [path / f"{name}{suffix}" for suffix in suffixes]
    return next((place for place in places if place.exists()), places[0])


def count_frames(path: Path) -> int:
    """Number of frames that decode. Raises VideoError when the file can't be decoded."""
    return sum(1 for _ in _frames(path))


def video_shape(path: Path) -> tuple[int, int, int]:
    """Frames that decode, height and width as shown. Raises VideoError when the file can't be decoded or is empty."""
    shapes = [picture.shape for picture in pictures_of(path)]
    if not shapes:
        raise VideoError(f"{path}: holds no frames")
    return len(shapes), *shapes[0][:2]


def pictures_of(path: Path) -> Iterator[np.ndarray]:
    """Every frame (H, W, 3) uint8 as shown. Raises VideoError when the file can't be decoded."""
    return (_upright(path, frame) for _, frame in _frames(path))


def _frames(path: Path) -> Iterator[tuple[float, av.VideoFrame]]:
    """Every frame in order, with its seconds since the first."""
    with open_stream(path) as stream:
        aspect, origin, before = stream.sample_aspect_ratio, None, None
        if aspect and aspect != 1:
            raise VideoError(f"{path}: its pixels aren't square ({aspect}); transcode it to square pixels first")
        for frame in decoded(path, stream, strict=False):
            if frame.time is None:
                raise VideoError(f"{path}: a frame has no time stamp; transcode it first")
            origin = frame.time if origin is None else origin
            if before is not None and frame.time < before:
                raise VideoError(f"{path}: frames at {before:g} s and {frame.time:g} s are out of order; transcode it")
            before = frame.time
            yield frame.time - origin, frame


def _upright(path: Path, frame: av.VideoFrame) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns_of(path, frame)))
