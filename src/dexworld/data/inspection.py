"""Look through a dataset of any layout and any size: what is in it, what is broken, and what looks wrong.

Episodes are read one by one, in processes, and only sums are kept; the same dataset gives the same account whatever the
number of processes. Nothing that can't be read is left out in silence: it is listed with its reason.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dexworld.data.episode_figures import FINDINGS, Figures, Finding, Limits, label_figures, time_findings
from dexworld.data.parallel import WorkerDied, Workers, worker_count
from dexworld.data.picture_figures import Snapshot, picture_figures
from dexworld.data.source import CorruptEpisodeError, Source, splits_of
from dexworld.data.statistics import Histogram, logarithmic
from dexworld.data.video import VideoError
from dexworld.track import COLUMNS

ALL_UP_TO = 2000  # episodes; of larger datasets a sample of so many is read unless told otherwise
DECODED = 48  # episodes of which a few frames are decoded, unless all are
EXAMPLES = 20  # episodes named for each kind of finding
SNAPSHOTS = 12
Progress = Callable[[int, int], None]  # (episodes done, episodes in all)


@dataclass(frozen=True)
class InspectConfig:
    """How much of a dataset is read. Raises ValueError naming the field that makes no sense."""

    episodes: int | None = None
    """How many episodes to read, drawn at random; 0 reads all. By default all of up to 2,000, or a sample of 2,000."""
    decode: Literal["none", "sample", "all"] = "sample"
    """Decode no frame, a few frames of 48 episodes, or every frame of every episode read."""
    seed: int = 0
    """Of the sample."""
    workers: int = 0
    """Processes; 0 is one per core."""
    limits: Limits = field(default_factory=Limits)
    """Beyond these an episode looks wrong."""

    def __post_init__(self) -> None:
        if self.episodes is not None and self.episodes < 0:
            raise ValueError(f"episodes is {self.episodes}; give a number to sample, or 0 for all")
        if self.decode not in ("none", "sample", "all"):
            raise ValueError(f"decode is {self.decode!r}; choose none, sample or all")
        if self.workers < 0 or self.seed < 0:
            raise ValueError(f"workers and seed must be 0 or more, not {self.workers} and {self.seed}")


@dataclass(frozen=True)
class Broken:
    """An episode that can't be used. stage: `opening`, `labels` or `frames`: where it failed."""

    name: str
    stage: str
    reason: str


@dataclass(frozen=True)
class EpisodeReport:
    """What was found in one episode; figures is None when it is broken."""

    name: str
    broken: Broken | None = None
    figures: Figures | None = None
    findings: tuple[Finding, ...] = ()
    frames: int = 0
    fps: float = 0.0
    size: tuple[int, int] = (0, 0)
    task: str = ""
    extras: tuple[str, ...] = ()
    bytes: int = 0
    snapshot: Snapshot | None = None

    def to_json(self) -> dict[str, Any]:
        """One line about the episode."""
        if self.broken is not None:
            return {"episode": self.name, "broken": self.broken.stage, "reason": self.broken.reason}
        return {
            "episode": self.name,
            "frames": self.frames,
            "fps": self.fps,
            "size": list(self.size),
            "task": self.task,
            "bytes": self.bytes,
            "findings": [{"kind": each.kind, "message": each.message, "frame": each.frame} for each in self.findings],
        }


@dataclass
class Inspection:
    """The account of a dataset.

    episodes: how many there are that may be readable. read: how many were read; fewer is a sample drawn with `seed`.
    broken: what opening, labels or frames revealed. findings: per kind the number of episodes, and the first of them
    with frame and message. tasks, sizes, rates, extras: episodes with each. splits: episodes of the whole dataset in
    each, where it has splits. bytes: of the files of the episodes read; shared files count once.
    """

    folder: Path
    kind: str
    episodes: int
    read: int
    config: InspectConfig
    splits: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    findings: dict[str, tuple[int, list[tuple[str, Finding]]]] = field(default_factory=dict)
    lengths: Histogram = field(default_factory=lambda: logarithmic(0.01, 1e5, 10))
    tasks: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    rates: Counter[float] = field(default_factory=Counter)
    extras: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    decoded_episodes: int = 0
    snapshots: list[Snapshot] = field(default_factory=list)

    @property
    def is_sample(self) -> bool:
        """Whether episodes were left unread."""
        return self.read < self.episodes

    @property
    def readable(self) -> int:
        """Episodes that were read without an error."""
        return self.read - sum(each.stage != "opening" for each in self.broken)

    def add(self, report: EpisodeReport) -> None:
        """Count one more episode."""
        self.bytes += report.bytes
        if report.broken is not None:
            self.broken.append(report.broken)
            return
        assert report.figures is not None
        self.figures.merge(report.figures)
        self.lengths.add(np.array([report.frames / report.fps]))
        self.tasks[report.task] += 1
        self.sizes[report.size] += 1
        self.rates[round(report.fps, 3)] += 1
        self.extras.update(report.extras)
        self.decoded_episodes += report.figures.decoded > 0
        if report.snapshot is not None:
            self.snapshots.append(report.snapshot)
        by_kind: dict[str, Finding] = {}
        for finding in report.findings:
            by_kind.setdefault(finding.kind, finding)
        for kind, finding in by_kind.items():
            count, examples = self.findings.get(kind, (0, []))
            if len(examples) < EXAMPLES:
                examples.append((report.name, finding))
            self.findings[kind] = count + 1, examples


def inspect(
    source: Source,
    config: InspectConfig = InspectConfig(),
    progress: Progress | None = None,
    each: Callable[[EpisodeReport], None] | None = None,
) -> Inspection:
    """Read the episodes of `source` and account for all of them.

    each: called with every episode's report, in order. Raises ValueError when there is nothing to read: no episode, and
    nothing that opening found broken.
    """
    if not len(source) and not source.quarantined:
        raise ValueError(f"{source.folder} holds no episode of kind {source.kind!r}")
    chosen = _chosen(len(source), config)
    result = Inspection(
        source.folder, source.kind, len(source), len(chosen), config, Counter(filter(None, splits_of(source)))
    )
    result.broken += [Broken(name, "opening", reason) for name, reason in source.quarantined]
    spread = np.unique(np.linspace(0, max(len(chosen) - 1, 0), min(DECODED, len(chosen))).round().astype(int)).tolist()
    decoded = frozenset(chosen[place] for place in spread) if config.decode == "sample" else frozenset(chosen)
    shown = frozenset(_evenly(sorted(decoded), SNAPSHOTS))
    job = partial(_report, source=source, config=config, decoded=decoded, shown=shown)
    seen: set[int] = set()
    with Workers(job, worker_count(len(chosen), config.workers)) as pool:
        for done, outcome in enumerate(pool.outcomes(chosen), 1):
            name, found, error = source.ids[outcome.item], outcome.result, outcome.error
            if isinstance(error, WorkerDied):
                found = EpisodeReport(name, Broken(name, "labels", f"reading it ended the process: {error}"))
            elif error is not None:
                raise error
            report = replace(found, bytes=_new_bytes(source, outcome.item, seen))
            result.add(report)
            if each is not None:
                each(report)
            if progress is not None:
                progress(done, len(chosen))
    return result


def _chosen(episodes: int, config: InspectConfig) -> list[int]:
    wanted = (episodes if episodes <= ALL_UP_TO else ALL_UP_TO) if config.episodes is None else config.episodes
    if not wanted or wanted >= episodes:
        return list(range(episodes))
    generator = np.random.default_rng(config.seed)
    return sorted(generator.choice(episodes, size=wanted, replace=False).tolist())


def _evenly(items: list[int], count: int) -> Iterator[int]:
    for place in np.unique(np.linspace(0, max(len(items) - 1, 0), min(count, len(items))).round().astype(int)):
        yield items[place]


def _new_bytes(source: Source, index: int, seen: set[int]) -> int:
    """Size of the episode's files that no episode before it shares."""
    total = 0
    for path in source.files(index):
        key = hash(str(path))
        if key not in seen and path.exists():
            seen.add(key)
            total += path.stat().st_size
    return total


def _report(
    index: int, source: Source, config: InspectConfig, decoded: frozenset[int], shown: frozenset[int]
) -> EpisodeReport:
    """Measure one episode; whatever goes wrong becomes part of the report."""
    name, stage = source.ids[index], "labels"
    try:
        episode = source[index]
        figures, findings, where = label_figures(episode, index, name, config.limits)
        decode = config.decode != "none" and index in decoded
        findings += time_findings(episode, every_packet=decode)
        stage, snapshot = "frames", None
        if decode:
            seen, snapshot = picture_figures(figures, episode, where, config.limits, config.decode == "all")
            findings += seen
        return EpisodeReport(
            name=name,
            figures=figures,
            findings=tuple(findings),
            frames=len(episode),
            fps=float(episode.fps),
            size=(int(episode.frames.size[0]), int(episode.frames.size[1])),
            task=episode.task,
            extras=tuple(sorted(set(episode.columns) - set(COLUMNS))),
            snapshot=replace(snapshot, episode=name) if snapshot is not None and index in shown else None,
        )
    except (CorruptEpisodeError, VideoError) as error:
        reason = str(error)
    except Exception as error:  # a reader must not raise anything else; if it does, the rest is still worth knowing
        where_from = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"unexpected {type(error).__name__}: {error} ({Path(where_from.filename).name}:{where_from.lineno})"
    return EpisodeReport(name, Broken(name, stage, reason))


__all__ = ["FINDINGS", "Broken", "EpisodeReport", "InspectConfig", "Inspection", "inspect"]
