"""Collect videos of human hands in EgoDex's layout, in parallel processes; started again after a kill it goes on.

A scene's episode is number `seed` of its task's folder, so an interrupted collection finds what is missing by looking,
and collections of neighbouring seeds may share a folder. `dexworld-human.json` beside the splits holds the settings.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import mujoco

from dexworld.data.begun import check_begun_with
from dexworld.data.files import read_json, write_json
from dexworld.sim.egodex_format import EgoDexLabels, in_arkit_world, split_of, write_egodex
from dexworld.sim.human_video import HumanVideo, HumanVideoConfig, film
from dexworld.sim.kitchen.collect_exploration import check_one_split, in_processes
from dexworld.sim.render import choose_backend

logger = logging.getLogger(__name__)
SETTINGS_FILE = "dexworld-human.json"
_VERBS = {"reach": "reach", "push": "push", "grasp": "grasp", "drawer": "open", "door": "open"}
_TASKS = {
    "drawer": "open_drawer",
    "door": "open_cabinet_door",
    "grasp": "pick_and_place_objects",
    "push": "push_objects",
    "reach": "reach_for_objects",
}  # the first skill here that occurs names the episode's task


@dataclass(frozen=True)
class CollectHumanConfig:
    """Human-hand videos in EgoDex's layout, one scene each, seeds `seed` to `seed + episodes - 1`.

    Training seeds are below 900,000, validation seeds 900,000 to 999,999, evaluation seeds from 1,000,000. Training
    episodes are written to the split `part1`, others to `test`.
    """

    output: Path
    episodes: int = 500
    seed: int = 0
    workers: int = 0  # processes; 0 means one per core
    backend: str = "auto"  # auto, egl, osmesa or ray
    video: HumanVideoConfig = field(default_factory=HumanVideoConfig)

    def __post_init__(self) -> None:
        check_one_split(self.seed, self.episodes)


def collect_human(config: CollectHumanConfig, progress=iter) -> tuple[Path, ...]:
    """Record the episodes that are not yet in `config.output`; returns the hdf5 files of all that were asked for.

    `progress` wraps the iterator of finished seeds. Raises ValueError if the folder was made with other settings.
    """
    backend = choose_backend(config.backend)
    settings = {
        "generator": "dexworld.sim.human_video",
        "video": asdict(config.video) | {"skills": list(config.video.skills)},
        "backend": backend,
        "mujoco": mujoco.__version__,
    }
    config.output.mkdir(parents=True, exist_ok=True)
    _check_settings(config.output / SETTINGS_FILE, settings)
    seeds = range(config.seed, config.seed + config.episodes)
    there = recorded(config.output)
    missing = [seed for seed in seeds if seed not in there]
    logger.info("%d of %d episodes are there already", len(seeds) - len(missing), len(seeds))
    job = partial(_record_and_write, folder=config.output, video=config.video, backend=backend)
    for _ in progress(in_processes(job, missing, config.workers)):
        pass
    there = recorded(config.output)
    return tuple(there[seed] for seed in seeds)


def recorded(folder: Path) -> dict[int, Path]:
    """The finished episodes of a folder: seed -> hdf5."""
    return dict(sorted(_episodes(folder)))


def _episodes(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.glob("*/*/*.hdf5"):
        if path.stem.isdecimal() and path.with_suffix(".mp4").exists():
            yield int(path.stem), path


def _check_settings(path: Path, settings: dict) -> None:
    if path.exists():
        check_begun_with(path, read_json(path), settings)
    else:
        write_json(path, settings)


def _record_and_write(seed: int, folder: Path, video: HumanVideoConfig, backend: str) -> int:
    recording = film(seed, video, backend, masks=False)
    write_egodex(folder, seed, in_arkit_world(recording.episode), labels_of(recording), split_of(seed))
    return seed


def labels_of(video: HumanVideo) -> EgoDexLabels:
    """The words of a recording: its task is the rarest thing that is done in it."""
    done = [script for act in video.acts for script in act.acting]
    skills = [script.skill for script in done]
    task = next((name for skill, name in _TASKS.items() if skill in skills), "rest_hands")
    things = [video.names[script.target] if script.target >= 0 else script.skill for script in done]
    return EgoDexLabels(
        task=task,
        description=video.episode.task,
        verbs=tuple(dict.fromkeys(_VERBS[skill] for skill in skills)),
        objects=tuple(dict.fromkeys(things)),
    )
