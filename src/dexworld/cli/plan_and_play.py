"""The verbs `plan` and `demo`: episodes that are planned, carried out in the simulator and shown on a page."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from dexworld.cli.bars import task_bars
from dexworld.evaluation.results import write_results
from dexworld.report.demo import DemoResults, write_demo_report
from dexworld.report.play_demo import Clicks, DemoConfig, PlayConfig, demo_figures, play_demo
from dexworld.report.rerun_log import log_played, rerun_log
from dexworld.sim.kitchen.kitchen_tasks import Task

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Plan:
    """Plan one episode with the world model, carry it out in the simulator, and show both on a page."""

    output: Path
    """Folder for report.html and results.json."""
    task: Task = "reach"
    """What to do."""
    from_: Annotated[tuple[str, ...], tyro.conf.arg(name="from", metavar="U,V ...")] = ()
    """A goal of clicks instead of the task's goal picture, for tasks that are planned by points, as push is: points of
    the start picture, in pixels. The page says which pixel is under the pointer."""
    to: Annotated[tuple[str, ...], tyro.conf.arg(metavar="U,V ...")] = ()
    """Where these points should be, as many, in pixels."""
    text: str | None = None
    """A goal of a sentence instead, for world models with a text head: "push the red ball to the left of the bowl"."""
    rerun: Path | None = None
    """File `NAME.rrd` for Rerun (extra `viz`): what was seen and imagined, the hand in space, costs of the search."""
    config: Annotated[PlayConfig, tyro.conf.arg(name="")] = field(default_factory=PlayConfig)

    def run(self) -> None:
        """Plan, carry out, and write the page."""
        if len(self.from_) != len(self.to):
            raise ValueError(f"--from gives {len(self.from_)} points and --to {len(self.to)}; give as many of each")
        if self.text is not None and self.to:
            raise ValueError("--text says what --from and --to say; give a sentence or clicks, not both")
        clicks = (_pixels("--from", self.from_), _pixels("--to", self.to)) if self.to else self.text
        config = DemoConfig(**vars(self.config), tasks=(self.task,), episodes=1, workers=1)
        with rerun_log(self.rerun) as log:
            (episode,) = _play(config, self.output, clicks).episodes
            if log is not None:
                log_played(log, episode)


@dataclass(frozen=True)
class Demo:
    """Plan a few episodes of every task with the shipped model and write one page that shows it all."""

    output: Path = Path("outputs/demo")
    """Folder for report.html and results.json."""
    config: Annotated[DemoConfig, tyro.conf.arg(name="")] = field(default_factory=DemoConfig)

    def run(self) -> None:
        """Play, and write the page."""
        _play(self.config, self.output)


def _pixels(option: str, points: tuple[str, ...]) -> np.ndarray:
    """Points (Q, 2) out of texts u,v. Raises ValueError naming what is none."""
    try:
        return np.array([[float(u), float(v)] for u, v in (point.split(",") for point in points)])
    except ValueError:
        raise ValueError(f"{option} is {' '.join(points)}; give points as two pixels each, such as 120,80") from None


def _play(config: DemoConfig, output: Path, clicks: Clicks | None = None) -> DemoResults:
    """Play, and write page and figures."""
    with task_bars() as update:
        results = play_demo(config, update, clicks)
    write_results(output, demo_figures(results), seed=config.seed)
    logger.info("open %s in a browser", write_demo_report(output, results))
    return results
