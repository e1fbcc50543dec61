"""Server, client, filter and robot reach together; whoever is killed leaves the robot at rest in its limits."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from dexworld.data.datasets import open_dataset
from dexworld.data.lerobot.layout import open_layout
from dexworld.data.prepare.job import PrepareConfig, prepare
from dexworld.data.readers import ReaderOptions
from dexworld.data.readers.robot_run import RobotRunOptions
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.evaluation.ledger import Ledger
from dexworld.hands import RIGHT, WRIST
from dexworld.serving import simulated_robot
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.simulated_robot import RobotConfig, SimulatedRobot
from dexworld.serving.socket_server import SocketServer
from dexworld.sim.kitchen.kitchen_tasks import draw_episodes
from dexworld_client import Client, ControlLoop, JointLimits, Recorder, ServerError
from serving_fixtures import KINDS, NAMES, Loop, RobotLink, killed, kitchen_client, play, summary

SEED = 916_000


def played(config):
    """A running robot, and its server."""
    robot = SimulatedRobot(config)
    robot.start()
    return robot, SocketServer(ServerConfig(port=0), robot, "robot")


@pytest.fixture(scope="module", autouse=True)
def episode():
    """What every robot here plays, drawn once."""
    (drawn,) = draw_episodes("reach", SEED, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_robot, "draw_episodes", lambda *_, **__: [drawn])
        yield drawn


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


def test_a_served_planner_reaches_with_a_simulated_robot_whose_line_is_bad(kinematics, capsys):
    """Frames are late, lost and noisy."""
    bad = {"dropped": 0.1, "latency_ms": 20.0, "jitter_ms": 50.0, "joint_noise": 0.002, "pixel_noise": 2.0}
    robot, server = played(RobotConfig(seed=SEED, **bad))
    with server, SocketServer(ServerConfig(port=0), kinematics, "p") as policy:
        before = robot.report()["distance"]
        addresses = ["--server", f"ws://127.0.0.1:{policy.port}", "--robot", f"ws://127.0.0.1:{server.port}"]
        kitchen_client.main([*addresses, "--chunks", "3"])
        assert '"chunks": 3' in capsys.readouterr().out
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


@pytest.fixture(scope="module")
def risen(tmp_path_factory):
    """A robot whose frames get lost, that was raised by one chunk, and what its client saw and kept of it."""
    robot, server = played(RobotConfig(seed=SEED, dropped=0.7))
    run = tmp_path_factory.mktemp("runs") / "one.run"
    with (
        server,
        SocketServer(ServerConfig(port=0), Rise(), "rise") as policy,
        Client(f"ws://127.0.0.1:{policy.port}") as client,
        Recorder(run, robot="franka-allegro", task="raise the arm") as file,
    ):
        link = RobotLink(f"ws://127.0.0.1:{server.port}")
        seen, limits = [link.observe() for _ in range(3)], JointLimits(**link.facts["limits"])
        loop = ControlLoop(link, client, limits, max_age_s=100.0, paced=True, recorder=file)
        loop.run(1)
        file.write(frame={"image": "an end that is torn off"})
        link.close()
        report = robot.report()
    robot.stop()
    run.write_bytes(run.read_bytes()[:-5])
    return SimpleNamespace(run=run, seen=seen, loop=loop, report=report, commands=np.stack(robot.commands))


def test_lost_frames_are_looked_for_again_and_commands_keep_the_robots_beat(risen):
    stamps, (first, _) = [stamp for _, stamp in risen.seen], risen.seen[0]
    assert stamps == sorted(set(stamps))
    assert first["image"].shape == (224, 392, 3)
    assert risen.commands[-1, 1] - risen.commands[0, 1] == pytest.approx(-0.2, abs=1e-3)
    assert not {"velocity", "position", "order", "stale"} & set(risen.loop.filter.counts)
    assert_unharmed(risen.report)


def test_a_recorded_run_becomes_a_store_to_train_from(risen, tmp_path):
    options = {"settings": PrepareSettings(height=112), "workers": 1}
    slow = ReaderOptions(robot_run=RobotRunOptions(longest_gap_s=60.0))  # a machine that others use
    assert prepare(PrepareConfig(risen.run.parent, tmp_path / "store", **options, reader=slow)).ok
    assert {"observation.state", "action"} <= set(open_layout(tmp_path / "store").features)  # what LeRobot trains on
    (episode,) = open_dataset(tmp_path / "store")
    assert (episode.task, episode.fps, len(episode) >= 3) == ("raise the arm", 5.0, True)
    assert episode.frames.read([0]).shape == (1, 112, 196, 3)
    assert episode["interventions"].min() >= 0
    moved = np.abs(episode["joint_targets"][:, None] - risen.commands).max(-1).min(1)
    assert moved.max() < 0.02  # the commands; the robot brakes by itself where they come late
    assert episode.keypoints_valid[:, RIGHT].all()
    assert np.ptp(episode.keypoints_world[:, WRIST + RIGHT.start], axis=0).max() > 0.01  # the hand moves
    assert (np.diff(episode["joint_positions"][:, 1]) < 1e-3).all()
    with pytest.raises(FileExistsError):
        Recorder(risen.run)


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


def test_the_benchmark_of_served_episodes_compares_ways_in_the_same_scenes(tmp_path):
    ledger = Ledger(tmp_path / "reach.jsonl", {"task": "reach"})
    limits = {"beyond_position": -0.1, "share_of_velocity": 1.0, "share_of_acceleration": 0.5}
    for scene, (success, distance) in {"1": (True, 0.1), "2": (False, 0.3)}.items():
        served = {"success": success, "distance": distance, "depth": -distance, **limits}
        bad_line = served | {"success": False}
        ledger.add(scene, {"in_process": {"success": True, "distance": 0.1}, "served": served, "bad_line": bad_line})
    figures = summary(Ledger(tmp_path / "reach.jsonl", {"task": "reach"}))
    assert figures["episodes"] == 2
    rates = [figures[way]["success"]["value"] for way in ("in_process", "served", "bad_line")]
    assert rates == [1.0, 0.5, 0.0]
    assert figures["served"]["success_less_in_process"]["value"] == -0.5
    assert figures["bad_line"]["success_less_in_process"]["low"] == -1.0
    assert figures["served"]["depth"] == -0.1  # the worst
    assert figures["served"]["distance_m"]["value"] == pytest.approx(0.2)


def test_in_simulated_time_an_arm_that_plans_ahead_does_more_and_the_same_every_time(episode):
    steps = {}
    for ahead in (False, True, True):
        service = Rise(0.1)
        done = play(episode, service, 0.9, ahead, 2.9)
        assert done.pop("plan_cpu_s") > 0
        assert steps.setdefault(ahead, done) == done
        starts = [message.get("underway", message["joint_targets"][None])[-1, 1] for message in service.told]
        np.testing.assert_allclose(np.diff(starts), -0.1, atol=1e-3)  # each chunk begins where the last one ends
    assert steps[True]["moving_s"] > 1.4 * steps[False]["moving_s"]
    assert steps[True]["asked"] == 3
    assert steps[False]["asked"] == 2


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
