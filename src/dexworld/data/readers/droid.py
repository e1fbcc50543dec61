"""DROID as it was recorded: LAB/success|failure/DATE/TIME/{metadata_*.json, trajectory.h5, recordings/MP4/SERIAL.mp4}.

A Franka Panda with a parallel gripper, seen by two outer cameras and one on the wrist; states at 15 Hz (DROID dataset
schema, droid-dataset.github.io). The gripper becomes a dummy right hand (`gripper_hand.py`); the world is the robot's
base; frames come from the camera that the release of DexWM uses unless another one is asked for.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import h5py
import numpy as np

from dexworld.data.files import read_json
from dexworld.data.readers.arrays import simulator_seed
from dexworld.data.readers.droid_camera import (
    CAMERAS,
    MAX_REACH,
    CameraChoice,
    DroidCamera,
    Recording,
    choose_camera,
    gripper_opening,
    gripper_poses,
    load_annotations,
)
from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.data.readers.hdf5 import arrays, attribute, attributes, numbers, opened_hdf5, per_row, rows_of
from dexworld.data.source import CorruptEpisodeError, FolderSource, evenly_spread
from dexworld.data.video import VideoError
from dexworld.data.video_frames import VideoFrames
from dexworld.track import Frames, Track

CONTROL_RATE = 15.0
MAX_ROWS = 100_000  # of a trajectory: almost two hours; more is a damaged header
AGREEING = 0.9  # share of equal times that settles a shift
OUTCOMES = ("success", "failure")
_STATE = "observation/robot_state"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DroidOptions:
    """How DROID episodes are read. Raises ValueError on values that mean nothing.

    camera: `left` is the outer camera that the metadata calls left (the release of DexWM), `right` the other one.
    outcome: which folders. hand: the dummy hand of the gripper. fps: states and frames per second.
    max_episodes: at most so many, evenly spread over the ids; 18,720 are about the paper's 100 hours.
    intrinsics: fx, fy, cx, cy in pixels of the video's own size, over everything that the files say.
    estimate_intrinsics: whether the maker's nominal focal length may stand in where no file has intrinsics (the raw
        release has none); if not, such an episode is corrupt.
    annotations: folder with files published later: intrinsics, better poses, language (see `droid_camera.py`).
    action: datasets of `action/`, side by side in the column `action`; by default what LeRobot's release has there.
    frame_tolerance: how many frames video and trajectory may differ by; both are cut to what they share.
    dummy_confidence: `keypoint_confidence` of the dummy hand. It isn't in the picture, so by default it counts for
        nothing where keypoints are looked for in images (the release masks it out of that loss).
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
        given, too_few = self.intrinsics, self.max_episodes is not None and self.max_episodes < 1
        all_finite = given is None or (len(given) == 4 and bool(np.isfinite(given).all()))
        for name, is_wrong, needed in (
            ("camera", self.camera not in CAMERAS, f"choose one of {', '.join(CAMERAS)}"),
            ("outcome", self.outcome not in ("all", *OUTCOMES), "choose all, success or failure"),
            ("max_episodes", too_few, "it must be at least 1, or None for all"),
            ("intrinsics", not all_finite, "give fx, fy, cx, cy in pixels"),
            ("fps", not (np.isfinite(self.fps) and self.fps > 0), "it must be positive"),
            ("frame_tolerance", self.frame_tolerance < 0, "it must not be negative"),
            ("dummy_confidence", not 0.0 <= self.dummy_confidence <= 1.0, "it must lie in [0, 1]"),
        ):
            if is_wrong:
                raise ValueError(f"{name} is {getattr(self, name)!r}; {needed}")

    def hand_columns(self, poses: np.ndarray, opening: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of a gripper, at poses (T, 4, 4) in the base and open (T,) from 0 to 1, and of its dummy hand."""
        keypoints, valid = self.hand.keypoints(poses, opening)
        return {
            "keypoints_world": keypoints,
            "keypoints_valid": valid,
            "keypoint_confidence": np.where(valid, self.dummy_confidence, 0.0).astype(np.float32),
            "gripper_pose_world": poses,
            "gripper_opening": opening.astype(np.float32),
        }


@dataclass(frozen=True)
class DroidSource(FolderSource):
    """Episodes of the raw release; see `data.source.Source`. Ids are folders: LAB/success/DATE/TIME."""

    kind: ClassVar[str] = "droid"
    options: DroidOptions

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, frames lazy: `DroidOptions.hand_columns`, action; of our simulator object_motion, seed.

        Raises CorruptEpisodeError naming the file and the field of what is missing, damaged or makes no sense.
        """
        options = self.options
        with self._opened(index) as recording:
            file, (alignment, frames) = recording.file, self._aligned(recording)
            rows, span = alignment.rows, alignment.span
            position, closed = f"{_STATE}/cartesian_position", f"{_STATE}/gripper_position"
            poses = gripper_poses(numbers(file, position, (rows, 6), np.inf), f"{file.filename}: {position}")
            opening = gripper_opening(per_row(file, closed, rows, np.inf)[:, 0], f"{file.filename}: {closed}")
            columns = options.hand_columns(poses[span], opening[span])
            cameras, _ = recording.camera_poses(rows)
            intrinsics, _ = recording.intrinsics(frames.size, options.intrinsics, options.estimate_intrinsics)
            if options.action:
                parts = [per_row(file, f"action/{name}", rows, 1e3) for name in options.action]
                columns["action"] = np.concatenate(parts, axis=1)[span]
            if "dexworld/object_motion" in file:  # only a simulator knows
                motion = per_row(file, "dexworld/object_motion", rows, MAX_REACH)[:, 0]
                columns["object_motion"] = motion[span].astype(np.float32)
            spoken = recording.language()
            task = spoken[0] if spoken else recording.metadata.get("current_task") or attribute(file, "current_task")
        return Track(
            frames=frames,
            fps=options.fps,
            world_from_camera=cameras[span],
            intrinsics=intrinsics,
            source=f"droid {self.ids[index]} camera {recording.camera.serial}",
            task=str(task or ""),
            seed=simulator_seed(recording.metadata),
            columns=columns,
        )

    def files(self, index: int) -> tuple[Path, ...]:
        """The video (when the metadata tells which), trajectory.h5 and the metadata of episode `index`."""
        folder, video = self.folder / self.ids[index], []
        try:
            video.append(self._chosen(index)[1].video)
        except CorruptEpisodeError as error:
            _LOG.debug("%s", error)  # reading the episode will say so
        return (*video, folder / "trajectory.h5", *sorted(folder.glob("metadata_*.json")))

    def annotations(self, index: int) -> dict[str, Any]:
        """Everything that the episode's files hold beyond its frames, and how it was read.

        trajectory: every dataset of trajectory.h5 by its path, all rows, and its "attributes". success: by the folder,
        else the metadata. language: published later. An intrinsics_source of `estimate` is a nominal focal length.
        Raises CorruptEpisodeError as reading does.
        """
        given, estimate = self.options.intrinsics, self.options.estimate_intrinsics
        with self._opened(index) as recording:
            alignment, frames = self._aligned(recording)
            outcome, success = (self.folder / self.ids[index]).resolve().parts[-3], recording.metadata.get("success")
            recorded = success if isinstance(success, bool) else None
            return {
                "metadata": recording.metadata,
                "trajectory": {"attributes": attributes(recording.file)} | arrays(recording.file),
                "success": outcome == "success" if outcome in OUTCOMES else recorded,
                "language": recording.language(),
                "camera": {"role": recording.camera.role, "serial": recording.camera.serial},
                "alignment": asdict(alignment),
                "intrinsics_source": recording.intrinsics(frames.size, given, estimate)[1],
                "extrinsics_source": recording.camera_poses(alignment.rows)[1],
            }

    def _chosen(self, index: int) -> tuple[dict[str, Any], DroidCamera]:
        folder = self.folder / self.ids[index]
        path = next(iter(sorted(folder.glob("metadata_*.json"))), folder / "metadata_*.json")
        try:
            metadata = read_json(path)
        except (OSError, ValueError) as error:
            raise CorruptEpisodeError(f"{path}: the metadata can't be read ({error})") from error
        return metadata, choose_camera(folder, metadata, self.options.camera)

    @contextmanager
    def _opened(self, index: int) -> Iterator[Recording]:
        metadata, camera = self._chosen(index)
        later = {} if self.options.annotations is None else load_annotations(self.options.annotations)
        with opened_hdf5(self.folder / self.ids[index] / "trajectory.h5") as file:
            yield Recording(file, metadata, camera, later)

    def _aligned(self, recording: Recording) -> "tuple[Alignment, Frames]":
        return aligned_frames(recording.file, recording.camera, self.options.frame_tolerance)


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
        _LOG.warning(
            "%s: where its files hold no intrinsics (the raw release has none) the cameras' nominal focal length "
            "stands in, and pixels of keypoints are estimates; the option droid.annotations takes measured ones",
            folder,
        )
    return DroidSource(root, evenly_spread(sorted(ids), options.max_episodes), tuple(sorted(quarantined)), options)


def _episode_folders(folder: Path, depth: int = 2) -> Iterator[Path]:
    """Folders of episodes: `folder` itself, or DATE/TIME below success/ and failure/, up to `depth` folders down."""
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
    """The folders in `folder`, hidden ones excepted; none where it is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [folder / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]


@dataclass(frozen=True)
class Alignment:
    """Row `first_row + i` of the trajectory is seen in frame `first_frame + i` of the video, for i < count.

    Many videos of the release lack a frame (github.com/droid-dataset/droid, report 54). Rows without a frame and frames
    without a row are left out. rows, frames: how many there are. by: whether the times of capture or the order decide.
    """

    rows: int
    frames: int
    first_row: int
    first_frame: int
    count: int
    by: Literal["timestamps", "index"]

    @property
    def span(self) -> slice:
        """The rows that are used."""
        return slice(self.first_row, self.first_row + self.count)


def aligned_frames(file: h5py.File, camera: DroidCamera, tolerance: int) -> tuple[Alignment, Frames]:
    """Match the rows of an open trajectory.h5 to the camera's video; also the frames that have a row.

    Raises CorruptEpisodeError when the video can't be opened, shows two images side by side, or differs too much.
    """
    rows = rows_of(file, f"{_STATE}/cartesian_position")
    try:
        frames = VideoFrames(camera.video, uneven=True)
        count, (height, width) = len(frames), frames.size
    except VideoError as error:
        raise CorruptEpisodeError(str(error)) from error
    if width > 3 * height:
        raise CorruptEpisodeError(f"{camera.video}: {width} x {height} pixels are two stereo images side by side")
    if not 0 < rows <= MAX_ROWS or abs(rows - count) > tolerance:
        raise CorruptEpisodeError(
            f"{camera.video}: {count} frames, but {file.filename} has {rows} rows; they may differ by {tolerance}"
        )
    alignment = align(rows, count, tolerance, *_capture_times(file, camera, rows, count))
    if alignment.count == count:
        return alignment, frames
    return alignment, VideoFrames(camera.video, alignment.first_frame, alignment.count, uneven=True)


def align(rows: int, frames: int, tolerance: int, *times: np.ndarray) -> Alignment:
    """Match by times when at least nine in ten agree at one shift, else by order.

    times: none, or (rows,) at which the picture of each row was taken and (frames,) of each frame, same unit.
    """
    for shift in sorted(range(-tolerance, tolerance + 1), key=abs) if times else ():  # row i is seen in frame i + shift
        first_row, first_frame = max(0, -shift), max(0, shift)
        count = min(rows - first_row, frames - first_frame)
        if count > 0 and (times[0][first_row:][:count] == times[1][first_frame:][:count]).mean() >= AGREEING:
            return Alignment(rows, frames, first_row, first_frame, count, "timestamps")
    return Alignment(rows, frames, 0, 0, min(rows, frames), "index")


def _capture_times(file: h5py.File, camera: DroidCamera, rows: int, frames: int) -> tuple[np.ndarray, ...]:
    """When each row's and each frame's picture was taken, in the recorder's own unit; () where no file says."""
    beside = camera.video.with_name(f"{camera.serial}_timestamps.json")  # missing for some (report 51)
    key = f"observation/timestamp/cameras/{camera.serial}_frame_received"
    if not beside.is_file() or key not in file:
        return ()
    try:
        recorded = np.asarray(json.loads(beside.read_text(encoding="utf-8")), dtype=np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise CorruptEpisodeError(f"{beside}: the times of the frames can't be read ({error})") from error
    return (numbers(file, key, (rows,), 1e18), recorded) if recorded.shape == (frames,) else ()
