"""Hand files out of the results of hand trackers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.hand_checks import SIDES
from dexworld.hands import KEYPOINTS_PER_HAND
from dexworld.video.real.hand_file import checked_hands, write_hands
from dexworld.video.real.mano import Mano, read_mano
from dexworld.video.real.source_video import file_of_video, video_shape, videos_of
from dexworld.video.real.tracker_output import Conventions, Detections, read_detections

Progress = Callable[[Iterable[str]], Iterable[str]]
# What to do about a fault that the check of hands names.
_REMEDIES = {
    "left hands not mirrored": "--mirror-left True",
    "mirror x of left hands": "--mirror-left True",
    "left and right are exchanged": "--swap-sides True",
    "order of mano": "--joint-order mano",
    "order of interhand": "--joint-order interhand",
    "in millimetres": "--metres-per-unit 0.001",
    "in centimetres": "--metres-per-unit 0.01",
}


@dataclass(frozen=True)
class ConvertHandsConfig:
    """Results of HaMeR, WiLoR, HaWoR or MediaPipe, or MANO parameters."""

    results: Path
    """Folder of results, named and nested as the videos (`.json`, `.npz`, or a folder for each video); or one file."""
    videos: Path
    """Folder of the videos that were tracked, searched at any depth; or one video."""
    output: Path
    """Folder for the hand files."""
    mano: Path | None = None
    """Your MANO file of the right hand as `.npz`: for parameters without joints, and to keep meshes."""
    conventions: Conventions = field(default_factory=Conventions)
    """What the files don't say."""


def convert_hands(config: ConvertHandsConfig, progress: Progress = iter) -> dict[str, Any]:
    """Write a hand file for every video; return counts, and in `left_out` the reason of each that has none.

    progress: wraps the names of the videos. Raises ValueError when none could be converted.
    """
    mano = None if config.mano is None else read_mano(config.mano)
    videos, left_out, surplus, seen = videos_of(config.videos), dict[str, str](), 0, dict.fromkeys(SIDES, 0)
    for name in progress(list(videos)):
        try:
            frames, height, width = video_shape(videos[name])
            path = file_of_video(config.results, name, ".json", ".npz", "")
            found = read_detections(path, frames, (height, width), config.conventions, mano)
            arrays, dropped = hand_arrays(found, frames, mano)
            checked_hands(dict(arrays), (height, width), str(path))
            write_hands(config.output / f"{name}.npz", arrays)
        except ValueError as error:
            left_out[name] = _with_remedy(str(error))
            continue
        surplus += dropped
        for side, count in zip(SIDES, arrays["valid"].sum(axis=0).tolist(), strict=True):
            seen[side] += count
    if len(left_out) == len(videos):
        raise ValueError(f"none of {len(videos)} could be converted; first: {next(iter(left_out.values()))}")
    counts = {f"{side}_hands": count for side, count in seen.items()}
    done = {"videos": len(videos) - len(left_out), "videos_left_out": len(left_out), **counts}
    return {**done, "hands_left_out": surplus, "left_out": left_out}


def hand_arrays(found: Detections, frames: int, mano: Mano | None) -> tuple[dict[str, np.ndarray], int]:
    """A hand file's arrays of F frames, and how many hands aren't in it: a frame has one of a side, the first found."""
    arrays = {
        "keypoints": np.zeros((frames, 2, KEYPOINTS_PER_HAND, 3)),
        "valid": np.zeros((frames, 2), dtype=bool),
        "intrinsics": found.intrinsics,
    }
    if found.vertices is not None and mano is not None:
        arrays |= {"vertices": np.zeros((frames, 2, *mano.template.shape)), "faces": mano.faces_of_both()}
    if found.world_from_camera is not None:
        arrays["world_from_camera"] = found.world_from_camera
    _, first = np.unique(2 * found.frames + found.right, return_index=True)
    rows = found.frames[first], found.right[first].astype(int)
    arrays["keypoints"][rows], arrays["valid"][rows] = found.keypoints[first], True
    if found.vertices is not None and "vertices" in arrays:
        arrays["vertices"][rows] = found.vertices[first]
    return arrays, len(found.frames) - len(first)


def _with_remedy(text: str) -> str:
    options = [option for phrase, option in _REMEDIES.items() if phrase in text]
    return f"{text} ({', '.join(options)})" if options else text
