"""Collect recordings of the gripper robot in DROID's layout, in parallel processes; a killed run goes on where it was.

dexworld.json             settings, and counts when a run has finished
SIM/success|failure/...   see `droid_format`
"""

import logging
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import mujoco

from dexworld.data.begun import check_begun_with
from dexworld.data.files import read_json, write_json
from dexworld.sim.droid_format import OUTCOMES, PARTIAL, find_droid, write_droid
from dexworld.sim.gripper_recording import GripperConfig, record_gripper
from dexworld.sim.gripper_skills import SKILLS
from dexworld.sim.kitchen.collect_exploration import check_one_split, in_processes
from dexworld.sim.render import choose_backend

logger = logging.getLogger(__name__)
INDEX = "dexworld.json"
FORMAT = "dexworld-droid"
MOVING = 1e-3  # metres between two frames: an object that goes further is in motion


@dataclass(frozen=True)
class CollectGripperConfig:
    """Recordings of the gripper robot, one scene each, seeds `seed` to `seed + episodes - 1`.

    Training seeds are below 900,000, validation seeds 900,000 to 999,999, evaluation seeds from 1,000,000.
    """

    output: Path
    episodes: int = 500
    seed: int = 0
    workers: int = 0  # processes; 0 means one per core
    backend: str = "auto"  # auto, egl, osmesa or ray
    recording: GripperConfig = field(default_factory=GripperConfig)

    def __post_init__(self) -> None:
        check_one_split(self.seed, self.episodes)


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
    settings = _settings(config.recording, backend)
    config.output.mkdir(parents=True, exist_ok=True)
    _check_settings(config.output, settings)
    seeds = range(config.seed, config.seed + config.episodes)
    missing = [seed for seed in seeds if find_droid(config.output, seed) is None]
    logger.info("%d of %d episodes are there already", len(seeds) - len(missing), len(seeds))
    job = partial(_record_and_write, folder=config.output, recording=config.recording, backend=backend)
    for _ in progress(in_processes(job, missing, config.workers)):
        pass
    _sweep(config.output / PARTIAL, seeds)
    counts = count_gripper(config.output)
    write_json(config.output / INDEX, _header(settings) | {"counts": asdict(counts)})
    return counts


def count_gripper(folder: Path) -> GripperCounts:
    """Counts over every episode in a folder that `collect_gripper` filled."""
    total: Counter[str] = Counter()
    skills = dict.fromkeys(SKILLS, 0)
    for outcome in OUTCOMES:
        for path in sorted(folder.glob(f"*/{outcome}/*/*/metadata_*.json")):
            metadata = read_json(path)
            with h5py.File(path.with_name("trajectory.h5"), "r") as file:
                total["moving"] += int((file["dexworld/object_motion"][()] > MOVING).sum())
            total["episodes"] += 1
            total["frames"] += metadata["trajectory_length"]
            total["successes"] += bool(metadata["success"])
            total["grasp_attempts"] += metadata["dexworld_grasp_attempts"]
            total["objects_carried"] += metadata["dexworld_objects_carried"]
            skills[metadata["dexworld_skill"]] += 1
    return GripperCounts(
        episodes=total["episodes"],
        frames=total["frames"],
        moving=total["moving"],
        successes=total["successes"],
        grasp_attempts=total["grasp_attempts"],
        objects_carried=total["objects_carried"],
        skills=skills,
    )


def _record_and_write(seed: int, folder: Path, recording: GripperConfig, backend: str) -> int:
    write_droid(folder, record_gripper(seed, recording, backend))
    return seed


def _sweep(partial_folder: Path, seeds: range) -> None:
    """Remove what killed runs left of these seeds; another run may be writing others."""
    left = sorted(partial_folder.iterdir()) if partial_folder.is_dir() else []
    for folder in left:
        if int(folder.name.split(".")[0]) in seeds:
            shutil.rmtree(folder, ignore_errors=True)
    if partial_folder.is_dir() and not any(partial_folder.iterdir()):
        partial_folder.rmdir()


def _settings(recording: GripperConfig, backend: str) -> dict[str, Any]:
    """What decides the bytes, as JSON values. Pictures of different renderers are not equal to the bit."""
    content = asdict(recording)
    content["cameras"], content["weights"] = list(recording.cameras), list(recording.weights)
    for name in ("masks", "hand"):  # neither is written: the reader lays out the hand
        del content[name]
    return {
        "generator": "dexworld.sim.gripper_recording",
        "recording": content,
        "backend": backend,
        "mujoco": mujoco.__version__,
    }


def _header(settings: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "format_version": 1, "settings": settings}


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    index = folder / INDEX
    if not index.exists():
        write_json(index, _header(settings))
        return
    check_begun_with(index, read_json(index).get("settings", {}), settings)
