"""Collect simulated recordings in parallel processes; started again after a kill, a collection goes on where it was.

Exploration fills a dataset folder. Human hands fill EgoDex's layout, the gripper DROID's raw layout; a scene's seed
numbers its episode there, so what is missing is found by looking, and neighbouring seeds may share a folder. The
settings of a folder, and when a run has finished its counts, lie in a JSON file at its top. `progress` wraps the
iterator of finished seeds. A folder that was made with other settings is a ValueError.
"""

import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

import h5py

from dexworld.data.datasets import open_dataset
from dexworld.data.files import read_json, write_json
from dexworld.data.recordings import EpisodeDataset, EpisodeWriter
from dexworld.sim.gripper.droid_format import OUTCOMES, PARTIAL, find_droid, write_droid
from dexworld.sim.gripper.gripper_recording import GripperConfig, record_gripper
from dexworld.sim.gripper.gripper_skills import SKILLS
from dexworld.sim.hands.egodex_format import EgoDexLabels, in_arkit_world, split_of, write_egodex
from dexworld.sim.hands.human_video import HumanVideo, HumanVideoConfig, film
from dexworld.sim.kitchen.explore import ExploreConfig, holds_object, record_exploration
from dexworld.sim.recording import SceneRange, keep_settings, record_missing, recording_settings
from dexworld.sim.render import choose_backend

MAX_ATTEMPTS = 8
HUMAN_SETTINGS = "dexworld-human.json"
GRIPPER_INDEX = "dexworld.json"
MOVING = 1e-3  # metres between two frames: an object that goes further is in motion
_GRIPPER_HEADER = {"format": "dexworld-droid", "format_version": 1}
_VERBS = {"reach": "reach", "push": "push", "grasp": "grasp", "drawer": "open", "door": "open"}
_TASKS = {
    "drawer": "open_drawer",
    "door": "open_cabinet_door",
    "grasp": "pick_and_place_objects",
    "push": "push_objects",
    "reach": "reach_for_objects",
}  # the first skill here that occurs names the episode's task


@dataclass(frozen=True)
class CollectConfig(SceneRange):
    """Exploratory episodes of the Allegro hand."""

    explore: ExploreConfig = field(default_factory=ExploreConfig)


@dataclass(frozen=True)
class CollectHumanConfig(SceneRange):
    """Human-hand videos in EgoDex's layout. Training episodes are written to the split `part1`, others to `test`."""

    video: HumanVideoConfig = field(default_factory=HumanVideoConfig)


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


def collect(config: CollectConfig, progress=iter) -> EpisodeDataset:
    """Record the episodes that are not yet in `config.output`.

    An episode in which an object was held is thrown away and drawn anew with other motions in the same scene: the data
    holds no successful grasp and no successful place. How many were thrown away is in the dataset's `counts`.
    """
    backend = choose_backend(config.backend)
    settings = recording_settings("dexworld.sim.explore", backend, explore=asdict(config.explore))
    writer = EpisodeWriter(config.output, settings)
    job = partial(_write_exploration, folder=config.output, settings=settings, explore=config.explore, backend=backend)
    record_missing(config, job, lambda seed: writer.has(episode_id(seed)), progress)
    dataset = open_dataset(config.output)
    thrown_away = sum(int(dataset[index].columns["attempt"][0]) for index in range(len(dataset)))
    return writer.finish({"rejected_because_an_object_was_held": thrown_away})


def episode_id(seed: int) -> str:
    """The id of a scene's episode in a dataset folder."""
    return f"{seed:08d}"


def _write_exploration(seed: int, folder: Path, settings: dict, explore: ExploreConfig, backend: str) -> int:
    for attempt in range(MAX_ATTEMPTS):
        episode = record_exploration(seed, attempt, explore, backend)
        if not holds_object(episode):
            EpisodeWriter(folder, settings).write(episode_id(seed), episode)
            return seed
    raise RuntimeError(
        f"scene {seed}: an object was held in all {MAX_ATTEMPTS} attempts; lower the share of lift replays"
    )


def collect_human(config: CollectHumanConfig, progress=iter) -> tuple[Path, ...]:
    """Record the episodes that are not yet in `config.output`; returns the hdf5 files of all that were asked for."""
    backend = choose_backend(config.backend)
    settings = recording_settings("dexworld.sim.human_video", backend, video=asdict(config.video))
    keep_settings(config.output / HUMAN_SETTINGS, settings)
    there = recorded(config.output)
    job = partial(_write_human, folder=config.output, video=config.video, backend=backend)
    record_missing(config, job, lambda seed: seed in there, progress)
    there = recorded(config.output)
    return tuple(there[seed] for seed in config.seeds)


def recorded(folder: Path) -> dict[int, Path]:
    """The finished episodes of a folder: seed -> hdf5."""
    paths = [path for path in folder.glob("*/*/*.hdf5") if path.stem.isdecimal() and path.with_suffix(".mp4").exists()]
    return {int(path.stem): path for path in sorted(paths, key=lambda path: (int(path.stem), path))}


def _write_human(seed: int, folder: Path, video: HumanVideoConfig, backend: str) -> int:
    recording = film(seed, video, backend)
    write_egodex(folder, seed, in_arkit_world(recording.episode), labels_of(recording), split_of(seed))
    return seed


def labels_of(video: HumanVideo) -> EgoDexLabels:
    """The words of a recording: its task is the rarest thing that is done in it."""
    done = [script for act in video.acts for script in act.acting]
    skills = [script.skill for script in done]
    things = [video.names[script.target] if script.target >= 0 else script.skill for script in done]
    return EgoDexLabels(
        task=next((name for skill, name in _TASKS.items() if skill in skills), "rest_hands"),
        description=video.episode.task,
        verbs=tuple(dict.fromkeys(_VERBS[skill] for skill in skills)),
        objects=tuple(dict.fromkeys(things)),
    )


def collect_gripper(config: CollectGripperConfig, progress=iter) -> GripperCounts:
    """Record the seeds that are not yet in `config.output`, and count what is there for all of them."""
    backend = choose_backend(config.backend)
    recording = asdict(config.recording)
    del recording["masks"], recording["hand"]  # neither is written: the reader lays out the hand
    settings = recording_settings("dexworld.sim.gripper_recording", backend, recording=recording)
    keep_settings(config.output / GRIPPER_INDEX, settings, _GRIPPER_HEADER)
    job = partial(_write_gripper, folder=config.output, recording=config.recording, backend=backend)
    record_missing(config, job, lambda seed: find_droid(config.output, seed) is not None, progress)
    _sweep(config.output / PARTIAL, config.seeds)
    counts = count_gripper(config.output)
    write_json(config.output / GRIPPER_INDEX, {**_GRIPPER_HEADER, "settings": settings, "counts": asdict(counts)})
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


def _write_gripper(seed: int, folder: Path, recording: GripperConfig, backend: str) -> int:
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
