"""DexJoCo in a process of its own, with a stand-in for its package: the seams, exact states, and what is missing."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dexjoco_stand_in import write_package
from dexworld.evaluation.runner import play
from dexworld.hands import RIGHT
from dexworld.planning.controls import RandomTargets
from dexworld.robots.environment import SimulatedEnvironment
from dexworld.robots.task_suite import task_suite
from dexworld.sim.dexjoco.dexjoco_env import DEXJOCO, DexJoCoEnv
from dexworld.sim.dexjoco.dexjoco_exploration import DexJoCoConfig, record_dexjoco
from dexworld.sim.dexjoco.dexjoco_process import DexJoCoError, DexJoCoSimulation, borrow
from dexworld.sim.dexjoco.dexjoco_tasks import draw_episode
from dexworld.sim.render import choose_backend

SEED = 900_001
CLIENT = Path(__file__).resolve().parents[2] / "client" / "src"


@pytest.fixture(scope="module")
def dexjoco(tmp_path_factory):
    if choose_backend() == "ray":
        pytest.skip("DexJoCo's pictures need OpenGL")
    folder = write_package(tmp_path_factory.mktemp("dexjoco")).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(CLIENT)]))
        patch.setenv("DEXWORLD_DEXJOCO", sys.executable)
        yield


@pytest.fixture
def environment(dexjoco):
    environment = DexJoCoEnv("click_mouse")
    yield environment
    environment.close()


def test_the_hand_goes_where_it_is_told_and_states_are_exact(dexjoco):
    with DexJoCoSimulation("click_mouse") as simulation:
        simulation.call("reset", seed=SEED)
        start, rest = simulation.call("get_state"), simulation.call("joints")
        found = simulation.call("reach", place=np.array([-0.2, 0.1, 1.1]), turn=np.array([0.0, 0.0, 0.2]))
        assert found["off"] < 1e-3
        found["targets"][simulation.robot.fingers] = 0.4
        ends = []
        for _ in range(2):
            simulation.call("set_state", state=start)
            np.testing.assert_array_equal(simulation.call("joints"), rest)
            seen = simulation.call("move", targets=found["targets"], steps=30, every=10)["seen"]
            ends.append(simulation.call("get_state"))
        assert len(seen) == 3
        np.testing.assert_array_equal(ends[0]["physics"], ends[1]["physics"])
        assert ends[0]["numbers"]["speeds"] == ends[1]["numbers"]["speeds"]
        assert isinstance(ends[0]["numbers"]["on_pad"], bool)
        assert np.abs(seen[-1]["joint_positions"] - found["targets"])[simulation.robot.fingers].max() < 0.1
        assert seen[-1]["image"].shape == (224, 392, 3)
        assert seen[-1]["image"].std() > 10
        simulation.call("set_state", state=ends[-1])  # after a step of physics, places are those before it
        palm, wrist = simulation.places("body:allegro_palm", "site:attachment_site")
        assert np.linalg.norm(palm - [-0.2, 0.1, 1.1]) < 0.09  # the grasp centre is 7 cm from it
        keypoints = simulation.robot.forward(torch.from_numpy(simulation.call("joints"))).keypoints.numpy()[RIGHT]
        np.testing.assert_allclose(keypoints[0] + simulation.world_from_base[:3, 3], wrist, atol=1e-6)


def test_an_episode_is_the_same_again_and_its_goal_is_a_success(environment):
    episode, again = draw_episode("click_mouse", SEED), draw_episode("click_mouse", SEED)
    np.testing.assert_array_equal(episode.goal_image, again.goal_image)
    np.testing.assert_array_equal(episode.start["physics"], again.start["physics"])
    assert np.linalg.norm(episode.goal_things) > 0
    assert isinstance(environment, SimulatedEnvironment)
    played = play(RandomTargets(environment.robot, 0), environment, SEED, {"episode": episode}, film=True)
    assert len(played.distances) == 7  # at the start, after each of five moves, at the end
    assert len(played.frames) == 27
    assert played.distances[0] == pytest.approx(0.2, abs=0.07)
    assert not played.success
    assert environment.true_cost() > environment.distance()
    with pytest.raises(ValueError, match="the episode is of click_mouse_reach, this environment of click_mouse"):
        environment.reset(options={"episode": replace(episode, task="click_mouse_reach")})


def test_dexjoco_ends_an_episode_that_it_calls_a_success(environment):
    episode = draw_episode("click_mouse", SEED)
    environment.reset(options={"episode": episode})
    state = environment.get_state()
    put = {"mouse_root": np.array([*state["model"]["body_pos"][1][:2], 0.94, 1, 0, 0, 0])}
    rest = environment.observe().joint_targets
    environment.simulation.call("hold", put=put, numbers={}, robot=rest, steps=0)
    _, reward, terminated, _, info = environment.step(rest)
    assert (reward, terminated, environment.success()) == (1.0, True, True)
    assert info["distance"] < 0.02
    environment.set_state(state)
    assert environment.distance() > 0.1


def test_the_reaching_part_has_a_script_that_gets_there(dexjoco):
    episode = draw_episode("click_mouse_reach", SEED)
    environment = DEXJOCO.environment("click_mouse_reach", "auto")
    environment.reset(options={"episode": episode})
    assert environment.distance() > 0.2
    for move in episode.expert_moves:
        *_, done, info = environment.step(move)
    assert (done, info["distance"] < 0.01, environment.success()) == (True, True, True)
    environment.close()


def test_exploration_is_the_same_again(dexjoco):
    track, again = (record_dexjoco(SEED, DexJoCoConfig(frames=4)) for _ in range(2))
    assert (len(track), track.fps, track.frames.size) == (4, 5.0, (224, 392))
    assert track["joint_positions"].shape == (4, 23)
    assert track["object_positions"].shape == (4, 1, 3)
    np.testing.assert_array_equal(track.frames.read([3]), again.frames.read([3]))
    np.testing.assert_array_equal(track["joint_targets"], again["joint_targets"])


def test_what_fails_over_there_is_said_here(dexjoco, monkeypatch):
    with pytest.raises(DexJoCoError, match=r"KeyError: 'juggle'; docs/dexjoco\.md says how"):
        borrow("juggle")
    process = borrow("click_mouse")
    with pytest.raises(DexJoCoError, match=r"DexJoCo's click_mouse .* has no attribute 'juggle'"):
        process.call("juggle")
    process.end()
    with pytest.raises(DexJoCoError, match="ended without an answer"):
        process.call("joints")
    process.give_back()  # which keeps only what lives
    monkeypatch.setenv("PYTHONPATH", str(CLIENT))
    with pytest.raises(DexJoCoError, match="No module named 'dexjoco'"):
        borrow("pick_bucket")


def test_what_is_not_set_up_is_said(monkeypatch):
    monkeypatch.delenv("DEXWORLD_DEXJOCO", raising=False)
    with pytest.raises(ImportError, match=r"set DEXWORLD_DEXJOCO to its python; docs/dexjoco\.md says how"):
        DexJoCoEnv("click_mouse")
    monkeypatch.setenv("DEXWORLD_DEXJOCO", "nowhere")
    with pytest.raises(ImportError, match="'nowhere', which is no file"):
        borrow("click_mouse")
    monkeypatch.setenv("DEXWORLD_DEXJOCO", sys.executable)
    with pytest.raises(ValueError, match="choose --backend egl or osmesa"):
        borrow("click_mouse", "ray")
    with pytest.raises(ValueError, match="'juggle' is unknown; choose from click_mouse, click_mouse_reach"):
        DexJoCoEnv("juggle")
    with pytest.raises(ValueError, match=r"\['juggle'\] are not in dexjoco; choose from click_mouse"):
        task_suite("dexjoco").check(("juggle",))
    with pytest.raises(ValueError, match="frames >= 2"):
        DexJoCoConfig(frames=1)
