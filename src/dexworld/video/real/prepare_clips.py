"""Triplets out of real video with hand files, or out of triplets of another shape.

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
from dexworld.video.clips.triplet_files import PROMPTS, files_of, read_prompt, read_track, write_triplet
from dexworld.video.clips.triplets import TripletFolder, finish_triplets, open_triplets, start_triplets
from dexworld.video.real.hand_file import read_hands
from dexworld.video.real.source_video import (
    ClipRules,
    SourceClip,
    count_frames,
    file_of_video,
    read_clip,
    videos_of,
)

Record = dict[str, Any]  # what was decided for one clip, as JSON values
Progress = Callable[[Iterable[str]], Iterable[str]]


@dataclass(frozen=True)
class VideosConfig:
    """Videos with their hands: of a standing camera, as TASTE-Rob, or of a moving one with static videos."""

    videos: Path
    """Folder of videos, searched at any depth; or one video."""
    hands: Path
    """Folder of `.npz` hand files or `.mp4` hand videos, named and nested as the videos; or one file."""
    output: Path
    """Triplet folder to write or to complete."""
    static: Path | None = None
    """Folder of static videos (`.mp4`), or one; without it the camera stands still and the first frame repeats."""
    prompts: Path | None = None
    """Folder of `.txt` prompts, named and nested as the videos; or one file."""
    prompt: str = ""
    """Prompt of the videos that have no file."""
    rules: ClipRules = field(default_factory=ClipRules)
    """Shape, resizing, time and hand file conventions."""


@dataclass(frozen=True)
class ReshapeConfig:
    """Triplets, also as TRUMANS' renderers leave them, as clips of one shape.

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


# The triplets, and figures as JSON values: counts, and in `left_out` the reason of each clip that isn't there.
Prepared = tuple[TripletFolder, dict[str, Any]]


def prepare_videos(config: VideosConfig, progress: Progress = iter) -> Prepared:
    """Write a triplet for every video that has hands and a prompt; started again, it goes on where it stopped.

    progress: wraps the names of the videos. Raises ValueError when the output was made with other settings, there are
    no videos, or none of them could be prepared.
    """
    videos, rules = videos_of(config.videos), config.rules

    def prepare(name: str) -> tuple[TripletClip, Record]:
        source, prompt = read_clip(videos[name], rules), _prompt(config, name)
        if config.static is None:
            static = repeated_first_frame(source.frames[None])[0]
        else:
            static = _in_step(file_of_video(config.static, name, ".mp4"), source, rules)
        hands, track = _hands(file_of_video(config.hands, name, ".npz", ".mp4"), videos[name], source, rules)
        seen = frames_with_hands(hands)
        if not seen.any():
            raise ValueError("no frame of the clip shows a hand; check valid flags, intrinsics and the clip's start")
        record = {"video": videos[name].name, **source.to_json()}
        record |= {"frames_without_hands": int((~seen).sum()), "hand_in_static": bool(seen[0])}
        return TripletClip(name, source.frames, static, hands, prompt, rules.shape.fps, track), record

    camera = "fixed-camera" if config.static is None else "moving-camera"
    settings = {"generator": "dexworld.video.prepare", "source": camera, "rules": asdict(rules)}
    return _prepare_each(list(videos), config.output, settings, prepare, progress, {})


def reshape_triplets(config: ReshapeConfig, progress: Progress = iter) -> Prepared:
    """Write every triplet in the shape of `config.rules`; started again, it goes on where it stopped.

    A triplet that can't be read or whose videos are out of step is left out, counted and named. progress: wraps the
    names. Raises ValueError when none can be read, or the output was made with other settings or holds another split.
    """
    source, rules = open_triplets(config.data, config.listing, config.prompts), config.rules

    def prepare(name: str) -> tuple[TripletClip, Record]:
        files, track = source.files[name], None
        cut = read_clip(files.interaction, rules)
        static, hands = (_in_step(path, cut, rules) for path in (files.static, files.hands))
        if files.motion.exists():
            track, last = read_track(files.motion, cut.fit.source), cut.picked.max()
            if last >= len(track):
                raise ValueError(f"the hand motion has {len(track)} frames, the video at least {last + 1}")
            intrinsics = (cut.fit.target_from_source @ track.intrinsics).astype(np.float32)
            track = replace(track.at(cut.picked), intrinsics=intrinsics)
        clip = TripletClip(name, cut.frames, static, hands, read_prompt(files.prompt), rules.shape.fps, track)
        return clip, cut.to_json()

    settings = {"generator": "dexworld.video.reshape", "rules": asdict(rules)}
    return _prepare_each(list(source.names), config.output, settings, prepare, progress, source.seeds)


def _prepare_each(
    names: list[str],
    output: Path,
    settings: dict[str, Any],
    prepare: Callable[[str], tuple[TripletClip, Record]],
    progress: Progress,
    seeds: Mapping[str, int],
) -> Prepared:
    """Write the clips that aren't there yet, and the folder's record."""
    start_triplets(output, settings, seeds)
    records: dict[str, Record] = {}
    left_out: dict[str, str] = {}
    for name in progress(names):
        try:
            check_name(name)
            if not files_of(output, name).interaction.exists():
                clip, records[name] = prepare(name)
                write_triplet(output, clip)
        except ValueError as error:
            records.pop(name, None)
            left_out[name] = str(error)
    if names and len(left_out) == len(names):
        raise ValueError(f"none of {len(names)} could be prepared; first: {left_out[names[0]]}")
    seeds = {name: seed for name, seed in seeds.items() if name not in left_out}
    folder = finish_triplets(output, settings, seeds, records, {"left_out": left_out})
    done, rules = records.values(), [record["resize"]["rule"] for record in records.values()]
    figures = {
        "clips": len(records),
        "already_there": len(names) - len(records) - len(left_out),
        "clips_left_out": len(left_out),
        "cloned_frames": sum(record["cloned_frames"] for record in done),
        "frames_without_hands": sum(record.get("frames_without_hands", 0) for record in done),
        "clips_with_hand_in_first_frame": sum(record.get("hand_in_static", 0) for record in done),
        "clips_cropped": rules.count("crop"),
        "clips_padded": rules.count("pad"),
        "left_out": left_out,
    }
    return folder, figures


def _in_step(path: Path, source: SourceClip, rules: ClipRules) -> np.ndarray:
    """A further video of the clip, cut and resized by the same rules. Raises ValueError when they led elsewhere."""
    other = read_clip(path, rules)
    if other.cloned != source.cloned or (other.fit.cut, other.fit.empty) != (source.fit.cut, source.fit.empty):
        found, wanted = (
            f"{cut.fit.source[0]} x {cut.fit.source[1]} with {cut.cloned} repeated frames" for cut in (other, source)
        )
        raise ValueError(f"{path}: is {found}, the interaction video {wanted}; give videos that show the same frames")
    return other.frames


def _hands(path: Path, video: Path, source: SourceClip, rules: ClipRules) -> tuple[np.ndarray, Track | None]:
    """The hand video (F, H, W, 3) and the hand motion of the clip's frames, from a hand video or file of `video`."""
    if path.suffix != ".npz":
        return _in_step(path, source, rules), None
    hands, of_clip = read_hands(path, source.fit.source, rules.hamer_camera), rules.hand_frames == "clip"
    expected, rows = (len(source.frames), slice(None)) if of_clip else (count_frames(video), source.picked)
    if len(hands) != expected:
        raise ValueError(
            f"{path}: has {len(hands)} frames, the {rules.hand_frames} has {expected}; extract the hands from this "
            f"video, or choose hand_frames={'source' if of_clip else 'clip'}"
        )
    hands, target_from_source = hands.at(rows), source.fit.target_from_source
    return hands.render(target_from_source, rules.shape.height, rules.shape.width), hands.track(target_from_source)


def _prompt(config: VideosConfig, name: str) -> str:
    path = None if config.prompts is None else file_of_video(config.prompts, name, ".txt")
    text = config.prompt.strip() if path is None or not path.is_file() else read_prompt(path)
    if not text:
        raise ValueError(f"{name}: has no prompt; write {name}.txt in the prompt folder, or give one for all")
    return text
