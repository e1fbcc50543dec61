"""`dexworld prepare`: a source transcoded and packed into a store, by as many processes and machines as there are.

plan       which episodes go into which pack; every process computes the same one
packs      written by workers, complete or absent; an interrupted pack is written again, equal to the byte
assembly   when all packs are there: numbers that run through the whole store, then the mark that it is complete
"""

import logging
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from dexworld.data.files import Shard
from dexworld.data.locks import Claims
from dexworld.data.parallel import Outcome, WorkerDied, Workers
from dexworld.data.prepare import account as accounts
from dexworld.data.prepare.plan import Pack, PreparePlan, agree_on_plan, plan_of
from dexworld.data.prepare.quality import compare
from dexworld.data.readers import Kind, ReaderOptions, open_source
from dexworld.data.source import CorruptEpisodeError, Source
from dexworld.data.store.assemble import assemble
from dexworld.data.store.packs import MARK, STAGING, PackRecord, read_records, staged, write_pack
from dexworld.data.store.prepared_dataset import open_prepared, problems
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.track import Track

logger = logging.getLogger(__name__)
CLAIMS = ".claims"  # beside staging, which is gone when the store is finished
TRIES = 2  # of a pack whose worker dies, hangs or raises
PATIENCE_S, PATIENCE_PER_FRAME_S = 600.0, 2.0  # an episode that takes longer counts as hung
Watch = Callable[[str, int, int, str], None]  # step, episodes done, of how many of this share, a note


class StrictError(ValueError):
    """An episode is broken, and the preparation was told to accept none."""


@dataclass(frozen=True)
class PrepareConfig:
    """One process's part in preparing `source` into `destination`."""

    source: Path
    """Dataset folder to read."""
    destination: Path
    """Store to write or to complete, a LeRobot v3 dataset."""
    kind: Kind = "auto"
    """Layout of the source; `auto` recognises it."""
    reader: ReaderOptions = field(default_factory=ReaderOptions)
    """How the layout is read."""
    settings: PrepareSettings = field(default_factory=PrepareSettings)
    """What the store holds."""
    workers: int = 0
    """Processes; 0 is one per core."""
    shard: Shard = field(default_factory=Shard)
    """Share i of n of the packs; shards share nothing but the folder."""
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

    def __post_init__(self) -> None:
        for name in ("workers", "check_episodes", "check_frames", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.destination.resolve().is_relative_to(self.source.resolve()):  # its videos would become the source's
            raise ValueError(f"{self.source} can't be prepared into itself; choose a destination outside of it")


def prepare(config: PrepareConfig, watch: Watch = lambda *progress: None) -> accounts.PrepareReport:
    """Do this process's share, assemble when nothing is missing, and account for every episode.

    Started again after a kill with the same arguments, it goes on. Other shards may run at the same time, on other
    machines. Raises ValueError when the destination was begun from another source or with other settings, when the disk
    is too small, and with `strict` when an episode is broken; DiskFullError when the disk fills up; CountMismatchError
    when an episode is not accounted for.
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


def _accept(quarantined: tuple[tuple[str, str], ...], strict: bool) -> None:
    if strict and quarantined:
        what, reason = quarantined[0]
        raise StrictError(f"{len(quarantined)} broken episodes, and none is accepted: {what}: {reason}")


@dataclass(frozen=True)
class PackWork:
    """Writes a pack in whatever process it is called; each opens the source once. settings: resolved."""

    config: PrepareConfig
    settings: PrepareSettings

    @cached_property
    def _opened(self) -> tuple[Source, dict[str, int], tuple[str, ...]]:
        source = open_source(self.config.source, self.config.kind, self.config.reader)
        return source, {name: index for index, name in enumerate(source.ids)}, source.splits

    def __call__(self, pack: Pack, note: Callable[..., None]) -> PackRecord:
        """Write one pack and return its record.

        Notes (pack, id, frames) of every episode: None while it is read, 0 when it is left out. Raises OSError when the
        disk fails, RuntimeError when the source lost an episode.
        """

        def read(name: str) -> Track:
            if name not in places:
                raise RuntimeError(f"{source.folder} lost episode {name} since the preparation began; prepare it anew")
            note((pack.number, name, None))
            episode = source[places[name]]
            note((pack.number, name, None), PATIENCE_PER_FRAME_S * len(episode))
            return episode

        def done(name: str, frames: int) -> None:
            note((pack.number, name, frames))

        source, places, splits = self._opened
        items, folder = ((name, partial(read, name)) for name in pack.ids), self.config.destination
        return write_pack(folder, pack.number, items, self.settings, done, lambda name: splits[places[name]])


@dataclass
class _Job:
    """The state of one process's preparation."""

    config: PrepareConfig
    plan: PreparePlan
    source: Source
    settings: PrepareSettings
    watch: Watch
    failed: dict[int, tuple[Pack, str]] = field(default_factory=dict)
    running: dict[int, dict[str, int | None]] = field(default_factory=dict)  # frames by episode; None: it is read now
    started: float = field(default_factory=time.monotonic)
    total: int = 0
    done: int = 0
    frames_now: int = 0
    quarantined: int = 0

    @cached_property
    def estimate(self) -> tuple[int, float]:
        """Frames of the source, bytes of the store."""
        return accounts.estimate_store(self.source, self.settings)

    @property
    def complete(self) -> bool:
        """Whether the store is assembled."""
        return (self.config.destination / MARK).exists()

    def missing(self, packs: Iterable[Pack]) -> list[Pack]:
        """The packs that have no record yet."""
        folder = self.config.destination
        return [] if self.complete else [each for each in packs if not staged(folder, each.number, ".json").exists()]

    def write_packs(self, claims: Claims) -> None:
        """Write this share's packs, those that other live processes hold excepted."""
        config = self.config
        todo = self.missing(config.shard.of(self.plan.packs))
        if config.assemble == "only":
            return
        if todo and not config.force:
            (frames, size), episodes = self.estimate, len(self.plan.ids)
            share = sum(len(pack.ids) for pack in self.missing(self.plan.packs)) / episodes
            accounts.check_room(config.destination, size * share, f"{frames} frames of {episodes} episodes")
        self.total = sum(len(pack.ids) for pack in todo)
        self._show()
        if not todo:
            return
        work = PackWork(config, self.settings)
        with Workers(work, config.workers, self._heard, TRIES, PATIENCE_S, config.ray) as pool:
            while todo:
                for outcome in pool.outcomes(self._claimed(todo, claims), ordered=False):
                    self._finished(outcome, claims)
                left = [pack for pack in self.missing(todo) if pack.number not in self.failed]
                if len(left) == len(todo):
                    logger.info("%d packs are being written by other processes", len(left))
                    return
                todo = left

    def _claimed(self, packs: Iterable[Pack], claims: Claims) -> Iterator[Pack]:
        """The packs that nobody else works on, each claimed when a worker is free for it."""
        folder = self.config.destination / STAGING
        leftovers = list(folder.glob(f".pack-*.{platform.node()}-*.tmp"))  # of this host's killed processes
        for pack in packs:
            if not claims.take(pack.name):
                continue
            if not self.missing([pack]):  # another process finished it in between
                claims.release(pack.name)
                continue
            for path in leftovers:
                if path.name.startswith(f".{pack.name}."):
                    path.unlink(missing_ok=True)
            yield pack

    def _heard(self, note: tuple[int, str, int | None]) -> None:
        pack, episode, frames = note
        episodes = self.running.setdefault(pack, {})
        episodes.pop(episode, None)  # so that the latest comes last, also when the pack is tried again
        episodes[episode] = frames
        if frames is not None:
            self._show()
        if frames == 0 and self.config.strict:
            raise StrictError(f"episode {episode} is broken, and none is accepted; the reason is above")

    def _finished(self, outcome: Outcome, claims: Claims) -> None:
        pack, record, error = outcome.item, outcome.result, outcome.error
        episode = next(reversed(self.running.pop(pack.number, {})), "")
        claims.release(pack.name)
        if error is None:
            self.done += len(record.episodes) + len(record.quarantined)
            self.frames_now += record.frames
            self.quarantined += len(record.quarantined)
        else:
            reason = str(error) if isinstance(error, WorkerDied) else f"{type(error).__name__}: {error}"
            reason += (f", episode {episode}" if episode else "") + f", {outcome.tries} times" * (outcome.tries > 1)
            self.failed[pack.number] = pack, reason
            logger.error("%s failed: %s", pack, reason)
        self._show()

    def _show(self) -> None:
        now = [frames for pack in self.running.values() for frames in pack.values() if frames is not None]
        frames, note = self.frames_now + sum(now), ""
        if frames:
            note = f"{frames / max(time.monotonic() - self.started, 1e-9):.0f} frames/s"
            note += f", {self.quarantined} quarantined" if self.quarantined else ""
        self.watch("prepare", self.done + len(now), self.total, note)

    def _step(self, step: str) -> Callable[[int, int], None]:
        return lambda done, total: self.watch(step, done, total, "")

    def assemble_if_due(self, claims: Claims) -> None:
        """Assemble the store if no pack is missing and the options say so."""
        config, missing = self.config, self.missing(self.plan.packs)
        if self.complete or config.assemble == "never":
            return
        if missing and config.assemble == "only":
            raise ValueError(
                f"{config.destination} can't be assembled: {len(missing)} of {len(self.plan.packs)} packs are missing, "
                f"the first is {missing[0]}; run the shards that hold them"
            )
        if missing:
            return
        if not claims.take("assembly"):
            logger.info("another process assembles %s", config.destination)
        elif not self.complete:
            self._step("assemble")(0, 1)
            records = read_records(config.destination)
            _accept(accounts.account_of_packs(self.plan, records, {}).quarantined, config.strict)
            assemble(config.destination, records, self.plan.provenance(), self.plan.quarantined)
            self._step("assemble")(1, 1)

    def report(self, started: float) -> accounts.PrepareReport:
        """Account for every episode, compare with the source, and read everything again if asked."""
        config, seconds, damaged, quality = self.config, time.monotonic() - started, [], {}
        if self.complete:
            for left in (STAGING, CLAIMS):  # of processes that were killed or came late
                shutil.rmtree(config.destination / left, ignore_errors=True)
            self.failed.clear()  # packs that another process wrote and assembled meanwhile
            store = open_prepared(config.destination)
            account = accounts.account_of_store(self.plan, store)
            known = {(name, reason) for name, reason in store.mark["quarantined"]}
            damaged = [entry for entry in store.quarantined if entry not in known]
            if config.verify:
                damaged += problems(store, config.workers, self._step("verify"))
            if config.check_frames:
                checks = (config.check_episodes, config.check_frames, config.seed)
                quality = compare(self.source, store, self.settings, *checks, self._step("compare"))
        else:
            account = accounts.account_of_packs(self.plan, read_records(config.destination), self.failed)
        return accounts.PrepareReport(
            account=account,
            failed=tuple(self.failed[number] for number in sorted(self.failed)),
            assembled=self.complete,
            estimated_bytes=math.ceil(self.estimate[1]),
            source_bytes=self.plan.bytes,
            seconds=seconds,
            frames_now=self.frames_now,
            settings=self.settings,
            quality=quality,
            damaged=tuple(damaged),
            verified=config.verify and self.complete,
        )
