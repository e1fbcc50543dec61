"""How sure a figure is: intervals of success rates and of means over episodes, and of paired differences.

Episodes are the unit of independence everywhere: frames of one episode resemble each other and are never resampled
alone. Where several models of one kind are compared, S of them trained from different seeds, seeds are another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, isnan, sqrt
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
TAILS = (100 * (1 - CONFIDENCE) / 2, 100 - 100 * (1 - CONFIDENCE) / 2)  # percent
RESAMPLES = 2000
# 97.5 % points of Student's t for 1 to 9 degrees of freedom (any table; 95 %, two-sided).
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
MOST_SEEDS = len(T_QUANTILES) + 1


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval, in the figure's own unit. Scalars, or arrays of one shape for a curve."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray

    def scaled(self, factor: float) -> "Interval":
        """The same figure in another unit, for example `scaled(100)` for percent."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def interval_values(interval: Interval) -> dict[str, float | None]:
    """`value`, `low` and `high` as JSON, with None for what doesn't exist."""
    numbers = {name: float(getattr(interval, name)) for name in ("value", "low", "high")}
    return {name: None if isnan(number) else number for name, number in numbers.items()}


def named_values(name: str, interval: Interval) -> dict[str, float | None]:
    """The same as `<name>`, `<name>_low` and `<name>_high`."""
    return {name if part == "value" else f"{name}_{part}": number for part, number in interval_values(interval).items()}


def wilson(successes: int, trials: int) -> Interval:
    """Wilson score interval of a success rate, as fractions 0 to 1 (JASA 1927).

    It has a width at 0 of n and n of n, where the normal approximation has none. Raises ValueError on impossible
    counts.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"a success rate needs 0 <= successes <= trials and trials > 0, not {successes} of {trials}")
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At the ends the exact bound is 0 or 1; rounding must not leave the value outside its own interval.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(rate, low, high)


def bootstrap_mean(values: np.ndarray, generator: np.random.Generator, resamples: int = RESAMPLES) -> Interval:
    """Percentile bootstrap interval of the mean over episodes of `values` (E, ...)."""
    return bootstrap_ratio(values, np.ones_like(values, dtype=float), generator, resamples)


def bootstrap_ratio(
    numerators: np.ndarray, denominators: np.ndarray, generator: np.random.Generator, resamples: int = RESAMPLES
) -> Interval:
    """Percentile bootstrap interval of sum(numerators) / sum(denominators), resampling whole episodes.

    Both are (E, ...) with one row an episode; the result has the shape of a row. All three values are NaN where the
    denominators sum to zero, low and high where there is one episode alone. Source: Efron and Tibshirani, "An
    introduction to the bootstrap", section 13.3. Raises ValueError on no episodes, different shapes or values that are
    not finite.
    """
    numerators, denominators = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if numerators.shape != denominators.shape or len(numerators) == 0:
        raise ValueError(
            f"a ratio over episodes needs equal, non-empty shapes, not {numerators.shape} and {denominators.shape}"
        )
    if not np.isfinite(numerators).all() or not np.isfinite(denominators).all():
        raise ValueError("a figure over episodes holds NaN or Inf; find the episode before averaging it away")
    episodes, row = len(numerators), numerators.shape[1:]
    weights = generator.multinomial(episodes, np.full(episodes, 1 / episodes), size=resamples).astype(float)
    top = weights @ numerators.reshape(episodes, -1)
    bottom = weights @ denominators.reshape(episodes, -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = np.where(bottom > 0, top / bottom, np.nan).reshape(resamples, *row)
        total = denominators.sum(axis=0)
        value = np.where(total > 0, numerators.sum(axis=0) / total, np.nan)
    samples = np.where(np.isnan(samples), value, samples)  # a resample without any denominator tells nothing new
    low, high = np.percentile(samples, TAILS, axis=0) if episodes > 1 else np.full((2, *row), np.nan)
    return Interval(*(float(part) if not row else part for part in (value, low, high)))


def jackknife(figure: Callable[[np.ndarray], float], episodes: int) -> Interval:
    """A figure of episodes with an interval from leaving out each in turn, for figures that no mean gives.

    figure: of the indices of the episodes that it is to be computed on. Source: Efron and Tibshirani, chapter 11.
    """
    everything = np.arange(episodes)
    value, each = figure(everything), np.array([figure(np.delete(everything, index)) for index in everything])
    error = sqrt((episodes - 1) * float(each.var()))
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * error
    return Interval(value, value - half, value + half)


def ratios(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """The figure (S,) of each seed from its sums over episodes (S, E); NaN where there is nothing to divide by."""
    top, bottom = numerators.sum(axis=1), denominators.sum(axis=1)
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)


def seed_interval(values: np.ndarray) -> Interval:
    """Mean of a figure over seeds (S,) with Student's t interval: what another set of seeds might give.

    It takes the held-out episodes as they are. Without a second seed the interval has no width to speak of: NaN.
    Raises ValueError on more than ten seeds.
    """
    seeds = len(values)
    if seeds > MOST_SEEDS:
        raise ValueError(f"{seeds} seeds; the table of Student's t ends at {MOST_SEEDS}")
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

    variant, other: numerators and denominators (S, E) of the same seeds and episodes; a seed's figure is their ratio
    (see `ratios`). Seeds and episodes are resampled independently, since every seed's model is shown the same episodes.
    One draw serves both variants, so that what is hard or lucky for both of them cancels. Source: Owen, "The pigeonhole
    bootstrap", Annals of Applied Statistics 2007. One episode of one seed has no interval: NaN. Raises ValueError
    on unequal or empty shapes.
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
    low, high = np.percentile(samples, TAILS) if seeds * episodes > 1 else (np.nan, np.nan)
    return Interval(float(value.mean()), float(low), float(high))


def mcnemar(successes_a: np.ndarray, successes_b: np.ndarray) -> float:
    """Two-sided p-value of McNemar's exact test: do two policies differ on the same E episodes?

    Both are (E,) bool, paired by episode. Only the episodes that exactly one of them solves count; under "no
    difference" each is a fair coin. Source: Q. McNemar, Psychometrika 1947 (exact binomial form). Raises ValueError on
    different lengths or no episodes.
    """
    a, b = np.asarray(successes_a, dtype=bool), np.asarray(successes_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(f"a paired test needs two equal, non-empty lists of outcomes, not {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    tail = sum(comb(only_a + only_b, k) for k in range(min(only_a, only_b) + 1)) / 2 ** (only_a + only_b)
    return min(1.0, 2 * tail)
