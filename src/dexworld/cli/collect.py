"""The verb `collect`: recordings of a simulated hand, gripper or robot hand at work."""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from dexworld.cli.bars import counted
from dexworld.evaluation.results import write_results
from dexworld.sim.collect_scenes import (
    CollectConfig,
    CollectGripperConfig,
    CollectHumanConfig,
    collect,
    collect_gripper,
    collect_human,
)
from dexworld.sim.gripper.gripper_recording import GripperConfig
from dexworld.sim.hands.human_video import HumanVideoConfig
from dexworld.sim.kitchen.explore import ExploreConfig
from dexworld.sim.render import Backend

logger = logging.getLogger("dexworld")


Allegro = Annotated[ExploreConfig, tyro.conf.subcommand("allegro")]
Human = Annotated[HumanVideoConfig, tyro.conf.subcommand("human")]
Gripper = Annotated[GripperConfig, tyro.conf.subcommand("gripper")]


@dataclass(frozen=True)
class Collect:
    """Record episodes in the simulator, in parallel; start it again to go on after a kill.

    Who acts comes behind the options: `allegro` (a Franka arm with an Allegro hand, the default; a dataset to train
    from), `human` (two hands below a moving head camera, in EgoDex's layout) or `gripper` (a Franka arm with a parallel
    gripper, in DROID's raw layout). Each has options of its own; prepare the last two before training.
    """

    output: Path
    """Folder to write or to complete."""
    embodiment: Allegro | Human | Gripper = field(default_factory=ExploreConfig)
    episodes: int = 500
    """Episodes to hold, one scene each."""
    seed: int = 0
    """First scene; training below 900,000, validation below 1,000,000, evaluation from there."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""

    def run(self) -> None:
        """Collect, and write `results.json` beside the recordings."""
        progress = counted("episodes", self.episodes)
        common = (self.output, self.episodes, self.seed, self.workers, self.backend)
        if isinstance(self.embodiment, HumanVideoConfig):
            files = collect_human(CollectHumanConfig(*common, self.embodiment), progress)
            figures: dict[str, Any] = {"embodiment": "human", "episodes": len(files)}
        elif isinstance(self.embodiment, GripperConfig):
            counts = collect_gripper(CollectGripperConfig(*common, self.embodiment), progress)
            figures = {"embodiment": "gripper", **asdict(counts)}
        else:
            dataset = collect(CollectConfig(*common, self.embodiment), progress)
            figures = {
                "embodiment": "allegro",
                "episodes": len(dataset),
                "frames": sum(dataset.lengths),
                "quarantined": list(dataset.quarantined),
                "counts": dataset.counts,
            }
        write_results(self.output, figures, seed=self.seed)
        logger.info("%d episodes in %s", figures["episodes"], self.output)
