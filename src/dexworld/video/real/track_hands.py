"""Rough hand files out of plain video, with MediaPipe's hand networks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.data.hand_checks import SIDES
from dexworld.data.readers.arrays import pinhole
from dexworld.hands import BONE_LENGTHS, BONES
from dexworld.video.real.convert_hands import hand_arrays
from dexworld.video.real.hand_file import checked_hands, write_hands
from dexworld.video.real.hand_tracks import HandNetworks, HandTrack, SearchSettings, find_tracks
from dexworld.video.real.landmark_model import LandmarkModel
from dexworld.video.real.placement import place_hands
from dexworld.video.real.source_video import fit, pictures_of, videos_of
from dexworld.video.real.tracker_output import Detections

Progress = Callable[[Iterable[str]], Iterable[str]]

STRETCH = 240  # frames that are tracked at once
WORKING = 960  # pixels of the longer side of the pictures that are searched
ASSUMED_FOCAL = 0.8  # of the longer side, where nobody gave the focal length
MEDIAN = 5  # frames over which depth is smoothed
SURE_PRESENCE = 0.4  # median over the track; chosen on the two clips of docs/video_data.md
SURE_PLACE = 0.15  # of a hand's size: how far its pixels may lie from its shape's
NEAREST, FARTHEST = 0.15, 2.0  # metres: twice an arm's length, for want of the true focal length


@dataclass(frozen=True)
class TrackHandsConfig:
    """Rough hands of videos without a tracker of their own."""

    videos: Path
    """Folder of videos, searched at any depth; or one video."""
    model: Path
    """MediaPipe's `hand_landmarker.task`, or a folder with its two `.tflite` files."""
    output: Path
    """Folder for the hand files."""
    focal: float | None = None
    """Focal length of the videos in pixels; without it 0.8 times the longer side is assumed, and distances are off."""
    keep_uncertain: bool = False
    """Keep hands that are marked as uncertain."""
    search: SearchSettings = field(default_factory=SearchSettings)
    """How hands are searched and followed."""


def track_hands(config: TrackHandsConfig, progress: Progress = iter) -> dict[str, Any]:
    """Write a hand file for every video; return counts, every track, and in `left_out` the videos without hands.

    progress: wraps the names of the videos. Raises ValueError when no video has hands, ImportError without the extra
    `hands`, UsageError without the networks.
    """
    networks, videos = LandmarkModel(config.model), videos_of(config.videos)
    tracked, left_out = dict[str, Any](), dict[str, str]()
    for name in progress(list(videos)):
        try:
            tracked[name] = _track_one(config, networks, name, videos[name])
        except ValueError as error:
            left_out[name] = str(error)
    if len(left_out) == len(videos):
        raise ValueError(f"no hands in {len(videos)} videos; first: {next(iter(left_out.values()))}")
    counts = {key: sum(each[key] for each in tracked.values()) for key in ("frames", "left_hands", "right_hands")}
    uncertain = sum(track["frames"] for each in tracked.values() for track in each["tracks"] if track["uncertain"])
    done = {"videos": len(tracked), "videos_left_out": len(left_out), **counts, "uncertain_hands": uncertain}
    return {**done, "focal_assumed": config.focal is None, "tracks": tracked, "left_out": left_out}


def _track_one(config: TrackHandsConfig, networks: HandNetworks, name: str, video: Path) -> dict[str, Any]:
    """Track one video and write its hand file; what was found, as JSON values."""
    found: list[Detections] = []
    records: list[dict[str, Any]] = []
    frames, size = 0, (0, 0)
    for pictures in _stretches(pictures_of(video)):
        size = pictures[0].shape[:2]
        focal = config.focal or ASSUMED_FOCAL * max(size)
        intrinsics = pinhole(focal, focal, size[1] / 2, size[0] / 2)
        share = min(1.0, WORKING / max(size))
        _, small = fit(size, (round(share * size[0]), round(share * size[1])), "stretch")
        camera = small.target_from_source @ intrinsics
        searched = [small.images(torch.from_numpy(picture)).numpy() for picture in pictures]
        for track in find_tracks(searched, networks, config.search):
            hands, record = placed(track, camera, frames)
            records.append(record)
            found += [replace(hands, intrinsics=intrinsics)] if config.keep_uncertain or not record["uncertain"] else []
        frames += len(pictures)
    if not found:
        raise ValueError(f"{video}: {len(records)} tracks, all uncertain (--keep-uncertain True keeps them)")
    numbers, right, keypoints = (
        np.concatenate([getattr(each, key) for each in found]) for key in ("frames", "right", "keypoints")
    )
    whole = Detections(numbers, right, keypoints, None, found[0].intrinsics)
    arrays, _ = hand_arrays(whole, frames, None)
    checked_hands(dict(arrays), size, str(video))
    write_hands(config.output / f"{name}.npz", arrays)
    counts = dict(zip((f"{side}_hands" for side in SIDES), arrays["valid"].sum(axis=0).tolist(), strict=True))
    return {"frames": frames, **counts, "tracks": records}


def placed(track: HandTrack, intrinsics: np.ndarray, first: int = 0) -> tuple[Detections, dict[str, Any]]:
    """A track's hands in the camera's frame, and what is known of the track, as JSON values.

    Bones keep their length through the track, which is an adult's on the whole: no picture tells how large a hand is.
    Depth is the median of five frames. first: number of the first picture.
    """
    numbers, hands = np.array(list(track.hands)), list(track.hands.values())
    pixels = np.array([hand.pixels for hand in hands])
    shapes = of_one_length(np.array([hand.shape for hand in hands]))
    points, error = place_hands(shapes, pixels, intrinsics)
    depth = points.mean(axis=1)[:, 2]
    steady = np.array([np.median(depth[abs(numbers - number) <= MEDIAN // 2]) for number in numbers])
    origins = points - shapes
    points = shapes + origins * (1 + (steady - depth) / origins[..., 2].mean(axis=1))[:, None, None]
    off = np.median(error / [hand.size for hand in hands])
    doubts = {
        "faint": track.presence < SURE_PRESENCE,
        "no hand's shape": off > SURE_PLACE,
        "too near or far": not NEAREST <= np.median(steady) <= FARTHEST,
    }
    record = {
        "side": SIDES[int(track.right > 0)],
        "first_frame": int(numbers[0]) + first,
        "last_frame": int(numbers[-1]) + first,
        "frames": len(numbers),
        "presence": round(track.presence, 3),
        "side_log_odds": round(abs(track.right), 2),
        "distance_m": round(float(np.median(steady)), 3),
        "uncertain": [doubt for doubt, holds in doubts.items() if holds],
    }
    right = np.full(len(numbers), track.right > 0)
    return Detections(numbers + first, right, points, None, intrinsics), record


def of_one_length(shapes: np.ndarray) -> np.ndarray:
    """Hands (F, 21, 3) whose bones have the same length in every frame, and an adult's in the median over bones."""
    starts, ends = np.array(BONES).T
    bones = shapes[:, ends] - shapes[:, starts]
    lengths = np.linalg.norm(bones, axis=2, keepdims=True)
    fixed = np.median(lengths, axis=0)
    fixed = fixed / np.median(fixed[:, 0] / np.ravel(BONE_LENGTHS))
    straight = bones / np.maximum(lengths, 1e-9) * fixed
    result = np.zeros_like(shapes)
    for bone, (start, end) in enumerate(BONES):
        result[:, end] = result[:, start] + straight[:, bone]
    return result


def _stretches(pictures: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    while stretch := list(islice(pictures, STRETCH)):
        yield stretch
