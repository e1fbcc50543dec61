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
from dexworld.data.files import written_atomically
from dexworld.data.inspection import EpisodeReport, InspectConfig, Inspection, account, inspect
from dexworld.data.readers import Kind, open_source
from dexworld.evaluation.results import write_results
from dexworld.report.inspection_page import (
    counted_text,
    duration_text,
    extent,
    short_number,
    size_text,
    write_inspection_page,
)

logger = logging.getLogger("dexworld")
_SPEEDS = {  # between neighbouring frames, per second; and what an action from one frame to the next holds
    "left_hand": "left hand, m/s",
    "right_hand": "right hand, m/s",
    "camera": "camera, m/s",
    "camera_turn_deg": "camera, degrees/s",
}
_STEPS = {"keypoints": "keypoint action, m", "camera": "camera action, m", "camera_turn": "camera action, rad"}
SHOWN_BROKEN = 10  # rows in the terminal; all are in results.json


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

            def note(report: EpisodeReport) -> None:
                file.write(json.dumps(report.to_json()) + "\n")

            result = inspect(source, self.config, lambda done, total: update("episodes", done, total), note)
        figures = account(result)
        write_results(self.output, figures, seed=self.config.seed)
        show(result, figures)
        logger.info("open %s in a browser", write_inspection_page(self.output, result))


def show(result: Inspection, figures: dict[str, Any]) -> None:
    """The account as tables in the terminal."""
    console = Console(markup=False)  # names and reasons are text, whatever brackets they hold
    table = Table(title=f"{result.folder}", title_justify="left", show_header=False)
    for row in _rows(result, figures):
        table.add_row(*row)
    console.print(table)
    if figures["findings"]:
        wrong = Table("looks wrong", "episodes", "for instance", title_justify="left")
        for row in figures["findings"]:
            first = row["examples"][0]
            frame = "" if first["frame"] is None else f", frame {first['frame']}"
            wrong.add_row(row["title"], f"{row['episodes']:,}", f"{first['episode']}{frame}: {first['message']}")
        console.print(wrong)
    if figures["broken"]["episodes"]:
        broken = Table("broken", "in its", "reason")
        for row in figures["broken"]["episodes"][:SHOWN_BROKEN]:
            broken.add_row(row["episode"], row["stage"], row["reason"])
        if (more := figures["broken"]["count"] - SHOWN_BROKEN) > 0:
            broken.add_row(f"and {more:,} more", "", "see results.json")
        console.print(broken)


def _rows(result: Inspection, figures: dict[str, Any]) -> list[tuple[str, str]]:
    about, seen, estimate = "≈ " if figures["sample"] else "", figures["visibility"], figures["estimate"]
    sides = ((side, seen[side]) for side in ("left", "right"))
    return [
        ("layout", figures["kind"]),
        ("read", extent(figures, result.config.seed)),
        ("length", f"{about}{duration_text(estimate['hours'])}, {figures['frames']:,} frames read"),
        ("disk", f"{about}{size_text(estimate['bytes'])}"),
        ("frame sizes", counted_text(figures["frame_sizes"])),
        ("frames per second", counted_text(figures["fps"])),
        ("splits", counted_text(figures["splits"]) or "none"),
        ("tasks", f"{figures['tasks']['distinct']:,}"),
        ("hands in the picture", ", ".join(f"{side} {'-' if p is None else f'{100 * p:.0f} %'}" for side, p in sides)),
        *(
            (f"confidence, {side} hand", f"mean {each['mean']:.2f}, median {each['p50']:.2f}, 5 % {each['p05']:.2f}")
            for side, each in (figures["confidence"] or {}).items()
            if each["count"]
        ),
        *((_SPEEDS[name], _spread(each)) for name, each in figures["speeds_per_s"].items() if each["count"]),
        *((_STEPS[name], _spread(each)) for name, each in figures["steps_per_frame"].items() if each["count"]),
        ("broken", f"{figures['broken']['count']:,}"),
    ]


def _spread(figures: dict[str, Any]) -> str:
    words = {"median": "p50", "99 %": "p99", "largest": "max"}
    return ", ".join(f"{word} {short_number(figures[key])}" for word, key in words.items())
