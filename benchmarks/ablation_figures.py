"""Figures of `ablations.py`: ratios of sums over episodes, their intervals over seeds, and paired differences.

S seeds, E episodes. Sums are (S, E): what a variant's model of each seed adds up to in each held-out episode.
"""

from dataclasses import dataclass

import numpy as np

from dexworld.evaluation.intervals import CONFIDENCE, Interval

RESAMPLES = 10_000
# 97.5 % points of Student's t for 1 to 9 degrees of freedom (any table; CONFIDENCE is 95 %, two-sided).
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
    objects = Figure(
        "object_error_end", f"error where objects moved, {last:g} s", "object_mse", "copy_last_object_mse", last
    )
    keypoints = [
        Figure(
            f"pck{pixels}_{name}",
            f"PCK@{pixels}, {at:g} s",
            f"pck{pixels}",
            "in_view",
            at,
            100.0,
            1,
            in_table=pixels == 20,
        )
        for pixels in (20, 10)
        for name, at in moments.items()
    ]
    control = [
        Figure(f"shuffled_error_{name}", f"error with another's actions, {at:g} s", "shuffled_mse", "copy_last_mse", at)
        for name, at in moments.items()
    ]
    possible = [
        Figure(f"{kind}pck{pixels}_{name}", "", f"{kind}pck{pixels}", "in_view", at, 100.0, 1, of_variant=False)
        for kind in ("copy_last_", "true_latents_")
        for pixels in (20, 10)
        for name, at in moments.items()
    ]
    return (*error, objects, *keypoints, *control, *possible)


def ratios(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """The figure (S,) of each seed from sums (S, E); NaN where there is nothing to divide by."""
    top, bottom = numerators.sum(axis=1), denominators.sum(axis=1)
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)


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


def paired_difference(
    variant: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean over seeds of a variant's figure minus the other's, with a percentile bootstrap interval.

    variant, other: numerators and denominators (S, E) of the same seeds and episodes. Both seeds and episodes are
    resampled, each on their own, since they are crossed: every seed's model is shown the same episodes. One draw serves
    both variants, so what makes an episode hard or a seed lucky for both of them cancels. Source: Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 2007. Raises ValueError on unequal or empty shapes.
    """
    shapes = {part.shape for part in (*variant, *other)}
    if len(shapes) != 1 or min(next(iter(shapes))) < 1:
        raise ValueError(f"a paired difference needs equal, non-empty sums (S, E), not {sorted(shapes)}")
    seeds, episodes = next(iter(shapes))
    by_episode = generator.multinomial(episodes, np.full(episodes, 1 / episodes), size=resamples).astype(float)
    by_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    value = ratios(*variant) - ratios(*other)
    drawn = np.zeros((resamples, seeds))
    for sign, (top, bottom) in ((1.0, variant), (-1.0, other)):
        above, below = by_episode @ top.T, by_episode @ bottom.T  # (R, S)
        whole = np.broadcast_to(ratios(top, bottom), above.shape)
        # A resample without any denominator tells nothing new.
        drawn += sign * np.divide(above, below, out=whole.copy(), where=below > 0)
    samples = (drawn * by_seed).sum(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Interval(float(value.mean()), float(low), float(high))
