"""Server, client, filter and robot reach together; whoever is killed leaves the robot at rest in its limits."""

import time

import numpy as np
import pytest

from dexworld.data.datasets import open_dataset
from dexworld.data.lerobot.layout import open_layout
from dexworld.data.prepare.job import PrepareConfig, prepare
from dexworld.data.readers import ReaderOptions
from dexworld.data.readers.robot_run import RobotRunOptions
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.hands import RIGHT, WRIST
from dexworld.serving.policy_service import PolicyConfig, PolicyService
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.simulated_robot import RobotConfig, SimulatedRobot
from dexworld.serving.socket_server import SocketServer
from dexworld.sim.kitchen.kitchen_tasks import draw_episodes
from dexworld_client import Client, ControlLoop, JointLimits, Recorder, ServerError
from serving_fixtures import KINDS, NAMES, Loop, RobotLink, killed, play, started

SEED = 916_000


def played(config):
    """A running robot, and its server."""
    robot = SimulatedRobot(config)
    robot.start()
    return robot, SocketServer(ServerConfig(port=0), robot, "robot")


@pytest.fixture(scope="module")
def kitchen():
    """A robot and its address."""
    robot, server = played(RobotConfig(seed=SEED))
    with server:
        yield robot, f"ws://127.0.0.1:{server.port}"
    robot.stop()


@pytest.fixture(scope="module")
def loop(kitchen):
    """A server, a client and a network, in processes of their own."""
    with Loop(int(kitchen[1].rsplit(":", 1)[1])) as parts:
        yield parts


def assert_unharmed(report):
    """At rest, and no command was ever outside a limit."""
    assert report["at_rest"]
    assert report["beyond_position"] <= 0
    assert report["share_of_velocity"] <= 1
    assert report["share_of_acceleration"] <= 1
    assert report["depth"] < 1e-5


def test_a_served_planner_reaches_with_a_simulated_robot_whose_line_is_bad():
    """The client is a process of its own; frames are late, lost and noisy."""
    bad = {"dropped": 0.1, "latency_ms": 20.0, "jitter_ms": 50.0, "joint_noise": 0.002, "pixel_noise": 2.0}
    robot, server = played(RobotConfig(seed=SEED, **bad))
    with (
        server,
        SocketServer(ServerConfig(port=0), PolicyService(PolicyConfig(policy="kinematics_only")), "p") as policy,
    ):
        before = robot.report()["distance"]
        addresses = ["--server", f"ws://127.0.0.1:{policy.port}", "--robot", f"ws://127.0.0.1:{server.port}"]
        client = started("examples/kitchen_client.py", *addresses, "--chunks", "3")
        said, _ = client.communicate(timeout=120)
        assert client.returncode == 0
        assert '"chunks": 3' in said
        report = robot.outcome()
    robot.stop()
    assert report["success"], report
    assert report["distance"] < 0.3 * before
    assert_unharmed(report)


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_is_killed_while_the_robot_moves_it_comes_to_rest(kitchen, loop, kind):
    robot, _ = kitchen
    _, rests = killed(kind, robot, loop, np.random.default_rng(SEED))
    assert rests
    assert_unharmed(robot.report())


def test_lost_frames_are_looked_for_again_and_commands_keep_the_robots_beat():
    robot, server = played(RobotConfig(seed=SEED, dropped=0.7))
    with server, SocketServer(ServerConfig(port=0), Rise(), "rise") as policy:
        link = RobotLink(f"ws://127.0.0.1:{server.port}")
        seen = [link.observe() for _ in range(3)]
        with Client(f"ws://127.0.0.1:{policy.port}") as client:
            loop = ControlLoop(link, client, JointLimits(**link.facts["limits"]), max_age_s=100.0, paced=True)
            loop.run(1)
        link.close()
        report = robot.report()
    robot.stop()
    assert [stamp for _, stamp in seen] == sorted({stamp for _, stamp in seen})
    assert seen[0][0]["image"].shape == (224, 392, 3)
    assert robot.commands[-1][1] - robot.commands[0][1] == pytest.approx(-0.2, abs=1e-3)
    assert not {"velocity", "position", "order", "stale"} & set(loop.filter.counts)
    assert_unharmed(report)


def test_a_recorded_run_becomes_a_store_to_train_from(tmp_path):
    robot, server = played(RobotConfig(seed=SEED))
    facts = {"robot": "franka-allegro", "task": "raise the arm"}
    with (
        server,
        SocketServer(ServerConfig(port=0), Rise(), "rise") as policy,
        Client(f"ws://127.0.0.1:{policy.port}") as client,
        Recorder(tmp_path / "runs" / "one", **facts) as file,
    ):
        link = RobotLink(f"ws://127.0.0.1:{server.port}")
        limits = JointLimits(**link.facts["limits"])
        ControlLoop(link, client, limits, max_age_s=100.0, paced=True, recorder=file).run(1)
        file.write(frame={"image": "an end that is torn off"})
        link.close()
    robot.stop()
    run = tmp_path / "runs" / "one.run"
    run.write_bytes(run.read_bytes()[:-5])
    commands = np.stack(robot.commands)
    options = {"settings": PrepareSettings(height=112), "workers": 1}
    slow = ReaderOptions(robot_run=RobotRunOptions(longest_gap_s=60.0))  # a machine that others use
    assert prepare(PrepareConfig(run.parent, tmp_path / "store", **options, reader=slow)).ok
    assert {"observation.state", "action"} <= set(open_layout(tmp_path / "store").features)  # what LeRobot trains on
    (episode,) = open_dataset(tmp_path / "store")
    assert (episode.task, episode.fps, len(episode) >= 3) == ("raise the arm", 5.0, True)
    assert episode.frames.read([0]).shape == (1, 112, 196, 3)
    assert episode["interventions"].min() >= 0
    moved = np.abs(episode["joint_targets"][:, None] - commands).max(-1).min(1)
    assert moved.max() < 0.02  # the commands; the robot brakes by itself where they come late
    assert episode.keypoints_valid[:, RIGHT].all()
    assert np.ptp(episode.keypoints_world[:, WRIST + RIGHT.start], axis=0).max() > 0.01  # the hand moves
    assert (np.diff(episode["joint_positions"][:, 1]) < 1e-3).all()
    with pytest.raises(FileExistsError):
        Recorder(run)


def test_only_one_client_commands_and_in_order(kitchen):
    robot, address = kitchen
    with Client(address) as one, Client(address) as other:
        here = robot.commands[-1]
        measured = one.ask({"command": here, "sequence": 1})["joint_positions"]
        assert np.abs(measured - here).max() < 0.3
        with pytest.raises(ServerError, match="another client commands"):
            other.ask({"command": here, "sequence": 1})
        with pytest.raises(ServerError, match="counted upwards"):
            one.ask({"command": here, "sequence": 1})
        one.close()
        until = time.monotonic() + 5
        while robot._commander is not None and time.monotonic() < until:
            time.sleep(0.01)
        other.ask({"command": np.full(23, np.nan), "sequence": 1})
        other.ask({"command": "up", "sequence": 2})
        with pytest.raises(ServerError, match="a message holds"):
            other.ask({"dance": True})
    report = robot.report()
    assert report["interventions"]["not_finite"] >= 1
    assert report["interventions"]["shape"] >= 1
    assert_unharmed(report)


def test_in_simulated_time_an_arm_that_plans_ahead_does_more_in_the_same_seconds_and_the_same_every_time():
    (episode,) = draw_episodes("reach", SEED, 1)
    steps = {}
    for ahead in (False, True, True):
        service = Rise(0.1)
        done = play(episode, service, 0.9, ahead, 4.0)
        assert done.pop("plan_cpu_s") > 0
        assert steps.setdefault(ahead, done) == done
        starts = [message.get("underway", message["joint_targets"][None])[-1, 1] for message in service.told]
        np.testing.assert_allclose(np.diff(starts), -0.1, atol=1e-3)  # each chunk begins where the last one ends
    assert steps[True]["moving_s"] > 1.4 * steps[False]["moving_s"]
    assert steps[True]["asked"] == 5
    assert steps[False]["asked"] == 3


class Rise:
    """A policy that raises the arm, so many radians a step; `told` are its observations."""

    def __init__(self, step=0.2):
        self.step, self.told = step, []

    def metadata(self):
        return {}

    def session(self):
        return self

    def answer(self, message):
        self.told.append(message)
        target = message.get("underway", message["joint_targets"][None])[-1].copy()
        target[1] -= self.step
        return {"actions": target[None], "joints": NAMES, "step_seconds": 1.0, "execute": 1}

    def close(self):
        pass
