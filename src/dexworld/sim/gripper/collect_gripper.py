"""Collect recordings of the gripper robot in DROID's layout, in parallel processes; a killed run goes on where it was.

dexworld.json             settings, and counts when a run has finished
SIM/success|failure/...   see `droid_format`
"""

import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

import h5py

from dexworld.data.files import read_json, write_json
from dexworld.sim.gripper.droid_format import OUTCOMES, PARTIAL, find_droid, write_droid
from dexworld.sim.gripper.gripper_recording import GripperConfig, record_gripper
from dexworld.sim.gripper.gripper_skills import SKILLS
from dexworld.sim.recording import SceneRange, keep_settings, record_missing, recording_settings
from dexworld.sim.render import choose_backend

INDEX = "dexworld.json"
MOVING = 1e-3  # metres between two frames: an object that goes further is in motion
_HEADER = {"format": "dexworld-droid", "format_version": 1}


@dataclass(frozen=True)
class CollectGripperConfig(SceneRange):
    """Recordings of the gripper robot in DROID's layout."""

    recording: GripperConfig = field(default_factory=GripperConfig)


@dataclass(frozen=True)
class GripperCounts:
    """What a folder holds. moving: frames in which an object moved by more than a millimetre."""

    episodes: int
    frames: int
    moving: int
    successes: int
    grasp_attempts: int
    objects_carried: int
    skills: dict[str, int]


def collect_gripper(config: CollectGripperConfig, progress=iter) -> GripperCounts:
    """Record the seeds that are not yet in `config.output`, and count what is there for all of them.

    `progress` wraps the iterator of finished seeds. Raises ValueError when the folder was made with other settings.
    """
    backend = choose_backend(config.backend)
    recording = asdict(config.recording)
    del recording["masks"], recording["hand"]  # neither is written: the reader lays out the hand
    settings = recording_settings("dexworld.sim.gripper_recording", backend, recording=recording)
    keep_settings(config.output / INDEX, settings, _HEADER)
    job = partial(_record_and_write, folder=config.output, recording=config.recording, backend=backend)
    record_missing(config, job, lambda seed: find_droid(config.output, seed) is not None, progress)
    _sweep(config.output / PARTIAL, config.seeds)
    counts = count_gripper(config.output)
    write_json(config.output / INDEX, {**_HEADER, "settings": settings, "counts": asdict(counts)})
    return counts


def count_gripper(folder: Path) -> GripperCounts:
    """Counts over every episode in a folder that `collect_gripper` filled."""
    totals: Counter[str] = Counter()
    skills = dict.fromkeys(SKILLS, 0)
    for path in sorted(path for outcome in OUTCOMES for path in folder.glob(f"*/{outcome}/*/*/metadata_*.json")):
        metadata = read_json(path)
        with h5py.File(path.with_name("trajectory.h5"), "r") as file:
            moving = int((file["dexworld/object_motion"][()] > MOVING).sum())
        totals.update(episodes=1, frames=metadata["trajectory_length"], moving=moving)
        totals.update(successes=bool(metadata["success"]), grasp_attempts=metadata["dexworld_grasp_attempts"])
        totals.update(objects_carried=metadata["dexworld_objects_carried"])
        skills[metadata["dexworld_skill"]] += 1
    names = [one.name for one in fields(GripperCounts) if one.name != "skills"]
    return GripperCounts(skills=skills, **{name: totals[name] for name in names})


def _record_and_write(seed: int, folder: Path, recording: GripperConfig, backend: str) -> int:
    write_droid(folder, record_gripper(seed, recording, backend))
    return seed


def _sweep(partial_folder: Path, seeds: range) -> None:
    """Remove what killed runs left of these seeds; another run may be writing others."""
    if not partial_folder.is_dir():
        return
    for folder in sorted(partial_folder.iterdir()):
        if int(folder.name.split(".")[0]) in seeds:
            shutil.rmtree(folder, ignore_errors=True)
    if not any(partial_folder.iterdir()):
        partial_folder.rmdir()
