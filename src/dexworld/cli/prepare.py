"""The verb `prepare`: a dataset of video and labels made into a store to train from."""

import logging
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.cli.bars import task_bars
from dexworld.cli.reader_options import reader_options
from dexworld.data.files import Shard
from dexworld.data.prepare.job import PrepareConfig, prepare
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.evaluation.results import write_results

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class Prepare(PrepareConfig):
    """Transcode and pack a dataset once, to train from it fast; start it again to go on after a kill."""

    source: tyro.conf.Positional[Path]
    destination: tyro.conf.Positional[Path]
    settings: Annotated[PrepareSettings, tyro.conf.arg(name="")] = field(default_factory=PrepareSettings)
    shard: str = "0/1"  # type: ignore[assignment]
    """Share i of n of the work, e.g. 3/16 in a Slurm array; shards share nothing but the folder."""
    reader: tuple[str, ...] = ()  # type: ignore[assignment]
    """How the layout is read, e.g. `egodex.split=test`, or a JSON file {layout: {field: value}}."""
    output: Path | None = None
    """Folder for results.json; when not given the store's, where the shard that ends last overwrites it."""

    def run(self) -> None:
        """Prepare, show the account, and write it to `results.json`; exit code 1 when anything failed."""
        shard = Shard.parse(self.shard)
        values = {each.name: getattr(self, each.name) for each in fields(PrepareConfig)}
        config = PrepareConfig(**values | {"shard": shard, "reader": reader_options(self.reader)})
        with task_bars() as update:
            report = prepare(config, update)
        sys.stdout.write(report.text() + "\n")
        path = write_results(self.output or self.destination, report.to_json())
        if not report.assembled:
            logger.info("%s is not finished; start the other shards, or this command again", self.destination)
        logger.info("all figures: %s", path)
        if not report.ok:
            sys.exit(1)
