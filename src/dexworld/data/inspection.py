"""Look through a dataset of any layout and any size: what is in it, what is broken, and what looks wrong.

Episodes are read one by one, in processes, and only sums are kept; the same dataset gives the same account whatever the
number of processes. What can't be read is listed with its reason.
"""

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from dexworld.data.episode_figures import FINDINGS, Measurement, Snapshot
from dexworld.data.parallel import WorkerDied, Workers, worker_count
from dexworld.data.source import CorruptEpisodeError, Source, evenly_spread
from dexworld.data.statistics import QUANTITIES, Figures
from dexworld.data.video import VideoError

ALL_UP_TO = 2000  # episodes; of larger datasets a sample of so many is read unless told otherwise
DECODED = 48  # episodes of which a few frames are decoded, unless all are
EXAMPLES = 20  # episodes named for each kind of finding
SNAPSHOTS = 12
TASKS, COUNTED = 200, 50  # the most common tasks, sizes and rates that the account names
HAND_COUNTS = ("none", "one", "two", "left", "right")
PICTURE_COUNTS = ("episodes", "decoded", "compared", "identical", "black")
STAGES = ("opening", "labels", "frames")


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

    def __post_init__(self) -> None:
        if self.episodes is not None and self.episodes < 0:
            raise ValueError(f"episodes is {self.episodes}; give a number to sample, or 0 for all")
        if self.decode not in ("none", "sample", "all"):
            raise ValueError(f"decode is {self.decode!r}; choose none, sample or all")
        if self.workers < 0 or self.seed < 0:
            raise ValueError(f"workers and seed must be 0 or more, not {self.workers} and {self.seed}")


class EpisodeReport(NamedTuple):
    """What was found in one episode.

    row: its line of episodes.jsonl; where it can't be used, with the stage that failed (of `STAGES`) as `broken`.
    """

    row: dict[str, Any]
    figures: Figures | None = None
    snapshot: Snapshot | None = None


@dataclass
class Inspection:
    """The account of a dataset.

    source: holds all episodes. read: how many were read; fewer is a sample. broken: rows of the episodes that can't be
    used. findings: by kind, with the number of episodes and the first of them. bytes: of the files of the episodes
    read; shared files count once.
    """

    source: Source
    read: int
    config: InspectConfig
    broken: list[dict[str, Any]] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    bytes: int = 0
    snapshots: list[Snapshot] = field(default_factory=list)

    def add(self, report: EpisodeReport) -> None:
        """Count one more episode."""
        if report.figures is None:
            self.broken.append(report.row)
            return
        self.figures.merge(report.figures)
        self.snapshots += [report.snapshot] if report.snapshot is not None else []
        firsts = {each["kind"]: each for each in reversed(report.row["findings"])}  # the first of each kind
        for kind, finding in firsts.items():
            title, advice = FINDINGS[kind]
            new = {"kind": kind, "title": title, "advice": advice, "episodes": 0, "examples": []}
            row = self.findings.setdefault(kind, new)
            row["episodes"] += 1
            if len(row["examples"]) < EXAMPLES:
                place = {"episode": report.row["episode"], "frame": finding["frame"]}
                row["examples"].append(place | {"message": finding["message"]})


def inspect(
    source: Source,
    config: InspectConfig = InspectConfig(),
    each: Callable[[EpisodeReport, int, int], None] = lambda report, done, total: None,
) -> Inspection:
    """Read the episodes of `source` and account for all of them.

    each: called in order with every episode's report, how many are done and how many there are. Raises ValueError when
    there is nothing to read: no episode, and nothing that opening found broken.
    """
    if not len(source) and not source.quarantined:
        raise ValueError(f"{source.folder} holds no episode of kind {source.kind!r}")
    chosen = chosen_episodes(len(source), config)
    result = Inspection(source, len(chosen), config)
    result.broken += [_broken(name, "opening", reason).row for name, reason in source.quarantined]
    decoded = {"none": (), "sample": evenly_spread(chosen, DECODED), "all": chosen}[config.decode]
    shown = frozenset(evenly_spread(decoded, SNAPSHOTS))
    job = partial(episode_report, source=source, config=config, decoded=frozenset(decoded), shown=shown)
    seen: set[int] = set()
    with Workers(job, worker_count(len(chosen), config.workers)) as pool:
        for done, outcome in enumerate(pool.outcomes(chosen), 1):
            index, report, error = outcome.item, outcome.result, outcome.error
            if isinstance(error, WorkerDied):
                report = _broken(source.ids[index], "labels", f"reading it ended the process: {error}")
            elif error is not None:
                raise error
            new = [path for path in source.files(index) if hash(str(path)) not in seen and path.exists()]
            seen.update(hash(str(path)) for path in new)
            size = sum(path.stat().st_size for path in new)
            result.bytes += size
            if report.figures is not None:
                report.row["bytes"] = size
            result.add(report)
            each(report, done, len(chosen))
    return result


def chosen_episodes(episodes: int, config: InspectConfig) -> list[int]:
    """Which of so many episodes are read, in their order."""
    wanted = min(episodes, ALL_UP_TO) if config.episodes is None else config.episodes
    if not wanted or wanted >= episodes:
        return list(range(episodes))
    return sorted(np.random.default_rng(config.seed).choice(episodes, size=wanted, replace=False).tolist())


def episode_report(
    index: int,
    source: Source,
    config: InspectConfig = InspectConfig(),
    decoded: frozenset[int] = frozenset(),
    shown: frozenset[int] = frozenset(),
) -> EpisodeReport:
    """Measure one episode; whatever goes wrong becomes part of the report.

    decoded: the episodes of which frames are decoded, too; shown: those whose report has a snapshot.
    """
    name, stage = source.ids[index], "labels"
    try:
        episode = source[index]
        measured = Measurement(episode, name)
        measured.labels(every_packet=index in decoded)
        stage = "frames"
        snapshot = measured.pictures(config.decode == "all") if index in decoded else None
    except (CorruptEpisodeError, VideoError) as error:
        return _broken(name, stage, str(error))
    except Exception as error:  # a reader must not raise anything else; if it does, the rest is still worth knowing
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return _broken(name, stage, f"unexpected {type(error).__name__}: {error} ({where})")
    size = [measured.height, measured.width]
    row = {"episode": name, "frames": len(episode), "fps": float(episode.fps), "size": size, "task": episode.task}
    row |= {"bytes": 0, "findings": measured.findings}
    return EpisodeReport(row, measured.figures, snapshot if index in shown else None)


def _broken(name: str, stage: str, reason: str) -> EpisodeReport:
    return EpisodeReport({"episode": name, "broken": stage, "reason": reason})


def account(result: Inspection) -> dict[str, Any]:
    """Every figure of an inspection, as JSON values; docs/store.md explains the keys. What doesn't exist is None.

    Figures are of the episodes read; only `episodes`, `splits`, `broken` at opening and the `estimate`s are of all.
    """
    figures, source, tallies = result.figures, result.source, result.figures.tallies
    frames, hours = figures.frames, figures.spread("length_s").total / 3600
    whole = len(source) / result.read if result.read else None  # never 0: what is read exists
    none, one, two, left, right = (tallies["hands"][name] / frames if frames else None for name in HAND_COUNTS)
    tasks, stages = _most_common(tallies["tasks"], TASKS), Counter(row["broken"] for row in result.broken)
    content: dict[str, Any] = {
        "dataset": source.folder.name,
        "kind": source.kind,
        "episodes": len(source),
        "read": result.read,
        "sample": result.read < len(source),
        "readable": result.read - len(result.broken) + stages["opening"],
        "frames": frames,
        "hours": hours,
        "bytes": result.bytes,
        "estimate": {"hours": whole and hours * whole, "bytes": whole and round(result.bytes * whole)},
        "splits": dict(sorted(Counter(filter(None, source.splits)).items())),
        "frame_sizes": {f"{w}x{h}": count for (h, w), count in _most_common(tallies["sizes"], COUNTED)},
        "fps": {f"{rate:g}": count for rate, count in _most_common(tallies["fps"], COUNTED)},
        "tasks": {"distinct": len(tallies["tasks"]), "most_common": [list(pair) for pair in tasks]},
        "extras": dict(sorted(tallies["extras"].items())),
        "visibility": {"hands_in_picture": {"none": none, "one": one, "two": two}, "left": left, "right": right},
    }
    for name in QUANTITIES:
        group, _, part = name.partition(".")
        spread = figures.spread(name).to_json()
        content[group] = content.get(group, {}) | {part: spread} if part else spread
    broken = [{"episode": row["episode"], "stage": row["broken"], "reason": row["reason"]} for row in result.broken]
    by_stage = {stage: stages[stage] for stage in STAGES}
    return content | {
        "confidence": content["confidence"] if content["confidence"]["left"]["count"] else None,
        "actions": [_action_figures(figures, width) for width in sorted(tallies["actions"])],
        "pictures": {"decode": result.config.decode} | {name: tallies["pictures"][name] for name in PICTURE_COUNTS},
        "findings": sorted(result.findings.values(), key=lambda row: (-row["episodes"], row["kind"])),
        "broken": {"count": len(broken), "by_stage": by_stage, "episodes": broken},
    }


def _most_common(tally: Counter, limit: int) -> list[tuple[Any, int]]:
    """The most frequent entries; equals in the order of their names, so that the result is always the same."""
    return sorted(tally.items(), key=lambda entry: (-entry[1], str(entry[0])))[:limit]


def _action_figures(figures: Figures, width: int) -> dict[str, Any]:
    """Recorded actions of one width, as lists over their dimensions: what normalising them needs."""
    rows = [figures.spread((width, dimension)).to_json() for dimension in range(width)]
    frames = figures.tallies["action_frames"][width]
    not_finite = frames * width - sum(row["count"] for row in rows)
    counts = {"episodes": figures.tallies["actions"][width], "frames": frames, "not_finite": not_finite}
    keys = {"min": "min", "q01": "p01", "mean": "mean", "std": "std", "q99": "p99", "max": "max"}
    return {"dimensions": width} | counts | {name: [row[key] for row in rows] for name, key in keys.items()}
