"""Collect exploratory episodes in parallel processes; start it again after a kill and it goes on where it was."""

import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import mujoco

from dexworld.data.parallel import available_cores
from dexworld.data.store import EpisodeDataset, EpisodeWriter, open_dataset
from dexworld.sim.kitchen.explore import ExploreConfig, holds_object, record_exploration
from dexworld.sim.kitchen.kitchen_scene import TRAINING_SEEDS, VALIDATION_SEEDS
from dexworld.sim.render import choose_backend

logger = logging.getLogger(__name__)
MAX_ATTEMPTS = 8
Result = TypeVar("Result")


@dataclass(frozen=True)
class CollectConfig:
    """Exploratory episodes in the simulator, one scene each, seeds `seed` to `seed + episodes - 1`.

    Training seeds are below 900,000, validation seeds 900,000 to 999,999, evaluation seeds from 1,000,000.
    """

    output: Path
    episodes: int = 500
    seed: int = 0
    workers: int = 0  # processes; 0 means one per core
    backend: str = "auto"  # auto, egl, osmesa or ray
    explore: ExploreConfig = field(default_factory=ExploreConfig)

    def __post_init__(self) -> None:
        check_one_split(self.seed, self.episodes)


def check_one_split(seed: int, episodes: int) -> None:
    """Raise ValueError unless scenes `seed` to `seed + episodes - 1` are of one split, and there is one at least."""
    if episodes < 1 or seed < 0:
        raise ValueError(f"episodes must be >= 1 and seed >= 0, got {episodes} and {seed}")
    first, last = seed_split(seed), seed_split(seed + episodes - 1)
    if first != last:
        raise ValueError(
            f"seeds {seed} to {seed + episodes - 1} cross from {first} to {last} scenes; collect the splits into "
            "folders of their own"
        )


def seed_split(seed: int) -> str:
    """`training`, `validation` or `evaluation`: what scenes of this seed may be used for."""
    if seed in TRAINING_SEEDS:
        return "training"
    return "validation" if seed in VALIDATION_SEEDS else "evaluation"


def collect(config: CollectConfig, progress=iter) -> EpisodeDataset:
    """Record the episodes that are not yet in `config.output`.

    An episode in which an object was held is thrown away and drawn anew with other motions in the same scene: the data
    holds no successful grasp and no successful place. How many were thrown away is in the dataset's `counts`.
    `progress` wraps the iterator of finished seeds, with `total` known to the caller as `config.episodes`.
    """
    backend = choose_backend(config.backend)
    # One renderer per dataset: pictures of different ones are not equal to the bit, so its name is part of the
    # settings.
    settings = {
        "generator": "dexworld.sim.explore",  # part of the settings of datasets that exist
        "explore": asdict(config.explore),
        "backend": backend,
        "mujoco": mujoco.__version__,
    }
    settings["explore"]["weights"] = list(config.explore.weights)
    writer = EpisodeWriter(config.output, settings)
    seeds = range(config.seed, config.seed + config.episodes)
    missing = [seed for seed in seeds if not writer.has(episode_id(seed))]
    logger.info("%d of %d episodes are there already", len(seeds) - len(missing), len(seeds))
    job = partial(_record_and_write, folder=config.output, settings=settings, explore=config.explore, backend=backend)
    for _ in progress(in_processes(job, missing, config.workers)):
        pass
    dataset = open_dataset(config.output)
    thrown_away = sum(int(dataset[index].columns["attempt"][0]) for index in range(len(dataset)))
    writer.finish({"rejected_because_an_object_was_held": thrown_away})
    return open_dataset(config.output)  # with the counts that were just written


def episode_id(seed: int) -> str:
    """The id of a scene's episode in a dataset folder."""
    return f"{seed:08d}"


def in_processes(job: Callable[[int], Result], seeds: Sequence[int], workers: int = 0) -> Iterator[Result]:
    """What `job` returns for each seed, in the order in which they finish, from `workers` processes (0: one per core).

    `job` must be picklable; the first exception in one stops the rest and is raised here.
    """
    workers = workers or available_cores()
    if workers == 1 or len(seeds) <= 1:
        yield from map(job, seeds)
        return
    context = multiprocessing.get_context("spawn")  # a graphics context doesn't survive a fork
    with ProcessPoolExecutor(min(workers, len(seeds)), mp_context=context) as pool:
        futures = [pool.submit(job, seed) for seed in seeds]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _record_and_write(seed: int, folder: Path, settings: dict, explore: ExploreConfig, backend: str) -> int:
    for attempt in range(MAX_ATTEMPTS):
        episode = record_exploration(seed, attempt, explore, backend)
        if not holds_object(episode):
            EpisodeWriter(folder, settings).write(episode_id(seed), episode)
            return seed
    raise RuntimeError(
        f"scene {seed}: an object was held in all {MAX_ATTEMPTS} attempts; lower the share of lift replays"
    )
