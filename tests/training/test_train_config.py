"""Training settings: the schedule, and what makes no sense."""

from dataclasses import replace

import pytest

from dexworld.training.config import TrainConfig, fixed_settings


def test_the_learning_rate_warms_up_and_follows_a_cosine():
    config = TrainConfig(steps=101, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1)
    assert config.learning_rate_at(0) == pytest.approx(0.1)
    assert config.learning_rate_at(9) == pytest.approx(1.0)
    assert config.learning_rate_at(10) == pytest.approx(1.0)
    assert config.learning_rate_at(55) == pytest.approx(0.55)
    assert config.learning_rate_at(100) == pytest.approx(0.1)
    rates = [config.learning_rate_at(step) for step in range(10, 101)]
    assert rates == sorted(rates, reverse=True)


def test_phases_share_the_steps():
    assert TrainConfig(steps=100, teacher_forced=0.6).teacher_forced_steps == 60
    assert TrainConfig(steps=100, teacher_forced=1.0).teacher_forced_steps == 100


def test_settings_that_change_no_weight_may_change_when_a_run_goes_on():
    config = TrainConfig()
    assert fixed_settings(config) == fixed_settings(replace(config, max_seconds=9.0, checkpoint_every=7, log_every=3))
    assert fixed_settings(config) != fixed_settings(replace(config, batch_size=7))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": -1},
        {"learning_rate": float("nan")},
        {"warmup_steps": -1},
        {"teacher_forced": 1.5},
        {"final_learning_rate": -0.1},
        {"ema": 1.0},
        {"unroll_batch_size": 0},
        {"max_seconds": 0.0},
        {"validation_rollouts": ((0, 5),)},
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(TrainConfig(), **change)
