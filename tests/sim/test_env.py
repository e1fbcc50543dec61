"""The Gymnasium environment: what it accepts, what it refuses, and what a task episode looks like."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dexworld.data.video_frames import VideoFrames
from dexworld.robots.observation import Observation
from dexworld.sim import KITCHEN
from dexworld.sim.kitchen import kitchen_env
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_scene import random_layout
from dexworld.sim.kitchen.kitchen_tasks import ALL_TASKS, HORIZON, MOVES, RADIUS, Rejection

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


@pytest.mark.parametrize("name", [KITCHEN, "dexworld/Grasp-v0"])
def test_gymnasiums_own_checker_accepts_it(name, monkeypatch, draw):
    monkeypatch.setattr(kitchen_env, "draw_episode", lambda task, seed, *_: draw(task))  # drawn once: it takes a second
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*symmetric and normalized.*")  # actions are radians: wrap RescaleAction
        check_env(gymnasium.make(name, disable_env_checker=True).unwrapped)


def test_every_task_has_an_id_and_mistakes_show_when_an_environment_is_made():
    for task in ALL_TASKS:
        env = gymnasium.make(f"dexworld/{task.title().replace('_', '')}-v0", render_mode="rgb_array")
        assert (env.unwrapped._task, env.render_mode) == (task, "rgb_array")
    for wrong in ({"task": "juggle"}, {"render_mode": "human"}):
        with pytest.raises(ValueError, match="is unknown; choose"):
            KitchenEnv(**wrong)


def test_actions_and_observations_are_float32_and_every_action_of_the_space_is_taken(env):
    env.reset(seed=SEED)
    box = env.action_space
    for action in (box.low, box.high, box.sample()):
        values, *_ = env.step(action)
        assert env.observation_space.contains(values)
    assert box.dtype == values["joint_targets"].dtype == values["keypoints_world"].dtype == np.float32
    np.testing.assert_allclose(env.observe().joint_targets, action, atol=1e-6)
    assert env.observe().joint_targets.dtype == np.float64


def test_the_environments_own_task_takes_the_next_scene_that_has_an_episode_and_says_which(monkeypatch, draw, caplog):
    monkeypatch.setattr(
        kitchen_env, "draw_episode", lambda task, seed, *_: draw(task) if seed == SEED else Rejection(task, seed, "far")
    )
    with KitchenEnv("grasp") as env, caplog.at_level("INFO"):
        _, info = env.reset(seed=SEED - 2)
        assert info["seed"] == SEED
        assert f"scene {SEED - 1} has no grasp episode: far" in caplog.text
        with pytest.raises(ValueError, match="try the next seed"):
            env.reset(seed=SEED - 2, options={"task": "grasp"})


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
            r"joint 3 is asked to go to 0.500, outside \[-3.072",
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


def test_an_episode_has_its_own_scene_and_is_truncated_after_its_tasks_moves(env, draw):
    episode = draw("push_around", 900_002)
    assert episode.layout != random_layout(episode.seed)
    _, info = env.reset(options={"episode": episode})
    assert np.array_equal(info["goal_image"], episode.goal_image)
    assert env.simulation.layout == episode.layout
    outcomes = [env.step(targets)[1:] for targets in episode.expert_moves]
    assert [truncated for _, _, truncated, _ in outcomes] == [False] * (MOVES["push_around"] - 1) + [True]
    assert env.success()
    env.reset(seed=episode.seed)
    assert env.simulation.layout == random_layout(episode.seed)


def test_an_unseeded_reset_to_a_task_draws_scenes_until_one_has_an_episode(monkeypatch, draw):
    drawn = iter([Rejection("grasp", 1, "too far"), draw("grasp")])
    monkeypatch.setattr(kitchen_env, "draw_episode", lambda *_: next(drawn))
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


def test_a_vector_environment_goes_on_with_its_task_after_an_episode(monkeypatch, draw):
    monkeypatch.setattr(kitchen_env, "draw_episode", lambda task, seed, *_: draw(task))
    envs = gymnasium.make_vec("dexworld/Grasp-v0", num_envs=1, vectorization_mode="sync")
    values, _ = envs.reset(seed=SEED)
    for _ in range(HORIZON + 2):  # the episode, the reset, a step of the next one
        values, *_, info = envs.step(values["joint_targets"])
    assert "distance" in info
    assert envs.envs[0].unwrapped.episode.task == "grasp"
    envs.close()


FORK = """
import gymnasium, dexworld.sim
from dexworld.sim import render
if (backend := render.first_that_draws()) == "ray":
    raise SystemExit("no OpenGL here")
render.draw_test_picture(backend)
options = {"vectorization_mode": "async", "vector_kwargs": {"context": "fork"}}
envs = gymnasium.make_vec(dexworld.sim.KITCHEN, num_envs=1, **options)
try:
    envs.reset(seed=3)
except render.RendererUnavailable as error:
    print(error)
envs.close(terminate=True)
"""


def test_a_fork_of_a_process_that_has_drawn_names_spawn_instead_of_hanging():
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120)
    if "no OpenGL here" in done.stderr:
        pytest.skip(done.stderr)
    assert 'AsyncVectorEnv(..., context="spawn")' in done.stdout, done.stderr


def test_record_video_writes_what_an_episode_looks_like(tmp_path):
    pytest.importorskip("moviepy", reason="comes with dexworld[record]")
    with gymnasium.wrappers.RecordVideo(gymnasium.make(KITCHEN), str(tmp_path), disable_logger=True) as env:
        values, _ = env.reset(seed=SEED)
        for _ in range(2):
            env.step(values["joint_targets"])
    (path,) = tmp_path.glob("*.mp4")
    assert VideoFrames(path).size == (224, 392)
