"""The verb `prepare`: a dataset of video and labels made into a store to train from."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from dexworld.cli.reader_options import reader_options
from dexworld.data.prepare.job import PrepareConfig, Progress, prepare
from dexworld.data.prepare.shards import Shard
from dexworld.data.prepared.pack import STAGING
from dexworld.data.prepared.settings import PrepareSettings
from dexworld.data.readers import Kind
from dexworld.evaluation.results import write_results

logger = logging.getLogger("dexworld")
LOGGED_EVERY_S = 60.0


@dataclass(frozen=True)
class Prepare:
    """Transcode and pack a dataset once, to train from it fast; start it again to go on after a kill."""

    source: tyro.conf.Positional[Path]
    """Dataset folder to read."""
    destination: tyro.conf.Positional[Path]
    """Store to write or to complete, a LeRobot v3 dataset."""
    output: Path | None = None
    """Folder for results.json; when not given the store's, `staging/shard-i-of-n` in it while shards are missing."""
    kind: Kind = "auto"
    """Layout of the source; `auto` recognises it."""
    settings: Annotated[PrepareSettings, tyro.conf.arg(name="")] = field(default_factory=PrepareSettings)
    workers: int = 0
    """Processes; 0 is one per core."""
    shard: str = "0/1"
    """Share i of n of the work, e.g. 3/16 in a Slurm array; shards share nothing but the folder."""
    assemble: Literal["auto", "only", "never"] = "auto"
    """Finish the store when its last pack is there (`auto`), do nothing else (`only`), or leave it to another run."""
    verify: bool = False
    """Read the finished store again: every byte, every frame."""
    ray: str | None = None
    """Address of a Ray cluster that does the work: `local`, `auto` or ray://host:port."""
    strict: bool = False
    """End at the first episode that can't be read, instead of leaving it out and going on."""
    force: bool = False
    """Begin though the disk seems too small."""
    check_episodes: int = 64
    """Episodes that are compared with the source, 0 for all."""
    check_frames: int = 4
    """Frames compared of each of them, 0 for none."""
    seed: int = 0
    """Draws the frames to compare."""
    reader: tuple[str, ...] = ()
    """How the layout is read, e.g. `egodex.split=test`, or a JSON file {layout: {field: value}}."""

    def run(self) -> None:
        """Prepare, show the account, and write it to `results.json`; exit code 1 when anything failed."""
        shard = Shard.parse(self.shard)
        config = PrepareConfig(
            source=self.source,
            destination=self.destination,
            kind=self.kind,
            reader=reader_options(self.reader),
            settings=self.settings,
            workers=self.workers,
            shard=shard,
            assemble=self.assemble,
            verify=self.verify,
            ray=self.ray,
            strict=self.strict,
            force=self.force,
            check_episodes=self.check_episodes,
            check_frames=self.check_frames,
            seed=self.seed,
        )
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
