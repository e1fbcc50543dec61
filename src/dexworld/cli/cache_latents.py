"""The verb `cache-latents`: features of a frozen encoder, computed once before training."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.cli.bars import task_bars
from dexworld.evaluation.results import write_results
from dexworld.training.latents import LatentsConfig, cache_latents

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class CacheLatents:
    """Encode every frame of datasets once, into sharded files; start it again to go on after a kill."""

    config: Annotated[LatentsConfig, tyro.conf.arg(name="")]
    output: Path = Path("outputs/cache-latents")
    """Folder for results.json."""

    def run(self) -> None:
        """Compute, and write `results.json`; exit code 1 when a shard is damaged."""
        with task_bars() as update:
            rows = cache_latents(self.config, update)
        path = write_results(self.output, {"datasets": rows}, seed=self.config.seed)
        for row in rows:
            state = "complete" if row["complete"] else "not complete: start the other shards, or this one again"
            logger.info("%s: %s", row["folder"], state)
        logger.info("all figures: %s", path)
        if damaged := [f"{row['folder']}: {name}" for row in rows for name in row["damaged"] or ()]:
            sys.stderr.write(f"dexworld: damaged shards, delete their cache to compute it anew: {', '.join(damaged)}\n")
            sys.exit(1)
