"""DROID as it was recorded: LAB/success|failure/DATE/TIME/{metadata_*.json, trajectory.h5, recordings/MP4/SERIAL.mp4}.

A Franka Panda with a parallel gripper, seen by two outer cameras and one on the wrist; states at 15 Hz (DROID dataset
schema, droid-dataset.github.io). The gripper becomes a dummy right hand (`gripper_hand.py`); the world is the robot's
base; frames come from the camera that the release of DexWM uses unless another one is asked for.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from dexworld.data.files import read_json
from dexworld.data.readers.arrays import simulator_seed
from dexworld.data.readers.droid_camera import LANGUAGE_FILE, DroidCamera, choose_camera, load_annotations
from dexworld.data.readers.droid_episode import ACTION, MAX_ACTION, MAX_REACH, DroidOptions, hand_columns, intrinsics
from dexworld.data.readers.foreign_source import ForeignSource
from dexworld.data.readers.hdf5 import attribute, numbers, opened_hdf5, per_row, read_array
from dexworld.data.source import CorruptEpisodeError, evenly_spread
from dexworld.data.video_frames import VideoFrames, check_unturned
from dexworld.track import Track

CONTROL_RATE = 15.0
TOLERANCE = 2  # frames that video and trajectory may differ by
AGREEING = 0.9  # share of equal times that settles a shift
OUTCOMES = ("success", "failure")
_STATE = "observation/robot_state/"


@dataclass(frozen=True)
class DroidSource(ForeignSource):
    """Episodes of the raw release; see `data.source.Source`. Ids are folders: LAB/success/DATE/TIME."""

    kind: ClassVar[str] = "droid"
    options: DroidOptions

    def read(self, index: int) -> Track:
        """Columns: `hand_columns`, action; of our simulator object_motion and the seed."""
        camera = self._camera(index)
        with opened_hdf5(self.folder / self.ids[index] / "trajectory.h5") as file:
            position = read_array(file, f"{_STATE}cartesian_position", (None, 6)).astype(np.float64)
            rows = len(position)
            span, frames = _aligned(file, camera, rows)
            closed = per_row(file, f"{_STATE}gripper_position", rows, np.inf)[:, 0]
            columns = hand_columns(self.options.hand, position, closed, f"{file.filename}: {_STATE}")
            poses = camera.poses(file, rows)
            stored = None if self.options.intrinsics else camera.intrinsics(file, frames.size)
            where = f"{file.filename}: camera {camera.serial} ({camera.role})"
            matrix = intrinsics(self.options, stored, camera.role, frames.size, where)
            actions = [per_row(file, f"action/{name}", rows, MAX_ACTION) for name in ACTION]
            columns["action"] = np.concatenate(actions, axis=1)
            if "dexworld/object_motion" in file:  # only a simulator knows
                motion = per_row(file, "dexworld/object_motion", rows, MAX_REACH)[:, 0]
                columns["object_motion"] = motion.astype(np.float32)
            spoken = [camera.later[LANGUAGE_FILE].get(f"language_instruction{number}") for number in (1, 2, 3)]
            spoken += [camera.metadata.get("current_task"), attribute(file, "current_task")]
        return Track(
            frames=frames,
            fps=CONTROL_RATE,
            world_from_camera=poses[span],
            intrinsics=matrix,
            source=f"droid {self.ids[index]} camera {camera.serial}",
            task=str(next((text for text in spoken if text), "")),
            seed=simulator_seed(camera.metadata.get("dexworld_seed")),
            columns={name: values[span] for name, values in columns.items()},
        )

    def files(self, index: int) -> tuple[Path, ...]:
        """The video (when the metadata tells which), trajectory.h5 and the metadata of episode `index`."""
        folder, video = self.folder / self.ids[index], []
        with suppress(CorruptEpisodeError):  # reading the episode will say so
            video.append(self._camera(index).video)
        return (*video, folder / "trajectory.h5", *sorted(folder.glob("metadata_*.json")))

    def _camera(self, index: int) -> DroidCamera:
        folder = self.folder / self.ids[index]
        path = next(iter(sorted(folder.glob("metadata_*.json"))), folder / "metadata_*.json")
        try:
            metadata = read_json(path)
        except (OSError, ValueError) as error:
            raise CorruptEpisodeError(f"{path}: the metadata can't be read ({error})") from error
        return choose_camera(folder, metadata, self.options.camera, self.options.annotations)


def recognises(folder: Path) -> bool:
    """Whether `folder` looks like DROID's raw release, a lab of it, or one episode. Files are not listed."""
    return next(_episode_folders(Path(folder), depth=1), None) is not None


def open_droid(folder: Path | str, options: DroidOptions = DroidOptions()) -> DroidSource:
    """The episodes below `folder`: the release, one lab, or a single episode.

    Only directories are listed, no file is opened. A folder without trajectory.h5 or with other than one metadata file
    is an episode that the release itself marks as incomplete: quarantined. Raises FileNotFoundError when there is none.
    """
    folder = Path(folder)
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
    options.warn_of_estimates(folder)
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


def _aligned(file: h5py.File, camera: DroidCamera, rows: int) -> tuple[slice, VideoFrames]:
    """The rows of an open trajectory.h5 that the camera's video shows, and their frames.

    Raises CorruptEpisodeError when the video shows two images side by side or differs too much.
    """
    frames = VideoFrames(camera.video, uneven=True)
    count, (height, width) = len(frames), frames.size
    check_unturned(frames, "camera poses")
    if width > 3 * height:
        raise CorruptEpisodeError(f"{camera.video}: {width} x {height} pixels are two stereo images side by side")
    if rows == 0 or abs(rows - count) > TOLERANCE:
        raise CorruptEpisodeError(
            f"{camera.video}: {count} frames, but {file.filename} has {rows} rows; they may differ by {TOLERANCE}"
        )
    row, frame, shared = align(rows, count, *_capture_times(file, camera, rows, count))
    if shared < count:
        frames = VideoFrames(camera.video, frame, shared, uneven=True)
    return slice(row, row + shared), frames


def align(rows: int, frames: int, *times: np.ndarray) -> tuple[int, int, int]:
    """Row, frame and count: row `row + i` of the trajectory is seen in frame `frame + i` of the video, for i < count.

    Many videos of the release lack a frame (github.com/droid-dataset/droid, report 54). Rows without a frame and frames
    without a row are left out. times: none, or (rows,) at which the picture of each row was taken and (frames,) of each
    frame, same unit. They settle the match when at least nine in ten agree at one shift, else the order does.
    """
    for shift in sorted(range(-TOLERANCE, TOLERANCE + 1), key=abs) if times else ():  # row i is in frame i + shift
        row, frame = max(0, -shift), max(0, shift)
        count = min(rows - row, frames - frame)
        if count > 0 and (times[0][row:][:count] == times[1][frame:][:count]).mean() >= AGREEING:
            return row, frame, count
    return 0, 0, min(rows, frames)


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
