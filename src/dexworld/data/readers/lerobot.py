"""Any LeRobot v3 dataset: one camera as the frames, and a small mapping for what its columns mean.

Without a mapping the hands are unknown (`keypoints_valid` all False), the camera stands still at the world's origin,
and every other number of the rows is a column under its own name.
"""

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from dexworld.data.lerobot.layout import INDEX_FEATURES, UNREADABLE, LeRobotLayout, open_layout
from dexworld.data.lerobot.rows import RowImages, episode_rows
from dexworld.data.readers.arrays import check_rigid, pinhole, poses_from_euler, poses_of, rotations_of
from dexworld.data.readers.foreign_source import ForeignSource
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store.labels import PACKETS
from dexworld.data.video_frames import check_unturned
from dexworld.geometry import invert
from dexworld.hands import KEYPOINT_NAMES, NUM_KEYPOINTS
from dexworld.track import Track

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeypointMapping:
    """Hand keypoints in one feature of N points: shape (N, 3) or (3 N,).

    points: the keypoint of `hands.KEYPOINT_NAMES` that each of the N points is, "" for one that the convention lacks;
        by default the 42 in their order.
    unit: metres per unit. frame: whether the points are in the world or in the (optical) camera frame.
    valid: a feature of N truth values, or None: then a point is valid where its numbers are finite.
    """

    feature: str
    points: tuple[str, ...] = KEYPOINT_NAMES
    unit: float = 1.0
    frame: Literal["world", "camera"] = "world"
    valid: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.points) - {"", *KEYPOINT_NAMES})
        if unknown:
            raise ValueError(f"{self.feature}: {', '.join(unknown)} are no keypoints; see hands.KEYPOINT_NAMES")
        if not self.unit > 0:
            raise ValueError(f"{self.feature}: unit is {self.unit}; it must be positive metres per unit")


@dataclass(frozen=True)
class PoseMapping:
    """Camera poses in one feature.

    form: `matrix` (16 numbers or 4 x 4), `xyz-euler` (6; metres, then the angles of Rz Ry Rx) or `xyz-quaternion` (7;
    metres, then x, y, z, w). inverse: whether the numbers are camera_from_world. The camera frame is optical: x right,
    y down, z forward.
    """

    feature: str
    form: Literal["matrix", "xyz-euler", "xyz-quaternion"] = "matrix"
    inverse: bool = False


@dataclass(frozen=True)
class LeRobotOptions:
    """What the columns of a LeRobot dataset mean.

    image_key: the camera; None takes the first video, else the first image feature.
    keypoints: hand keypoints, one mapping per feature (say, one per hand); empty for none.
    camera_pose: None leaves the camera at the world's origin.
    intrinsics: fx, fy, cx, cy in pixels of the stored frames; None assumes a focal length of one image width (a
        horizontal field of view of 53 degrees).
    joint_positions, joint_targets: features of 23 numbers, the reference robot's joints.
    extras: features to keep as further columns; None keeps every number that nothing else uses.
    """

    image_key: str | None = None
    keypoints: tuple[KeypointMapping, ...] = ()
    camera_pose: PoseMapping | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    joint_positions: str | None = None
    joint_targets: str | None = None
    extras: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.intrinsics is not None and not (len(self.intrinsics) == 4 and min(self.intrinsics[:2]) > 0):
            raise ValueError(f"intrinsics are {self.intrinsics}; expected fx, fy, cx, cy with positive fx and fy")

    @property
    def used(self) -> set[str]:
        """The features that the mappings and joints name."""
        named = [self.joint_positions, self.joint_targets, self.camera_pose.feature if self.camera_pose else None]
        named += [name for entry in self.keypoints for name in (entry.feature, entry.valid)]
        return {name for name in named if name is not None}


def open_lerobot(folder: Path | str, options: LeRobotOptions = LeRobotOptions()) -> "LeRobotSource":
    """The episodes of a LeRobot v3 dataset. Episodes whose files are missing are quarantined.

    Raises FileNotFoundError when there is no meta/info.json, ValueError when a meta file is damaged, the version is
    another, or `options` name features that the dataset does not have.
    """
    layout = open_layout(folder)
    missing = sorted((options.used | set(options.extras or ())) - set(layout.features))
    if missing:
        known = ", ".join(sorted(layout.features))
        raise ValueError(f"{layout.folder} has no feature {', '.join(missing)}; it has {known}")
    keys = (*layout.keys("video"), *layout.keys("image"))
    key = options.image_key or (keys[0] if keys else "")
    if key not in keys:
        raise ValueError(f"{layout.folder} has no camera {key!r}; it has {', '.join(keys) or 'none'}")
    rows, quarantined = {}, list(layout.unlisted)
    for row, number in enumerate(layout.column("episode_index").tolist()):
        name = f"episode_{number:06d}"
        try:
            for path in _files(layout, row, key):
                if not path.is_file():
                    raise CorruptEpisodeError(f"{path} is missing")
            rows[name] = row
        except UNREADABLE as error:
            quarantined.append((name, str(error)))
    if options.intrinsics is None:
        _LOG.warning("%s: without the option lerobot.intrinsics a focal length of one image width is assumed", folder)
    return LeRobotSource(layout.folder, tuple(rows), tuple(quarantined), options, layout, tuple(rows.values()), key)


def _files(layout: LeRobotLayout, row: int, key: str) -> tuple[Path, ...]:
    """Video (if the camera is one) and data file of a row of meta/episodes."""
    data = layout.data_file(row)
    return (layout.video_file(row, key), data) if key in layout.keys("video") else (data,)


@dataclass(frozen=True)
class LeRobotSource(ForeignSource):
    """Episodes of a LeRobot v3 dataset; see `data.source.Source`. The id of `episode_index` 12 is episode_000012.

    rows: of meta/episodes. image_key: the camera that gives the frames.
    """

    kind: ClassVar[str] = "lerobot"
    options: LeRobotOptions
    layout: LeRobotLayout = field(repr=False)
    rows: tuple[int, ...] = field(repr=False)
    image_key: str

    def files(self, index: int) -> tuple[Path, ...]:
        """The video (if the camera is one) and the data file that hold episode `index` among others."""
        return _files(self.layout, self.rows[index], self.image_key)

    def read(self, index: int) -> Track:
        """Columns: hands and joints by the options, and `LeRobotOptions.extras`."""
        row, layout, key, options = self.rows[index], self.layout, self.image_key, self.options
        pictures = {*layout.keys("video"), *layout.keys("image")}
        stored = episode_rows(layout, row, [name for name in layout.features if name not in pictures])
        layout.check_times(row, stored)
        frames = layout.frames(row, key) if key in layout.keys("video") else RowImages(layout, row, key)
        if options.keypoints or options.camera_pose or options.intrinsics:
            check_unturned(frames, "keypoints, camera poses and intrinsics")
        (height, width), length = frames.size, len(frames)
        cameras = camera_poses(stored, options.camera_pose, length)
        keypoints = np.full((length, NUM_KEYPOINTS, 3), np.nan, dtype=np.float32)
        valid = np.zeros((length, NUM_KEYPOINTS), dtype=bool)
        for mapping in options.keypoints:
            places = [KEYPOINT_NAMES.index(name) for name in mapping.points if name]
            keypoints[:, places], valid[:, places] = mapped_points(mapping, stored, cameras)
        used = {*options.used, *INDEX_FEATURES, *PACKETS}
        others = [name for name in stored if name not in used and stored[name].dtype.kind in "fiub"]
        kept = others if options.extras is None else options.extras
        columns = {re.sub(r"[^A-Za-z0-9_.-]", "_", name): stored[name] for name in kept}
        columns |= {"keypoints_world": keypoints, "keypoints_valid": valid}
        joints = {"joint_positions": options.joint_positions, "joint_targets": options.joint_targets}
        columns |= {name: stored[feature] for name, feature in joints.items() if feature is not None}
        return Track(
            frames=frames,
            fps=layout.fps,
            source=f"LeRobot dataset {self.folder.name}, {self.ids[index]}",
            task=layout.task(row),
            world_from_camera=cameras.astype(np.float32),
            intrinsics=pinhole(*(options.intrinsics or (width, width, width / 2, height / 2))),
            columns=columns,
        )


def camera_poses(columns: dict[str, Any], mapping: PoseMapping | None, length: int) -> np.ndarray:
    """world_from_camera (T, 4, 4) float64 by a mapping. Raises ValueError when the numbers are no poses."""
    if mapping is None:
        return np.tile(np.eye(4), (length, 1, 1))
    values = np.asarray(columns[mapping.feature], dtype=np.float64).reshape(length, -1)
    expected = {"matrix": 16, "xyz-euler": 6, "xyz-quaternion": 7}[mapping.form]
    found = values.shape[1]
    if found != expected or not np.isfinite(values).all():
        raise ValueError(f"{mapping.feature} has {found} numbers a frame, or NaN; {mapping.form} has {expected}")
    if mapping.form == "matrix":
        poses = values.reshape(-1, 4, 4)
    elif mapping.form == "xyz-euler":
        poses = poses_from_euler(values)
    else:
        lengths = np.linalg.norm(values[:, 3:], axis=1)
        if (lengths < 1e-6).any():
            raise ValueError(f"{mapping.feature}: the quaternion of frame {int(np.argmin(lengths))} is 0")
        poses = poses_of(rotations_of(values[:, 3:]), values[:, :3])
    check_rigid(poses, f"{mapping.feature}, read as {mapping.form},")
    return invert(torch.from_numpy(poses.copy())).numpy() if mapping.inverse else poses


def mapped_points(
    mapping: KeypointMapping, columns: dict[str, Any], cameras: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The K points (T, K, 3) in the world that `mapping.points` names, and which are valid (T, K)."""
    length, count = len(cameras), len(mapping.points)
    points = np.asarray(columns[mapping.feature], dtype=np.float64).reshape(length, -1) * mapping.unit
    if points.shape[1] != 3 * count:
        raise ValueError(
            f"{mapping.feature} has {points.shape[1]} numbers a frame; its {count} `points` have three each"
        )
    points = points.reshape(length, count, 3)
    known = np.asarray(np.isfinite(points).all(axis=-1))
    if mapping.valid is not None:
        marked = np.asarray(columns[mapping.valid]).reshape(length, -1).astype(bool)
        if marked.shape[1] not in (1, count):
            raise ValueError(f"{mapping.valid} has {marked.shape[1]} values a frame for {count} points")
        known &= marked
    if mapping.frame == "camera":
        points = np.einsum("tij,tkj->tki", cameras[:, :3, :3], points) + cameras[:, None, :3, 3]
    kept = [place for place, name in enumerate(mapping.points) if name]
    return points[:, kept], known[:, kept]
