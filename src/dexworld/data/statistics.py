"""Statistics that take values piece by piece, add up, and never grow: what a dataset of any size is described with."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
_POWERS = np.geomspace(1e-4, 1e4, 801)  # a hundred bins for a factor of ten: quantiles to 2.4 %


def added(one: Any, other: Any) -> Any:
    """Two figures of one kind as one: numbers and arrays summed, lists and dicts by their places, others merged."""
    if isinstance(one, dict):
        return one | {key: added(one[key], value) if key in one else value for key, value in other.items()}
    if isinstance(one, list):
        return [added(*pair) for pair in zip(one, other, strict=True)]
    if hasattr(one, "merge"):
        one.merge(other)
        return one
    return one + other


class Summed:
    """A dataclass whose fields add up."""

    def merge(self, other: Any) -> None:
        """Add what another one counted; the order of adding decides the last digit of sums."""
        for each in fields(self):  # type: ignore[arg-type]
            setattr(self, each.name, added(getattr(self, each.name), getattr(other, each.name)))


@dataclass
class Histogram:
    """Counts of values between fixed, increasing edges (B + 1,), and outside them on both sides.

    counts: (B + 2,) below the first edge, in each bin [edge, next edge), the last one with its end, above the last.
    Equal pieces, added in equal order, give equal sums.
    """

    edges: np.ndarray
    counts: np.ndarray = field(init=False)
    total: float = 0.0
    squares: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def __post_init__(self) -> None:
        if self.edges.ndim != 1 or len(self.edges) < 2 or not (np.diff(self.edges) > 0).all():
            raise ValueError(f"histogram edges must increase, not {self.edges}")
        self.counts = np.zeros(len(self.edges) + 1, dtype=np.int64)

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def std(self) -> float | None:
        """Standard deviation; None of no values."""
        return max(0.0, self.squares / self.count - (self.total / self.count) ** 2) ** 0.5 if self.count else None

    def add(self, values: np.ndarray) -> None:
        """Count finite values of any shape. Raises ValueError on NaN and Inf: leave them out and say so."""
        flat = np.asarray(values, dtype=np.float64).ravel()
        if not np.isfinite(flat).all():
            raise ValueError("a histogram counts finite values only")
        if not flat.size:
            return
        bins = np.searchsorted(self.edges, flat, side="right") - (flat == self.edges[-1])
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.total += float(flat.sum())
        self.squares += float((flat * flat).sum())
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))

    def merge(self, other: "Histogram") -> None:
        """Add what another histogram with the same edges counted. Raises ValueError on other edges."""
        if not np.array_equal(self.edges, other.edges):
            raise ValueError("histograms with other edges can't be added")
        self.counts += other.counts
        self.total, self.squares = self.total + other.total, self.squares + other.squares
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def quantile(self, share: float) -> float | None:
        """The value that `share` of all lie below, as exact as the bins are fine; None of no values."""
        if not self.count:
            return None
        bounds = np.concatenate([[self.low], self.edges.clip(self.low, self.high), [self.high]])
        below = np.concatenate([[0], np.cumsum(self.counts)])
        return float(np.interp(share * self.count, below, bounds))

    def to_json(self) -> dict[str, Any]:
        """Count, mean, rms, min, max, quantiles, edges and counts. Keys with no value are None."""
        count = self.count
        return {
            "count": count,
            "mean": self.total / count if count else None,
            "rms": (self.squares / count) ** 0.5 if count else None,
            "min": self.low if count else None,
            "max": self.high if count else None,
            **{f"p{round(100 * share):02d}": self.quantile(share) for share in QUANTILES},
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
        }


def linear(low: float, high: float, bins: int) -> Histogram:
    """A histogram with bins of equal width."""
    return Histogram(np.linspace(low, high, bins + 1))


def logarithmic(low: float, high: float, per_decade: int) -> Histogram:
    """A histogram whose bins grow by an equal factor, `per_decade` of them for a factor of ten."""
    return Histogram(np.geomspace(low, high, round(per_decade * np.log10(high / low)) + 1))


@dataclass
class Largest:
    """The `size` largest values with what they belong to, largest first; of equals, the first in order of `place`."""

    size: int
    _kept: list[tuple[float, tuple[int, int], str, str]] = field(default_factory=list)

    def add(self, value: float, place: tuple[int, int], episode: str, note: str) -> None:
        """Offer a value. place: (episode, frame) numbers. episode, note: what to say of it."""
        self.merge(Largest(1, [(-float(value), place, episode, note)]))

    def merge(self, other: "Largest") -> None:
        """Offer what another one kept."""
        self._kept = heapq.nsmallest(self.size, [*self._kept, *other._kept], key=lambda entry: entry[:2])

    def to_json(self) -> list[dict[str, Any]]:
        """value, episode, frame and note of each."""
        return [
            {"value": -negative, "episode": episode, "frame": place[1], "note": note}
            for negative, place, episode, note in self._kept
        ]


@dataclass
class ActionFigures(Summed):
    """A robot's recorded actions of one width, by dimension: what normalising them needs.

    not_finite: values NaN or Inf, which count nowhere else.
    """

    dimensions: list[Histogram]
    episodes: int
    frames: int
    not_finite: int

    @classmethod
    def of(cls, action: np.ndarray) -> "ActionFigures":
        """Of the actions (T, A) of one episode."""
        finite = np.isfinite(action)
        edges = np.concatenate([-_POWERS[::-1], [0.0], _POWERS])
        dimensions = [Histogram(edges) for _ in action.T]
        for histogram, values, known in zip(dimensions, action.T, finite.T, strict=True):
            histogram.add(values[known])
        return cls(dimensions, 1, len(action), int((~finite).sum()))

    def to_json(self) -> dict[str, Any]:
        """episodes, frames, not_finite; min, q01, mean, std, q99 and max as lists over the dimensions, None of none."""
        rows = [each.to_json() | {"std": each.std} for each in self.dimensions]
        keys = {"min": "min", "q01": "p01", "mean": "mean", "std": "std", "q99": "p99", "max": "max"}
        counted = {"episodes": self.episodes, "frames": self.frames, "not_finite": self.not_finite}
        return {"dimensions": len(rows), **counted} | {name: [row[key] for row in rows] for name, key in keys.items()}


def most_common(counts: Iterable[tuple[Any, int]], limit: int) -> list[tuple[Any, int]]:
    """The `limit` most frequent entries; equals in the order of their names, so that the result is always the same."""
    return sorted(counts, key=lambda entry: (-entry[1], str(entry[0])))[:limit]
