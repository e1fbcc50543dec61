"""Figures of one or many episodes that add up and never grow: tallies by name, and spreads of measured values."""

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

QUANTILES = {"p01": 0.01, "p05": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99}


def _logarithmic(low: float, high: float, per_decade: int) -> np.ndarray:
    return np.geomspace(low, high, round(per_decade * np.log10(high / low)) + 1)


_SPEED, _LENGTH, _SHARE = _logarithmic(1e-4, 1e2, 10), np.linspace(0.0, 0.3, 61), np.linspace(0, 1, 21)
_POWERS = _logarithmic(1e-4, 1e4, 100)  # quantiles to 2.4 %
ANY_VALUE = np.concatenate([-_POWERS[::-1], [0.0], _POWERS])  # bins of values of unknown scale
# Key of results.json (or group.key) to its words and its bins. Speeds are between neighbouring frames.
QUANTITIES: dict[str, tuple[str, np.ndarray]] = {
    "length_s": ("length of an episode, s", _logarithmic(0.01, 1e5, 10)),
    "confidence.left": ("left hand, tracking confidence", _SHARE),
    "confidence.right": ("right hand, tracking confidence", _SHARE),
    "speeds_per_s.left_hand": ("left hand, m/s", _SPEED),
    "speeds_per_s.right_hand": ("right hand, m/s", _SPEED),
    "speeds_per_s.camera": ("camera, m/s", _SPEED),
    "speeds_per_s.camera_turn_deg": ("camera, degrees/s", _logarithmic(1e-2, 1e4, 10)),
    "hand_length_m.left": ("left wrist to middle knuckle, m", _LENGTH),
    "hand_length_m.right": ("right wrist to middle knuckle, m", _LENGTH),
}


@dataclass
class Spread:
    """Count, mean, standard deviation, ends and quantiles of finite values; others are left out.

    edges: (B + 1,) increasing; quantiles are as exact as these bins are fine. counts: (B + 2,) below the first edge, in
    each bin, above the last. Equal pieces, added in equal order, give equal sums.
    """

    edges: np.ndarray
    counts: np.ndarray = field(init=False)
    total: float = 0.0
    squares: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.edges) + 1, dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count values of any shape."""
        flat = np.asarray(values, dtype=np.float64).ravel()
        flat = flat[np.isfinite(flat)]
        bins = np.searchsorted(self.edges, flat, side="right") - (flat == self.edges[-1])
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.total += float(flat.sum())
        self.squares += float((flat * flat).sum())
        self.low = float(flat.min(initial=self.low))
        self.high = float(flat.max(initial=self.high))

    def merge(self, other: "Spread") -> None:
        """Add what another spread with the same bins counted."""
        self.counts += other.counts
        self.total, self.squares = self.total + other.total, self.squares + other.squares
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def to_json(self) -> dict[str, Any]:
        """count, mean, std, min, max and quantiles; None of no values."""
        count = int(self.counts.sum())
        if not count:
            return {"count": 0} | dict.fromkeys(("mean", "std", "min", "max", *QUANTILES))
        mean = self.total / count
        std = max(0.0, self.squares / count - mean**2) ** 0.5
        bounds = np.concatenate([[self.low], self.edges.clip(self.low, self.high), [self.high]])
        below = np.concatenate([[0], np.cumsum(self.counts)])
        quantiles = {key: float(np.interp(share * count, below, bounds)) for key, share in QUANTILES.items()}
        return {"count": count, "mean": mean, "std": std, "min": self.low, "max": self.high} | quantiles


@dataclass
class Figures:
    """Tallies and spreads by name.

    tallies: `tasks`, `sizes` (height, width), `fps`, `extras` count episodes; `hands` counts frames with `none`, `one`,
    `two`, `left`, `right`; `pictures` what was decoded; `actions` and `action_frames` episodes and frames by width.
    spreads: by the keys of `QUANTITIES`, and by (width, dimension) of recorded actions.
    """

    frames: int = 0
    tallies: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    spreads: dict[Hashable, Spread] = field(default_factory=dict)

    def spread(self, name: Hashable) -> Spread:
        """The spread of that name, which is begun where there is none."""
        edges = QUANTITIES[name][1] if isinstance(name, str) else ANY_VALUE
        return self.spreads.setdefault(name, Spread(edges))

    def merge(self, other: "Figures") -> None:
        """Add the figures of further episodes; the order of adding decides the last digit of sums."""
        self.frames += other.frames
        for name, tally in other.tallies.items():
            self.tallies[name].update(tally)
        for key, spread in other.spreads.items():
            self.spread(key).merge(spread)
