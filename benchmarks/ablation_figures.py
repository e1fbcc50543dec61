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

    step: seconds after the start frame, None for all steps together. scale: 100 for percent. lower_is_better: None for
    a control.
    """

    name: str
    title: str
    numerator: str
    denominator: str
    seconds: float | None
    scale: float = 1.0
    lower_is_better: bool | None = True
    digits: int = 3

    def sums(self, sums: dict[str, np.ndarray], rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators (E,) from sums (E, T)."""
        step = slice(None) if self.seconds is None else slice(round(self.seconds * rate_hz) - 1, None)
        step = step if self.seconds is None else slice(step.start, step.start + 1)
        top, bottom = sums[self.numerator][:, step].sum(axis=1), sums[self.denominator][:, step].sum(axis=1)
        return self.scale * top, bottom


def figures_at(last: float) -> tuple[Figure, ...]:
    """The figures of a study whose rollouts last so many seconds."""
    end = f"{last:g} s"
    return (
        Figure("error_1s", "error, 1 s", "mse", "copy_last_mse", min(1.0, last)),
        Figure("error_end", f"error, {end}", "mse", "copy_last_mse", last),
        Figure("object_error_end", f"error where objects moved, {end}", "object_mse", "copy_last_object_mse", last),
        Figure("pck20_end", f"PCK@20, {end}", "pck20", "in_view", last, 100.0, False, 1),
        Figure("pck10_end", f"PCK@10, {end}", "pck10", "in_view", last, 100.0, False, 1),
        Figure("shuffled_error_end", f"error, {end}, another's actions", "shuffled_mse", "copy_last_mse", last,
               lower_is_better=None),
        Figure("pck20_copy_last", "PCK@20 of the start frame", "copy_last_pck20", "in_view", last, 100.0, None, 1),
        Figure("pck20_true", "PCK@20 of true frames", "true_latents_pck20", "in_view", last, 100.0, None, 1),
        Figure("pck10_true", "PCK@10 of true frames", "true_latents_pck10", "in_view", last, 100.0, None, 1),
    )  # fmt: skip


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
