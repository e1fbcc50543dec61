"""`dexworld prepare`: a source transcoded and packed into a store, by as many processes and machines as there are.

plan       which episodes go into which pack; every process computes the same one
packs      written by workers, complete or absent; an interrupted pack is written again, equal to the byte
assembly   when all packs are there: numbers that run through the whole store, then the mark that it is complete
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dexworld.data.files import Shard
from dexworld.data.locks import hidden
from dexworld.data.parallel import WorkerDied, Workers
from dexworld.data.prepare.account import PrepareReport, counts_of_packs, counts_of_store
from dexworld.data.prepare.plan import Pack, PreparePlan, agree_on_plan, plan_of
from dexworld.data.readers import Kind, ReaderOptions, open_source
from dexworld.data.source import CorruptEpisodeError, Source
from dexworld.data.store.assemble import assemble
from dexworld.data.store.packs import MARK, STAGING, PackRecord, read_records, staged, write_pack
from dexworld.data.store.prepared_dataset import open_prepared, problems
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.track import Track

logger = logging.getLogger(__name__)
TRIES = 2  # of a pack whose worker dies or raises
HANDOVER_S = 2.0  # the workers of a run that was killed take a moment to end and to give their packs back
Watch = Callable[[str, int, int, str], None]  # step, episodes done, of how many of this share, a note


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
    assemble: bool = True
    """Finish the store when its last pack is there, or leave it to another run."""
    verify: bool = False
    """Read the finished store again: every byte, every frame."""
    ray: str | None = None
    """Address of a Ray cluster that does the work: `local`, `auto` or ray://host:port."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must not be negative")
        if self.destination.resolve().is_relative_to(self.source.resolve()):  # its videos would become the source's
            raise ValueError(f"{self.source} can't be prepared into itself; choose a destination outside of it")


def prepare(config: PrepareConfig, watch: Watch = lambda *progress: None) -> PrepareReport:
    """Do this process's share, assemble when nothing is missing, and account for every episode.

    Started again after a kill with the same arguments, it goes on. Other shards may run at the same time, on other
    machines. Raises ValueError when the destination was begun from another source or with other settings; DiskFullError
    when the disk fills up; CountMismatchError when an episode is not accounted for.
    """
    started = time.monotonic()
    source = open_source(config.source, config.kind, config.reader)
    settings = _resolved(source, config.settings)
    plan = plan_of(source, settings, config.reader)
    agree_on_plan(config.destination, plan)
    failures, frames = _write_packs(config, plan, settings, watch)
    _assemble_if_due(config, plan, watch)
    seconds = time.monotonic() - started
    if _complete(config):
        facts = _facts_of_store(config, plan, watch)
    else:
        facts = counts_of_packs(plan, read_records(config.destination), failures) | {"failures": tuple(failures)}
    own: dict[str, Any] = {"counted": plan.counted, "source_bytes": plan.bytes, "settings": settings}
    return PrepareReport(**own, **facts, seconds=seconds, frames_now=frames)


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


def _complete(config: PrepareConfig) -> bool:
    return (config.destination / MARK).exists()


def _missing(config: PrepareConfig, packs: Iterable[Pack]) -> list[Pack]:
    """The packs that have no record yet."""
    folder = config.destination
    return [] if _complete(config) else [each for each in packs if not staged(folder, each.number, ".json").exists()]


@dataclass(frozen=True)
class PackWork:
    """Writes a pack in whatever process it is called; each opens the source once. settings: resolved."""

    config: PrepareConfig
    settings: PrepareSettings

    @cached_property
    def _opened(self) -> tuple[Source, dict[str, int], tuple[str, ...]]:
        source = open_source(self.config.source, self.config.kind, self.config.reader)
        return source, {name: index for index, name in enumerate(source.ids)}, source.splits

    def __call__(self, pack: Pack) -> PackRecord | None:
        """Write one pack and return its record; None when another process has written it or is at it.

        Raises OSError when the disk fails, RuntimeError when the source lost an episode.
        """
        source, places, splits = self._opened

        def read(name: str) -> Track:
            if name not in places:
                raise RuntimeError(f"{source.folder} lost episode {name} since the preparation began; prepare it anew")
            return source[places[name]]

        items = ((name, partial(read, name)) for name in pack.ids)
        return write_pack(self.config.destination, pack.number, items, self.settings, lambda name: splits[places[name]])


def _write_packs(
    config: PrepareConfig, plan: PreparePlan, settings: PrepareSettings, watch: Watch
) -> tuple[list[tuple[Pack, str]], int]:
    """Write this share's packs, those that other live processes hold excepted; (failed packs with reasons, frames)."""
    todo = _missing(config, config.shard.of(plan.packs))
    total, started = sum(len(pack.ids) for pack in todo), time.monotonic()
    failures: dict[Pack, list[str]] = {}
    done = frames = left_out = 0
    waited = False
    watch("prepare", 0, total, "")
    if not todo:
        return [], 0
    with Workers(PackWork(config, settings), config.workers, config.ray) as pool:
        while todo:
            failed_before = sum(map(len, failures.values()))
            for outcome in pool.outcomes(todo, ordered=False):
                record: PackRecord | None = outcome.result
                if outcome.error is not None:
                    failures.setdefault(outcome.item, []).append(_reason(config, outcome.item, outcome.error))
                elif record is not None:
                    done += len(record.episodes) + len(record.quarantined)
                    frames, left_out = frames + record.frames, left_out + len(record.quarantined)
                note = f"{frames / max(time.monotonic() - started, 1e-9):.0f} frames/s"
                watch("prepare", done, total, note + (f", {left_out} quarantined" if left_out else ""))
            left = [pack for pack in _missing(config, todo) if len(failures.get(pack, ())) < TRIES]
            if len(left) == len(todo) and failed_before == sum(map(len, failures.values())):
                if waited:
                    logger.info("%d packs are being written by other processes", len(left))
                    break
                time.sleep(HANDOVER_S)
            waited, todo = len(left) == len(todo), left
    still = [pack for pack in _missing(config, plan.packs) if pack in failures]
    return [(pack, f"{failures[pack][-1]}, {len(failures[pack])} times") for pack in still], frames


def _reason(config: PrepareConfig, pack: Pack, error: Exception) -> str:
    """Why a pack failed, and at which episode: the file that its writer had claimed holds the id."""
    reason = str(error) if isinstance(error, WorkerDied) else f"{type(error).__name__}: {error}"
    claimed = hidden(staged(config.destination, pack.number, ".json"))
    episode = claimed.read_text(encoding="utf-8") if claimed.exists() else ""
    if episode and "\n" not in episode:  # else it was the finished record
        reason += f", episode {episode}"
    logger.error("%s failed: %s", pack, reason)
    return reason


def _assemble_if_due(config: PrepareConfig, plan: PreparePlan, watch: Watch) -> None:
    """Assemble the store if no pack is missing and the options say so."""
    if not config.assemble or _complete(config) or _missing(config, plan.packs):
        return
    watch("assemble", 0, 1, "")
    records = read_records(config.destination)
    counts_of_packs(plan, records, ())
    if not assemble(config.destination, records, plan.provenance(), plan.quarantined):
        logger.info("another process assembles %s", config.destination)
    watch("assemble", 1, 1, "")


def _facts_of_store(config: PrepareConfig, plan: PreparePlan, watch: Watch) -> dict[str, Any]:
    """Account for every episode of the finished store, and read everything again if asked; fields of the report."""
    shutil.rmtree(config.destination / STAGING, ignore_errors=True)  # of processes that were killed or came late
    store = open_prepared(config.destination)
    known = {(name, reason) for name, reason in store.mark["quarantined"]}
    damaged = [entry for entry in store.quarantined if entry not in known]
    if config.verify:
        damaged += problems(store, config.workers, lambda done, total: watch("verify", done, total, ""))
    return counts_of_store(plan, store) | {"damaged": tuple(damaged), "verified": config.verify}
