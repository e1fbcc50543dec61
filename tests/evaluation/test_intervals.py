import numpy as np
import pytest

from dexworld.evaluation.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    interval_values,
    jackknife,
    mcnemar,
    named_values,
    paired_difference,
    ratios,
    wilson,
)


def test_wilson_agrees_with_published_values():
    # 8 of 10: Brown, Cai and DasGupta's formula gives [0.4902, 0.9433] at 95 %.
    interval = wilson(8, 10)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_wilson_solves_its_defining_equation():
    z = 1.959963984540054
    interval = wilson(37, 113)
    for bound in (interval.low, interval.high):
        assert abs(37 / 113 - bound) == pytest.approx(z * np.sqrt(bound * (1 - bound) / 113))


@pytest.mark.parametrize("successes", [0, 20])
def test_wilson_at_the_ends_has_width_and_holds_its_value(successes):
    interval = wilson(successes, 20)
    assert interval.low <= interval.value <= interval.high
    assert interval.high - interval.low == pytest.approx(1.96**2 / (20 + 1.96**2), abs=1e-4)


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, trials)


def test_bootstrap_of_a_constant_has_no_width():
    interval = bootstrap_mean(np.full(12, 3.5), np.random.default_rng(0))
    assert (interval.value, interval.low, interval.high) == pytest.approx((3.5, 3.5, 3.5))


def test_bootstrap_of_a_mean_matches_the_normal_interval_for_many_episodes():
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    interval = bootstrap_mean(values, np.random.default_rng(2), resamples=4000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    bounds = (values.mean() - half, values.mean() + half)
    assert (interval.low, interval.high) == pytest.approx(bounds, abs=0.03)


def test_the_jackknife_of_a_mean_is_the_normal_interval():
    values = np.random.default_rng(2).normal(3.0, 2.0, size=50)
    found = jackknife(lambda rows: float(values[rows].mean()), len(values))
    half = 1.959964 * values.std(ddof=1) / 50**0.5
    assert (found.value, found.low, found.high) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )


def test_bootstrap_of_a_ratio_divides_sums_and_not_episodes():
    numerators, denominators = np.array([1.0, 9.0]), np.array([1.0, 3.0])
    interval = bootstrap_ratio(numerators, denominators, np.random.default_rng(0))
    assert interval.value == pytest.approx(10 / 4)
    assert (interval.low, interval.high) == pytest.approx((1.0, 3.0))  # only one of the two episodes drawn


def test_bootstrap_gives_the_same_interval_for_the_same_seed():
    values = np.random.default_rng(3).normal(size=(30, 4))
    first, second = (bootstrap_mean(values, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.low, second.low)
    assert first.low.shape == (4,)


def test_bootstrap_of_a_ratio_without_denominator_is_nan_and_nan_is_refused():
    interval = bootstrap_ratio(np.zeros(3), np.zeros(3), np.random.default_rng(0))
    assert np.isnan([interval.value, interval.low, interval.high]).all()
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_mean(np.array([1.0, np.nan]), np.random.default_rng(0))


def test_a_ratio_weighs_episodes_by_what_happens_in_them():
    assert ratios(np.array([[1.0, 3.0], [2.0, 2.0]]), np.array([[2.0, 6.0], [4.0, 0.0]])).tolist() == [0.5, 1.0]


def test_a_constant_difference_has_an_interval_without_width():
    ones = np.ones((3, 5))
    interval = paired_difference((1.5 * ones, ones), (ones, ones), np.random.default_rng(0), 200)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_what_variant_and_other_share_cancels():
    """Hard episodes and lucky seeds do not widen the interval of a difference."""
    generator = np.random.default_rng(3)
    shared, ones = generator.uniform(0, 100, (3, 8)), np.ones((3, 8))
    interval = paired_difference((shared + 0.25, ones), (shared, ones), generator, 500)
    assert (interval.low, interval.high) == pytest.approx((0.25, 0.25))


def test_resampling_seeds_gives_the_binomial_of_that_many_draws():
    """One of three seeds differs by 3: the mean of three drawn seeds is 0, 1, 2, 3 with chances 8, 12, 6, 1 in 27."""
    ones = np.ones((3, 1))
    interval = paired_difference(
        (np.array([[0.0], [0.0], [3.0]]), ones), (0 * ones, ones), np.random.default_rng(0), 20_000
    )
    assert interval.value == 1.0
    assert (interval.low, interval.high) == (0.0, 3.0)  # 1 / 27 is more than the 2.5 % that the interval leaves out


def test_resampling_episodes_gives_the_normal_limit():
    """Half of 400 episodes differ by 1: the mean over resampled ones has the deviation sqrt(0.25 / 400)."""
    top, ones = np.tile([0.0, 1.0], 200)[None], np.ones((1, 400))
    interval = paired_difference((top, ones), (0 * top, ones), np.random.default_rng(0), 20_000)
    assert interval.value == 0.5
    assert (interval.low, interval.high) == pytest.approx((0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025), abs=0.004)


@pytest.mark.parametrize("other", [np.ones((2, 5)), np.ones((3, 4))])
def test_a_paired_difference_refuses_sums_of_other_seeds_or_episodes(other):
    ones = np.ones((3, 5))
    with pytest.raises(ValueError, match="equal, non-empty sums"):
        paired_difference((ones, ones), (other, other), np.random.default_rng(0))


def test_mcnemar_counts_only_the_episodes_that_differ():
    both = np.ones(50, dtype=bool)
    a = np.concatenate([both, np.ones(8, dtype=bool), np.zeros(1, dtype=bool)])
    b = np.concatenate([both, np.zeros(8, dtype=bool), np.ones(1, dtype=bool)])
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 9) / 2**9)  # binomial tail of 1 or fewer of 9, both sides
    assert mcnemar(a, b) == mcnemar(b, a)


def test_mcnemar_of_equal_policies_is_one_and_unpaired_outcomes_are_refused():
    assert mcnemar(np.array([True, False]), np.array([True, False])) == 1.0
    with pytest.raises(ValueError, match="paired"):
        mcnemar(np.array([True]), np.array([True, False]))


def test_a_single_episode_has_a_figure_and_no_interval():
    generator = np.random.default_rng(0)
    found = bootstrap_mean(np.array([[2.0, 3.0]]), generator)
    np.testing.assert_array_equal(found.value, [2.0, 3.0])
    assert np.isnan([found.low, found.high]).all()
    less = paired_difference((np.array([[3.0]]), np.ones((1, 1))), (np.ones((1, 1)), np.ones((1, 1))), generator)
    assert interval_values(less) == {"value": 2.0, "low": None, "high": None}


def test_a_figure_is_named_with_its_interval():
    found = named_values("mrr", Interval(0.5, 0.25, float("nan")))
    assert found == {"mrr": 0.5, "mrr_low": 0.25, "mrr_high": None}
