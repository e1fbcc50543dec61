"""The verb `inspect`: what is in a dataset, what is broken in it, and what looks wrong."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from dexworld.cli.bars import task_bars
from dexworld.cli.reader_options import reader_options
from dexworld.data.inspection import EpisodeReport, InspectConfig, account, inspect
from dexworld.data.readers import Kind, open_source
from dexworld.evaluation.results import write_results
from dexworld.report.inspection_page import SHOWN, listings, write_inspection_page
from dexworld.writing import written_atomically

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Inspect:
    """Look through a dataset of any layout: counts, visibility, motion, broken episodes, pictures with keypoints."""

    source: tyro.conf.Positional[Path]
    """Dataset folder."""
    output: Path = Path("outputs/inspect")
    """Folder for report.html, results.json and episodes.jsonl (one line per episode)."""
    kind: Kind = "auto"
    """Layout of the dataset; `auto` recognises it."""
    config: Annotated[InspectConfig, tyro.conf.arg(name="")] = field(default_factory=InspectConfig)
    reader: tuple[str, ...] = ()
    """How the layout is read, e.g. `egodex.split=test`, or a JSON file {layout: {field: value}}."""

    def run(self) -> None:
        """Inspect, show the account, and write it."""
        source = open_source(self.source, self.kind, reader_options(self.reader))
        self.output.mkdir(parents=True, exist_ok=True)
        with (
            written_atomically(self.output / "episodes.jsonl") as lines,
            open(lines, "w", encoding="utf-8") as file,
            task_bars() as update,
        ):

            def note(report: EpisodeReport, done: int, total: int) -> None:
                file.write(json.dumps(report.row) + "\n")
                update("episodes", done, total)

            result = inspect(source, self.config, note)
        figures = account(result)
        write_results(self.output, figures, seed=self.config.seed)
        show(figures, self.config.seed)
        page = write_inspection_page(self.output, figures, self.config.seed, result.snapshots)
        logger.info("open %s in a browser", page)


def show(figures: dict[str, Any], seed: int) -> None:
    """The tables of the page in the terminal, the most urgent last."""
    console = Console(markup=False)  # names and reasons are text, whatever brackets they hold
    for found in reversed(listings(figures, seed)):
        if found.rows:
            table = Table(*found.head, title=found.title, title_justify="left", show_header=bool(found.head))
            for row in found.rows[:SHOWN]:
                table.add_row(*row)
            console.print(table)
            if (more := len(found.rows) - SHOWN) > 0:
                console.print(f"and {more:,} more: see results.json")
