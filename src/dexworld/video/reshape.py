"""Bring existing triplets to the shape that a model works on: time, size, and the camera with them."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from dexworld.data.video import VideoError
from dexworld.video.clip import HandTrack, TripletClip
from dexworld.video.layouts import open_layout
from dexworld.video.prepare import ClipRules, Prepared, in_step
from dexworld.video.source_video import SourceClip
from dexworld.video.triplets import (
    PROMPTS,
    TripletError,
    TripletFiles,
    files_of,
    finish_triplets,
    read_prompt,
    read_track,
    start_triplets,
    write_triplet,
)


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
