"""The verb `demo`: a few episodes of every task on one page."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dexworld.cli.bars import task_bars
from dexworld.evaluation.results import write_results
from dexworld.models.latent_readers import AUTO
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.report.demo import write_demo_report
from dexworld.report.play_demo import DemoConfig, demo_figures, play_demo
from dexworld.sim.kitchen.kitchen_tasks import TASKS, Task
from dexworld.sim.render import Backend

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Demo:
    """Plan a few episodes of every task with the shipped model and write one page that shows it all."""

    output: Path = Path("outputs/demo")
    """Folder for report.html and results.json."""
    checkpoint: str = REFERENCE
    """Model folder or hub id; `reference` is the shipped one."""
    tasks: tuple[Task, ...] = TASKS
    """Which tasks."""
    episodes: int = 3
    """Episodes of each task."""
    seed: int = 1_000_000
    """First scene."""
    planner: Literal["cpu", "paper"] = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}."""
    workers: int = 0
    """Processes; 0 is one per core."""
    backend: Backend = "auto"
    """Renderer; `auto` takes the first that works."""
    decoder: str = AUTO
    """Who draws what the model imagines: a pixel decoder made by `dexworld train decoder`, or `own` for the encoder's
    own way back. `auto` takes the shipped decoder for models with the reference's encoder; the page names it."""

    def run(self) -> None:
        """Play, and write the page."""
        config = DemoConfig(
            checkpoint_path(self.checkpoint),
            tuple(self.tasks),
            self.episodes,
            self.seed,
            self.planner,
            self.workers,
            self.backend,
            self.decoder,
        )
        write_demo(config, self.output)


def write_demo(config: DemoConfig, output: Path) -> None:
    """Play what `config` names, and write the page and `results.json` into `output`."""
    with task_bars() as update:
        results = play_demo(config, update)
    write_results(output, demo_figures(results), seed=config.seed)
    logger.info("open %s in a browser", write_demo_report(output, results))
