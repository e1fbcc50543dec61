"""DROID as LeRobot publishes it (lerobot/droid_1.0.1): 95,658 episodes in LeRobot v3, images of 180 x 320 at 15 Hz.

Made from the RLDS edition: one lens of each camera, states, actions, three instructions, and one pose per camera and
episode, that of its first frame. The wrist camera is fixed to the gripper, so its pose over time follows the gripper's.
Intrinsics are not part of it: they are given by option or estimated. The options are those of the raw release.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq

from dexworld.data.files import read_json
from dexworld.data.lerobot.layout import UNREADABLE, LeRobotLayout, is_lerobot, open_layout
from dexworld.data.lerobot.rows import column_values, episode_rows
from dexworld.data.readers.arrays import check_numbers, poses_from_euler
from dexworld.data.readers.droid_episode import (
    ACTION,
    MAX_ACTION,
    DroidOptions,
    camera_vector,
    hand_columns,
    intrinsics,
)
from dexworld.data.readers.foreign_source import ForeignSource
from dexworld.data.source import CorruptEpisodeError, evenly_spread
from dexworld.data.video_frames import check_unturned
from dexworld.track import Track

_NAMES = {"ext1": "exterior_1_left", "ext2": "exterior_2_left", "wrist": "wrist_left"}
IMAGES = {role: f"observation.images.{name}" for role, name in _NAMES.items()}
POSES = {role: f"camera_extrinsics.{name}" for role, name in _NAMES.items()}
STATE = "observation.state."
POSITION, GRIPPER = f"{STATE}cartesian_position", f"{STATE}gripper_position"
ACTIONS = [f"action.{name}" for name in ACTION]
SUCCESS, LANGUAGE = "is_episode_successful", "language_instruction"
_NEEDED = {POSITION, GRIPPER, *IMAGES.values(), *POSES.values()}


@dataclass(frozen=True)
class DroidLeRobotSource(ForeignSource):
    """Episodes of the LeRobot edition; see `data.source.Source`. Ids are episode numbers of six digits."""

    kind: ClassVar[str] = "droid-lerobot"
    options: DroidOptions
    layout: LeRobotLayout
    rows: tuple[int, ...]

    def read(self, index: int) -> Track:
        """Columns: `hand_columns` and action."""
        row, layout = self.rows[index], self.layout
        spoken = [LANGUAGE] if LANGUAGE in layout.features else []
        rows = episode_rows(layout, row, [POSITION, GRIPPER, *spoken, *self._poses, *ACTIONS], ["task_index"])
        where = f"{layout.data_file(row)}: episode {self.ids[index]}:"
        position, closed = _column(rows, POSITION, 6, where), _column(rows, GRIPPER, 1, where)[:, 0]
        columns = hand_columns(self.options.hand, position, closed, f"{where} {STATE}")
        columns["action"] = np.concatenate([_column(rows, name, None, where) for name in ACTIONS], axis=1)
        check_numbers(columns["action"], MAX_ACTION, f"{where} action")
        role = self._role(rows, where)
        camera = poses_from_euler(camera_vector(rows[POSES[role]][0], f"{where} {POSES[role]}"))
        cameras = np.tile(camera, (len(position), 1, 1))
        if role == "wrist":
            poses = columns["gripper_pose_world"]
            cameras = poses @ (np.linalg.inv(poses[0]) @ camera)
        frames = layout.frames(row, IMAGES[role])
        check_unturned(frames, "camera poses")  # opens the video, so that a damaged one is found now
        return Track(
            frames=frames,
            fps=layout.fps,
            world_from_camera=cameras,
            intrinsics=intrinsics(self.options, None, role, frames.size, where),
            source=f"droid-lerobot {self.ids[index]} camera {role}",
            task=str(rows[LANGUAGE].reshape(-1)[0] if spoken else "") or layout.task(row, rows),
            columns=columns,
        )

    def files(self, index: int) -> tuple[Path, ...]:
        """The video and the parquet file that episode `index` is read from, where they can be told."""
        row, found = self.rows[index], []
        with suppress(*UNREADABLE):  # reading the episode will say so
            rows = episode_rows(self.layout, row, self._poses)
            found.append(self.layout.video_file(row, IMAGES[self._role(rows, self.ids[index])]))
        return (*found, self.layout.data_file(row))

    @property
    def _poses(self) -> list[str]:
        """The columns that the choice of the camera needs."""
        return [POSES[role] for role in ([self.options.camera] if self.options.camera in IMAGES else ("ext1", "ext2"))]

    def _role(self, rows: dict[str, Any], where: str) -> str:
        """The camera to look through. Left is the outer camera further to the robot's left, which is +y."""
        if self.options.camera in IMAGES:
            return self.options.camera
        across = {role: camera_vector(rows[POSES[role]][0], f"{where} {POSES[role]}")[1] for role in ("ext1", "ext2")}
        return (max if self.options.camera == "left" else min)(across, key=lambda role: across[role])


def recognises(folder: Path) -> bool:
    """Whether `folder` is a LeRobot dataset with DROID's columns."""
    try:
        features = read_json(folder / "meta" / "info.json").get("features") if is_lerobot(folder) else None
    except ValueError:
        return False
    return isinstance(features, dict) and set(features) >= _NEEDED


def open_droid_lerobot(folder: Path | str, options: DroidOptions = DroidOptions()) -> DroidLeRobotSource:
    """The episodes of the LeRobot edition in `folder`.

    Raises FileNotFoundError or ValueError when the dataset's meta files are missing, damaged, of another version or not
    DROID's, and when `options.annotations` is given: its files go by episode ids that this edition doesn't have.
    """
    layout = open_layout(folder)
    missing = sorted(_NEEDED - set(layout.features))
    if missing:
        raise ValueError(f"{folder} is not DROID's LeRobot edition: it lacks {', '.join(missing)}")
    if options.annotations is not None:
        raise ValueError(
            "`annotations` goes by episode ids, which the LeRobot edition of DROID doesn't have; give `intrinsics` "
            "(fx, fy, cx, cy) or read the raw release"
        )
    options.warn_of_estimates(layout.folder)
    numbers = layout.column("episode_index")
    rows: Sequence[int] = range(len(layout))
    if options.outcome != "all":
        succeeded = _successes(layout)
        rows = [row for row in rows if succeeded.get(int(numbers[row]), False) == (options.outcome == "success")]
    rows = evenly_spread(rows, options.max_episodes)
    ids = tuple(f"{int(numbers[row]):06d}" for row in rows)
    return DroidLeRobotSource(layout.folder, ids, layout.unlisted, options, layout, rows)


def _successes(layout: LeRobotLayout) -> dict[int, bool]:
    """Whether each episode was a success, from one column of every data file."""
    found: dict[int, bool] = {}
    for path in sorted({layout.data_file(row) for row in range(len(layout))}):
        try:
            table = pq.read_table(path, columns=["episode_index", SUCCESS], use_threads=False)
            success = column_values(table.column(SUCCESS), SUCCESS).reshape(-1)
        except UNREADABLE as error:
            raise ValueError(f"{path} doesn't say which episodes succeeded ({error}); open outcome all") from error
        found |= dict(zip(table.column("episode_index").to_pylist(), map(bool, success), strict=True))
    return found


def _column(rows: dict[str, Any], name: str, width: int | None, where: str) -> np.ndarray:
    """A column as (T, width) float64."""
    values = np.asarray(rows[name], dtype=np.float64).reshape(len(rows[name]), -1)
    if width is not None and values.shape[1] != width:
        raise CorruptEpisodeError(f"{where} {name} has {values.shape[1]} numbers a row, expected {width}")
    return values
