"""Record a range of scenes in processes; started again after a kill, a recording goes on where it was."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco

from dexworld.data.files import check_same_settings, read_json, write_json
from dexworld.data.parallel import parallel_map
from dexworld.sim.kitchen.kitchen_scene import TRAINING_SEEDS, VALIDATION_SEEDS
from dexworld.sim.render import Backend

logger = logging.getLogger(__name__)


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


def seed_split(seed: int) -> str:
    """`training`, `validation` or `evaluation`: what scenes of this seed may be used for."""
    if seed in TRAINING_SEEDS:
        return "training"
    return "validation" if seed in VALIDATION_SEEDS else "evaluation"


def recording_settings(generator: str, backend: str, **content: Any) -> dict[str, Any]:
    """What decides the bytes of recordings, with lists for tuples as JSON has them.

    Pictures of different renderers are not equal to the bit.
    """
    content = json.loads(json.dumps(content))
    return {"generator": generator, **content, "backend": backend, "mujoco": mujoco.__version__}


def keep_settings(index: Path, settings: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> None:
    """Write `settings` to the new file `index`, or raise ValueError naming what differs from those in it.

    header: what the file holds besides; the settings are then its entry `settings`.
    """
    index.parent.mkdir(parents=True, exist_ok=True)
    if not index.exists():
        write_json(index, dict(settings) if header is None else {**header, "settings": settings})
        return
    found = read_json(index)
    check_same_settings(index, found if header is None else found.get("settings", {}), settings)


def record_missing(
    scenes: SceneRange, job: Callable[[int], Any], is_recorded: Callable[[int], bool], progress=iter
) -> None:
    """Run `job(seed)`, picklable, for every scene that is not recorded. `progress` wraps the finished ones."""
    missing = [seed for seed in scenes.seeds if not is_recorded(seed)]
    logger.info("%d of %d episodes are there already", scenes.episodes - len(missing), scenes.episodes)
    for _ in progress(parallel_map(job, missing, scenes.workers, ordered=False)):
        pass
