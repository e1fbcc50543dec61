"""Triplets out of real video: fixed-camera videos with hand files, any single clip, or triplets of another shape.

Every choice is a field of the config and is recorded in triplets.json. What a video forced (cut area, repeated frames,
frames without hands) is recorded for its clip. What can't be prepared is left out, counted and named.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.track import Track
from dexworld.video.clips.clip import TripletClip, check_name
from dexworld.video.clips.hand_video import frames_with_hands, repeated_first_frame
from dexworld.video.clips.layouts import open_layout
from dexworld.video.clips.triplet_files import (
    PROMPTS,
    files_of,
    read_prompt,
    read_track,
    write_triplet,
)
from dexworld.video.clips.triplets import TripletFolder, finish_triplets, start_triplets
from dexworld.video.real.hand_file import HandFileError, read_hands
from dexworld.video.real.source_video import SUFFIXES, ClipRules, SourceClip, count_frames, read_clip


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


Record = dict[str, Any]  # what was decided for one clip, as JSON values
Progress = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True)
class Prepared:
    """What a preparation did. folder: the triplets. counts: figures. left_out: reason by name."""

    folder: TripletFolder
    counts: dict[str, int]
    left_out: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As JSON values: the counts, and what was left out and why."""
        return {**self.counts, "left_out": dict(self.left_out)}


def prepare_fixed_camera(config: FixedCameraConfig, progress: Progress = iter) -> Prepared:
    """Write a triplet for every video that has hands and a prompt; started again, it goes on where it stopped.

    progress: wraps the names of the videos. Raises ValueError when the output was made with other settings, there are
    no videos, or none of them could be prepared.
    """
    videos, rules = _videos(config.videos), config.rules

    def prepare(name: str) -> tuple[TripletClip, Record]:
        hands = config.hands if config.hands.is_file() else config.hands / f"{name}.npz"
        one = CustomConfig(videos[name], config.output, _prompt(config, name), hands, name=name, rules=rules)
        clip, record = _triplet(one)
        return clip, {key: value for key, value in record.items() if key not in ("static", "hands")}

    settings = {"generator": "dexworld.video.prepare", "source": "fixed-camera", "rules": asdict(rules)}
    return _prepare_each("videos", list(videos), config.output, settings, prepare, progress, {})


def prepare_custom(config: CustomConfig) -> Prepared:
    """Write the triplet of one clip, replacing one of the same name.

    Raises VideoError, HandFileError or ValueError when a part can't be used.
    """
    settings = {"generator": "dexworld.video.prepare", "source": "custom", "rules": asdict(config.rules)}
    start_triplets(config.output, settings)
    clip, record = _triplet(config)
    write_triplet(config.output, clip)
    records = {clip.name: record}
    return Prepared(finish_triplets(config.output, settings, {}, records), _hand_counts(records), {})


def reshape_triplets(config: ReshapeConfig, progress: Progress = iter) -> Prepared:
    """Write every triplet in the shape of `config.rules`; started again, it goes on where it stopped.

    A triplet that can't be read or whose videos are out of step is left out, counted and named. progress: wraps the
    names. Raises ValueError when none can be read, or the output was made with other settings or holds another split.
    """
    source, rules = open_layout(config.data, config.listing, config.prompts), config.rules

    def prepare(name: str) -> tuple[TripletClip, Record]:
        files, track = source.files[name], None
        cut = read_clip(files.interaction, rules)
        static, hands = (_in_step(path, cut, rules) for path in (files.static, files.hands))
        if files.motion.exists():
            track, last = read_track(files.motion), cut.picked.max()
            if last >= len(track):
                raise ValueError(f"the hand motion has {len(track)} frames, the video at least {last + 1}")
            intrinsics = (cut.fit.target_from_source @ track.intrinsics).astype(np.float32)
            track = replace(track.at(cut.picked), intrinsics=intrinsics)
        clip = TripletClip(name, cut.frames, static, hands, read_prompt(files.prompt), rules.shape.fps, track)
        return clip, cut.to_json()

    settings = {"generator": "dexworld.video.reshape", "rules": asdict(rules)}
    return _prepare_each("triplets", list(source.names), config.output, settings, prepare, progress, source.seeds)


def _prepare_each(
    what: str,
    names: list[str],
    output: Path,
    settings: dict[str, Any],
    prepare: Callable[[str], tuple[TripletClip, Record]],
    progress: Progress,
    seeds: Mapping[str, int],
) -> Prepared:
    """Write the clips that aren't there yet, and the folder's record. what: `videos` or `triplets`, for the counts."""
    start_triplets(output, settings, seeds)
    records, left_out, present = {}, {}, 0
    for name in progress(names):
        try:
            check_name(name)
            if files_of(output, name).interaction.exists():
                present += 1
                continue
            clip, record = prepare(name)
            write_triplet(output, clip)
            records[name] = record
        except ValueError as error:
            left_out[name] = str(error)
    if not records and not present:
        raise ValueError(f"none of {len(names)} {what} could be prepared; first: {next(iter(left_out.values()))}")
    seeds = {name: seed for name, seed in seeds.items() if name not in left_out}
    folder = finish_triplets(output, settings, seeds, records, {"left_out": left_out})
    if what == "videos":
        counts = _hand_counts(records) | {"videos": len(names)}
    else:
        counts = {"clips": len(records), "cloned_frames": _total(records, "cloned_frames")}
    return Prepared(folder, counts | {"already_there": present, f"{what}_left_out": len(left_out)}, left_out)


def _triplet(config: CustomConfig) -> tuple[TripletClip, Record]:
    rules, track = config.rules, None
    source = read_clip(config.video, rules)
    record: Record = {"video": config.video.name, **source.to_json()}
    if config.static is None:
        static, record["static"] = repeated_first_frame(source.frames[None])[0], "first frame repeated"
    else:
        static, record["static"] = _in_step(config.static, source, rules), config.static.name
    if config.hands is not None:
        hands, track = _draw_hands(config.hands, config.video, source, rules)
        record["hands"] = config.hands.name
    else:
        assert config.hands_video is not None
        hands, record["hands"] = _in_step(config.hands_video, source, rules), config.hands_video.name
    seen = frames_with_hands(hands)
    if not seen.any():
        raise ValueError("no frame of the clip shows a hand; check valid flags, intrinsics and the clip's start")
    record |= {"frames_without_hands": int((~seen).sum()), "hand_in_static": bool(seen[0])}
    prompt = config.prompt.strip()
    return TripletClip(config.clip_name, source.frames, static, hands, prompt, rules.shape.fps, track), record


def _in_step(path: Path, source: SourceClip, rules: ClipRules) -> np.ndarray:
    """A further video of the clip, cut and resized by the same rules. Raises ValueError when they led elsewhere."""
    other = read_clip(path, rules)
    if other.cloned != source.cloned or (other.fit.cut, other.fit.empty) != (source.fit.cut, source.fit.empty):
        found, wanted = (
            f"{cut.fit.source[0]} x {cut.fit.source[1]} with {cut.cloned} repeated frames" for cut in (other, source)
        )
        raise ValueError(f"{path}: is {found}, the interaction video {wanted}; give videos that show the same frames")
    return other.frames


def _draw_hands(path: Path, video: Path, source: SourceClip, rules: ClipRules) -> tuple[np.ndarray, Track | None]:
    """The hand video (F, H, W, 3) and the hand motion of the clip's frames, from a hand file of `video`."""
    hands, of_clip = read_hands(path, source.fit.source, rules.hamer_camera), rules.hand_frames == "clip"
    expected, rows = (len(source.frames), slice(None)) if of_clip else (count_frames(video), source.picked)
    if len(hands) != expected:
        raise HandFileError(
            f"{path}: has {len(hands)} frames, the {rules.hand_frames} has {expected}; extract the hands from this "
            f"video, or choose hand_frames={'source' if of_clip else 'clip'}"
        )
    hands = hands.at(rows)
    height, width = hands.image_size or source.fit.source
    scale = np.diag([source.fit.source[1] / width, source.fit.source[0] / height, 1.0])
    target_from_hands = source.fit.target_from_source @ scale
    return hands.render(target_from_hands, rules.shape.height, rules.shape.width), hands.track(target_from_hands)


def _hand_counts(records: dict[str, Record]) -> dict[str, int]:
    rules = [record["resize"]["rule"] for record in records.values()]
    return {
        "clips": len(records),
        "frames_without_hands": _total(records, "frames_without_hands"),
        "cloned_frames": _total(records, "cloned_frames"),
        "clips_cropped": rules.count("crop"),
        "clips_padded": rules.count("pad"),
        "clips_with_hand_in_first_frame": _total(records, "hand_in_static"),
    }


def _total(records: dict[str, Record], name: str) -> int:
    return sum(record[name] for record in records.values())


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


def _prompt(config: FixedCameraConfig, name: str) -> str:
    text = config.prompt.strip()
    if config.prompts is not None:
        path = config.prompts if config.prompts.is_file() else config.prompts / f"{name}.txt"
        text = read_prompt(path) if path.is_file() else text
    if not text:
        raise ValueError(f"{name}: has no prompt; write {name}.txt in the prompt folder, or give one for all")
    return text
