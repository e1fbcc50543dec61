"""Triplets out of real video: a folder of fixed-camera videos, or any single clip with its hands.

Every choice is a field of the config and is recorded in triplets.json; what a video forced (cut area, repeated frames,
frames without hands) is recorded for its clip. A video that can't be prepared is left out, counted and named.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dexworld.data.video import VideoError
from dexworld.video.clips.clip import ClipShape, HandTrack, TripletClip, check_name
from dexworld.video.clips.hand_video import frames_with_hands, repeated_first_frame
from dexworld.video.clips.layouts import open_layout
from dexworld.video.clips.triplet_files import (
    PROMPTS,
    TripletError,
    TripletFiles,
    files_of,
    read_prompt,
    read_track,
    write_triplet,
)
from dexworld.video.clips.triplets import TripletFolder, finish_triplets, start_triplets
from dexworld.video.real.hand_file import HandFile, HandFileError, read_hands
from dexworld.video.real.source_video import SUFFIXES, ResizeRule, ShortRule, SourceClip, count_frames, read_clip

HandFrames = Literal["source", "clip"]
_UNUSABLE = (VideoError, HandFileError, TripletError, ValueError)


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

    def read(self, path: Path) -> SourceClip:
        """The clip that these rules cut from a video."""
        size = (self.shape.height, self.shape.width)
        return read_clip(path, self.shape.frames, self.shape.fps, size, self.resize, self.short, self.start)


@dataclass(frozen=True)
class FixedCameraConfig:
    """Fixed-camera videos with hand files, as TASTE-Rob: the static video is the first frame, repeated."""

    videos: Path
    """Folder of videos, searched at any depth; or one video."""
    hands: Path
    """Folder of `.npz` hand files, named and nested as the videos; or one file."""
    output: Path
    """Triplet folder to write or to complete."""
    prompts: Path | None = None
    """Folder of `.txt` prompts, named and nested as the videos; or one file."""
    prompt: str = ""
    """Prompt of the videos that have no file."""
    rules: ClipRules = field(default_factory=ClipRules)
    """Shape, resizing, time and hand file conventions."""


@dataclass(frozen=True)
class CustomConfig:
    """One clip of any camera, with its hands and, when the camera moves, its static video."""

    video: Path
    """The interaction video."""
    output: Path
    """Triplet folder to write or to complete."""
    prompt: str
    """What happens, in a sentence or two."""
    hands: Path | None = None
    """Hand file (.npz)."""
    hands_video: Path | None = None
    """Hand video that is rendered already, in step with the interaction video; instead of a hand file."""
    static: Path | None = None
    """Static video in step with the interaction video; without one the camera is fixed and the first frame repeats."""
    name: str = ""
    """Name of the triplet; the video's by default."""
    rules: ClipRules = field(default_factory=ClipRules)
    """Shape, resizing, time and hand file conventions."""

    def __post_init__(self) -> None:
        if (self.hands is None) == (self.hands_video is None):
            raise ValueError("give the hands once: either hands (.npz) or hands_video")
        if not self.prompt.strip():
            raise ValueError("the prompt is empty; write a sentence of what happens")
        check_name(self.clip_name)

    @property
    def clip_name(self) -> str:
        """Name of the triplet."""
        return self.name or self.video.stem


@dataclass(frozen=True)
class Prepared:
    """What a preparation did. folder: the triplets. counts: figures. left_out: reason by video."""

    folder: TripletFolder
    counts: dict[str, int]
    left_out: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As JSON values: the counts, and what was left out and why."""
        return {**self.counts, "left_out": dict(self.left_out)}


def prepare_fixed_camera(
    config: FixedCameraConfig, progress: Callable[[Iterable[str]], Iterable[str]] = iter
) -> Prepared:
    """Write a triplet for every video that has hands and a prompt; started again, it goes on where it stopped.

    progress: wraps the names of the videos. Raises ValueError when the output was made with other settings, there are
    no videos, or none of them could be prepared.
    """
    videos = _videos(config.videos)
    settings = {"generator": "dexworld.video.prepare", "source": "fixed-camera", "rules": asdict(config.rules)}
    start_triplets(config.output, settings)
    records: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    present = 0
    for name in progress(list(videos)):
        try:
            check_name(name)
            if files_of(config.output, name).interaction.exists():
                present += 1
                continue
            hands = _beside(config.hands, name, ".npz", "hand file")
            prompt = _prompt(config, name)
            clip, records[name] = _fixed_clip(name, videos[name], hands, prompt, config.rules)
            write_triplet(config.output, clip)
        except _UNUSABLE as error:
            records.pop(name, None)
            left_out[name] = str(error)
    if not records and not present:
        raise ValueError(f"none of {len(videos)} videos could be prepared; first: {next(iter(left_out.values()))}")
    counts = _counts(records) | {"videos": len(videos), "already_there": present, "videos_left_out": len(left_out)}
    folder = finish_triplets(config.output, settings, {}, records, {"left_out": left_out})
    return Prepared(folder, counts, left_out)


def prepare_custom(config: CustomConfig) -> Prepared:
    """Write the triplet of one clip, replacing one of the same name.

    Raises VideoError, HandFileError or ValueError when a part can't be used.
    """
    settings = {"generator": "dexworld.video.prepare", "source": "custom", "rules": asdict(config.rules)}
    start_triplets(config.output, settings)
    name, rules = config.clip_name, config.rules
    source = rules.read(config.video)
    record = {"video": config.video.name, **source.to_json()}
    static = repeated_first_frame(source.frames[None])[0]
    record["static"] = "first frame repeated"
    if config.static is not None:
        static = in_step(config.static, source, rules)
        record["static"] = config.static.name
    track = None
    if config.hands is not None:
        hands = _hands_of(config.hands, config.video, source, rules)
        matrix = _target_from_hands(hands, source)
        video, track = hands.render(matrix, rules.shape.height, rules.shape.width), hands.track(matrix)
        record |= {"hands": config.hands.name, **_hand_record(video)}
    else:
        assert config.hands_video is not None
        video = in_step(config.hands_video, source, rules)
        record |= {"hands": config.hands_video.name, **_hand_record(video)}
    clip = TripletClip(name, source.frames, static, video, config.prompt.strip(), rules.shape.fps, track)
    write_triplet(config.output, clip)
    records = {name: record}
    return Prepared(finish_triplets(config.output, settings, {}, records), _counts(records), {})


def _fixed_clip(
    name: str, video: Path, hand_path: Path, prompt: str, rules: ClipRules
) -> tuple[TripletClip, dict[str, Any]]:
    source = rules.read(video)
    hands = _hands_of(hand_path, video, source, rules)
    matrix = _target_from_hands(hands, source)
    rendered = hands.render(matrix, rules.shape.height, rules.shape.width)
    static = repeated_first_frame(source.frames[None])[0]
    clip = TripletClip(name, source.frames, static, rendered, prompt, rules.shape.fps, hands.track(matrix))
    return clip, {"video": video.name, **source.to_json(), **_hand_record(rendered)}


def _hands_of(path: Path, video: Path, source: SourceClip, rules: ClipRules) -> HandFile:
    """The hands of the clip's frames."""
    hands = read_hands(path, source.fit.source, rules.hamer_camera)
    if rules.hand_frames == "clip":
        expected, rows = len(source.frames), np.arange(len(source.frames))
    else:
        expected, rows = count_frames(video), source.picked
    if len(hands) != expected:
        other = "clip" if rules.hand_frames == "source" else "source"
        raise HandFileError(
            f"{path}: has {len(hands)} frames, the {rules.hand_frames} has {expected}; extract the hands from this "
            f"video, or choose hand_frames={other}"
        )
    return hands.at(rows)


def _target_from_hands(hands: HandFile, source: SourceClip) -> np.ndarray:
    """(3, 3) from the pixels of the image that the hands were found in to the clip's."""
    height, width = hands.image_size or source.fit.source
    scale = np.diag([source.fit.source[1] / width, source.fit.source[0] / height, 1.0])
    return source.fit.target_from_source @ scale


def in_step(path: Path, source: SourceClip, rules: ClipRules) -> np.ndarray:
    """A further video of the clip, cut and resized by the same rules. Raises ValueError when they led elsewhere."""
    other = rules.read(path)
    if other.cloned != source.cloned or (other.fit.cut, other.fit.empty) != (source.fit.cut, source.fit.empty):
        raise ValueError(
            f"{path}: is {other.fit.source[0]} x {other.fit.source[1]} with {other.cloned} repeated frames, the "
            f"interaction video {source.fit.source[0]} x {source.fit.source[1]} with {source.cloned}; give videos that "
            "show the same frames"
        )
    return other.frames


def _hand_record(hands: np.ndarray) -> dict[str, Any]:
    seen = frames_with_hands(hands)
    if not seen.any():
        raise ValueError("no frame of the clip shows a hand; check valid flags, intrinsics and the clip's start")
    return {"frames_without_hands": int((~seen).sum()), "hand_in_static": bool(seen[0])}


def _counts(records: dict[str, dict[str, Any]]) -> dict[str, int]:
    return {
        "clips": len(records),
        "frames_without_hands": sum(record["frames_without_hands"] for record in records.values()),
        "cloned_frames": sum(record["cloned_frames"] for record in records.values()),
        "clips_cropped": sum(record["resize"]["rule"] == "crop" for record in records.values()),
        "clips_padded": sum(record["resize"]["rule"] == "pad" for record in records.values()),
        "clips_with_hand_in_first_frame": sum(record["hand_in_static"] for record in records.values()),
    }


def _videos(path: Path) -> dict[str, Path]:
    """Videos by name. Raises ValueError for none, or for two of one name."""
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


def _beside(folder: Path, name: str, suffix: str, what: str) -> Path:
    """The file of a video in another folder, or the one file given for it."""
    path = folder if folder.is_file() else folder / f"{name}{suffix}"
    if not path.is_file():
        raise ValueError(f"{path}: the {what} doesn't exist")
    return path


def _prompt(config: FixedCameraConfig, name: str) -> str:
    text = config.prompt.strip()
    if config.prompts is not None:
        path = config.prompts if config.prompts.is_file() else config.prompts / f"{name}.txt"
        if path.is_file():
            text = read_prompt(path)
    if not text:
        raise ValueError(f"{name}: has no prompt; write {name}.txt in the prompt folder, or give one for all")
    return text


# FROM reshape: Bring existing triplets to the shape that a model works on: time, size, and the camera with them.


@dataclass(frozen=True)
class ReshapeConfig:
    """Triplets of any of the known layouts (plain, TRUMANS, TASTE-Rob) as clips of one shape.

    A rate below the source's spreads a clip over more of it: 17 frames at 2.667 fps cover the six seconds of the
    release's clips. A later start keeps the static video, which then shows the scene before the clip's first frame.
    """

    data: Path
    """Triplet folder."""
    output: Path
    """Triplet folder to write or to complete."""
    listing: Path | None = None
    """List file; all triplets of the folder when not given."""
    prompts: str = PROMPTS
    """`prompts`, or `prompts_rewrite` where a clip has one."""
    rules: ClipRules = field(default_factory=ClipRules)
    """Shape, resizing and time; the conventions of hand files don't count."""


def reshape_triplets(config: ReshapeConfig, progress: Callable[[Iterable[str]], Iterable[str]] = iter) -> Prepared:
    """Write every triplet in the shape of `config.rules`; started again, it goes on where it stopped.

    A triplet that can't be read or whose videos are out of step is left out, counted and named. progress: wraps the
    names. Raises ValueError when none can be read, or the output was made with other settings or holds another split.
    """
    source = open_layout(config.data, config.listing, config.prompts)
    settings = {"generator": "dexworld.video.reshape", "rules": asdict(config.rules)}
    start_triplets(config.output, settings, source.seeds)
    records, left_out, present = {}, {}, 0
    for name in progress(list(source.names)):
        if files_of(config.output, name).interaction.exists():
            present += 1
            continue
        try:
            clip, cut = reshaped(name, source.files[name], config.rules)
            write_triplet(config.output, clip)
            records[name] = cut.to_json()
        except (VideoError, TripletError, ValueError) as error:
            left_out[name] = str(error)
    if not records and not present:
        raise ValueError(f"none of {len(source)} triplets could be read; first: {next(iter(left_out.values()))}")
    counts = {
        "clips": len(records),
        "cloned_frames": sum(record["cloned_frames"] for record in records.values()),
        "already_there": present,
        "triplets_left_out": len(left_out),
    }
    seeds = {name: seed for name, seed in source.seeds.items() if name not in left_out}
    return Prepared(finish_triplets(config.output, settings, seeds, records, {"left_out": left_out}), counts, left_out)


def reshaped(name: str, files: TripletFiles, rules: ClipRules) -> tuple[TripletClip, SourceClip]:
    """One triplet by the rules, and how its videos were cut. Raises ValueError when they are out of step."""
    cut = rules.read(files.interaction)
    static, hands = (in_step(path, cut, rules) for path in (files.static, files.hands))
    track = reshaped_track(read_track(files.motion), cut) if files.motion.exists() else None
    clip = TripletClip(name, cut.frames, static, hands, read_prompt(files.prompt), rules.shape.fps, track)
    return clip, cut


def reshaped_track(track: HandTrack, cut: SourceClip) -> HandTrack:
    """The hand motion at the frames that were picked, its intrinsics for the new size.

    Raises ValueError when the motion ends before the frames do.
    """
    if cut.picked.max() >= len(track):
        raise ValueError(f"the hand motion has {len(track)} frames, the video at least {cut.picked.max() + 1}")
    return HandTrack(
        track.keypoints_world[cut.picked],
        track.keypoints_valid[cut.picked],
        track.world_from_camera[cut.picked],
        (cut.fit.target_from_source @ track.intrinsics).astype(np.float32),
    )
