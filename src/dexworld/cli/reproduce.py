"""The verb `reproduce`: a table of the paper as a study, beside the paper's own numbers."""

import logging
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from dexworld.cli.bars import counted, task_bars
from dexworld.evaluation.guard import Split
from dexworld.evaluation.intervals import MOST_SEEDS
from dexworld.evaluation.results import write_results
from dexworld.report.study_films import study_films
from dexworld.report.study_page import write_study_page
from dexworld.studies.adopted_runs import adopt
from dexworld.studies.declared_figures import FIGURES
from dexworld.studies.declared_tables import TABLES
from dexworld.studies.study import Scale, Table
from dexworld.studies.study_data import FIRST_SCENE
from dexworld.studies.study_figures import markdown, summary
from dexworld.studies.study_plan import plan_text
from dexworld.studies.study_runs import Study
from dexworld.studies.video_tables import VIDEO_TABLES
from dexworld.training.fit import without_folders
from dexworld.writing import write_text

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Reproduce:
    """Train and measure what a table of the DexWM or DWM paper compares, and show the paper's numbers beside ours.

    Tables: table1 (pre-training), table2 (hand consistency), table3 (what a model is told), table4 (planning against
    policies), figure5 (sizes), figure6 (encoders), figure7 (atomic actions), figure9 (action transfer), ablations (our
    options); of video models dwm-main (baselines), dwm-data, dwm-hands. A study that was stopped goes on with what is
    missing when it is started again.
    """

    table: tyro.conf.Positional[str]
    """Which table."""
    output: Path
    """Folder for the data, the models, results.json, table.md and page.html."""
    scale: Scale = "miniature"
    """Data and sizes: `miniature` runs on two cores, `small` wants a GPU, `paper` shows its plan alone."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of first weights and windows; each is a model of every variant."""
    variants: tuple[str, ...] = ()
    """Which ones to run; by default all."""
    split: Split = "validation"
    """Scenes to measure on: `validation` while developing, `evaluation` for figures that are reported."""
    models: Path | None = None
    """Of figure7 and figure9: folder of a finished table3, or of the other figure, whose data and models are taken."""
    workers: int = 0
    """Processes, one model at a time each; 0 is one per core."""
    ray: str | None = None
    """Address of a Ray cluster that does the work: `local`, `auto` or ray://host:port."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""
    steps: int | None = None
    """At most so many steps of each training, for a quick look."""
    episodes: int | None = None
    """At most so many episodes of each dataset, for a quick look."""
    resamples: int = 10_000
    """Resamples of the bootstrap."""
    dry_run: bool = False
    """Show jobs, steps, data and GPU-hours, and stop."""

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.seeds)) == len(self.seeds) <= MOST_SEEDS:
            raise ValueError(f"seeds are {self.seeds}; give 1 to {MOST_SEEDS} different ones")

    def run(self) -> None:
        """Show the plan, or do what is missing and write `results.json`, `table.md` and `page.html`."""
        table = self._table()
        names = self.variants or tuple(variant.name for variant in table.variants)
        if self.dry_run:
            sys.stdout.write(plan_text(table, names, self.seeds))
            return
        study = Study(table, self.output, self.split, self.device)
        if self.models is not None:
            adopt(study, self.models, names, self.seeds)
        study.open(names, self.workers, counted)
        page = self._report(study)
        with task_bars() as update:
            for wave, (title, jobs) in enumerate(study.waves(names, self.seeds), start=1):
                for done in study.run(jobs, self.workers, self.ray):
                    update(f"{title}, part {wave}", done, len(jobs))
                self._report(study)
        logger.info("open %s in a browser", page)

    def _table(self) -> Table:
        declared = TABLES | FIGURES | VIDEO_TABLES
        if self.table not in declared:
            raise ValueError(f"no table {self.table!r}; choose from {', '.join(declared)}")
        table = declared[self.table](self.scale)
        for name in self.variants:
            table.variant(name)
        if self.scale == "paper" and not self.dry_run:
            raise ValueError("the scale `paper` shows its plan alone: add `--dry-run True`")
        return table if self.scale == "paper" else replace(table, sizes=table.sizes.at_most(self.steps, self.episodes))

    def _report(self, study: Study) -> Path:
        table, seeds = study.table, list(self.seeds)
        rows = summary(study, seeds, self.resamples)
        measured_on = table.sizes.held_out
        held_out = {name: each.episodes for name, each in measured_on.items()}
        starts = [(FIRST_SCENE[self.split] + each.seed, each.episodes) for each in measured_on.values()]
        scenes = [first + number for first, count in starts for number in range(count)]
        content: dict[str, Any] = {
            "table": self.table,
            "scale": self.scale,
            "split": self.split,
            "held_out_episodes": held_out,
        }
        content |= {"sizes": asdict(table.sizes), "resamples": self.resamples, "variants": rows}
        content |= {"paper": asdict(table.paper), "differs": table.differs}
        told: Any = {"seeds": scenes} if scenes else {"seed": FIRST_SCENE[self.split]}
        write_results(self.output, content, **told)
        write_text(self.output / "table.md", markdown(table, rows, seeds))
        notices = [f"Scale {self.scale}. Measured on {self.split} scenes, which no model was trained on."]
        if self.steps or self.episodes:
            notices.append("A quick look: budgets or data were cut, so the figures say little.")
        command = shlex.join(["dexworld", *map(without_folders, sys.argv[1:])])
        return write_study_page(self.output, table, rows, seeds, notices, command, study_films(study, seeds))
