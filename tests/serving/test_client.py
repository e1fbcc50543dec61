"""The robot's side: what it follows, what it refuses, and how it goes on when a server is gone."""

import logging
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.socket_server import SocketServer
from dexworld_client import Chunk, Client, ControlLoop, Follower, JointLimits, ServerError
from serving_fixtures import Echo

NAMES = ("one", "two")
LIMITS = JointLimits(NAMES, *(np.full(2, value) for value in (-1.0, 1.0, 2.0, 20.0, 5.0)))


def chunk(actions=((0.2, 0.0), (0.2, 0.4)), sequence=1, age=0.0, names=NAMES, execute=2):
    return Chunk(np.array(actions), 1.0, execute, names, sequence, time.time() - age, {})


def test_a_follower_goes_smoothly_from_waypoint_to_waypoint_and_rests_in_each():
    follower = Follower(NAMES, 0.02)
    assert follower.wanted() == "idle"
    assert follower.take(chunk(), np.zeros(2)) is None
    way = np.stack([follower.wanted() for _ in range(100)])
    assert follower.done
    np.testing.assert_allclose(way[[49, 99]], [[0.2, 0.0], [0.2, 0.4]])
    np.testing.assert_allclose(way[19], [0.1, 0.0], atol=1e-9)  # half of the way after half of 0.8 s
    np.testing.assert_allclose(way[40:50], [[0.2, 0.0]] * 10, atol=1e-9)
    assert np.abs(np.diff(way, n=2, axis=0)).max() / 0.02**2 < 6.1 * 0.4 / 0.8**2
    np.testing.assert_allclose(follower.wanted(), [0.2, 0.4])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"sequence": 0}, "order"),
        ({"age": 11.0}, "stale"),
        ({"age": -5.0}, "stale"),  # of the future
        ({"names": ("two", "one")}, "robot"),
        ({"actions": ((0.1, 0.2, 0.3),)}, "robot"),
        ({"actions": (0.1, 0.2)}, "robot"),
        ({"actions": ((np.nan, 0.0),)}, "not_finite"),
        ({"actions": np.zeros((0, 2))}, "not_finite"),
    ],
)
def test_a_chunk_of_another_robot_order_or_time_is_refused(wrong, reason):
    follower = Follower(NAMES)
    assert follower.take(chunk(**wrong), np.zeros(2)) == reason
    assert follower.wanted() == "idle"
    assert follower.take(chunk(), np.zeros(2)) is None
    assert follower.take(chunk(), np.zeros(2)) == "order"  # twice


def test_a_chunk_that_grows_old_on_the_way_is_given_up():
    follower = Follower(NAMES, max_age_s=0.05)
    follower.take(chunk(), np.zeros(2))
    assert not isinstance(follower.wanted(), str)
    time.sleep(0.06)
    assert [follower.wanted(), follower.wanted()] == ["stale", "idle"]
    assert follower.take(chunk(sequence=2, age=0.04), np.zeros(2)) == "stale"  # planned ahead of a way that ended
    assert follower.take(chunk(sequence=3), np.zeros(2)) is None


AHEAD = ((0.2, 0.0), (0.2, 0.4), (0.0, 0.4))


def test_what_is_under_way_is_carried_out_and_the_next_chunk_begins_where_it_ends():
    follower = Follower(NAMES, 0.02)
    assert follower.underway(1.0).shape == (0, 2)
    follower.take(chunk(AHEAD, execute=1), np.zeros(2))
    way = [follower.wanted() for _ in range(10)]
    np.testing.assert_array_equal(follower.underway(1.5), AHEAD[:2])
    assert follower.take(chunk([(0.5, 0.4)], 2, execute=1), np.array(AHEAD[1])) is None
    assert follower.waiting
    way += [follower.wanted() for _ in range(140)]
    assert follower.done
    np.testing.assert_allclose(np.stack(way)[[49, 99, 149]], [*AHEAD[:2], (0.5, 0.4)])
    assert np.abs(np.diff(way, axis=0)).max() < 1.6 * 0.4 / 0.8 * 0.02  # no jump where chunks meet


def test_a_chunk_that_comes_late_finds_the_arm_at_rest_where_it_begins():
    follower = Follower(NAMES, 0.02)
    follower.take(chunk(AHEAD, execute=1), np.zeros(2))
    follower.wanted()
    np.testing.assert_array_equal(follower.underway(0.4), AHEAD[:1])
    way = [follower.wanted() for _ in range(99)]
    np.testing.assert_array_equal(way[60:], [AHEAD[0]] * 39)
    assert len(follower.underway(0.4)) == 0  # over: a robot that rests has nothing under way
    follower.take(chunk([(0.3, 0.0)], 2), np.array(AHEAD[0]))
    np.testing.assert_allclose([follower.wanted() for _ in range(50)][-1], (0.3, 0.0))


def test_a_chunk_has_no_more_steps_under_way_than_it_has():
    follower = Follower(NAMES, 0.02)
    follower.take(chunk(AHEAD, execute=1), np.zeros(2))
    follower.wanted()
    np.testing.assert_array_equal(follower.underway(7.0), AHEAD)


class Point:
    """A robot of two joints that are at once where they are told to be; remembers its commands."""

    def __init__(self):
        self.commands, self.broken = [np.zeros(2)], False

    def observe(self):
        return {"joint_targets": self.commands[-1], "joint_positions": self.commands[-1]}, time.time()

    def command(self, positions):
        if self.broken:
            raise ConnectionError("the robot is gone")
        self.commands.append(positions)
        return positions


class Steps(Echo):
    """A policy that goes 0.2 further in the first joint; `goals` are those that it was told."""

    def __init__(self, names=NAMES):
        self.names, self.goals = names, []

    def answer(self, message):
        if "ping" in message:
            return {"time": time.time() + 100.0}
        self.goals.append(message.get("goal"))
        return {"actions": message["joint_targets"][None] + [0.2, 0.0], "joints": list(self.names)}

    def metadata(self):
        return {"clock": True}


class Ahead(Steps):
    """A slow policy that plans from where the arm will be; `moving`: whether `robot` moved while it thought."""

    def __init__(self, robot):
        super().__init__()
        self.robot, self.moving, self.underway = robot, [], []

    def answer(self, message):
        if "ping" in message:
            return super().answer(message)
        before = len(self.robot.commands)
        time.sleep(0.3)
        self.moving.append(bool(np.ptp(self.robot.commands[before:], axis=0).any()))
        self.underway.append(message.get("underway", np.zeros((0, 2))))
        start = [*self.underway[-1], *([] if len(self.underway[-1]) else [message["joint_targets"]])][-1]
        actions = start + np.outer(np.arange(1, 4), [0.1, 0.0])
        return {"actions": actions, "joints": list(self.names), "step_seconds": 0.25, "execute": 1}

    def metadata(self):
        return {"clock": True, "underway": True}


@contextmanager
def served(policy):
    """A client of a server of `policy`."""
    address = "ws://127.0.0.1:{}"
    with SocketServer(ServerConfig(port=0), policy, "steps") as server, Client(address.format(server.port)) as client:
        yield client


def within(robot, seconds):
    commands = np.stack(robot.commands)
    velocities = np.diff(commands, axis=0, prepend=commands[:1]) / seconds
    assert (np.abs(velocities) <= LIMITS.velocity).all()
    assert (np.abs(np.diff(velocities, axis=0) / seconds) <= LIMITS.acceleration).all()
    np.testing.assert_array_equal(velocities[-1], 0.0)  # at rest


def test_a_loop_carries_out_chunks_and_ends_at_rest():
    robot, policy = Point(), Steps()
    with served(policy) as client:
        assert client.clock_offset == pytest.approx(100.0, abs=0.5)
        client.set_goal(text="on")
        ControlLoop(robot, client, LIMITS, seconds=0.005).run(2)
    np.testing.assert_allclose(robot.commands[-1], [0.4, 0.0], atol=1e-6)
    within(robot, 0.005)
    assert policy.goals == [{"text": "on"}, None]


def test_a_client_finds_its_server_again_and_tells_the_goal_once_more():
    robot, policy = Point(), Steps()
    server = SocketServer(ServerConfig(port=0), policy, "steps").start()
    port, revived = server.port, []

    def revive():
        server.stop()
        time.sleep(0.3)
        revived.append(SocketServer(ServerConfig(port=port), policy, "steps").start())

    with Client(f"ws://127.0.0.1:{port}", patience_s=10.0) as client:
        client.set_goal(text="on")
        loop = ControlLoop(robot, client, LIMITS, seconds=0.005)
        thread = threading.Timer(0.5, revive)
        thread.start()
        loop.run(3)
        thread.join()
        assert client.connections == 2
    revived[0].stop()
    np.testing.assert_allclose(robot.commands[-1], [0.6, 0.0], atol=1e-6)
    within(robot, 0.005)
    assert policy.goals.count({"text": "on"}) == 2


def test_a_server_that_stays_away_leaves_the_robot_at_rest():
    robot = Point()
    server = SocketServer(ServerConfig(port=0), Steps(), "steps").start()
    with Client(f"ws://127.0.0.1:{server.port}", patience_s=0.3) as client:
        threading.Timer(0.4, server.stop).start()
        with pytest.raises(ConnectionError, match="can't be reached"):
            ControlLoop(robot, client, LIMITS, seconds=0.005).run(5)
    within(robot, 0.005)


def test_a_server_of_another_robot_moves_nothing(caplog):
    robot = Point()
    with served(Steps(("left", "right"))) as client, caplog.at_level(logging.WARNING):
        loop = ControlLoop(robot, client, LIMITS, seconds=0.005)
        loop.run(2)
    assert loop.filter.counts["robot"] == 2
    assert not np.any(robot.commands)
    assert "a chunk is refused: robot" in caplog.text


def test_a_robot_that_is_gone_ends_the_loop():
    robot = Point()
    with served(Steps()) as client:
        threading.Timer(0.2, lambda: setattr(robot, "broken", True)).start()
        with pytest.raises(ConnectionError, match="the robot is gone"):
            ControlLoop(robot, client, LIMITS, seconds=0.005).run(5)


def test_a_loop_that_plans_ahead_moves_while_the_policy_thinks():
    robot = Point()
    policy = Ahead(robot)
    with served(policy) as client:
        loop = ControlLoop(robot, client, LIMITS, seconds=0.005, ahead=True)
        loop.run(3)
    assert policy.moving == [False, True, True]
    assert len(policy.underway[0]) == 0
    steps = sum(map(len, policy.underway)) + 1
    assert len(policy.underway[1]) >= 2  # 0.3 s of steps that take 0.25 s
    np.testing.assert_allclose(robot.commands[-1], [0.1 * steps, 0.0], atol=1e-6)
    within(robot, 0.005)
    assert set(loop.filter.counts) <= {"idle"}


def test_a_loop_does_not_plan_ahead_with_a_server_that_does_not():
    robot = Point()
    with served(Steps()) as client, pytest.raises(ServerError, match="doesn't plan ahead"):
        ControlLoop(robot, client, LIMITS, seconds=0.005, ahead=True).run(2)
    within(robot, 0.005)
