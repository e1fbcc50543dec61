"""`dexworld prepare`: a source transcoded and packed into a store, by as many processes and machines as there are.

    plan       which episodes go into which pack; every process computes the same, none needs a leader
    packs      written by workers, complete or absent; whatever is killed is written again, equal to the byte
    assembly   when all packs are there: numbers that run through the whole store, then the mark that it is complete

Nothing is lost or doubled by a kill at any moment, and the result does not depend on who wrote what.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dexworld.data.parallel import available_cores
from dexworld.data.prepare.disk import DiskEstimate, estimate_disk
from dexworld.data.prepare.plan import Pack, PreparePlan, agree_on_plan, plan_of
from dexworld.data.prepare.processes import Patience, in_processes, in_this_process
from dexworld.data.prepare.quality import compare
from dexworld.data.prepare.ray_workers import with_ray
from dexworld.data.prepare.report import PrepareReport, account_of_packs, account_of_store
from dexworld.data.prepare.shards import Claims, Shard
from dexworld.data.prepare.work import EpisodeBegun, EpisodeDone, Event, PackDone, PackFailed, PackWork, StrictError
from dexworld.data.prepared.assemble import assemble
from dexworld.data.prepared.dataset import open_prepared
from dexworld.data.prepared.pack import MARK, STAGING, read_records, staged
from dexworld.data.prepared.settings import PrepareSettings
from dexworld.data.prepared.verify import problems
from dexworld.data.readers import ReaderOptions, open_source
from dexworld.data.source import CorruptEpisodeError, Source
from dexworld.data.video import VideoError

logger = logging.getLogger(__name__)
CLAIMS = ".claims"  # beside staging, which is gone when the store is finished


@dataclass(frozen=True)
class PrepareConfig:
    """One process's part in preparing `source` into `destination`.

    kind, reader: layout of the source and options of its reader. settings: what the store holds. workers: processes, 0
    is one per core, 1 works in this process alone. shard: this process's share of the packs. assemble: `auto` when no
    pack is missing, `only` writes no pack, `never`. verify: read the finished store again, every byte. ray: address of
    a Ray cluster that takes the place of the processes. strict: end at the first broken episode. force: begin though
    the disk seems too small. check_episodes, check_frames: compare so many frames of so many episodes (0: all) with the
    source; check_frames 0 compares nothing. seed: draws those frames. patience: when a worker counts as hung.
    """

    source: Path
    destination: Path
    kind: str = "auto"
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    settings: PrepareSettings = field(default_factory=PrepareSettings)
    workers: int = 0
    shard: Shard = field(default_factory=Shard)
    assemble: Literal["auto", "only", "never"] = "auto"
    verify: bool = False
    ray: str | None = None
    strict: bool = False
    force: bool = False
    check_episodes: int = 64
    check_frames: int = 4
    seed: int = 0
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        for name in ("workers", "check_episodes", "check_frames", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.destination.resolve().is_relative_to(self.source.resolve()):  # its videos would become the source's
            raise ValueError(f"{self.source} can't be prepared into itself; choose a destination outside of it")


@dataclass
class Progress:
    """How far this process is: `done` of `total` episodes of its share, `frames` written and `quarantined` by it."""

    total: int
    done: int = 0
    frames: int = 0
    quarantined: int = 0
    step: str = "prepare"


Watch = Callable[[Progress], None]


def prepare(config: PrepareConfig, watch: Watch = lambda progress: None) -> PrepareReport:
    """Do this process's share, assemble when nothing is missing, and account for every episode.

    Start it again after a kill, with the same arguments, and it goes on; start it with other shards, on other machines,
    at the same time. Raises ValueError when the destination was begun from another source or with other settings, when
    the disk is too small, and with `strict` when an episode is broken; DiskFullError when the disk fills up all the
    same; CountMismatchError when an episode is not accounted for.
    """
    started = time.monotonic()
    source = open_source(config.source, config.kind, config.reader)
    settings = _resolved(source, config.settings)
    plan = plan_of(source, settings, config.reader)
    _accept(plan.quarantined, config.strict)
    agree_on_plan(config.destination, plan)
    job = _Job(config, plan, source, settings, watch)
    with Claims(config.destination / CLAIMS) as claims:
        job.write_packs(claims)
        job.assemble_if_due(claims)
    return job.report(started)


def _resolved(source: Source, settings: PrepareSettings) -> PrepareSettings:
    """Settings with the width and the rate of the first readable episode, so that all packs agree."""
    reasons = []
    for index in range(0 if settings.is_resolved else len(source)):
        try:
            return settings.resolved(source[index])
        except (CorruptEpisodeError, VideoError) as error:
            reasons.append(str(error))
    if reasons:
        raise ValueError(f"none of the {len(source)} episodes of {source.folder} can be read; the first: {reasons[0]}")
    return settings


def _accept(quarantined: Iterable[tuple[str, str] | list[str]], strict: bool) -> None:
    listed = list(quarantined)
    if strict and listed:
        what, reason = listed[0]
        raise StrictError(f"{len(listed)} broken episodes, and none is accepted: {what}: {reason}")


@dataclass
class _Job:
    """The state of one process's preparation."""

    config: PrepareConfig
    plan: PreparePlan
    source: Source
    settings: PrepareSettings
    watch: Watch
    failed: dict[int, PackFailed] = field(default_factory=dict)
    frames_now: int = 0

    @cached_property
    def estimate(self) -> DiskEstimate:
        """What the store takes, and what of it is missing."""
        missing = sum(len(pack.ids) for pack in self.missing(self.plan.packs))
        return estimate_disk(self.source, self.settings, self.config.destination, missing / len(self.plan.ids))

    def complete(self) -> bool:
        """Whether the store is assembled."""
        return (self.config.destination / MARK).exists()

    def missing(self, packs: Iterable[Pack]) -> list[Pack]:
        """The packs that have no record yet."""
        if self.complete():
            return []
        return [pack for pack in packs if not staged(self.config.destination, pack.number, ".json").exists()]

    def write_packs(self, claims: Claims) -> None:
        """Write this share's packs, those that other live processes hold excepted."""
        config = self.config
        todo = self.missing(config.shard.of(self.plan.packs))
        if config.assemble == "only":
            return
        if todo and not config.force:
            self.estimate.check(config.destination)
        progress = Progress(sum(len(pack.ids) for pack in todo))
        work = PackWork(config.source, config.kind, config.reader, config.destination, self.settings)
        self.watch(progress)
        while todo:
            packs, tell = self._claimed(todo, claims), self._teller(progress, claims)
            if config.ray is not None:
                with_ray(work, packs, tell, config.ray, config.workers)
            elif config.workers == 1:
                in_this_process(work, packs, tell)
            else:
                in_processes(work, packs, tell, config.workers or available_cores(), config.patience)
            left = [pack for pack in self.missing(todo) if pack.number not in self.failed]
            if len(left) == len(todo):
                logger.info("%d packs are being written by other processes", len(left))
                return
            todo = left

    def _claimed(self, packs: Iterable[Pack], claims: Claims) -> Iterator[Pack]:
        """The packs that nobody else works on, each claimed when a worker is free for it."""
        folder = self.config.destination / STAGING
        leftovers: dict[str, list[Path]] = {}
        for path in folder.glob(".pack-*.tmp"):
            leftovers.setdefault(path.name[1:].split(".")[0], []).append(path)
        for pack in packs:
            name = f"pack-{pack.number:06d}"
            if not claims.take(name):
                continue
            if not self.missing([pack]):  # somebody finished it in between
                claims.release(name)
                continue
            for path in leftovers.get(name, []):  # of a process that was killed
                path.unlink(missing_ok=True)
            yield pack

    def _teller(self, progress: Progress, claims: Claims) -> Callable[[Event], None]:
        """What is done about an event."""
        counted: dict[int, list[int]] = {}  # frames of the episodes of each running pack

        def forget(pack: int) -> None:
            lengths = counted.pop(pack, [])
            progress.done -= len(lengths)
            progress.frames -= sum(lengths)

        def tell(event: Event) -> None:
            if isinstance(event, EpisodeDone):
                counted.setdefault(event.pack, []).append(event.frames)
                progress.done += 1
                progress.frames += event.frames
                if self.config.strict and not event.frames:
                    raise StrictError(f"episode {event.episode} is broken, and none is accepted; the reason is above")
            elif not isinstance(event, EpisodeBegun):
                forget(event.pack)
            if isinstance(event, PackDone):
                progress.done += event.episodes + event.quarantined
                progress.frames += event.frames
                progress.quarantined += event.quarantined
                self.frames_now += event.frames
                claims.release(f"pack-{event.pack:06d}")
            elif isinstance(event, PackFailed):
                self.failed[event.pack] = event
                logger.error("pack %d failed: %s", event.pack, event.reason)
                claims.release(f"pack-{event.pack:06d}")
            self.watch(progress)

        return tell

    def assemble_if_due(self, claims: Claims) -> None:
        """Assemble the store if no pack is missing and the options say so."""
        config, missing = self.config, self.missing(self.plan.packs)
        if self.complete() or config.assemble == "never":
            return
        if missing:
            if config.assemble == "only":
                raise ValueError(
                    f"{config.destination} can't be assembled: {len(missing)} of {len(self.plan.packs)} packs are "
                    f"missing, the first is pack {missing[0].number}; run the shards that hold them"
                )
            return
        with claims.held("assembly") as ours:
            if not ours:
                logger.info("another process assembles %s", config.destination)
                return
            if not self.complete():
                self.watch(Progress(1, step="assemble"))
                records = read_records(config.destination)
                _accept(account_of_packs(self.plan, records, {}).quarantined, config.strict)
                assemble(config.destination, records, self.plan.provenance(), self.plan.quarantined)
                self.watch(Progress(1, 1, step="assemble"))

    def report(self, started: float) -> PrepareReport:
        """Account for every episode, compare with the source, and read everything again if asked."""
        config, plan, damaged, quality = self.config, self.plan, [], {}
        seconds = time.monotonic() - started
        if self.complete():
            for left in (STAGING, CLAIMS):  # of processes that were killed or came late
                shutil.rmtree(config.destination / left, ignore_errors=True)
            self.failed.clear()  # packs that another process wrote and assembled meanwhile
            store = open_prepared(config.destination)
            account = account_of_store(plan, store)
            known = {(name, reason) for name, reason in store.mark["quarantined"]}
            damaged = [entry for entry in store.quarantined if entry not in known]
            if config.verify:
                damaged += problems(store, config.workers, self._verified)
            if config.check_frames:
                quality = self._quality()
        else:
            account = account_of_packs(plan, read_records(config.destination), self.failed)
        return PrepareReport(
            destination=config.destination,
            account=account,
            failed=tuple(self.failed[number] for number in sorted(self.failed)),
            assembled=self.complete(),
            estimate=self.estimate,
            source_bytes=plan.bytes,
            seconds=seconds,
            frames_now=self.frames_now,
            settings=self.settings,
            quality=quality,
            damaged=tuple(damaged),
            verified=config.verify and self.complete(),
        )

    def _verified(self, done: int, total: int) -> None:
        self.watch(Progress(total, done, step="verify"))

    def _quality(self) -> dict[str, Any]:
        config, store = self.config, open_prepared(self.config.destination)
        progress = Progress(min(config.check_episodes or len(store), len(store)), step="compare")

        def counted(names: Iterable[str]) -> Iterator[str]:
            for name in names:
                yield name
                progress.done += 1
                self.watch(progress)

        return compare(
            self.source, store, self.settings, config.check_episodes, config.check_frames, config.seed, counted
        )
