"""Any LeRobot v3 dataset: one camera as the frames, and a small mapping for what its columns mean.

Without a mapping the hands are unknown (`keypoints_valid` all False), the camera stands still at the world's origin,
and every other number of the rows is kept in `extras` under its own name. A store that `dexworld prepare` wrote opens
with everything in its place.
"""

import logging
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.lerobot.layout import INDEX_FEATURES, UNREADABLE, LeRobotLayout, is_lerobot, open_layout
from dexworld.data.lerobot.rows import RowImages, episode_rows
from dexworld.data.readers.lerobot_mapping import KeypointMapping, PoseMapping, camera_poses, place_keypoints
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.store.labels import PACKETS, layout_from_text, restored, track_arrays
from dexworld.hands import NUM_KEYPOINTS
from dexworld.track import Frames, Track

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeRobotOptions:
    """What the columns of a LeRobot dataset mean.

    image_key: the camera; None takes the first video, else the first image feature.
    keypoints: hand keypoints, one mapping per feature (say, one per hand); empty for none.
    camera_pose: None leaves the camera at the world's origin.
    intrinsics: fx, fy, cx, cy in pixels of the stored frames; None assumes a focal length of one image width (a
        horizontal field of view of 53 degrees), which `annotations` says.
    joint_positions, joint_targets: features of 23 numbers, the reference robot's joints.
    extras: features to keep in `Track.columns`; None keeps every number that nothing else uses.
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


def recognises(folder: Path) -> bool:
    """Whether `folder` is a LeRobot dataset of any version; opening refuses what is not v3 and says what to do."""
    return is_lerobot(folder)


def open_lerobot(folder: Path | str, options: LeRobotOptions | None = None) -> "LeRobotSource":
    """The episodes of a LeRobot v3 dataset. Episodes whose files are missing are quarantined.

    Raises FileNotFoundError when there is no meta/info.json, ValueError when a meta file is damaged, the version is
    another, or `options` name features that the dataset does not have.
    """
    layout, options = open_layout(folder), options or LeRobotOptions()
    source = LeRobotSource(layout, options, (), ())
    source.check_options()
    rows, quarantined = [], list(layout.unlisted)
    for row in range(len(layout)):
        try:
            for path in source.files_of_row(row):
                if not path.is_file():
                    raise CorruptEpisodeError(f"{path} is missing")
            rows.append(row)
        except UNREADABLE as error:
            quarantined.append((source.id_of_row(row), str(error)))
    if options.intrinsics is None and not source.is_prepared:
        _logger.warning("%s names no intrinsics; a focal length of one image width is assumed", folder)
    return LeRobotSource(layout, options, tuple(rows), tuple(quarantined))


@dataclass(frozen=True)
class LeRobotSource:
    """Episodes of a LeRobot v3 dataset, in the order of `episode_index`. rows: their rows in meta/episodes."""

    layout: LeRobotLayout = field(repr=False)
    options: LeRobotOptions
    rows: tuple[int, ...] = field(repr=False)
    quarantined: tuple[tuple[str, str], ...]
    kind: str = "lerobot"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def folder(self) -> Path:
        """Where the dataset lies."""
        return self.layout.folder

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """episode_000012 for the episode whose `episode_index` is 12."""
        return tuple(self.id_of_row(row) for row in self.rows)

    @cached_property
    def image_key(self) -> str:
        """The camera that gives the frames. Raises ValueError when there is none of that name."""
        keys = (*self.layout.video_keys, *self.layout.image_keys)
        key = self.options.image_key or (keys[0] if keys else "")
        if key not in keys:
            raise ValueError(f"{self.folder} has no camera {key!r}; it has {', '.join(keys) or 'none'}")
        return key

    @property
    def is_prepared(self) -> bool:
        """Whether `dexworld prepare` wrote it, so that every column's meaning is known."""
        return "dexworld/layout" in self.layout.episodes.column_names

    def id_of_row(self, row: int) -> str:
        """The id of a row of meta/episodes."""
        return f"episode_{int(self.layout.column('episode_index')[row]):06d}"

    def files_of_row(self, row: int) -> tuple[Path, ...]:
        """Video and data file of a row of meta/episodes."""
        data, key = self.layout.data_file(row), self.image_key
        return (self.layout.video_file(row, key), data) if key in self.layout.video_keys else (data,)

    def files(self, index: int) -> tuple[Path, ...]:
        """The video (if the camera is one) and the data file that hold episode `index` among others."""
        return self.files_of_row(self.rows[index])

    def check_options(self) -> None:
        """Raises ValueError naming a feature of the options that the dataset does not have."""
        options, known = self.options, set(self.layout.features)
        named = [*(entry.feature for entry in options.keypoints), *(options.extras or ())]
        named += [entry.valid for entry in options.keypoints if entry.valid is not None]
        named += [name for name in (options.joint_positions, options.joint_targets) if name is not None]
        named += [options.camera_pose.feature] if options.camera_pose else []
        missing = sorted(set(named) - known)
        if missing:
            raise ValueError(f"{self.folder} has no feature {', '.join(missing)}; it has {', '.join(sorted(known))}")
        _ = self.image_key

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy. Raises CorruptEpisodeError when it can't be read or makes no sense."""
        row = self.rows[index]
        try:
            columns = episode_rows(self.layout, row, self._wanted)
            self._check_times(columns)
            frames = self._frames(row)
            fields = self._prepared(row, columns) if self.is_prepared else self._mapped(columns, len(frames))
            return Track(
                frames=frames,
                fps=self.layout.fps,
                source=f"LeRobot dataset {self.folder.name}, {self.id_of_row(row)}",
                task=self.layout.task(row),
                **({"intrinsics": self._intrinsics(row)} | fields),
            )
        except CorruptEpisodeError:
            raise
        except UNREADABLE as error:
            raise CorruptEpisodeError(f"{self.layout.data_file(row)}: {self.id_of_row(row)}: {error}") from error

    def annotations(self, index: int) -> dict[str, Any]:
        """Every column of the rows as it is stored, frames of every other camera, and whether intrinsics are known."""
        row = self.rows[index]
        columns = episode_rows(self.layout, row)
        cameras = {key: self.layout.frames(row, key) for key in self.layout.video_keys if key != self.image_key}
        known = self.is_prepared or self.options.intrinsics is not None
        return {"columns": columns, "cameras": cameras, "intrinsics_known": known, "tasks": self.layout.tasks}

    @cached_property
    def _wanted(self) -> list[str]:
        """Columns to read: all but images."""
        pictures = {*self.layout.video_keys, *self.layout.image_keys}
        return [name for name in self.layout.features if name not in pictures]

    def _check_times(self, columns: dict[str, Any]) -> None:
        """The rows' times must be those of the rate, or they would be paired with wrong frames."""
        if "timestamp" in columns:
            times = np.asarray(columns["timestamp"], dtype=np.float64).reshape(-1)
            off = np.abs((times - times[0]) * self.layout.fps - np.arange(len(times)))
            if not (off < 0.5).all():
                raise ValueError(
                    f"the time of frame {int(np.argmax(~(off < 0.5)))} is not that of {self.layout.fps} fps"
                )

    def _frames(self, row: int) -> Frames:
        key = self.image_key
        if key in self.layout.video_keys:
            return self.layout.frames(row, key)
        return RowImages(self.layout, row, key)

    def _intrinsics(self, row: int) -> np.ndarray:
        height, width = self.layout.video_size(self.image_key)
        fx, fy, cx, cy = self.options.intrinsics or (width, width, width / 2, height / 2)
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])

    def _prepared(self, row: int, columns: dict[str, Any]) -> dict[str, Any]:
        """Fields of an episode of a prepared store."""
        episodes = self.layout.episodes
        kinds = layout_from_text(episodes.column("dexworld/layout")[row].as_py())
        values = {name: restored(columns[name], *kinds[name]) for name in kinds}
        return {
            "intrinsics": np.array(episodes.column("dexworld/intrinsics")[row].as_py()).reshape(3, 3),
            "seed": episodes.column("dexworld/seed")[row].as_py(),
            **track_arrays(values),
        }

    def _mapped(self, columns: dict[str, Any], length: int) -> dict[str, Any]:
        """Fields of an episode of anybody's dataset, by the options."""
        options = self.options
        cameras = camera_poses(columns, options.camera_pose, length)
        keypoints = np.full((length, NUM_KEYPOINTS, 3), np.nan, dtype=np.float32)
        valid = np.zeros((length, NUM_KEYPOINTS), dtype=bool)
        for mapping in options.keypoints:
            names = self.layout.features[mapping.feature].get("names")
            place_keypoints(mapping, columns, names, cameras, keypoints, valid)
        used = {mapping.feature for mapping in options.keypoints} | {mapping.valid for mapping in options.keypoints}
        used |= {options.joint_positions, options.joint_targets, *INDEX_FEATURES, *PACKETS}
        used |= {options.camera_pose.feature} if options.camera_pose else set()
        names = [name for name in columns if name not in used] if options.extras is None else list(options.extras)
        extras = {
            re.sub(r"[^A-Za-z0-9_.-]", "_", name): columns[name]
            for name in names
            if options.extras is not None or columns[name].dtype.kind in "fiub"
        }
        joints = {"joint_positions": options.joint_positions, "joint_targets": options.joint_targets}
        known = {"keypoints_world": keypoints, "keypoints_valid": valid}
        known |= {name: columns[feature] for name, feature in joints.items() if feature is not None}
        return {"world_from_camera": cameras.astype(np.float32), "columns": extras | known}
