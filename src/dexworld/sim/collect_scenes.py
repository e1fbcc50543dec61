"""Collect simulated recordings in parallel processes; started again after a kill, a collection goes on where it was.

Exploration fills a dataset folder. Human hands fill EgoDex's layout, the gripper DROID's raw layout; a scene's seed
numbers its episode there, so what is missing is found by looking, and neighbouring seeds may share a folder. The
settings of a folder, and when a run has finished its counts, lie in a JSON file at its top. `progress` wraps the
iterator of finished seeds; where it ends early, the folder holds what is finished. A folder that was made with other
settings is a ValueError.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import mujoco

from dexworld.data.datasets import open_dataset
from dexworld.data.files import check_same_settings, read_json
from dexworld.data.parallel import parallel_map
from dexworld.data.recordings import EpisodeDataset, EpisodeWriter
from dexworld.robots.robot_meshes import PLAIN
from dexworld.sim.adroit.adroit_exploration import AdroitConfig, record_adroit
from dexworld.sim.dexjoco.dexjoco_exploration import DexJoCoConfig, record_dexjoco
from dexworld.sim.gripper.droid_format import OUTCOMES, PARTIAL, find_droid, write_droid
from dexworld.sim.gripper.gripper_recording import GripperConfig, record_gripper
from dexworld.sim.gripper.gripper_skills import SKILLS
from dexworld.sim.hands.egodex_format import write_egodex
from dexworld.sim.hands.human_video import HumanVideoConfig, film
from dexworld.sim.kitchen.explore import ExploreConfig, holds_object, record_exploration
from dexworld.sim.kitchen.kitchen_scene import seed_split
from dexworld.sim.kitchen.object_scenes import PairConfig, PushConfig, record_pairs, record_pushes
from dexworld.sim.kitchen.worn_meshes import check_look
from dexworld.sim.render import Backend, choose_backend
from dexworld.sim.table.table_exploration import TableConfig, record_table
from dexworld.track import Track
from dexworld.writing import write_json

MAX_ATTEMPTS = 8
HUMAN_SETTINGS = "dexworld-human.json"
GRIPPER_INDEX = "dexworld.json"
MOVING = 1e-3  # metres between two frames: an object that goes further is in motion
_GRIPPER_HEADER = {"format": "dexworld-droid", "format_version": 1}

logger = logging.getLogger(__name__)
ObjectConfig = PushConfig | PairConfig | AdroitConfig | DexJoCoConfig | TableConfig


@dataclass(frozen=True)
class SceneRange:
    """Recordings of one scene each, seeds `seed` to `seed + episodes - 1`, to be completed in the folder `output`.

    Training seeds are below 900,000, validation seeds 900,000 to 999,999, evaluation seeds from 1,000,000. Raises
    ValueError for a range that crosses them, and for an empty one.
    """

    output: Path
    """Folder to write or to complete."""
    episodes: int = 500
    """Episodes to hold, one scene each."""
    seed: int = 0
    """First scene; training below 900,000, validation below 1,000,000, evaluation from there."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.seed < 0:
            raise ValueError(f"episodes must be >= 1 and seed >= 0, got {self.episodes} and {self.seed}")
        first, last = seed_split(self.seeds[0]), seed_split(self.seeds[-1])
        if first != last:
            raise ValueError(
                f"seeds {self.seeds[0]} to {self.seeds[-1]} cross from {first} to {last} scenes; collect the splits "
                "into folders of their own"
            )

    @property
    def seeds(self) -> range:
        """The scenes."""
        return range(self.seed, self.seed + self.episodes)


def collect(scenes: SceneRange, explore: ExploreConfig = ExploreConfig(), progress=iter) -> EpisodeDataset:
    """Record exploratory episodes of the Allegro hand in the scenes that are missing.

    An episode in which an object was held is thrown away and drawn anew with other motions in the same scene: the data
    holds no successful grasp and no successful place. How many were thrown away is in the dataset's `counts`.
    """
    backend = choose_backend(scenes.backend)
    check_look(explore.look)
    settings = _recording_settings("dexworld.sim.explore", backend, explore=asdict(explore))
    writer = EpisodeWriter(scenes.output, settings)
    job = partial(_write_exploration, folder=scenes.output, settings=settings, explore=explore, backend=backend)
    _record_missing(scenes, job, lambda seed: writer.has(episode_id(seed)), progress)
    dataset = open_dataset(scenes.output)
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


def collect_objects(scenes: SceneRange, recording: ObjectConfig, progress=iter) -> EpisodeDataset:
    """Record pushes, static pairs, Adroit, DexJoCo or a table in the scenes that are missing.

    `counts` has the frames with motion.
    """
    backend = choose_backend(scenes.backend)
    name, _ = _OBJECTS[type(recording)]
    check_look(getattr(recording, "look", PLAIN))
    settings = _recording_settings(f"dexworld.sim.{name}", backend, **{name: asdict(recording)})
    writer = EpisodeWriter(scenes.output, settings)
    job = partial(_write_objects, folder=scenes.output, settings=settings, recording=recording, backend=backend)
    _record_missing(scenes, job, lambda seed: writer.has(episode_id(seed)), progress)
    dataset = open_dataset(scenes.output)
    motion = [dataset[index].columns["object_motion"] for index in range(len(dataset))]
    return writer.finish({"frames_in_which_objects_moved": int(sum((each > MOVING).sum() for each in motion))})


def _write_objects(seed: int, folder: Path, settings: dict, recording: ObjectConfig, backend: str) -> int:
    _, record = _OBJECTS[type(recording)]
    EpisodeWriter(folder, settings).write(episode_id(seed), record(seed, recording, backend))
    return seed


_OBJECTS: dict[type, tuple[str, Callable[..., Track]]] = {
    PushConfig: ("pushes", record_pushes),
    PairConfig: ("pairs", record_pairs),
    AdroitConfig: ("adroit", record_adroit),
    TableConfig: ("table", record_table),
    DexJoCoConfig: ("dexjoco", record_dexjoco),
}


def collect_human(scenes: SceneRange, video: HumanVideoConfig, progress=iter) -> tuple[Path, ...]:
    """Record the scenes that are missing in EgoDex's layout; returns the hdf5 files of all that were asked for."""
    backend = choose_backend(scenes.backend)
    settings = _recording_settings("dexworld.sim.human_video", backend, video=asdict(video))
    _keep_settings(scenes.output / HUMAN_SETTINGS, settings)
    there = recorded(scenes.output)
    job = partial(_write_human, folder=scenes.output, video=video, backend=backend)
    _record_missing(scenes, job, lambda seed: seed in there, progress)
    there = recorded(scenes.output)
    return tuple(there[seed] for seed in scenes.seeds)


def recorded(folder: Path) -> dict[int, Path]:
    """The finished episodes of a folder: seed -> hdf5."""
    paths = [path for path in folder.glob("*/*/*.hdf5") if path.stem.isdecimal() and path.with_suffix(".mp4").exists()]
    return {int(path.stem): path for path in sorted(paths, key=lambda path: (int(path.stem), path))}


def _write_human(seed: int, folder: Path, video: HumanVideoConfig, backend: str) -> int:
    write_egodex(folder, film(seed, video, backend))
    return seed


def collect_gripper(scenes: SceneRange, recording: GripperConfig, progress=iter) -> dict[str, Any]:
    """Record the scenes that are missing in DROID's layout; returns `count_gripper` of the folder."""
    backend = choose_backend(scenes.backend)
    settings = _recording_settings("dexworld.sim.gripper_recording", backend, recording=asdict(recording))
    _keep_settings(scenes.output / GRIPPER_INDEX, settings, _GRIPPER_HEADER)
    job = partial(_write_gripper, folder=scenes.output, recording=recording, backend=backend)
    _record_missing(scenes, job, lambda seed: find_droid(scenes.output, seed) is not None, progress)
    _sweep(scenes.output / PARTIAL, scenes.seeds)
    counts = count_gripper(scenes.output)
    write_json(scenes.output / GRIPPER_INDEX, {**_GRIPPER_HEADER, "settings": settings, "counts": counts})
    return counts


def count_gripper(folder: Path) -> dict[str, Any]:
    """Counts over every episode in a folder that `collect_gripper` filled.

    `moving`: frames in which an object moved by more than a millimetre. `skills`: episodes of each skill.
    """
    names = ("episodes", "frames", "moving", "successes", "grasp_attempts", "objects_carried")
    totals, skills = Counter(dict.fromkeys(names, 0)), dict.fromkeys(SKILLS, 0)
    for path in sorted(path for outcome in OUTCOMES for path in folder.glob(f"*/{outcome}/*/*/metadata_*.json")):
        metadata = read_json(path)
        with h5py.File(path.with_name("trajectory.h5"), "r") as file:
            moving = int((file["dexworld/object_motion"][()] > MOVING).sum())
        totals.update(episodes=1, frames=metadata["trajectory_length"], moving=moving)
        totals.update(successes=bool(metadata["success"]), grasp_attempts=metadata["dexworld_grasp_attempts"])
        totals.update(objects_carried=metadata["dexworld_objects_carried"])
        skills[metadata["dexworld_skill"]] += 1
    return {**totals, "skills": skills}


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


def _recording_settings(generator: str, backend: str, **content: Any) -> dict[str, Any]:
    """What decides the bytes of recordings, with lists for tuples as JSON has them.

    Pictures of different renderers are not equal to the bit. A look is named where it isn't the plain one.
    """
    for values in content.values():
        if values.get("look") == asdict(PLAIN):
            del values["look"]
    content = json.loads(json.dumps(content))
    return {"generator": generator, **content, "backend": backend, "mujoco": mujoco.__version__}


def _keep_settings(index: Path, settings: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> None:
    """Write `settings` to the new file `index`, or raise ValueError naming what differs from those in it.

    header: what the file holds besides; the settings are then its entry `settings`.
    """
    index.parent.mkdir(parents=True, exist_ok=True)
    if not index.exists():
        write_json(index, dict(settings) if header is None else {**header, "settings": settings})
        return
    found = read_json(index)
    check_same_settings(index, found if header is None else found.get("settings", {}), settings)


def _record_missing(
    scenes: SceneRange, job: Callable[[int], Any], is_recorded: Callable[[int], bool], progress=iter
) -> None:
    """Run `job(seed)`, picklable, for every scene that is not recorded. `progress` wraps the finished ones."""
    missing = [seed for seed in scenes.seeds if not is_recorded(seed)]
    logger.info("%d of %d episodes are there already", scenes.episodes - len(missing), scenes.episodes)
    for _ in progress(parallel_map(job, missing, scenes.workers, ordered=False)):
        pass
