"""The verb `prepare`: a dataset of video and labels made into a store to train from."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from dexworld.cli.reader_options import reader_options
from dexworld.data.parallel import Shard
from dexworld.data.prepare.job import Patience, PrepareConfig, Progress, prepare
from dexworld.data.store.packs import STAGING
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.evaluation.results import write_results

logger = logging.getLogger("dexworld")
LOGGED_EVERY_S = 60.0


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
    patience: tyro.conf.Suppress[Patience] = field(default_factory=Patience)
    output: Path | None = None
    """Folder for results.json; when not given the store's, `staging/shard-i-of-n` in it while shards are missing."""

    def run(self) -> None:
        """Prepare, show the account, and write it to `results.json`; exit code 1 when anything failed."""
        shard = Shard.parse(self.shard)
        values = {each.name: getattr(self, each.name) for each in fields(PrepareConfig)}
        config = PrepareConfig(**values | {"shard": shard, "reader": reader_options(self.reader)})
        with watched() as watch:
            report = prepare(config, watch)
        sys.stdout.write(report.text() + "\n")
        own = STAGING if not report.assembled else ""  # several shards, each with its own figures
        own += f"/shard-{shard.index}-of-{shard.count}" if own and shard.count > 1 else ""
        path = write_results(self.output or self.destination / own, report.to_json(), seed=self.seed)
        if not report.assembled:
            logger.info("%s is not finished; start the other shards, or this command again", self.destination)
        logger.info("all figures: %s", path)
        if not report.ok:
            sys.exit(1)


@contextmanager
def watched() -> Iterator[Callable[[Progress], None]]:
    """Shows a preparation's progress: bars with the time that remains on a terminal, a line a minute elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as watch:
            yield watch
    else:
        yield _Lines()


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[Progress], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:
        tasks, started = {}, time.monotonic()

        def watch(progress: Progress) -> None:
            if progress.step not in tasks:
                tasks[progress.step] = bars.add_task(progress.step, total=progress.total, note="")
            note = _note(progress, time.monotonic() - started)
            bars.update(tasks[progress.step], completed=progress.done, note=note)

        yield watch


class _Lines:
    """A log line at the first word of a step, and one a minute."""

    def __init__(self) -> None:
        self._step, self._started, self._told = "", 0.0, 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.step != self._step:
            self._step, self._started, self._told = progress.step, now, now
            logger.info("%s: %d to do", progress.step, progress.total)
        elif now - self._told >= LOGGED_EVERY_S:
            self._told = now
            spent = now - self._started
            remaining = spent / progress.done * (progress.total - progress.done) if progress.done else 0.0
            logger.info(
                "%s: %d of %d %s, about %.0f min to go",
                *(progress.step, progress.done, progress.total, _note(progress, spent), remaining / 60),
            )


def _note(progress: Progress, seconds: float) -> str:
    if not progress.frames:
        return ""
    left_out = f", {progress.quarantined} quarantined" if progress.quarantined else ""
    return f"{progress.frames / max(seconds, 1e-9):.0f} frames/s{left_out}"
