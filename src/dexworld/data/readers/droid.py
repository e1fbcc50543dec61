"""DROID as it was recorded: LAB/success|failure/DATE/TIME/{metadata_*.json, trajectory.h5, recordings/MP4/SERIAL.mp4}.

A Franka Panda with a parallel gripper, seen by two outer cameras and one on the wrist; states at 15 Hz (DROID dataset
schema, droid-dataset.github.io). The gripper becomes a dummy right hand (`gripper_hand.py`); the world is the robot's
base; frames come from the camera that the release of DexWM uses unless another one is asked for.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from dexworld.data.files import read_json
from dexworld.data.hdf5 import arrays, attribute, attributes, opened_hdf5
from dexworld.data.readers.droid_alignment import Alignment, aligned_frames
from dexworld.data.readers.droid_camera import (
    CAMERAS,
    CameraChoice,
    DroidCamera,
    camera_intrinsics,
    camera_poses,
    choose_camera,
    later_entry,
    load_annotations,
)
from dexworld.data.readers.droid_gripper import MAX_REACH, gripper_opening, gripper_poses
from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.data.readers.robot_arrays import numbers, rows_of, simulator_seed
from dexworld.data.source import CorruptEpisodeError, evenly_spread
from dexworld.track import Frames, Track

logger = logging.getLogger(__name__)

CONTROL_RATE = 15.0
OUTCOMES = ("success", "failure")
_STATE = "observation/robot_state"


@dataclass(frozen=True)
class DroidOptions:
    """How DROID episodes are read.

    camera: `left` is the outer camera that the metadata calls left (the release of DexWM); `right` the other one; or
        `ext1`, `ext2`, `wrist`.
    outcome: which folders: `all`, `success` or `failure`.
    max_episodes: at most so many, evenly spread over the ids; 18,720 are about the paper's 100 hours.
    hand: the dummy hand of the gripper.
    intrinsics: fx, fy, cx, cy in pixels of the video's own size, over everything that the files say.
    estimate_intrinsics: whether the maker's nominal focal length may stand in where no file has intrinsics (the raw
        release has none); if not, such an episode is corrupt. `annotations(i)["intrinsics_source"]` says which it was.
    annotations: folder with the files that were published later: intrinsics, better poses, language (see
        `droid_camera.py`).
    action: datasets of `action/` that are put side by side as the extra `action`; the default is what the LeRobot
        release calls the action.
    fps: states and frames per second.
    frame_tolerance: how many frames video and trajectory may differ by. Many videos of the release lack a frame
        (github.com/droid-dataset/droid, report 54); both are then cut to what they share, and `annotations` says how.
    dummy_confidence: `keypoint_confidence` of the dummy hand. It isn't in the picture, so by default it counts for
        nothing where keypoints are looked for in images (the release masks it out of that loss).

    Raises ValueError on values outside these.
    """

    camera: CameraChoice = "left"
    outcome: Literal["all", "success", "failure"] = "all"
    hand: GripperHand = field(default_factory=GripperHand)
    intrinsics: tuple[float, float, float, float] | None = None
    estimate_intrinsics: bool = True
    annotations: Path | None = None
    action: tuple[str, ...] = ("joint_position", "gripper_position")
    fps: float = CONTROL_RATE
    frame_tolerance: int = 2
    dummy_confidence: float = 0.0
    max_episodes: int | None = None

    def __post_init__(self) -> None:
        if self.camera not in CAMERAS:
            raise ValueError(f"camera is {self.camera!r}; choose one of {', '.join(CAMERAS)}")
        if self.outcome not in ("all", *OUTCOMES):
            raise ValueError(f"outcome is {self.outcome!r}; choose all, success or failure")
        if self.max_episodes is not None and self.max_episodes < 1:
            raise ValueError(f"max_episodes is {self.max_episodes}; it must be at least 1, or None for all")
        if self.intrinsics is not None and (len(self.intrinsics) != 4 or not np.isfinite(self.intrinsics).all()):
            raise ValueError(f"intrinsics are {self.intrinsics}; give fx, fy, cx, cy in pixels")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps is {self.fps}; it must be positive")
        if self.frame_tolerance < 0:
            raise ValueError(f"frame_tolerance is {self.frame_tolerance}; it must not be negative")
        if not 0.0 <= self.dummy_confidence <= 1.0:
            raise ValueError(f"dummy_confidence is {self.dummy_confidence}; it must lie in [0, 1]")


@dataclass(frozen=True)
class DroidSource:
    """Episodes of the raw release; see `data.source.Source`. Ids are folders: LAB/success/DATE/TIME."""

    folder: Path
    options: DroidOptions
    ids: tuple[str, ...]
    quarantined: tuple[tuple[str, str], ...]
    kind: str = "droid"

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Track:
        """Episode `index` with a dummy right hand, frames lazy. Extras: keypoint_confidence, gripper_pose_world,
        gripper_opening, action; object_motion and a seed where our simulator wrote the episode.

        Raises CorruptEpisodeError naming the file and the field when anything of it is missing, damaged or makes no
        sense.
        """
        metadata, camera = self._chosen(index)
        trajectory = self._folder(index) / "trajectory.h5"
        with opened_hdf5(trajectory) as file:
            alignment, frames = self._aligned(file, camera)
            span = alignment.span
            poses, opening = _gripper(file, alignment.rows)
            keypoints, valid = self.options.hand.keypoints(poses[span], opening[span])
            cameras, _ = camera_poses(file, metadata, camera, alignment.rows, self._later())
            intrinsics, _ = self._intrinsics(file, metadata, camera, frames.size)
            extras = {
                "keypoint_confidence": np.where(valid, self.options.dummy_confidence, 0.0).astype(np.float32),
                "gripper_pose_world": poses[span],
                "gripper_opening": opening[span].astype(np.float32),
            }
            if self.options.action:
                parts = [_per_row(file, f"action/{name}", alignment.rows, 1e3) for name in self.options.action]
                extras["action"] = np.concatenate(parts, axis=1)[span]
            extras |= _simulated(file, alignment)
            task = self._task(file, metadata)
        return Track(
            frames=frames,
            fps=self.options.fps,
            world_from_camera=cameras[span],
            intrinsics=intrinsics,
            source=f"droid {self.ids[index]} camera {camera.serial}",
            task=task,
            seed=simulator_seed(metadata),
            columns={"keypoints_world": keypoints, "keypoints_valid": valid, **extras},
        )

    def files(self, index: int) -> tuple[Path, ...]:
        """The video (when the metadata tells which), trajectory.h5 and the metadata of episode `index`."""
        folder = self._folder(index)
        video: tuple[Path, ...] = ()
        try:
            video = (self._chosen(index)[1].video,)
        except CorruptEpisodeError as error:
            logger.debug("%s", error)  # reading the episode will say so
        return (*video, folder / "trajectory.h5", *sorted(folder.glob("metadata_*.json")))

    def annotations(self, index: int) -> dict[str, Any]:
        """Everything that the episode's files hold beyond its frames, and how it was read.

        metadata: the JSON file. trajectory: every dataset of trajectory.h5 by its path, all rows, and its attributes
        under "attributes". success: by the folder, else the metadata. language: instructions published later. camera,
        alignment (see `droid_alignment`), intrinsics_source and extrinsics_source: how it was read; an
        intrinsics_source of `estimate` means a nominal focal length. Raises CorruptEpisodeError as reading does.
        """
        metadata, camera = self._chosen(index)
        with opened_hdf5(self._folder(index) / "trajectory.h5") as file:
            alignment, frames = self._aligned(file, camera)
            return {
                "metadata": metadata,
                "trajectory": {"attributes": attributes(file)} | arrays(file),
                "success": self._succeeded(index, metadata),
                "language": self._language(metadata),
                "camera": {"role": camera.role, "serial": camera.serial},
                "alignment": vars(alignment).copy(),
                "intrinsics_source": self._intrinsics(file, metadata, camera, frames.size)[1],
                "extrinsics_source": camera_poses(file, metadata, camera, alignment.rows, self._later())[1],
            }

    def _folder(self, index: int) -> Path:
        return self.folder / self.ids[index]

    def _chosen(self, index: int) -> tuple[dict[str, Any], DroidCamera]:
        folder = self._folder(index)
        path = next(iter(sorted(folder.glob("metadata_*.json"))), folder / "metadata_*.json")
        try:
            metadata = read_json(path)
        except (OSError, ValueError) as error:
            raise CorruptEpisodeError(f"{path}: the metadata can't be read ({error})") from error
        return metadata, choose_camera(folder, metadata, self.options.camera)

    def _aligned(self, file: h5py.File, camera: DroidCamera) -> tuple[Alignment, Frames]:
        rows = rows_of(file, f"{_STATE}/cartesian_position")
        return aligned_frames(file, rows, camera, self.options.frame_tolerance)

    def _later(self) -> dict[str, dict[str, Any]]:
        return {} if self.options.annotations is None else load_annotations(self.options.annotations)

    def _intrinsics(
        self, file: h5py.File, metadata: dict[str, Any], camera: DroidCamera, size: tuple[int, int]
    ) -> tuple[np.ndarray, str]:
        matrix, source = camera_intrinsics(file, metadata, camera, size, self.options.intrinsics, self._later())
        if source == "estimate" and not self.options.estimate_intrinsics:
            raise CorruptEpisodeError(
                f"{file.filename}: no intrinsics of camera {camera.serial}; give `intrinsics` or `annotations`, or "
                "allow `estimate_intrinsics`"
            )
        return matrix, source

    def _succeeded(self, index: int, metadata: dict[str, Any]) -> bool | None:
        """Whether the collector called it a success; None when nothing says."""
        parts = self._folder(index).resolve().parts[-3:]
        told = metadata.get("success")
        return parts[0] == "success" if parts[0] in OUTCOMES else told if isinstance(told, bool) else None

    def _language(self, metadata: dict[str, Any]) -> list[str]:
        entry = later_entry(self._later(), "droid_language_annotations.json", metadata)
        return [text for text in (entry.get(f"language_instruction{number}") for number in (1, 2, 3)) if text]

    def _task(self, file: h5py.File, metadata: dict[str, Any]) -> str:
        """The first instruction if there is one, else the collector's kind of task."""
        spoken = self._language(metadata)
        if spoken:
            return spoken[0]
        return str(metadata.get("current_task") or attribute(file, "current_task") or "")


def recognises(folder: Path) -> bool:
    """Whether `folder` looks like DROID's raw release, a lab of it, or one episode. Files are not listed."""
    return next(_episode_folders(Path(folder), depth=1), None) is not None


def open_droid(folder: Path | str, options: DroidOptions = DroidOptions()) -> DroidSource:
    """The episodes below `folder`: the release, one lab, or a single episode.

    Only directories are listed, no file is opened. A folder without trajectory.h5 or with other than one metadata file
    is an episode that the release itself marks as incomplete: quarantined. Raises FileNotFoundError when there is none.
    """
    folder = Path(folder)
    if options.annotations is not None:
        load_annotations(options.annotations)  # a wrong folder is said now, not at every episode
    root = folder.resolve().parent if (folder / "trajectory.h5").is_file() else folder
    ids, quarantined = [], []
    for episode in _episode_folders(folder if root == folder else folder.resolve()):
        name = str(episode.relative_to(root))
        if options.outcome != "all" and options.outcome not in episode.parts[-3:]:
            continue
        contents = {entry.name for entry in os.scandir(episode)}
        metadata = [entry for entry in contents if entry.startswith("metadata_") and entry.endswith(".json")]
        if "trajectory.h5" not in contents:
            quarantined.append((name, "no trajectory.h5"))
        elif len(metadata) != 1:
            quarantined.append((name, f"{len(metadata)} files metadata_*.json; complete episodes have one"))
        else:
            ids.append(name)
    if not ids and not quarantined:
        raise FileNotFoundError(
            f"{folder} holds no DROID episodes ({options.outcome}): LAB/success|failure/DATE/TIME/"
            "{metadata_*.json, trajectory.h5, recordings/MP4/SERIAL.mp4}"
        )
    if options.annotations is None and options.intrinsics is None and options.estimate_intrinsics:
        logger.warning(
            "%s: where its files hold no intrinsics (the raw release has none) the cameras' nominal focal length "
            "stands in, and pixels of keypoints are estimates; the option droid.annotations takes measured ones",
            folder,
        )
    return DroidSource(root, options, evenly_spread(sorted(ids), options.max_episodes), tuple(sorted(quarantined)))


def _episode_folders(folder: Path, depth: int = 2) -> Iterator[Path]:
    """Folders of episodes: `folder` itself by its files, or DATE/TIME below success/ and failure/, which may lie up to
    `depth` folders down (release, lab)."""
    if (folder / "trajectory.h5").is_file():
        yield folder
        return
    outcomes = [folder / outcome for outcome in OUTCOMES if (folder / outcome).is_dir()]
    for day in (day for outcome in outcomes for day in _folders(outcome)):
        yield from _folders(day)
    if depth and not outcomes:
        for below in _folders(folder):
            if not (below / "trajectory.h5").is_file():
                yield from _episode_folders(below, depth - 1)


def _folders(folder: Path) -> list[Path]:
    """The folders in `folder`, hidden ones excepted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


def _gripper(file: h5py.File, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """base_from_gripper (rows, 4, 4) and opening (rows,) from 0 (closed) to 1 (open)."""
    position, closed = f"{_STATE}/cartesian_position", f"{_STATE}/gripper_position"
    poses = gripper_poses(numbers(file, position, (rows, 6), np.inf), f"{file.filename}: {position}")
    return poses, gripper_opening(_per_row(file, closed, rows, np.inf)[:, 0], f"{file.filename}: {closed}")


def _per_row(file: h5py.File, key: str, rows: int, limit: float) -> np.ndarray:
    """One number or one vector per row, as (rows, width)."""
    node = file.get(key)
    per_row = isinstance(node, h5py.Dataset) and node.ndim == 2
    return numbers(file, key, (rows, None) if per_row else (rows,), limit).reshape(rows, -1)


def _simulated(file: h5py.File, alignment: Alignment) -> dict[str, np.ndarray]:
    """What only a simulator knows, in `dexworld/`."""
    if "dexworld/object_motion" not in file:
        return {}
    motion = _per_row(file, "dexworld/object_motion", alignment.rows, MAX_REACH)[:, 0]
    return {"object_motion": motion[alignment.span].astype(np.float32)}
