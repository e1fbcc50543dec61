"""Statistics of a robot's recorded actions, dimension by dimension: what normalising them needs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dexworld.data.statistics import Histogram

_POWERS = np.geomspace(1e-4, 1e4, 801)  # a hundred bins for a factor of ten: quantiles to 2.4 %


def _signed() -> Histogram:
    """A histogram of values of any sign and size."""
    return Histogram(np.concatenate([-_POWERS[::-1], [0.0], _POWERS]))


@dataclass
class ActionFigures:
    """Figures of the actions of one width A. not_finite: values NaN or Inf, which count nowhere else."""

    dimensions: list[Histogram] = field(default_factory=list)
    episodes: int = 0
    frames: int = 0
    not_finite: int = 0

    @classmethod
    def of(cls, action: np.ndarray) -> "ActionFigures":
        """Of the actions (T, A) of one episode."""
        finite = np.isfinite(action)
        found = cls([_signed() for _ in range(action.shape[1])], 1, len(action), int((~finite).sum()))
        for column, (values, known) in enumerate(zip(action.T, finite.T, strict=True)):
            found.dimensions[column].add(values[known])
        return found

    def merge(self, other: "ActionFigures") -> None:
        """Add the figures of further episodes of the same width."""
        for mine, theirs in zip(self.dimensions, other.dimensions, strict=True):
            mine.merge(theirs)
        self.episodes, self.frames = self.episodes + other.episodes, self.frames + other.frames
        self.not_finite += other.not_finite

    def to_json(self) -> dict[str, Any]:
        """episodes, frames, not_finite; min, q01, mean, std, q99 and max as lists over the dimensions, None of none."""
        rows = [_row(each) for each in self.dimensions]
        columns = {name: [row[name] for row in rows] for name in ("min", "q01", "mean", "std", "q99", "max")}
        counted = {"episodes": self.episodes, "frames": self.frames, "not_finite": self.not_finite}
        return {"dimensions": len(rows), **counted, **columns}


def actions_of(action: Any) -> dict[int, ActionFigures]:
    """The figures of an episode's recorded actions, (T, A) or (T,) numbers, by width; {} where none were recorded."""
    if action is None:
        return {}
    values = np.asarray(action, dtype=np.float64)
    values = values.reshape(len(values), -1)
    return {values.shape[1]: ActionFigures.of(values)}


def _row(values: Histogram) -> dict[str, float | None]:
    some, mean = values.count > 0, values.mean
    spread = None if mean is None else max(0.0, values.squares / values.count - mean**2) ** 0.5
    return {
        "min": values.low if some else None,
        "q01": values.quantile(0.01),
        "mean": mean,
        "std": spread,
        "q99": values.quantile(0.99),
        "max": values.high if some else None,
    }
