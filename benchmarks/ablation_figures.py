"""Figures of `ablations.py`: ratios of sums over episodes, and their intervals over seeds.

S seeds, E episodes. Sums are (S, E): what a variant's model of each seed adds up to in each held-out episode.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from dexworld.evaluation.intervals import Interval

# 97.5 % points of Student's t for 1 to 9 degrees of freedom (any table; 95 %, two-sided).
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Figure:
    """A ratio of two sums at one moment of the rollout.

    seconds: after the start frame. scale: 100 for percent. of_variant: it depends on the variant; others tell what is
    possible at all, and are the same for all variants. in_table: shown in the tables, and not in results.json alone.
    """

    name: str
    title: str
    numerator: str
    denominator: str
    seconds: float
    scale: float = 1.0
    digits: int = 3
    of_variant: bool = True
    in_table: bool = True

    def sums(self, sums: dict[str, np.ndarray], rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators (E,) from sums (E, T)."""
        step = round(self.seconds * rate_hz) - 1
        return self.scale * sums[self.numerator][:, step], sums[self.denominator][:, step]


def figures_at(last: float) -> tuple[Figure, ...]:
    """The figures of a study whose rollouts last so many seconds."""
    moments = {"1s": min(1.0, last), "end": last}
    error = [Figure(f"error_{name}", f"error, {at:g} s", "mse", "copy_last_mse", at) for name, at in moments.items()]
    title = f"error where objects moved, {last:g} s"
    objects = Figure("object_error_end", title, "object_mse", "copy_last_object_mse", last)
    control = [
        Figure(f"shuffled_error_{name}", f"error with another's actions, {at:g} s", "shuffled_mse", "copy_last_mse", at)
        for name, at in moments.items()
    ]
    keypoints, possible = [], []
    for pixels, (name, at) in itertools.product((20, 10), moments.items()):
        key, title = f"pck{pixels}", f"PCK@{pixels}, {at:g} s"
        keypoints.append(Figure(f"{key}_{name}", title, key, "in_view", at, 100.0, 1, in_table=pixels == 20))
    for kind, pixels, (name, at) in itertools.product(("copy_last_", "true_latents_"), (20, 10), moments.items()):
        key = f"{kind}pck{pixels}"
        possible.append(Figure(f"{key}_{name}", "", key, "in_view", at, 100.0, 1, of_variant=False))
    return (*error, objects, *keypoints, *control, *possible)


def seed_interval(values: np.ndarray) -> Interval:
    """Mean of a figure over seeds (S,) with Student's t interval: what another set of seeds might give.

    It takes the held-out episodes as they are. Without a second seed the interval has no width to speak of: NaN.
    Raises ValueError on more than ten seeds.
    """
    seeds = len(values)
    if seeds > len(T_QUANTILES) + 1:
        raise ValueError(f"{seeds} seeds; the table of Student's t ends at {len(T_QUANTILES) + 1}")
    mean = float(values.mean())
    if seeds < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = T_QUANTILES[seeds - 2] * float(values.std(ddof=1)) / seeds**0.5
    return Interval(mean, mean - half, mean + half)
