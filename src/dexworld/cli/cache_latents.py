"""The verb `cache-latents`: features of a frozen encoder, computed once before training."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from dexworld.cli.bars import task_bars
from dexworld.evaluation.results import write_results
from dexworld.training.latents import LatentsConfig, cache_latents, latent_estimates

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class CacheLatents:
    """Encode every frame of datasets once, into sharded files; start it again to go on after a kill."""

    config: Annotated[LatentsConfig, tyro.conf.arg(name="")]
    output: Path = Path("outputs/cache-latents")
    """Folder for results.json."""
    dry_run: bool = False
    """Only say what the latents take on disk."""

    def run(self) -> None:
        """Show the estimate, compute, and write `results.json`; exit code 1 when a shard is damaged."""
        rows: list[dict[str, Any]] = []
        for dataset, estimate in latent_estimates(self.config):
            sizes = {"frames": estimate.frames, "bytes": estimate.bytes, "free_bytes": estimate.free}
            rows.append({"dataset": dataset.folder, "episodes": len(dataset), **sizes})
        _show(rows)
        if self.dry_run:
            write_results(self.output, {"dry_run": True, "datasets": rows}, seed=self.config.seed)
            return
        with task_bars() as update:
            rows = cache_latents(self.config, update)
        path = write_results(self.output, {"dry_run": False, "datasets": rows}, seed=self.config.seed)
        for row in rows:
            state = "complete" if row["complete"] else "not complete: start the other shards, or this one again"
            logger.info("%s: %s", row["folder"], state)
        logger.info("all figures: %s", path)
        if damaged := [f"{row['folder']}: {name}" for row in rows for name in row["damaged"] or ()]:
            sys.stderr.write(f"dexworld: damaged shards, delete their cache to compute it anew: {', '.join(damaged)}\n")
            sys.exit(1)


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("Dataset", "Episodes", "Frames", "Latents on disk", "Free", title="Latents", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        sizes = [f"{row[key] / 1e9:,.2f} GB" for key in ("bytes", "free_bytes")]
        table.add_row(str(row["dataset"]), f"{row['episodes']:,}", f"{row['frames']:,}", *sizes)
    Console(markup=False).print(table)
