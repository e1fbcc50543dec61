"""Policies in training: they fit what can be remembered, and a stopped run ends as one that wasn't."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dexworld.baselines.goal_policy import GoalPolicy
from dexworld.data.recordings import EpisodeWriter
from dexworld.training.checkpoints import ResumeError
from dexworld.training.train_policy import GoalSampling, PolicyRunConfig, PolicyTrainConfig, train_policy
from square_fixtures import episode_of

SIZE, LENGTH = 56, 9


def slider_episode(seed: int, joints: int = 2):
    """A disc whose place is that of the joints, which follow their targets, at a frame per second."""
    generator = np.random.default_rng(seed)
    targets = np.clip(np.cumsum(generator.uniform(-0.5, 0.5, (LENGTH, joints)), axis=0), -1, 1)
    positions = targets - 0.01
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    centre = SIZE / 2 + 18 * positions
    inside = (columns - centre[:, :1, None]) ** 2 + (rows - centre[:, 1:2, None]) ** 2 < 64
    frames = np.where(inside[..., None], 200, 30 + 10 * seed).astype(np.uint8).repeat(3, axis=-1)
    keypoints, valid = np.zeros((LENGTH, 42, 3)), np.zeros((LENGTH, 42), dtype=bool)
    keypoints[:, 21:, :2], keypoints[:, 21:, 2], valid[:, 21:] = 0.18 * positions[:, None, :2], 1.0, True
    recorded = {"joint_positions": positions, "joint_targets": targets}
    return replace(episode_of(f"slider {seed}", frames, 100.0, keypoints, valid, seed, **recorded), fps=1.0)


def dataset(folder, episodes):
    writer = EpisodeWriter(folder, {"made by": "tests"})
    for number, episode in enumerate(episodes):
        writer.write(f"slider-{number}", episode)
    writer.finish()
    return folder


@pytest.fixture(scope="session")
def sliders(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("sliders"), [slider_episode(seed) for seed in range(2)])


@pytest.fixture
def make_run(sliders, world_model, tmp_path):
    def make(form="bc", output="run", data=(sliders,), **changes):
        settings = {"steps": 6, "batch_size": 16, "warmup_steps": 1, "learning_rate": 3e-3, "validation_windows": 64}
        training = PolicyTrainConfig(**(settings | {"checkpoint_every": 3} | changes))
        more = {"checkpoint": str(world_model), "validation_data": (sliders,), "device": "cpu", "size": "debug"}
        return PolicyRunConfig(data=data, output=tmp_path / output, form=form, training=training, **more)

    return make


@pytest.mark.parametrize(("form", "steps"), [("bc", 150), ("unet", 350), ("transformer", 500)])
def test_a_policy_fits_moves_that_can_be_remembered(make_run, form, steps):
    """The diffusion policies by a sample, the other by its answer."""
    folder = train_policy(make_run(form, steps=steps, ema=0.95, start_share=0.0))
    figures = GoalPolicy.from_pretrained(folder).provenance["figures"]
    assert figures["still_rad"] > 0.15
    assert figures["move_rad"] < 0.45 * figures["still_rad"]


def test_the_tracked_keypoints_are_learned_too_unless_they_are_left_out(make_run, world_model):
    config = make_run("bc", steps=2)
    folder = train_policy(replace(config, training=replace(config.training, true_keypoints=0.0)))
    curve = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert "keypoints" not in curve[0]
    curve = train_policy(make_run("bc", "helped", steps=2, log_every=1)).parent / "metrics.jsonl"
    losses = json.loads(curve.read_text().splitlines()[0])
    assert losses["loss"] == pytest.approx(losses["moves"] + 0.5 * losses["keypoints"], rel=1e-4)


@pytest.mark.parametrize("form", ["bc", "unet", "transformer"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(make_run, form):
    whole = train_policy(make_run(form, "whole"))
    train_policy(make_run(form, "stopped", max_seconds=1e-9))
    assert GoalPolicy.from_pretrained(whole.parent.parent / "stopped" / "model").provenance["finished"] is False
    stopped = train_policy(make_run(form, "stopped"))
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]
    policy = GoalPolicy.from_pretrained(stopped)
    assert policy.provenance["training_seeds"] == [[0, 1]]
    assert policy.provenance["finished"] is True
    assert policy.config.horizon == (1 if form == "bc" else 4)
    with pytest.raises(ResumeError, match="form is"):
        train_policy(replace(make_run(form, "stopped"), form="bc" if form != "bc" else "unet"))


def test_goals_are_drawn_evenly_from_the_future_and_moves_end_there():
    sampling = GoalSampling(history=2, horizon=3, step_seconds=1.0, start_share=0.25)
    lengths, fps = np.full(4000, 21), np.full(4000, 5.0)
    assert sampling.parts(lengths[:2], fps[:2]).tolist() == [20, 20]
    random = np.random.default_rng(0).random((4000, 2))
    drawn = sampling.draw(lengths, fps, np.full(4000, 8), lambda columns: random[:, :columns])
    before, now, *reached, goal = drawn.frames.T
    assert (now == 8).all()
    assert set(before) == {3, 8}  # a second ago, or nothing was seen
    assert (before == 8).mean() == pytest.approx(0.25, abs=0.02)
    assert np.array_equal(drawn.repeats, before == 8)
    counts = np.bincount(goal, minlength=21)
    assert not counts[:9].any()
    assert counts[9:].min() > 0.7 * 4000 / 12  # frames 9 to 20
    for second, frame in enumerate(reached, 1):
        assert np.array_equal(frame, np.minimum(8 + 5 * second, goal))
    early = sampling.draw(lengths[:1], fps[:1], np.array([2]), lambda columns: np.ones((1, columns)) - 1e-9)
    assert early.frames.tolist() == [[0, 2, 7, 12, 17, 20]]


def test_data_without_a_robot_or_of_two_robots_are_refused_by_name(make_run, disc_data, sliders, tmp_path):
    with pytest.raises(ValueError, match=rf"{disc_data} holds no column 'joint_positions', but keypoints_world"):
        train_policy(make_run(data=(disc_data,)))
    other = dataset(tmp_path / "other", [slider_episode(7, joints=3)])
    with pytest.raises(ValueError, match=rf"different numbers of joints: 2 in {sliders}, 3 in {other}"):
        train_policy(make_run(data=(sliders, other)))
    slow = dataset(tmp_path / "slow", [replace(slider_episode(8), fps=0.5)])
    with pytest.raises(ValueError, match=r"clips of 0\.5 frames per second give no steps of 1 s"):
        train_policy(make_run(data=(slow,)))


def test_options_that_make_no_sense_are_named():
    with pytest.raises(ValueError, match="start_share is 2"):
        PolicyTrainConfig(start_share=2)
    with pytest.raises(ValueError, match="size is 'huge'; choose from debug"):
        PolicyRunConfig(size="huge")
