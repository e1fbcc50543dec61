"""The verb `evaluate tasks`: planning on held-out scenes."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dexworld.cli.bars import task_bars
from dexworld.evaluation.results import write_results
from dexworld.evaluation.tasks import TasksConfig, evaluate_tasks
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.sim.kitchen.kitchen_tasks import TASKS, Task
from dexworld.sim.render import Backend

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Tasks:
    """Success rates of planning with the model on held-out scenes, with its controls."""

    output: Path
    """Folder for results.json."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    tasks: tuple[Task, ...] = TASKS
    """Which tasks."""
    episodes: int = 100
    """Episodes of each task."""
    seed: int = 1_000_000
    """First held-out scene."""
    planner: Literal["cpu", "paper"] = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}."""
    simulator_episodes: int = 20
    """How many episodes of each task the search in the true simulator plays; it is slow."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    split: Literal["evaluation", "validation"] = "evaluation"
    """`validation` allows seeds 900,000 to 999,999, for tuning."""

    def run(self) -> None:
        """Evaluate and write `results.json`."""
        config = TasksConfig(
            checkpoint=checkpoint_path(self.checkpoint),
            tasks=tuple(self.tasks),
            episodes=self.episodes,
            seed=self.seed,
            planner=self.planner,
            simulator_episodes=self.simulator_episodes,
            workers=self.workers,
            backend=self.backend,
            split=self.split,
        )
        with task_bars() as update:
            figures, _ = evaluate_tasks(config, update)
        path = write_results(self.output, figures, seed=self.seed)
        for task, row in figures.items():
            logger.info("%s: %.0f %% (%.0f to %.0f)", task, *(100 * row[key] for key in ("success", "low", "high")))
        logger.info("all figures: %s", path)
