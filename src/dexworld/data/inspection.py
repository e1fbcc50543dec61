"""Look through a dataset of any layout and any size: what is in it, what is broken, and what looks wrong.

Episodes are read one by one, in processes, and only sums are kept; the same dataset gives the same account whatever the
number of processes. What can't be read is listed with its reason.
"""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dexworld.data.episode_figures import FINDINGS, Figures, Finding, Limits, Measurement, Snapshot
from dexworld.data.parallel import WorkerDied, Workers, worker_count
from dexworld.data.source import CorruptEpisodeError, Source
from dexworld.data.statistics import most_common
from dexworld.data.video import VideoError
from dexworld.hands import KEYPOINT_NAMES

ALL_UP_TO = 2000  # episodes; of larger datasets a sample of so many is read unless told otherwise
DECODED = 48  # episodes of which a few frames are decoded, unless all are
EXAMPLES = 20  # episodes named for each kind of finding
SNAPSHOTS = 12
TASKS, COUNTED = 200, 50  # the most common tasks, sizes and rates that the account names
STAGES = ("opening", "labels", "frames")
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
    """An episode that can't be used. stage: one of `STAGES`, where it failed."""

    name: str
    stage: str
    reason: str


@dataclass(frozen=True)
class EpisodeReport:
    """What was found in one episode: broken, or else all the others. facts: frames, fps, size and task."""

    name: str
    broken: Broken | None = None
    figures: Figures = field(default_factory=Figures)
    findings: tuple[Finding, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0
    snapshot: Snapshot | None = None

    def to_json(self) -> dict[str, Any]:
        """One line about the episode."""
        if self.broken is not None:
            return {"episode": self.name, "broken": self.broken.stage, "reason": self.broken.reason}
        findings = [asdict(each) for each in self.findings]
        return {"episode": self.name, **self.facts, "bytes": self.bytes, "findings": findings}


@dataclass
class Inspection:
    """The account of a dataset.

    episodes: how many may be readable. read: how many were read; fewer is a sample drawn with the config's seed.
    splits: episodes of the whole dataset in each. findings: per kind the number of episodes, and the first of them.
    bytes: of the files of the episodes read; shared files count once.
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
    bytes: int = 0
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
        self.figures.merge(report.figures)
        self.snapshots += [report.snapshot] if report.snapshot is not None else []
        for kind, finding in {each.kind: each for each in reversed(report.findings)}.items():  # the first of each kind
            count, examples = self.findings.get(kind, (0, []))
            self.findings[kind] = count + 1, [*examples, (report.name, finding)][:EXAMPLES]


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
    splits = Counter(filter(None, source.splits))
    result = Inspection(source.folder, source.kind, len(source), len(chosen), config, splits)
    result.broken += [Broken(name, "opening", reason) for name, reason in source.quarantined]
    decoded = _evenly(chosen, DECODED) if config.decode == "sample" else chosen
    shown = frozenset(_evenly(decoded, SNAPSHOTS))
    job = partial(_report, source=source, config=config, decoded=frozenset(decoded), shown=shown)
    seen: set[int] = set()
    with Workers(job, worker_count(len(chosen), config.workers)) as pool:
        for done, outcome in enumerate(pool.outcomes(chosen), 1):
            index, found, error = outcome.item, outcome.result, outcome.error
            if isinstance(error, WorkerDied):
                found = _broken(source.ids[index], "labels", f"reading it ended the process: {error}")
            elif error is not None:
                raise error
            new = [path for path in source.files(index) if hash(str(path)) not in seen and path.exists()]
            seen.update(hash(str(path)) for path in new)
            report = replace(found, bytes=sum(path.stat().st_size for path in new))
            result.add(report)
            if each is not None:
                each(report)
            if progress is not None:
                progress(done, len(chosen))
    return result


def _chosen(episodes: int, config: InspectConfig) -> list[int]:
    wanted = min(episodes, ALL_UP_TO) if config.episodes is None else config.episodes
    if not wanted or wanted >= episodes:
        return list(range(episodes))
    return sorted(np.random.default_rng(config.seed).choice(episodes, size=wanted, replace=False).tolist())


def _evenly(items: list[int], count: int) -> list[int]:
    places = np.linspace(0, max(len(items) - 1, 0), min(count, len(items))).round().astype(int)
    return [items[place] for place in np.unique(places)]


def _report(
    index: int, source: Source, config: InspectConfig, decoded: frozenset[int], shown: frozenset[int]
) -> EpisodeReport:
    """Measure one episode; whatever goes wrong becomes part of the report."""
    name, stage = source.ids[index], "labels"
    try:
        episode, decode = source[index], config.decode != "none" and index in decoded
        measured = Measurement(episode, index, name, config.limits)
        measured.labels(every_packet=decode)
        stage = "frames"
        snapshot = measured.pictures(config.decode == "all") if decode else None
        size, findings = [measured.height, measured.width], tuple(measured.findings)
        facts = {"frames": len(episode), "fps": float(episode.fps), "size": size, "task": episode.task}
        return EpisodeReport(
            name, None, measured.figures, findings, facts, snapshot=snapshot if index in shown else None
        )
    except (CorruptEpisodeError, VideoError) as error:
        reason = str(error)
    except Exception as error:  # a reader must not raise anything else; if it does, the rest is still worth knowing
        where_from = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"unexpected {type(error).__name__}: {error} ({Path(where_from.filename).name}:{where_from.lineno})"
    return _broken(name, stage, reason)


def _broken(name: str, stage: str, reason: str) -> EpisodeReport:
    return EpisodeReport(name, Broken(name, stage, reason))


def account(result: Inspection) -> dict[str, Any]:
    """Every figure of an inspection, as JSON values; docs/store.md explains the keys. What doesn't exist is None.

    Figures are of the episodes read; only `episodes`, `splits`, `broken` at opening and the `estimate`s are of all.
    """
    figures = result.figures
    frames, hours = figures.frames, figures.seconds / 3600
    whole = result.episodes / result.read if result.read else None  # never 0: what is read exists
    tasks = [[task, count] for task, count in most_common(figures.tasks.items(), TASKS)]
    counts = (*figures.hands_shown.tolist(), *figures.per_hand.tolist())
    none, one, two, left, right = (count / frames if frames else None for count in counts)
    own = {"dataset": result.folder.name, "kind": result.kind, "episodes": result.episodes, "read": result.read}
    own |= {"sample": result.is_sample, "readable": result.readable, "frames": frames, "hours": hours}
    return own | {
        "bytes": result.bytes,
        "estimate": {"hours": whole and hours * whole, "bytes": whole and round(result.bytes * whole)},
        "splits": dict(sorted(result.splits.items())),
        "frame_sizes": {f"{w}x{h}": count for (h, w), count in most_common(figures.sizes.items(), COUNTED)},
        "fps": {f"{rate:g}": count for rate, count in most_common(figures.rates.items(), COUNTED)},
        "tasks": {"distinct": len(figures.tasks), "most_common": tasks},
        "extras": dict(sorted(figures.extras.items())),
        "length_s": figures.lengths.to_json(),
        "visibility": {
            "hands_in_picture": {"none": none, "one": one, "two": two},
            "left": left,
            "right": right,
            "keypoints": _keypoint_rows(figures),
            "map": {"left": figures.map[0].tolist(), "right": figures.map[1].tolist()},
            "depth_m": figures.depth.to_json(),
        },
        "confidence": _as_json(figures.confidence) if figures.confidence_frames else None,
        "speeds_per_s": _as_json(figures.speeds),
        "steps_per_frame": _as_json(figures.steps),
        "actions": [found.to_json() for _, found in sorted(figures.actions.items())],
        "largest": _as_json(figures.largest),
        "hand_length_m": _as_json(figures.hand_length),
        "pictures": {"decode": result.config.decode, "episodes": figures.decoded_episodes}
        | {name: getattr(figures, name) for name in ("decoded", "compared", "identical", "black")},
        "findings": _finding_rows(result),
        "broken": {
            "count": len(result.broken),
            "by_stage": {stage: sum(each.stage == stage for each in result.broken) for stage in STAGES},
            "episodes": [{"episode": each.name, "stage": each.stage, "reason": each.reason} for each in result.broken],
        },
    }


def _as_json(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: each.to_json() for name, each in figures.items()}


def _keypoint_rows(figures: Figures) -> list[dict[str, Any]]:
    """Per keypoint: its name and the shares of frames in which it is valid, in front, visible; its mean confidence."""
    frames, counted = max(figures.frames, 1), figures.confidence_frames
    return [
        {"keypoint": name}
        | {share: float(getattr(figures, share)[row] / frames) for share in ("valid", "in_front", "visible")}
        | {"confidence": float(figures.confidence_sum[row] / counted) if counted else None}
        for row, name in enumerate(KEYPOINT_NAMES)
    ]


def _finding_rows(result: Inspection) -> list[dict[str, Any]]:
    """What looks wrong, by the number of episodes: kind, title, advice, episodes, examples."""
    rows = []
    for kind, (count, examples) in result.findings.items():
        title, advice = FINDINGS[kind]
        named = [{"episode": name, "frame": each.frame, "message": each.message} for name, each in examples]
        rows.append({"kind": kind, "title": title, "advice": advice, "episodes": count, "examples": named})
    return sorted(rows, key=lambda row: (-row["episodes"], row["kind"]))
