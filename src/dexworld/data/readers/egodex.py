"""EgoDex as Apple publishes it: egocentric video beside the poses of both hands and the upper body.

    SPLIT/TASK/N.mp4    1920 x 1080, 30 Hz; frame i belongs to pose i
    SPLIT/TASK/N.hdf5   camera/intrinsic (3, 3); transforms/NAME (T, 4, 4), NAME's pose in a gravity-aligned world, for
                        "camera" and 68 joints; confidences/NAME (T,), not in every file; language as attributes

The camera frame is optical already (x right, y down, z forward). Source: EgoDex dataset page; DexWM paper, section 4.1.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dexworld.data.hdf5 import arrays, attributes, opened_hdf5
from dexworld.data.readers.egodex_files import Clip, find_clips, has_clip_pair
from dexworld.data.readers.egodex_labels import (
    METACARPALS,
    WRISTS,
    read_camera,
    read_confidences,
    read_intrinsics,
    read_joints,
    read_language,
)
from dexworld.data.readers.foreign_video import ForeignFrames
from dexworld.data.readers.robot_arrays import simulator_seed
from dexworld.data.source import CorruptEpisodeError, evenly_spread
from dexworld.data.video import VideoError
from dexworld.hands import BODY_KEYPOINTS, KEYPOINT_NAMES
from dexworld.track import Track

FPS_RANGE = (1.0, 240.0)  # outside is a damaged header
RATE = 30.0  # poses a second
RATE_SLACK = 0.01  # of containers whose mean rate is not quite that: 29.97, or a frame shown for longer
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EgoDexOptions:
    """What is read of an EgoDex folder.

    split: None reads all; "train" the official training set, folders part1 to part5; "test" the official test set;
    "extra" the additional data, which is in neither; or the name of one folder, e.g. "part2".
    tasks: names of task folders; empty reads all. max_episodes: at most so many, evenly spread over the ids.
    min_confidence: a keypoint is valid where its tracking confidence (0 to 1) is at least this; files without
    confidences keep every keypoint. 0 ignores confidences, as DexWM does.
    """

    split: str | None = None
    tasks: tuple[str, ...] = ()
    min_confidence: float = 0.0
    max_episodes: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_confidence <= 1.0:
            raise ValueError(f"min_confidence is {self.min_confidence}; confidences lie between 0 and 1")
        if self.max_episodes is not None and self.max_episodes < 1:
            raise ValueError(f"max_episodes is {self.max_episodes}; it must be at least 1, or None for all")


@dataclass(frozen=True)
class EgoDexSource:
    """The clips of an EgoDex folder, in the order of their ids ("part1.add_remove_lid.0").

    quarantined: videos without poses and poses without video. Extras of an episode: `keypoint_confidence` where the
    file has confidences; `body_world` with `body_valid`; `hand_poses_world` and `hand_metacarpals_world`, NaN where not
    tracked.
    """

    folder: Path
    clips: tuple[Clip, ...]
    quarantined: tuple[tuple[str, str], ...]
    options: EgoDexOptions = EgoDexOptions()
    kind: str = "egodex"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """One id per clip, sorted."""
        return tuple(clip.id for clip in self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Track:
        """Clip `index`, its frames lazy. Raises CorruptEpisodeError naming file, key and frame when it is unusable."""
        clip = self.clips[index]
        poses = self.folder / clip.path.with_suffix(".hdf5")
        try:
            frames = ForeignFrames(self.folder / clip.path)
            # numbers that are damaged are found by the checks, whatever arithmetic says of them
            with opened_hdf5(poses) as file, np.errstate(over="ignore", invalid="ignore"):
                return _episode(file, frames, clip, self.options)
        except VideoError as error:
            raise CorruptEpisodeError(str(error)) from error

    def files(self, index: int) -> tuple[Path, ...]:
        """The video and the poses of clip `index`."""
        video = self.folder / self.clips[index].path
        return video, video.with_suffix(".hdf5")

    def annotations(self, index: int) -> dict[str, Any]:
        """Everything the clip's HDF5 holds: each array by its path, e.g. "transforms/hip"; "attributes" as a dict."""
        with opened_hdf5(self.files(index)[1]) as file:
            return {"attributes": attributes(file)} | arrays(file)


def recognises(folder: Path) -> bool:
    """Whether `folder`, or a folder up to two levels below, holds a video N.mp4 beside its poses N.hdf5."""
    return folder.is_dir() and has_clip_pair(folder)


def open_egodex(folder: Path | str, options: EgoDexOptions = EgoDexOptions()) -> EgoDexSource:
    """The clips of a whole dataset, of one split's folder or of one task's folder. Lists folders, opens no file.

    Raises FileNotFoundError when the folder holds no clip at all, ValueError when the options select none of them.
    """
    folder = Path(folder)
    clips, quarantined = find_clips(folder, options.split, options.tasks)
    if options.max_episodes is not None and len(clips) > options.max_episodes:
        _LOG.info("%s: %d of %d clips, by max_episodes", folder, options.max_episodes, len(clips))
    return EgoDexSource(folder, evenly_spread(clips, options.max_episodes), tuple(quarantined), options)


def _episode(file: h5py.File, frames: ForeignFrames, clip: Clip, options: EgoDexOptions) -> Track:
    world_from_camera = read_camera(file)
    if len(frames) != len(world_from_camera):
        raise CorruptEpisodeError(
            f"{frames.path}: {len(frames)} frames, but {len(world_from_camera)} poses in {file.filename}"
        )
    if not FPS_RANGE[0] <= frames.fps <= FPS_RANGE[1]:
        raise CorruptEpisodeError(f"{frames.path}: {frames.fps:g} frames per second; EgoDex has 30")
    joints = read_joints(file, world_from_camera)
    keypoints, valid = joints.select(KEYPOINT_NAMES, missing=0.0)
    body, body_valid = joints.select(BODY_KEYPOINTS, missing=0.0)
    hands, _ = joints.select(WRISTS, missing=np.nan)
    metacarpals, _ = joints.select(METACARPALS, missing=np.nan)
    extras = {
        "body_world": body[..., :3, 3].copy(),
        "body_valid": body_valid,
        "hand_poses_world": hands,
        "hand_metacarpals_world": metacarpals[..., :3, 3].copy(),
    }
    confidence = read_confidences(file, joints)
    if confidence is not None:
        valid &= confidence >= options.min_confidence
        extras["keypoint_confidence"] = confidence
    return Track(
        frames=frames,
        fps=RATE if abs(frames.fps / RATE - 1) < RATE_SLACK else frames.fps,  # a store takes one rate alone
        world_from_camera=world_from_camera,
        intrinsics=read_intrinsics(file, frames.size),
        source=f"egodex {clip.path.with_suffix('').as_posix()}",
        task=read_language(file, clip.task),
        seed=simulator_seed(attributes(file)),
        columns={"keypoints_world": keypoints[..., :3, 3].copy(), "keypoints_valid": valid, **extras},
    )
