"""Any described robot at a table: the scene is its kinematics; suite, states and recordings behave as the others'."""

import numpy as np
import pytest
import torch

from dexworld.evaluation.runner import play
from dexworld.planning.controls import Replay
from dexworld.robots.carrier import SLIDES
from dexworld.robots.environment import SimulatedEnvironment
from dexworld.robots.kinematics import BASE
from dexworld.robots.task_suite import task_suite
from dexworld.sim.table.station import station
from dexworld.sim.table.table_exploration import TableConfig, record_table
from dexworld.sim.table.table_simulation import TableSimulation
from dexworld.sim.table.table_tasks import TASKS, TableEpisode
from robot_fixtures import HAND_TOML, hand_mjcf

SEED = 900_001


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    """A description that names its model: a hand on two joints, too few to move it about."""
    folder = tmp_path_factory.mktemp("hand")
    (folder / "hand.xml").write_text(hand_mjcf())
    (folder / "hand.toml").write_text(f'model = "hand.xml"\n{HAND_TOML}')
    return str(folder / "hand.toml")


@pytest.fixture(scope="module")
def simulation(hand):
    with TableSimulation(station(hand), SEED) as made:
        yield made


@pytest.fixture(scope="module")
def episodes(hand):
    """The first episode of each task from `SEED` on."""

    def first(task):
        drawn = (task_suite("table", hand).draw(task, SEED + number, "auto") for number in range(20))
        return next(each for each in drawn if isinstance(each, TableEpisode))

    return {task: first(task) for task in TASKS}


def test_a_hand_without_an_arm_hangs_over_the_table_palm_down(hand):
    there = station(hand)
    pose = there.robot.forward(torch.from_numpy(there.rest))
    assert there.robot.joints[:5] == (*SLIDES, "along", "turn")
    assert there.robot.arm == slice(0, 5)
    assert pose.hand_rotation[2, 0] < -0.7
    assert pose.keypoints[pose.valid][:, 2].min() > there.centre[2]
    lowered = there.robot.forward(torch.from_numpy(there.hand_at([0.05, -0.05, there.low], bent=0.0)))
    left = np.cross([0, 0, 1], there.ahead)
    expected = there.centre + 0.05 * there.ahead - 0.05 * left + [0, 0, there.low]
    np.testing.assert_allclose(lowered.wrist.numpy(), expected, atol=0.01)


def test_the_links_of_the_scene_are_where_kinematics_says(simulation):
    robot = simulation.robot
    low, high = robot.limits.numpy().T
    joints = low + np.random.default_rng(0).uniform(0.2, 0.8, len(low)) * (high - low)
    simulation.reset(joints)
    links = range(len(robot.tree.joints))
    places = robot.kinematics.places([(BASE, np.zeros(3)), *((link, np.zeros(3)) for link in links)])
    expected = robot.forward(torch.from_numpy(joints)).frames.points(places).numpy()[1:]
    found = [simulation.data.body(f"link{link}").xpos for link in links]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    simulation.move(simulation.station.rest, 1.0)
    np.testing.assert_allclose(simulation.joint_positions, simulation.station.rest, atol=0.02)
    for link, drive in enumerate(robot.tree.drives):
        wanted = np.polynomial.polynomial.polyval(simulation.joint_positions[drive.source], drive.polynomial)
        assert abs(simulation.data.joint(f"link{link}").qpos[0] - wanted) < 0.05


def test_a_state_is_restored_to_the_bit(simulation):
    simulation.reset(simulation.station.rest)
    state, ends = simulation.get_state(), []
    for _ in range(2):
        simulation.set_state(state)
        simulation.move(simulation.station.hand_at([0.1, 0.0, simulation.station.low]), 0.4)
        ends.append(simulation.get_state().physics)
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("task", TASKS)
def test_a_script_solves_an_episode_and_doing_nothing_does_not(hand, episodes, task):
    episode, suite = episodes[task], task_suite("table", hand)
    again = suite.draw(task, episode.seed, "auto")
    np.testing.assert_array_equal(again.goal_image, episode.goal_image)
    environment = suite.environment(task, "auto")
    assert isinstance(environment, SimulatedEnvironment)
    scripted = play(Replay(episode.expert_moves), environment, episode.seed, {"episode": episode}, film=True)
    assert scripted.success
    assert scripted.distances[0] > 0.04 > scripted.distances[-1]
    assert len(scripted.frames) == 20  # four seconds
    environment.reset(options={"episode": episode})
    assert not environment.success()
    assert environment.true_cost() >= environment.distance()
    environment.close()


def test_exploration_moves_the_thing_and_is_the_same_again(hand):
    track = record_table(SEED, TableConfig(hand, frames=16, sweeps=1.0))
    assert (len(track), track.fps, track.frames.size) == (16, 5.0, (224, 392))
    assert track["object_motion"].max() > 1e-3
    again = record_table(SEED, TableConfig(hand, frames=16, sweeps=1.0))
    np.testing.assert_array_equal(track.frames.read([15]), again.frames.read([15]))


def test_what_a_table_does_not_take_is_refused(hand, tmp_path):
    with pytest.raises(ValueError, match="env table needs --robot"):
        task_suite("table")
    with pytest.raises(ValueError, match="env kitchen has a robot of its own"):
        task_suite("kitchen", hand)
    with pytest.raises(ValueError, match="frames >= 2"):
        TableConfig(hand, frames=1)
    (tmp_path / "two.toml").write_text(HAND_TOML)
    with pytest.raises(ValueError, match="names no `model`"):
        station(str(tmp_path / "two.toml"))
    with pytest.raises(ValueError, match="dexworld ships no robot 'alegro-right'; did you mean allegro-right"):
        station("alegro-right")
