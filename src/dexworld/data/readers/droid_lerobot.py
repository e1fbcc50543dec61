"""DROID as LeRobot publishes it (lerobot/droid_1.0.1): 95,658 episodes in LeRobot v3, images of 180 x 320 at 15 Hz.

Made from the RLDS edition: one lens of each camera, states, actions, three instructions, and one pose per camera and
episode, that of its first frame. The wrist camera is fixed to the gripper, so its pose over time follows the gripper's.
Intrinsics are not part of it: they are given by option or estimated. The options are those of the raw release.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq

from dexworld.data.files import read_json
from dexworld.data.frame_table import frame_table
from dexworld.data.lerobot.layout import UNREADABLE, LeRobotLayout, is_lerobot, open_layout
from dexworld.data.lerobot.rows import column_values, episode_rows
from dexworld.data.readers.arrays import check_numbers, pinhole, poses_from_euler
from dexworld.data.readers.droid import DroidOptions
from dexworld.data.readers.droid_camera import (
    check_intrinsics,
    gripper_opening,
    gripper_poses,
    nominal_intrinsics,
    pose_vector,
)
from dexworld.data.source import CorruptEpisodeError, FolderSource, evenly_spread
from dexworld.data.video import VideoError
from dexworld.track import Track

_NAMES = {"ext1": "exterior_1_left", "ext2": "exterior_2_left", "wrist": "wrist_left"}
IMAGES = {role: f"observation.images.{name}" for role, name in _NAMES.items()}
POSES = {role: f"camera_extrinsics.{name}" for role, name in _NAMES.items()}
POSITION, GRIPPER = "observation.state.cartesian_position", "observation.state.gripper_position"
SUCCESS = "is_episode_successful"
LANGUAGE = ("language_instruction", "language_instruction_2", "language_instruction_3")
_NEEDED = {POSITION, GRIPPER, *IMAGES.values(), *POSES.values()}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DroidLeRobotSource(FolderSource):
    """Episodes of the LeRobot edition; see `data.source.Source`. Ids are episode numbers of six digits."""

    kind: ClassVar[str] = "droid-lerobot"
    options: DroidOptions
    layout: LeRobotLayout
    rows: tuple[int, ...]

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy: `DroidOptions.hand_columns` and action.

        Raises CorruptEpisodeError naming the file and the column of what is missing, damaged or makes no sense.
        """
        number, options = self.rows[index], self.options
        with self._named(index):
            actions = [f"action.{name}" for name in options.action]
            rows = episode_rows(self.layout, number, [POSITION, GRIPPER, LANGUAGE[0], *POSES.values(), *actions])
            where = f"{self.layout.data_file(number)}: episode {self.ids[index]}:"
            poses = gripper_poses(_column(rows, POSITION, 6, where), f"{where} {POSITION}")
            opening = gripper_opening(_column(rows, GRIPPER, 1, where)[:, 0], f"{where} {GRIPPER}")
            role = self._role(rows, where)
            columns = options.hand_columns(poses, opening)
            frames = self.layout.frames(number, IMAGES[role])
            frame_table(frames.path)  # a video that can't be opened is found now
            matrix, _ = self._intrinsics(role, frames.size, where)
            if actions:
                columns["action"] = np.concatenate([_column(rows, name, None, where) for name in actions], axis=1)
                check_numbers(columns["action"], 1e3, f"{where} action")
            camera = poses_from_euler(pose_vector(rows[POSES[role]][0], f"{where} {POSES[role]}"))
            still = np.tile(camera, (len(poses), 1, 1))
            return Track(
                frames=frames,
                fps=self.layout.fps,
                world_from_camera=poses @ (np.linalg.inv(poses[0]) @ camera) if role == "wrist" else still,
                intrinsics=matrix,
                source=f"droid-lerobot {self.ids[index]} camera {role}",
                task=str(rows[LANGUAGE[0]].reshape(-1)[0]) or self.layout.task(number),
                columns=columns,
            )

    def files(self, index: int) -> tuple[Path, ...]:
        """The video and the parquet file that episode `index` is read from, where they can be told."""
        number, found = self.rows[index], []
        try:
            rows = episode_rows(self.layout, number, list(POSES.values()))
            found.append(self.layout.video_file(number, IMAGES[self._role(rows, self.ids[index])]))
        except (*UNREADABLE, CorruptEpisodeError) as error:
            _LOG.debug("%s", error)  # reading the episode will say so
        return (*found, self.layout.data_file(number))

    def annotations(self, index: int) -> dict[str, Any]:
        """Every column of the episode's rows under "rows", and how it was read, as `DroidSource.annotations`."""
        with self._named(index):
            rows = episode_rows(self.layout, self.rows[index])
            role = self._role(rows, self.ids[index])
            spoken = [str(rows[name].reshape(-1)[0]) for name in LANGUAGE if name in rows]
            return {
                "rows": rows,
                "success": bool(np.all(rows[SUCCESS])) if SUCCESS in rows else None,
                "language": [text for text in spoken if text],
                "camera": {"role": role, "key": IMAGES[role]},
                "intrinsics_source": self._intrinsics(role, self.layout.video_size(IMAGES[role]), self.ids[index])[1],
                "extrinsics_source": "first frame, moved with the gripper" if role == "wrist" else POSES[role],
            }

    @contextmanager
    def _named(self, index: int) -> Iterator[None]:
        """Whatever goes wrong inside is a CorruptEpisodeError that names the episode."""
        try:
            yield
        except CorruptEpisodeError:
            raise
        except (*UNREADABLE, AttributeError, VideoError) as error:  # AttributeError: a stream without a codec
            raise CorruptEpisodeError(f"{self.folder}: episode {self.ids[index]}: {error}") from error

    def _role(self, rows: dict[str, Any], where: str) -> str:
        """The camera to look through. Left is the outer camera further to the robot's left, which is +y."""
        if self.options.camera in IMAGES:
            return self.options.camera
        across = {role: pose_vector(rows[POSES[role]][0], f"{where} {POSES[role]}")[1] for role in ("ext1", "ext2")}
        return (max if self.options.camera == "left" else min)(across, key=lambda role: across[role])

    def _intrinsics(self, role: str, size: tuple[int, int], where: str) -> tuple[np.ndarray, str]:
        if self.options.intrinsics is not None:
            matrix, source = pinhole(*self.options.intrinsics), "options"
        elif self.options.estimate_intrinsics:
            matrix, source = nominal_intrinsics(role, size), "estimate"
        else:
            raise CorruptEpisodeError(f"{where} has no intrinsics; give `intrinsics` or allow `estimate_intrinsics`")
        check_intrinsics(matrix, size, f"{where} intrinsics from {source}")
        return matrix, source


def recognises(folder: Path) -> bool:
    """Whether `folder` is a LeRobot dataset with DROID's columns."""
    try:
        features = read_json(folder / "meta" / "info.json").get("features") if is_lerobot(folder) else None
    except ValueError:
        return False
    return isinstance(features, dict) and set(features) >= _NEEDED


def open_droid_lerobot(folder: Path | str, options: DroidOptions = DroidOptions()) -> DroidLeRobotSource:
    """The episodes of the LeRobot edition in `folder`. The rate is the dataset's own, whatever `options.fps` says.

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
    if options.intrinsics is None and options.estimate_intrinsics:
        text = "%s holds no intrinsics: the cameras' nominal focal length stands in; pixels of keypoints are estimates"
        _LOG.warning(text, folder)
    numbers = layout.column("episode_index")
    rows: Sequence[int] = range(len(layout))
    if options.outcome != "all":
        succeeded = _successes(layout)
        rows = [row for row in rows if succeeded.get(int(numbers[row]), False) == (options.outcome == "success")]
    rows = evenly_spread(rows, options.max_episodes)
    ids = tuple(f"{int(numbers[row]):06d}" for row in rows)
    return DroidLeRobotSource(Path(folder), ids, layout.unlisted, options, layout, rows)


def _successes(layout: LeRobotLayout) -> dict[int, bool]:
    """Whether each episode was a success, from one column of every data file."""
    found: dict[int, bool] = {}
    for path in sorted({layout.data_file(row) for row in range(len(layout))}):
        try:
            table = pq.read_table(path, columns=["episode_index", SUCCESS], use_threads=False)
        except UNREADABLE as error:
            raise ValueError(f"{path} doesn't say which episodes succeeded ({error}); open outcome all") from error
        success = column_values(table.column(SUCCESS), SUCCESS).reshape(-1)
        found |= dict(zip(table.column("episode_index").to_pylist(), map(bool, success), strict=True))
    return found


def _column(rows: dict[str, Any], name: str, width: int | None, where: str) -> np.ndarray:
    """A column as (T, width) float64."""
    values = np.asarray(rows[name], dtype=np.float64).reshape(len(rows[name]), -1)
    if width is not None and values.shape[1] != width:
        raise CorruptEpisodeError(f"{where} {name} has {values.shape[1]} numbers a row, expected {width}")
    return values
