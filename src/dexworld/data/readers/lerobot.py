"""Any LeRobot v3 dataset: one camera as the frames, and a small mapping for what its columns mean.

Without a mapping the hands are unknown (`keypoints_valid` all False), the camera stands still at the world's origin,
and every other number of the rows is a column under its own name.
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dexworld.data.camera.camera import Camera, PinholeView, UndistortedFrames
from dexworld.data.camera.camera_files import HandEye, read_camera, read_hand_eye
from dexworld.data.lerobot.layout import INDEX_FEATURES, UNREADABLE, LeRobotLayout, open_layout
from dexworld.data.lerobot.rows import RowImages, episode_rows, find_rows
from dexworld.data.readers.arrays import check_pinhole, pinhole
from dexworld.data.readers.foreign_source import ForeignSource
from dexworld.data.readers.robot_states import PoseMapping, RobotStates, mapped_poses
from dexworld.data.resize import holds_pixels
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store.labels import INTRINSICS, PACKETS, SEED, own_features, track_from_flat
from dexworld.data.store.policy_columns import ACTION, STATE
from dexworld.data.video_frames import check_unturned
from dexworld.hands import KEYPOINT_NAMES, NUM_KEYPOINTS
from dexworld.track import Frames, Track

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeypointMapping:
    """Hand keypoints in one feature of N points: shape (N, 3) or (3 N,).

    points: the keypoint of `hands.KEYPOINT_NAMES` that each of the N points is, "" for one that the convention lacks.
        Empty: by the names in info.json (NAME, or NAME_x, NAME_y, NAME_z) where they are ours, else the 42 in order.
    unit: metres per unit. frame: whether the points are in the world or in the (optical) camera frame.
    valid: a feature of N truth values, or None: then a point is valid where its numbers are finite.
    """

    feature: str
    points: tuple[str, ...] = ()
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
class LeRobotOptions:
    """What the columns of a LeRobot dataset mean.

    image_key: the camera; None takes the first video, else the first image feature, that is no depth map.
    keypoints: hand keypoints, one mapping per feature (say, one per hand); empty for none.
    camera_pose: None leaves the camera at the world's origin.
    intrinsics: fx, fy, cx, cy in pixels of the stored frames; None assumes a focal length of one image width (a
        horizontal field of view of 53 degrees).
    camera: file with the intrinsics of the camera, with its lens (docs/cameras.md); frames are read without the lens.
    hand_eye: file with where that camera is mounted. `camera_pose` is then the pose of what it is mounted on, None for
        a robot's base at the world's origin.
    robots: described robots whose joint states are in the rows, at most one for each hand; they give the keypoints.
    joint_positions, joint_targets: features of joints, without `robots`.
    extras: features to keep as further columns; None keeps every number that nothing else uses.
    """

    image_key: str | None = None
    keypoints: tuple[KeypointMapping, ...] = ()
    camera_pose: PoseMapping | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    camera: Path | None = None
    hand_eye: Path | None = None
    robots: tuple[RobotStates, ...] = ()
    joint_positions: str | None = None
    joint_targets: str | None = None
    extras: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.intrinsics is not None and not (len(self.intrinsics) == 4 and min(self.intrinsics[:2]) > 0):
            raise ValueError(f"intrinsics are {self.intrinsics}; expected fx, fy, cx, cy with positive fx and fy")
        if self.camera is not None and self.intrinsics is not None:
            raise ValueError("give `intrinsics` or `camera`, not both")
        if self.robots and (self.keypoints or self.joint_positions or self.joint_targets):
            raise ValueError(
                "`robots` give keypoints and joints; leave `keypoints`, `joint_positions`, `joint_targets` out"
            )

    @property
    def used(self) -> set[str]:
        """The features that the mappings and joints name."""
        named = [self.joint_positions, self.joint_targets, self.camera_pose.feature if self.camera_pose else None]
        named += [name for entry in self.keypoints for name in (entry.feature, entry.valid)]
        return {name for name in named if name is not None}.union(*(robot.used for robot in self.robots))


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
    key = _camera(layout, options.image_key)
    rows, quarantined = {}, list(layout.unlisted)
    for row, number in enumerate(layout.column("episode_index").tolist()):
        name = f"episode_{number:06d}"
        try:
            for path in _files(layout, row, key):
                if not path.is_file():
                    raise CorruptEpisodeError(f"{path} is missing; download it")
            rows[name] = row
        except UNREADABLE as error:
            quarantined.append((name, str(error)))
    _warn_of_unknowns(layout, options)
    places = layout, tuple(rows.values()), key, *_camera_files(options)
    return LeRobotSource(layout.folder, tuple(rows), tuple(quarantined), options, *places)


def _camera_files(options: LeRobotOptions) -> tuple[Camera | None, HandEye | None]:
    """The camera and where it is mounted, as the options' files say. Raises ValueError as the files' readers do."""
    camera = None if options.camera is None else read_camera(options.camera)
    mounted = None if options.hand_eye is None else read_hand_eye(options.hand_eye)
    if mounted is not None and mounted.on_hand and options.camera_pose is None:
        raise ValueError(f"{options.hand_eye} is of a camera on a hand: give the flange's pose by lerobot.camera_pose")
    return camera, mounted


def _camera(layout: LeRobotLayout, wanted: str | None) -> str:
    """The picture feature that gives the frames. Raises ValueError where none shows colour."""
    faults = {key: layout.faults_of_camera(key) for key in (*layout.keys("video"), *layout.keys("image"))}
    there = "; ".join(key + (f" ({fault})" if fault else "") for key, fault in faults.items()) or "none"
    if wanted is not None:
        if wanted not in faults or "is_depth_map" in faults[wanted]:
            raise ValueError(f"{layout.folder} has no camera {wanted!r}; it has {there}")
        return wanted
    fit = [key for key, fault in faults.items() if not fault]
    if not fit:
        grey = "; the option lerobot.image_key takes a grey one" if "of one channel" in there else ""
        raise ValueError(f"{layout.folder} has no colour camera; it has {there}{grey}")
    if len(faults) > 1:
        _LOG.info("%s: frames are those of %s, of %s (option lerobot.image_key)", layout.folder, fit[0], there)
    return fit[0]


def _warn_of_unknowns(layout: LeRobotLayout, options: LeRobotOptions) -> None:
    """Say what neither the dataset nor the options tell. Raises ValueError for a store of ours without intrinsics."""
    own = own_features(layout.features)
    told = options.intrinsics is not None or options.camera is not None
    if own and not told and INTRINSICS not in layout.features:
        lost = "is a store of dexworld that another program rewrote, and its intrinsics are lost"
        raise ValueError(f"{layout.folder} {lost}; give fx, fy, cx, cy by the option lerobot.intrinsics")
    unknown = ["the focal length is assumed to be one image width (lerobot.intrinsics, lerobot.camera)"] * (not told)
    unknown += ["no hands are known (lerobot.keypoints, lerobot.robots)"] * (not (options.keypoints or options.robots))
    if own:
        unknown = ["it is read by the columns of a store of dexworld, without its ids and splits"]
    if unknown:
        _LOG.warning("%s: %s", layout.folder, "; ".join(unknown))


def _files(layout: LeRobotLayout, row: int, key: str) -> tuple[Path, ...]:
    """Video (if the camera is one) and data file of a row of meta/episodes."""
    data = layout.data_file(row)
    data = data if data.is_file() else find_rows(layout, row)[0]
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
    camera: Camera | None = field(default=None, repr=False)
    mounted: HandEye | None = field(default=None, repr=False)

    def files(self, index: int) -> tuple[Path, ...]:
        """The video (if the camera is one) and the data file that hold episode `index` among others."""
        return _files(self.layout, self.rows[index], self.image_key)

    def read(self, index: int) -> Track:
        """Columns: hands and joints by the options, and `LeRobotOptions.extras`."""
        row, layout, key, options = self.rows[index], self.layout, self.image_key, self.options
        own = own_features(layout.features)
        beside = [name for name in (INTRINSICS, SEED) if own and name in layout.features]
        unused = {*options.used, *own, *beside, *layout.keys("video"), *layout.keys("image"), *PACKETS, *INDEX_FEATURES}
        unused |= {STATE, ACTION} if own else set()
        kept = [name for name in layout.features if name not in unused] if options.extras is None else []
        needed = list(dict.fromkeys([*options.used, *own, *beside, *(options.extras or ())]))
        stored = episode_rows(layout, row, needed, [*kept, "timestamp", "task_index"])
        layout.check_times(row, stored)
        frames = layout.frames(row, key) if key in layout.keys("video") else RowImages(layout, row, key)
        labels = options.keypoints or options.robots or options.camera_pose or options.intrinsics or self.camera or own
        if labels or any(name.endswith("_pixels") for name in layout.features):
            check_unturned(frames, "keypoints, camera poses and pixels")
        columns: dict[str, Any] = {}
        for name in options.extras or [name for name in kept if name in stored]:
            if columns.setdefault(re.sub(r"[^A-Za-z0-9_.-]", "_", name), stored[name]) is not stored[name]:
                layout.warn_once(f"{layout.folder}: {name} is left out: another feature becomes the same column")
        ours = track_from_flat({name: stored[name] for name in own}) if own else {}
        cameras = ours.pop("world_from_camera", None)
        if cameras is None or options.camera_pose is not None or self.mounted is not None:
            cameras = mapped_poses(stored, options.camera_pose, len(frames))
            if self.mounted is not None:
                cameras = cameras @ self.mounted.parent_from_camera
        columns |= ours.get("columns", {})
        if options.robots:
            columns |= self._robots(stored)
        elif options.keypoints or "keypoints_world" not in columns:
            columns |= self._hands(stored, cameras)
        joints = {"joint_positions": options.joint_positions, "joint_targets": options.joint_targets}
        columns |= {name: stored[feature] for name, feature in joints.items() if feature is not None}
        intrinsics = self._intrinsics(stored, frames.size, self.files(index)[0], columns)
        shown: Frames = frames
        if self.camera is not None:
            view = PinholeView(self.camera.of_size(frames.size), frames.size)
            shown, intrinsics = UndistortedFrames(frames, view), view.intrinsics
            columns |= {name: view.pixels(each) for name, each in columns.items() if holds_pixels(name, each)}
        seed = int(stored[SEED].reshape(-1)[0]) if SEED in beside else -1
        return Track(
            frames=shown,
            fps=layout.fps,
            source=f"LeRobot dataset {self.folder.name}, {self.ids[index]}",
            task=layout.task(row, stored),
            seed=seed if seed >= 0 else None,
            world_from_camera=cameras.astype(np.float32),
            intrinsics=intrinsics,
            columns=columns,
        )

    def _robots(self, stored: dict[str, Any]) -> dict[str, np.ndarray]:
        """Keypoints and joints of all robots: rows of one hand each, joints one robot behind the other."""
        named = (next(_lists(self.layout.features[each.joints].get("names")), None) for each in self.options.robots)
        found = [each.hands(stored, names) for each, names in zip(self.options.robots, named, strict=True)]
        valid = np.stack([each["keypoints_valid"] for each in found])
        if (valid.sum(axis=0) > 1).any():
            raise ValueError("two robots of lerobot.robots have the same hand; give one for each")
        points = np.stack([each["keypoints_world"] for each in found])
        columns = {"keypoints_valid": np.any(valid, axis=0)}
        columns["keypoints_world"] = np.where(valid[..., None], points, 0.0).sum(axis=0, dtype=np.float32)
        for name in ("joint_positions", "joint_targets"):
            if all(name in each for each in found):
                columns[name] = np.concatenate([each[name] for each in found], axis=1)
        return columns

    def _hands(self, stored: dict[str, Any], cameras: np.ndarray) -> dict[str, np.ndarray]:
        """Keypoints by the mappings of the options, and which are valid."""
        keypoints = np.full((len(cameras), NUM_KEYPOINTS, 3), np.nan, dtype=np.float32)
        valid = np.zeros((len(cameras), NUM_KEYPOINTS), dtype=bool)
        for mapping in self.options.keypoints:
            names, points, known = mapped_points(mapping, self.layout, stored, cameras)
            places = [KEYPOINT_NAMES.index(name) for name in names]
            keypoints[:, places], valid[:, places] = points, known
        return {"keypoints_world": keypoints, "keypoints_valid": valid}

    def _intrinsics(
        self, stored: dict[str, Any], size: tuple[int, int], path: Path, columns: dict[str, Any]
    ) -> np.ndarray:
        """The matrix (3, 3) for frames of `size`; refuses numbers that are pixels of frames of another size."""
        height, width = size
        stale = not self.layout.compare_size(self.image_key, size, path)
        own = self.options.intrinsics is None and self.camera is None and INTRINSICS in stored
        pixels = [name for name in columns if name.endswith("_pixels")] + [INTRINSICS] * own
        if stale and pixels:
            raise CorruptEpisodeError(f"{path}: {pixels[0]} holds pixels of frames that are not {height} x {width}")
        if own:
            return np.asarray(stored[INTRINSICS][0], dtype=np.float64).reshape(3, 3)
        matrix = pinhole(*(self.options.intrinsics or (width, width, width / 2, height / 2)))
        if stale:
            check_pinhole(matrix, size, f"{path}: intrinsics")
        return matrix


def mapped_points(
    mapping: KeypointMapping, layout: LeRobotLayout, columns: dict[str, Any], cameras: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The K keypoints that a feature gives: their names, the points (T, K, 3) in the world, which are valid (T, K)."""
    length = len(cameras)
    values = np.asarray(columns[mapping.feature], dtype=np.float64).reshape(length, -1) * mapping.unit
    places, count = _places(mapping, layout, values.shape[1]), values.shape[1] // 3
    points = values[:, list(places.values())]
    known = np.asarray(np.isfinite(points).all(axis=-1))
    if mapping.valid is not None:
        marked = np.asarray(columns[mapping.valid]).reshape(length, -1).astype(bool)
        if marked.shape[1] not in (1, count):
            raise ValueError(f"{mapping.valid} has {marked.shape[1]} values a frame for {count} points")
        rows = [x // 3 if y == x + 1 else x for x, y, _ in places.values()]
        known &= marked if marked.shape[1] == 1 else marked[:, rows]
    if mapping.frame == "camera":
        points = np.einsum("tij,tkj->tki", cameras[:, :3, :3], points) + cameras[:, None, :3, 3]
    return list(places), points, known


def _places(mapping: KeypointMapping, layout: LeRobotLayout, width: int) -> dict[str, list[int]]:
    """Where x, y and z of each keypoint stand among the `width` numbers of the mapping's feature."""
    points = mapping.points or KEYPOINT_NAMES
    lists = [] if mapping.points else [*_lists(layout.features[mapping.feature].get("names"))]
    lists = [names for names in lists if len(names) in (width, width / 3)]
    for names in lists:
        each = [f"{name}_{axis}" for name in names for axis in "xyz"] if 3 * len(names) == width else names
        place = {re.sub(r"[./ ]([xyz])$", r"_\1", name): number for number, name in enumerate(each)}
        found = {name: [place.get(f"{name}_{axis}", width) for axis in "xyz"] for name in KEYPOINT_NAMES}
        if whole := {name: axes for name, axes in found.items() if max(axes) < width}:
            return whole
    if width != 3 * len(points):
        raise ValueError(f"{mapping.feature} has {width} numbers a frame; its {len(points)} `points` have three each")
    if lists:
        layout.warn_once(f"{layout.folder}: no name of {mapping.feature} is ours; its points are taken in our order")
    return {name: [3 * number, 3 * number + 1, 3 * number + 2] for number, name in enumerate(points) if name}


def _lists(names: Any) -> Iterator[list[str]]:
    """Every list of names in what info.json gives: a list, lists in lists, or a dict of them (axes, motors)."""
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        yield names
    elif isinstance(names, (dict, list)):
        parts = [
            each for each in (names.values() if isinstance(names, dict) else names) if isinstance(each, (dict, list))
        ]
        for each in parts:
            yield from _lists(each)
        if isinstance(names, list):
            yield [name for each in parts for name in each if isinstance(name, str)]
