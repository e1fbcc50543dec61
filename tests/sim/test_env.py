"""The Gymnasium environment: what it accepts, what it refuses, and what a task episode looks like."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dexworld.robots.observation import Observation
from dexworld.sim.kitchen import KITCHEN, kitchen_env
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_tasks import HORIZON, RADIUS, Rejection

SEED = 900_003


@pytest.fixture(scope="module")
def shared():
    env = KitchenEnv()
    yield env
    env.close()


@pytest.fixture
def env(shared):
    """An environment that stands in the scene of `SEED`, without a task."""
    shared.reset(seed=SEED)
    return shared


def test_gymnasiums_own_checker_accepts_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of unbounded observations, which positions in metres are
        check_env(gymnasium.make(KITCHEN).unwrapped, skip_close_check=True)


def test_observations_have_a_robots_fields_and_the_true_keypoints_and_a_reset_brings_them_back(env):
    values, info = env.reset(seed=SEED)
    observation = Observation.from_dict(values)
    assert observation.image.shape == (224, 392, 3)
    assert values["keypoints_world"].shape == (42, 3)
    assert values["keypoints_valid"].sum() == 21
    assert info == {"seed": SEED}
    for _ in range(HORIZON + 1):  # without a task nothing is rewarded or truncated
        _, reward, terminated, truncated, info = env.step(env.simulation.joint_targets + np.r_[0.1, np.zeros(22)])
        assert (reward, terminated, truncated) == (0.0, False, False)
    assert "distance" not in info
    again, _ = env.reset(seed=SEED)
    assert all(np.array_equal(values[key], again[key]) for key in values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda targets: targets[:7], r"shape \(7,\), expected \(23,\)"),
        (lambda targets: targets * np.nan, "joint target 0 is NaN or Inf; nothing was moved"),
        (lambda targets: np.r_[targets[:22], np.inf], "joint target 22 is NaN or Inf"),
        (
            lambda targets: np.r_[targets[:3], 0.5, targets[4:]],
            r"joint 3 is asked to go to 0.500 rad, outside \[-3.072",
        ),
    ],
)
def test_bad_targets_are_refused_with_the_joints_name_before_anything_moves(env, change, message):
    before = env.get_state().physics
    with pytest.raises(ValueError, match=message):
        env.step(change(env.simulation.joint_targets))
    assert np.array_equal(env.get_state().physics, before)


def test_unknown_reset_options_are_refused_with_the_known_ones(env):
    with pytest.raises(ValueError, match=r"\['taks'\] are unknown; known: task, episode, film"):
        env.reset(seed=SEED, options={"taks": "reach"})


def test_an_unknown_task_and_a_scene_without_an_episode_say_why(env, draw):
    with pytest.raises(ValueError, match="'juggle' is unknown; choose from reach"):
        env.reset(seed=SEED, options={"task": "juggle"})
    with pytest.raises(ValueError, match=r"scene 900001 has no grasp episode: .*; try the next seed"):
        env.reset(seed=900_001, options={"task": "grasp"})
    with pytest.raises(ValueError, match="not both"):
        env.reset(seed=SEED, options={"task": "grasp", "episode": draw("grasp")})


def test_nothing_works_before_the_first_reset():
    env = KitchenEnv()
    with pytest.raises(ValueError, match="call reset first"):
        env.step(np.zeros(23))
    with pytest.raises(ValueError, match="call reset first"):
        env.render()
    with pytest.raises(ValueError, match="no task to succeed in"):
        env.success()


def test_a_task_episode_rewards_the_criterion_and_is_truncated_after_three_steps(env, draw):
    episode = draw("grasp")
    _, info = env.reset(options={"episode": episode})
    assert np.array_equal(info["goal_image"], episode.goal_image)
    assert np.array_equal(env.get_state().physics, episode.start.physics)
    outcomes = [env.step(targets)[1:] for targets in episode.expert_moves]
    assert len(outcomes) == HORIZON
    assert outcomes[0][0] == 0.0
    assert outcomes[-1][0] == 1.0
    assert [truncated for _, _, truncated, _ in outcomes] == [False, False, True]
    assert not any(terminated for _, terminated, _, _ in outcomes)
    assert outcomes[-1][3]["distance"] < RADIUS["grasp"]
    assert env.success()


def test_an_unseeded_reset_to_a_task_draws_scenes_until_one_has_an_episode(monkeypatch, draw):
    drawn = iter([Rejection("grasp", 1, "too far"), draw("grasp")])
    monkeypatch.setattr(kitchen_env, "draw_episode", lambda task, seed, backend: next(drawn))
    env = gymnasium.make(KITCHEN, task="grasp").unwrapped
    _, info = env.reset()
    assert np.array_equal(info["goal_image"], draw("grasp").goal_image)
    assert env.episode is not None
    env.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments_step_side_by_side(mode):
    options = {"context": "spawn"} if mode == "async" else {}
    envs = gymnasium.make_vec(KITCHEN, num_envs=2, vectorization_mode=mode, vector_kwargs=options)
    values, _ = envs.reset(seed=[SEED, SEED + 1])
    assert values["image"].shape == (2, 224, 392, 3)
    after, rewards, *_ = envs.step(values["joint_targets"])
    assert rewards.tolist() == [0.0, 0.0]
    assert np.abs(after["joint_targets"] - values["joint_targets"]).max() < 1e-9
    envs.close()
