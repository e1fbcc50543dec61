"""Adroit behind the seams of environments and suites: exact states, goals that are successes, and recordings."""

import numpy as np
import pytest

from dexworld.hands import RIGHT
from dexworld.planning.controls import RandomTargets
from dexworld.robots.environment import SimulatedEnvironment
from dexworld.robots.task_suite import task_suite

pytest.importorskip("gymnasium_robotics", reason="the extra `adroit` is not installed")

from dexworld.evaluation.runner import play
from dexworld.sim.adroit.adroit_env import ADROIT, AdroitEnv
from dexworld.sim.adroit.adroit_exploration import AdroitConfig, record_adroit
from dexworld.sim.adroit.adroit_robots import adroit_robot
from dexworld.sim.adroit.adroit_simulation import SCENES, AdroitSimulation
from dexworld.sim.adroit.adroit_tasks import AdroitEpisode, draw_episode

SEED = 900_001
JOINTS = {"relocate": 30, "door": 28, "hammer": 26, "pen": 24}


@pytest.mark.parametrize("scene", SCENES)
def test_the_hand_of_a_scene_is_where_the_package_has_it(scene):
    robot = adroit_robot(scene)
    assert len(robot.joints) == JOINTS[scene]
    with AdroitSimulation(scene, robot) as simulation:
        simulation.reset(SEED)
        low, high = robot.limits.numpy().T
        simulation.put_hand(low + np.random.default_rng(0).uniform(size=len(low)) * (high - low))
        keypoints, valid = simulation.keypoints_world()
        tips = [simulation.place("site", f"S_{finger}tip") for finger in ("th", "ff", "mf", "rf", "lf")]
        np.testing.assert_allclose(keypoints[RIGHT][[4, 8, 12, 16, 20]], tips, atol=1e-6)
        np.testing.assert_allclose(keypoints[RIGHT][0], simulation.place("body", "palm"), atol=1e-6)
        assert valid[RIGHT].all()
        assert not valid[: RIGHT.start].any()


def test_joints_go_where_they_are_told():
    robot = adroit_robot("relocate")
    with AdroitSimulation("relocate", robot) as simulation:
        simulation.reset(SEED)
        targets, off = simulation.arm_to(np.array([0.05, -0.05, 0.25]))
        assert off < 1e-3
        simulation.move(targets, 0.8)
        simulation.move(targets, 0.4)
        assert np.linalg.norm(simulation.palm - [0.05, -0.05, 0.25]) < 0.05  # it sinks a little by its weight
        np.testing.assert_allclose(simulation.joint_targets, targets)


@pytest.mark.parametrize("task", ADROIT.tasks)
def test_an_episode_is_the_same_again_and_its_goal_is_a_success(task):
    episode = next(each for each in (draw_episode(task, SEED + n) for n in range(5)) if isinstance(each, AdroitEpisode))
    again = draw_episode(task, episode.seed)
    np.testing.assert_array_equal(again.goal_image, episode.goal_image)
    np.testing.assert_array_equal(again.start.physics, episode.start.physics)
    environment = ADROIT.environment(task, "auto")
    assert isinstance(environment, SimulatedEnvironment)
    played = play(RandomTargets(environment.robot, 0), environment, episode.seed, {"episode": episode}, film=True)
    assert len(played.distances) == 7  # at the start, after each of five moves, at the end
    assert len(played.frames) == 11
    assert played.distances[0] > 0.02
    if episode.expert_moves is not None:
        environment.reset(options={"episode": episode})
        for move in episode.expert_moves:
            *_, done, info = environment.step(move)
        assert (done, info["distance"] < 1e-6, environment.success()) == (True, True, True)
    environment.close()


def test_the_doors_search_begins_with_a_hand_that_goes_to_the_handle_and_pulls():
    environment = AdroitEnv("door")
    environment.reset(seed=SEED)
    space, robot, simulation = environment.search_space(), environment.robot, environment.simulation
    slide, limits = robot.joints.index("ARTz"), robot.limits.numpy()
    assert space.moves.shape == (5, 28)
    assert space.moves[-1, slide] == pytest.approx(limits[slide, 0])
    moved = space.targets(np.full((5, len(space.std)), 9.0), limits)
    assert (moved <= limits[:, 1]).all()
    np.testing.assert_allclose(moved[:, slide], limits[slide, 1])
    away, shut = np.linalg.norm(simulation.palm - simulation.thing), environment.true_cost()
    environment.move(space.targets(np.zeros((5, len(space.std))), limits)[0])
    assert np.linalg.norm(simulation.palm - simulation.thing) < 0.5 * away
    assert environment.true_cost() < shut
    environment.close()


def test_a_state_is_restored_to_the_bit():
    environment = AdroitEnv("pen")
    environment.reset(seed=SEED)
    state, ends = environment.get_state(), []
    targets = environment.robot.limits.numpy() @ [0.7, 0.3]
    for _ in range(2):
        environment.set_state(state)
        environment.move(targets)
        ends.append(environment.get_state().physics)
    np.testing.assert_array_equal(*ends)
    environment.close()


def test_what_adroit_does_not_have_is_refused():
    with pytest.raises(ValueError, match="'juggle' is unknown; choose from relocate_reach"):
        AdroitEnv("juggle")
    with pytest.raises(ValueError, match=r"\['grasp'\] are not in adroit; choose from relocate_reach"):
        task_suite("adroit").check(("grasp",))
    environment = AdroitEnv("door")
    with pytest.raises(ValueError, match="call reset first"):
        environment.distance()
    with pytest.raises(ValueError, match="the episode is of pen, this environment of door"):
        environment.reset(options={"episode": draw_episode("pen", SEED)})
    with pytest.raises(ValueError, match="frames >= 2"):
        AdroitConfig(frames=1)
    environment.close()


def test_exploration_touches_what_it_works_on_and_is_the_same_again():
    track = record_adroit(SEED, AdroitConfig("pen", frames=8))
    assert (len(track), track.fps, track.frames.size) == (8, 5.0, (224, 392))
    assert track["joint_positions"].shape == (8, 24)
    assert track["object_positions"].shape == (8, 1, 3)
    assert track["object_motion"].max() > 1e-3
    again = record_adroit(SEED, AdroitConfig("pen", frames=8))
    np.testing.assert_array_equal(track.frames.read([7]), again.frames.read([7]))
