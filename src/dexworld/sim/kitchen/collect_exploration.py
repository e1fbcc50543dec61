"""Collect exploratory episodes in parallel processes; start it again after a kill and it goes on where it was."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from dexworld.data.datasets import open_dataset
from dexworld.data.recordings import EpisodeDataset, EpisodeWriter
from dexworld.sim.kitchen.explore import ExploreConfig, holds_object, record_exploration
from dexworld.sim.recording import SceneRange, record_missing, recording_settings
from dexworld.sim.render import choose_backend

MAX_ATTEMPTS = 8


@dataclass(frozen=True)
class CollectConfig(SceneRange):
    """Exploratory episodes in the simulator, one scene each, seeds `seed` to `seed + episodes - 1`.

    Training seeds are below 900,000, validation seeds 900,000 to 999,999, evaluation seeds from 1,000,000.
    """

    explore: ExploreConfig = field(default_factory=ExploreConfig)


def collect(config: CollectConfig, progress=iter) -> EpisodeDataset:
    """Record the episodes that are not yet in `config.output`.

    An episode in which an object was held is thrown away and drawn anew with other motions in the same scene: the data
    holds no successful grasp and no successful place. How many were thrown away is in the dataset's `counts`.
    `progress` wraps the iterator of finished seeds, with `total` known to the caller as `config.episodes`.
    """
    backend = choose_backend(config.backend)
    # The generator's name is that of datasets that exist, wherever the module lies.
    settings = recording_settings("dexworld.sim.explore", backend, explore=asdict(config.explore))
    writer = EpisodeWriter(config.output, settings)
    job = partial(_record_and_write, folder=config.output, settings=settings, explore=config.explore, backend=backend)
    record_missing(config, job, lambda seed: writer.has(episode_id(seed)), progress)
    dataset = open_dataset(config.output)
    thrown_away = sum(int(dataset[index].columns["attempt"][0]) for index in range(len(dataset)))
    return writer.finish({"rejected_because_an_object_was_held": thrown_away})


def episode_id(seed: int) -> str:
    """The id of a scene's episode in a dataset folder."""
    return f"{seed:08d}"


def _record_and_write(seed: int, folder: Path, settings: dict, explore: ExploreConfig, backend: str) -> int:
    for attempt in range(MAX_ATTEMPTS):
        episode = record_exploration(seed, attempt, explore, backend)
        if not holds_object(episode):
            EpisodeWriter(folder, settings).write(episode_id(seed), episode)
            return seed
    raise RuntimeError(
        f"scene {seed}: an object was held in all {MAX_ATTEMPTS} attempts; lower the share of lift replays"
    )
