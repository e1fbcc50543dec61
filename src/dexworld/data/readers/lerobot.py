"""Any LeRobot v3 dataset: one camera as the frames, and a small mapping for what its columns mean.

Without a mapping the hands are unknown (`keypoints_valid` all False), the camera stands still at the world's origin,
and every other number of the rows is a column under its own name. A store that `dexworld prepare` wrote opens with
everything in its place.
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
from dexworld.data.source import CorruptEpisodeError, FolderSource
from dexworld.data.store.labels import PACKETS, layout_from_text, restored, track_arrays
from dexworld.geometry import invert
from dexworld.hands import KEYPOINT_NAMES, NUM_KEYPOINTS
from dexworld.track import Track

_AXIS = re.compile(r"(.*)[._ ]([xyz])")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeypointMapping:
    """Hand keypoints in one feature of N points: shape (N, 3) or (3 N,).

    points: the keypoint of `hands.KEYPOINT_NAMES` that each of the N points is, "" for one that the convention lacks.
        Empty: the names that info.json gives, as NAME_x, NAME_y, NAME_z; without such names, the 42 in their order.
    rename: (their name, ours) for names in info.json.
    unit: metres per unit. frame: whether the points are in the world or in the (optical) camera frame.
    valid: a feature of N truth values, or None: then a point is valid where its numbers are finite.
    """

    feature: str
    points: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    unit: float = 1.0
    frame: Literal["world", "camera"] = "world"
    valid: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted({*self.points, *(ours for _, ours in self.rename)} - {"", *KEYPOINT_NAMES})
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
        horizontal field of view of 53 degrees), which `annotations` says.
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
    ids, rows, quarantined = [], [], list(layout.unlisted)
    for row, number in enumerate(layout.column("episode_index").tolist()):
        name = f"episode_{number:06d}"
        try:
            for path in _files(layout, row, key):
                if not path.is_file():
                    raise CorruptEpisodeError(f"{path} is missing")
            ids.append(name)
            rows.append(row)
        except UNREADABLE as error:
            quarantined.append((name, str(error)))
    source = LeRobotSource(layout.folder, tuple(ids), tuple(quarantined), options, layout, tuple(rows), key)
    if options.intrinsics is None and not source.is_prepared:
        _LOG.warning("%s names no intrinsics; a focal length of one image width is assumed", folder)
    return source


def _files(layout: LeRobotLayout, row: int, key: str) -> tuple[Path, ...]:
    """Video (if the camera is one) and data file of a row of meta/episodes."""
    data = layout.data_file(row)
    return (layout.video_file(row, key), data) if key in layout.keys("video") else (data,)


@dataclass(frozen=True)
class LeRobotSource(FolderSource):
    """Episodes of a LeRobot v3 dataset; see `data.source.Source`. The id of `episode_index` 12 is episode_000012.

    rows: of meta/episodes. image_key: the camera that gives the frames.
    """

    kind: ClassVar[str] = "lerobot"
    options: LeRobotOptions
    layout: LeRobotLayout = field(repr=False)
    rows: tuple[int, ...] = field(repr=False)
    image_key: str

    @property
    def is_prepared(self) -> bool:
        """Whether `dexworld prepare` wrote it, so that every column's meaning is known."""
        return "dexworld/layout" in self.layout.episodes.column_names

    def files(self, index: int) -> tuple[Path, ...]:
        """The video (if the camera is one) and the data file that hold episode `index` among others."""
        return _files(self.layout, self.rows[index], self.image_key)

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy. Raises CorruptEpisodeError when it can't be read or makes no sense."""
        row, layout, name, key = self.rows[index], self.layout, self.ids[index], self.image_key
        pictures = {*layout.keys("video"), *layout.keys("image")}
        try:
            columns = episode_rows(layout, row, [name for name in layout.features if name not in pictures])
            self._check_times(columns)
            frames = layout.frames(row, key) if key in layout.keys("video") else RowImages(layout, row, key)
            return Track(
                frames=frames,
                fps=layout.fps,
                source=f"LeRobot dataset {self.folder.name}, {name}",
                task=layout.task(row),
                **(self._prepared(row, columns) if self.is_prepared else self._mapped(columns, len(frames))),
            )
        except CorruptEpisodeError:
            raise
        except UNREADABLE as error:
            raise CorruptEpisodeError(f"{layout.data_file(row)}: {name}: {error}") from error

    def annotations(self, index: int) -> dict[str, Any]:
        """Every column of the rows as it is stored, frames of every other camera, and whether intrinsics are known."""
        row, layout = self.rows[index], self.layout
        return {
            "columns": episode_rows(layout, row),
            "cameras": {key: layout.frames(row, key) for key in layout.keys("video") if key != self.image_key},
            "intrinsics_known": self.is_prepared or self.options.intrinsics is not None,
            "tasks": layout.tasks,
        }

    def _check_times(self, columns: dict[str, Any]) -> None:
        """The rows' times must be those of the rate, or they would be paired with wrong frames."""
        if "timestamp" in columns:
            times = np.asarray(columns["timestamp"], dtype=np.float64).reshape(-1)
            fine = np.abs((times - times[0]) * self.layout.fps - np.arange(len(times))) < 0.5
            if not fine.all():
                raise ValueError(f"the time of frame {int(np.argmin(fine))} is not that of {self.layout.fps} fps")

    def _prepared(self, row: int, columns: dict[str, Any]) -> dict[str, Any]:
        """Fields of an episode of a prepared store."""
        episodes = self.layout.episodes
        kinds = layout_from_text(episodes.column("dexworld/layout")[row].as_py())
        return {
            "intrinsics": np.array(episodes.column("dexworld/intrinsics")[row].as_py()).reshape(3, 3),
            "seed": episodes.column("dexworld/seed")[row].as_py(),
            **track_arrays(restored(columns, kinds)),
        }

    def _mapped(self, columns: dict[str, Any], length: int) -> dict[str, Any]:
        """Fields of an episode of anybody's dataset, by the options."""
        options = self.options
        height, width = self.layout.video_size(self.image_key)
        cameras = camera_poses(columns, options.camera_pose, length)
        keypoints = np.full((length, NUM_KEYPOINTS, 3), np.nan, dtype=np.float32)
        valid = np.zeros((length, NUM_KEYPOINTS), dtype=bool)
        for mapping in options.keypoints:
            names = self.layout.features[mapping.feature].get("names")
            rows, points, known = _mapped_points(mapping, columns, names, cameras)
            keypoints[:, rows], valid[:, rows] = points, known
        names = options.extras
        if names is None:
            used = {*options.used, *INDEX_FEATURES, *PACKETS}
            names = [name for name in columns if name not in used and columns[name].dtype.kind in "fiub"]
        kept = {re.sub(r"[^A-Za-z0-9_.-]", "_", name): columns[name] for name in names}
        kept |= {"keypoints_world": keypoints, "keypoints_valid": valid}
        joints = {"joint_positions": options.joint_positions, "joint_targets": options.joint_targets}
        kept |= {name: columns[feature] for name, feature in joints.items() if feature is not None}
        return {
            "world_from_camera": cameras.astype(np.float32),
            "intrinsics": pinhole(*(options.intrinsics or (width, width, width / 2, height / 2))),
            "columns": kept,
        }


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


def _mapped_points(
    mapping: KeypointMapping, columns: dict[str, Any], names: Any, cameras: np.ndarray
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Which K of the 42 rows a feature gives, their points (T, K, 3) in the world, and which are valid (T, K)."""
    length = len(cameras)
    points = np.asarray(columns[mapping.feature], dtype=np.float64).reshape(length, -1) * mapping.unit
    if points.shape[1] % 3:
        raise ValueError(f"{mapping.feature} has {points.shape[1]} numbers a frame, which are no points of 3")
    count = points.shape[1] // 3
    places = _places(mapping, names, count)
    rows, axes = list(places), np.array(list(places.values()), dtype=int).reshape(-1, 3)
    points = points[:, axes.reshape(-1)].reshape(length, len(rows), 3)
    known = np.asarray(np.isfinite(points).all(axis=-1))
    if mapping.valid is not None:
        marked = np.asarray(columns[mapping.valid]).reshape(length, -1).astype(bool)
        if marked.shape[1] not in (1, count):
            raise ValueError(f"{mapping.valid} has {marked.shape[1]} values a frame for {count} points")
        known &= marked if marked.shape[1] == 1 else marked[:, axes[:, 0] // 3]
    if mapping.frame == "camera":
        points = np.einsum("tij,tkj->tki", cameras[:, :3, :3], points) + cameras[:, None, :3, 3]
    return rows, points, known


def _places(mapping: KeypointMapping, names: Any, count: int) -> dict[int, list[int]]:
    """For each of the 42 rows that the feature gives, the places of its x, y and z among the feature's numbers."""
    in_order = [[3 * place, 3 * place + 1, 3 * place + 2] for place in range(count)]
    if mapping.points:
        if len(mapping.points) != count:
            raise ValueError(f"{mapping.feature} has {count} points, the mapping names {len(mapping.points)}")
        return {KEYPOINT_NAMES.index(name): axes for name, axes in zip(mapping.points, in_order, strict=True) if name}
    renamed = dict(mapping.rename)
    found: dict[str, dict[str, int]] = {}
    for place, name in enumerate(names if isinstance(names, list) and len(names) == 3 * count else []):
        match = _AXIS.fullmatch(str(name))
        if match:
            found.setdefault(renamed.get(match[1], match[1]), {})[match[2]] = place
    whole = {name: axes for name, axes in found.items() if name in KEYPOINT_NAMES and len(axes) == 3}
    if whole:
        return {KEYPOINT_NAMES.index(name): [axes[axis] for axis in "xyz"] for name, axes in whole.items()}
    if count == NUM_KEYPOINTS:
        return dict(enumerate(in_order))
    raise ValueError(f"{mapping.feature} has {count} points and no names of keypoints; give its `points` or `rename`")
