"""The trainer: it learns, stops at NaN, and goes on bit by bit after any kill."""

import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from process_fixtures import Run

from dexworld.data.datasets import open_dataset
from dexworld.data.latent_cache import latent_cache
from dexworld.data.windows import DEFAULT_COLUMNS, WindowSampler
from dexworld.models.dexwm import DexWM
from dexworld.training.checkpoints import ResumeError, latest
from dexworld.training.train_world_model import train
from dexworld.training.trainer import Trainer, TrainingDiverged
from dexworld.training.validation import Validation
from dexworld.training.window_task import WindowTask
from kind_fixtures import BASELINES


@pytest.fixture
def make_trainer(disc_data, tmp_path, make_model, make_training):
    def make(folder="run", validate=False, kind="dexwm", **changes):
        model = make_model(kind)
        cache = latent_cache(open_dataset(disc_data), model.encode, "fitted on three frames of each episode")
        config = make_training(**changes)
        training, held_out = [np.arange(10)], [np.arange(10, 12)]
        columns = {"columns": getattr(model, "columns", DEFAULT_COLUMNS)}
        held_out_windows = partial(WindowSampler, [cache], seed=0, episodes=held_out, **columns)
        validation = Validation(held_out_windows, config.validation_rollouts, 8) if validate else None
        windows = partial(WindowSampler, [cache], seed=config.seed, episodes=training, **columns)
        return Trainer(model, config, WindowTask(model, config, windows), tmp_path / folder, validation)

    return make


def weights(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def assert_equal_weights(left, right):
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


def test_training_beats_standing_still_on_held_out_episodes(make_trainer):
    trainer = make_trainer(validate=True, steps=100, batch_size=8, checkpoint_every=100, validate_every=100, ema=0.9)
    assert trainer.run()
    figures = trainer.figures
    assert figures["mse_ratio_stride1_step1"] < 0.8
    assert figures["mse_ratio_stride1_step3"] < 0.9
    assert figures["shuffled_mse_ratio_stride1_step3"] > 1.0
    assert figures["pck20_true_latents"] > 0.9


def test_every_second_unrolled_batch_is_a_deep_one(make_trainer):
    task = make_trainer(steps=10, teacher_forced=0.4, unroll_steps=2, deep_unroll_steps=4).task
    context = task.model.config.predictor.num_context
    frames = [task.batch(index, torch.device("cpu"))[0].latents.shape[1] - context for index in range(10)]
    assert frames == [1, 1, 1, 1, 2, 4, 2, 4, 2, 4]
    assert [task.unroll_steps(index) for index in range(10)] == [None] * 4 + [2, 4] * 3
    deep, again = (task.losses(task.batch(5, torch.device("cpu"))[0], 5) for _ in range(2))
    assert torch.isfinite(deep["loss"])
    assert torch.equal(deep["loss"], again["loss"])
    with pytest.raises(ValueError, match=r"deep_unroll_steps is 2; it must be above unroll_steps, 2"):
        make_trainer(unroll_steps=2, deep_unroll_steps=2)


def train_slowly(config, model_config):
    update = Trainer._update_average
    Trainer._update_average = lambda trainer: (time.sleep(0.3), update(trainer))
    train(config, model_config)


def test_a_killed_process_goes_on_to_the_same_weights(disc_data, tmp_path, small_run, model_config):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run = Run(tmp_path / "errors", 0, train_slowly, small_run(disc_data, killed), model_config)
    while not (killed / "checkpoints" / "latest").exists() and run.processes[0].is_alive():
        time.sleep(0.02)
    time.sleep(0.4)  # a step or so beyond the checkpoint
    run.kill(0)
    assert run.wait() == [-9], run.errors()
    assert latest(killed / "checkpoints").name < "step-00000010"
    for output in (killed, whole):
        train(small_run(disc_data, output), model_config)
    for file in ("checkpoints/step-00000010/training.safetensors", "model/model.safetensors"):
        assert_equal_weights(load_file(killed / file), load_file(whole / file))
    steps = [[json.loads(line)["step"] for line in (each / "metrics.jsonl").open()] for each in (killed, whole)]
    assert steps[0] == steps[1]


POINTERS = {"lost": None, "empty": b"", "damaged": b"\xff\x00", "gone": b"step-00000099\n"}


LOST = [*(("dexwm", name) for name in POINTERS), *((kind, "lost") for kind in (*BASELINES, "nwm-diffusion"))]


@pytest.mark.parametrize(("kind", "pointer"), LOST)
def test_a_run_whose_latest_is_lost_goes_on_from_its_newest_whole_step_and_says_so(make_trainer, caplog, kind, pointer):
    make_trainer, pointer = partial(make_trainer, kind=kind), POINTERS[pointer]
    trainer = make_trainer(steps=12, keep_checkpoints=3)
    trainer.run()
    folder = trainer.folder / "checkpoints"
    newest = folder / "step-00000012" / "training.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    (folder / "latest").unlink() if pointer is None else (folder / "latest").write_bytes(pointer)
    again = make_trainer(steps=12, keep_checkpoints=3)
    assert again.resume()
    assert again.step == 8
    assert "going on from the newest whole step, step-00000008" in caplog.text
    assert again.run()
    assert_equal_weights(weights(again), weights(trainer))


def test_resuming_with_other_settings_is_refused_by_name(make_trainer):
    make_trainer(steps=4).run()
    with pytest.raises(ResumeError, match=r"training\.batch_size is 7, it was 4"):
        make_trainer(steps=4, batch_size=7).resume()
    assert make_trainer(steps=4, log_every=1).resume()


def test_an_infinite_gradient_stops_the_run_too(make_trainer):
    trainer = make_trainer()
    parameter = trainer.parameters["predictor.positions"]
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    before = weights(trainer)
    with pytest.raises(TrainingDiverged, match="the gradient is NaN or Inf at step 0"):
        trainer.run()
    assert_equal_weights(before, weights(trainer))


def test_averaged_weights_are_what_checkpoints_hold_and_the_trained_ones_come_back(make_trainer):
    trainer = make_trainer(steps=6, checkpoint_every=6)
    trainer.run()
    trained = weights(trainer)
    saved = load_file(latest(trainer.folder / "checkpoints") / "model.safetensors")
    assert all(torch.equal(saved[name], trainer.average[name]) for name in trainer.average)
    assert any(not torch.equal(saved[name], trained[name]) for name in trained if name in saved)
    with trainer.averaged():
        pass
    assert_equal_weights(trained, weights(trainer))
    assert trainer.model.training


def test_the_encoder_is_never_trained(make_trainer):
    trainer = make_trainer(steps=3)
    before = {name: value.clone() for name, value in trainer.model.encoder.state_dict().items()}
    trainer.run()
    assert_equal_weights(before, trainer.model.encoder.state_dict())
    assert not any(name.startswith("encoder") for name in trainer.parameters)


def test_detached_predictions_leave_the_predictor_to_the_latent_loss(make_trainer):
    trainer = make_trainer(detach_predictions=True, hand_consistency=1.0, true_keypoints=0.0)
    window = trainer.task.source.batch(0, 4)
    losses = trainer.task.losses(window, 0)
    losses["keypoints_predicted"].backward()
    assert all(value.grad is None for name, value in trainer.parameters.items() if name.startswith("predictor"))
    assert any(value.grad is not None for name, value in trainer.parameters.items() if name.startswith("keypoint"))


def test_only_the_newest_checkpoints_stay(make_trainer):
    trainer = make_trainer(keep_checkpoints=2, checkpoint_every=3)
    trainer.run()
    folders = sorted(path.name for path in (trainer.folder / "checkpoints").iterdir())
    assert folders == ["latest", "step-00000009", "step-00000012"]
    assert DexWM.from_pretrained(trainer.folder / "checkpoints" / "step-00000009").config == trainer.model.config


def test_a_damaged_checkpoint_is_refused_by_name(make_trainer):
    trainer = make_trainer(steps=4)
    trainer.run()
    path = latest(trainer.folder / "checkpoints") / "training.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ResumeError, match=r"training\.safetensors is damaged"):
        make_trainer(steps=4).resume()
    (path.parent / "training.json").unlink()
    with pytest.raises(ResumeError, match="none of 1 steps is whole"):
        make_trainer(steps=4).resume()
