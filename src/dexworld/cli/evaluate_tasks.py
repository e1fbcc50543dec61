"""The verb `evaluate tasks`: planning on held-out scenes."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.cli.bars import task_bars
from dexworld.evaluation.ledger import results_in
from dexworld.evaluation.results import write_results
from dexworld.evaluation.tasks import TasksConfig, evaluate_tasks, figure_names
from dexworld.report.rerun_log import log_tasks, rerun_log

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Tasks:
    """Success rates of planning with the model on held-out scenes, with its controls.

    A run that was stopped goes on with the episodes that are missing when it is started again.
    """

    output: Path
    """Folder for results.json and episodes.jsonl, which holds each episode's outcome as it is known."""
    rerun: Path | None = None
    """File `NAME.rrd` for Rerun (extra `viz`): distances to the goal and seconds of planning, by episode and policy."""
    config: Annotated[TasksConfig, tyro.conf.arg(name="")] = field(default_factory=TasksConfig)

    def run(self) -> None:
        """Evaluate and write `results.json`."""
        with rerun_log(self.rerun) as log:
            with task_bars() as update:
                figures = evaluate_tasks(self.config, self.output / "episodes.jsonl", update)
            if log is not None:
                log_tasks(log, results_in(self.output / "episodes.jsonl"))
        path = write_results(self.output, figures, seed=self.config.seed)
        for task, row in figures.items():
            for name in self.config.policies:
                key, prefix = figure_names(name)
                if row[key] is not None:
                    rates = (100 * row[each] for each in (key, f"{prefix}low", f"{prefix}high"))
                    logger.info("%s, %s: %.0f %% (%.0f to %.0f)", task, name, *rates)
        logger.info("all figures: %s", path)
