"""Training settings: the schedule, what makes no sense, and recipes with the paper's and the release's numbers."""

from dataclasses import replace
from pathlib import Path

import pytest

from dexworld import cli
from dexworld.actions import OFFICIAL, ActionConvention
from dexworld.data.datasets import open_dataset
from dexworld.models.world_model import preset
from dexworld.training.recipes import RECIPES, windows_in_epoch, with_recipe
from dexworld.training.run_data import split_by_scene
from dexworld.training.train_config import TrainConfig, fixed_settings
from dexworld.training.train_world_model import RunConfig


def test_the_papers_learning_rates_and_batches_are_those_of_the_recipes():
    ends = {
        "pretrain_egodex_droid": (4096, 1e-4, 1e-7, 0.0),
        "pretrain_egodex_droid_official": (4096, 1e-4, 4e-9, 1e-5),
        "finetune_robocasa": (8, 1e-5, 1e-5, 0.0),
        "finetune_robocasa_official": (8, 1e-5, 4e-7, 1e-5),
    }
    assert RECIPES.keys() == ends.keys()
    for name, (batch, first, last, decay) in ends.items():
        training = with_recipe(name, RunConfig()).training
        assert training.batch_size == batch
        assert training.learning_rate_at(0) == pytest.approx(first)
        assert training.learning_rate_at(training.steps - 1) == pytest.approx(last)
        assert training.weight_decay == decay
        assert training.clip is None
        assert training.teacher_forced == (1.0 if name.startswith("pretrain") else 0.0)
    assert [recipe.epochs for recipe in RECIPES.values()] == [40, 50, 40, 20]


def test_steps_follow_from_epochs_and_data(disc_data):
    config = RunConfig((disc_data,), preset="debug")
    dataset = open_dataset(disc_data)
    clips = len(split_by_scene([dataset], config.validation_fraction)[0][0])
    tuned = with_recipe("finetune_robocasa", config)
    assert windows_in_epoch(tuned) == clips
    assert tuned.training.steps == -(-50 * clips // 8)
    trained = with_recipe("pretrain_egodex_droid", replace(config, training=TrainConfig(accumulation=512)))
    assert trained.training.batch_size == 8
    assert trained.training.steps == -(-40 * 10 * clips // 4096)


def test_a_plan_of_a_recipe_has_its_epochs_and_the_windows_of_its_phase(capsys, disc_data):
    def planned(recipe, *options):
        cli.main(["train", "--dry-run", "True", "--recipe", recipe, "--preset", "debug", *options])
        return " ".join(capsys.readouterr().out.split())

    robot = ("--plan", "robot:2:20:1000")
    assert "windows per epoch 1,000" in planned("finetune_robocasa", *robot)
    assert "steps 6,250 of 8 windows; 50,000 in all, 50.0 epochs" in planned("finetune_robocasa", *robot)
    official = planned("finetune_robocasa_official", *robot)
    assert "windows per epoch 1,000" in official
    assert "steps 2,500 of 8 windows; 20,000 in all, 20.0 epochs" in official
    assert "3.0 epochs" in planned("finetune_robocasa", *robot, "--epochs", "3")
    assert "steps 7 of 8 windows" in planned("finetune_robocasa", *robot, "--steps", "7")
    recorded = ("--data", str(disc_data), "--validation-fraction", "0")
    assert "20.0 epochs" in planned("finetune_robocasa_official", *recorded)


def test_what_is_given_stays_and_what_cannot_be_is_refused():
    config = RunConfig((Path("data"),), training=TrainConfig(steps=7, learning_rate=3e-5, batch_size=64))
    filled = with_recipe("finetune_robocasa", config)
    assert (filled.training.steps, filled.training.learning_rate, filled.training.batch_size) == (7, 3e-5, 64)
    assert (filled.preset, filled.latents, filled.sampling.windows) == ("paper-xl", "online", "paper")
    released = with_recipe("finetune_robocasa_official", config)
    assert preset(filled.preset).action_convention == ActionConvention()  # the paper's
    assert preset(released.preset) == replace(preset(filled.preset), action_convention=OFFICIAL)
    with pytest.raises(ValueError, match="choose from pretrain_egodex_droid"):
        with_recipe("pretrain", config)
    with pytest.raises(ValueError, match="must divide"):
        with_recipe("finetune_robocasa", replace(config, training=TrainConfig(accumulation=3)))


def test_the_learning_rate_warms_up_and_follows_a_cosine():
    config = TrainConfig(steps=101, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1)
    assert config.learning_rate_at(0) == pytest.approx(0.1)
    assert config.learning_rate_at(9) == pytest.approx(1.0)
    assert config.learning_rate_at(10) == pytest.approx(1.0)
    assert config.learning_rate_at(55) == pytest.approx(0.55)
    assert config.learning_rate_at(100) == pytest.approx(0.1)
    rates = [config.learning_rate_at(step) for step in range(10, 101)]
    assert rates == sorted(rates, reverse=True)


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
        {"max_seconds": 0.0},
        {"validation_rollouts": ((0, 5),)},
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(TrainConfig(), **change)
