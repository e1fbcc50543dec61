"""The verbs `plan` and `demo`: episodes that are planned, carried out in the simulator and shown on a page."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.cli.bars import task_bars
from dexworld.evaluation.results import write_results
from dexworld.report.demo import write_demo_report
from dexworld.report.play_demo import DemoConfig, PlayConfig, demo_figures, play_demo
from dexworld.sim.kitchen.kitchen_tasks import Task

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Plan:
    """Plan one episode with the world model, carry it out in the simulator, and show both on a page."""

    output: Path
    """Folder for report.html and results.json."""
    task: Task = "reach"
    """What to do."""
    config: Annotated[PlayConfig, tyro.conf.arg(name="")] = field(default_factory=PlayConfig)

    def run(self) -> None:
        """Plan, carry out, and write the page."""
        _play(DemoConfig(**vars(self.config), tasks=(self.task,), episodes=1, workers=1), self.output)


@dataclass(frozen=True)
class Demo:
    """Plan a few episodes of every task with the shipped model and write one page that shows it all."""

    output: Path = Path("outputs/demo")
    """Folder for report.html and results.json."""
    config: Annotated[DemoConfig, tyro.conf.arg(name="")] = field(default_factory=DemoConfig)

    def run(self) -> None:
        """Play, and write the page."""
        _play(self.config, self.output)


def _play(config: DemoConfig, output: Path) -> None:
    with task_bars() as update:
        results = play_demo(config, update)
    write_results(output, demo_figures(results), seed=config.seed)
    logger.info("open %s in a browser", write_demo_report(output, results))
