"""A policy behind a socket: the same plans as without one, a session of its own for everyone, and clear refusals."""

import json
import sys
from dataclasses import replace

import msgpack
import mujoco
import numpy as np
import pytest
import torch
from websockets.sync.client import connect

from dexworld.data.camera.camera import Camera, PinholeView
from dexworld.data.camera.camera_files import HandEye, write_camera, write_hand_eye
from dexworld.data.parallel import RayMissingError
from dexworld.planning.presets import PlannerOptions
from dexworld.robots.franka_allegro import OPEN_FINGERS, FrankaAllegro
from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot
from dexworld.serving.camera_input import CameraInput
from dexworld.serving.policy_service import PolicyConfig, PolicyService
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.socket_server import SocketServer
from dexworld_client import Client, ServerError, packed, unpacked
from robot_fixtures import HAND_TOML, hand_mjcf
from serving_fixtures import overshoot

READY = np.array([0.0, -0.6, 0.0, -2.3, 0.0, 1.9, 0.6, *OPEN_FINGERS])
BASE = np.eye(4)
MOVED = np.array([[0.0, -1, 0, 0.2], [1, 0, 0, 0.1], [0, 0, 1, 0.9], [0, 0, 0, 1]])
BASE_FROM_CAMERA = np.array([[0.0, -0.6, -0.8, 1.3], [1, 0, 0, 0], [0, -0.8, -0.6, 0.8], [0, 0, 0, 1]])
BASE_FROM_CAMERA[:3, 1] = np.cross(BASE_FROM_CAMERA[:3, 2], BASE_FROM_CAMERA[:3, 0])  # down
CAMERA = np.array([[0.0, -0.5, 0.866, 0.1], [-1.0, 0.0, 0.0, 0.0], [0.0, -0.866, -0.5, 0.8], [0, 0, 0, 1]])
INTRINSICS = np.array([[240.0, 0, 196], [0, 240, 112], [0, 0, 1]])


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (224, 392, 3), np.uint8)


def observation(seed=1, **more):
    standing = {"world_from_base": BASE, "world_from_camera": CAMERA, "intrinsics": INTRINSICS}
    return {"image": picture(seed), "joint_positions": READY, "joint_targets": READY, **standing, **more}


@pytest.fixture(scope="module")
def service(config):
    return PolicyService(config)


@pytest.fixture
def url(service):
    with SocketServer(ServerConfig(port=0), service, "policy") as server:
        yield f"ws://127.0.0.1:{server.port}"


def test_a_client_gets_the_plan_that_the_planner_makes_without_a_socket(kinematics):
    policy = kinematics.policy()
    policy.reset(picture(7), seed=3)
    with (
        SocketServer(ServerConfig(port=0), kinematics, "policy") as server,
        Client(f"ws://127.0.0.1:{server.port}") as client,
    ):
        client.set_goal(image=picture(7), seed=3)
        for step in range(2):
            chunk = client.observe(observation(step))
            wanted = policy.act(Observation.from_dict(observation(step)))
            assert np.abs(wanted - READY).max() > 0.1
            kept = np.clip(wanted, kinematics.limits.low, kinematics.limits.high)
            np.testing.assert_allclose(chunk.actions[0], kept, atol=1e-6)
            assert (len(chunk.actions), chunk.execute, chunk.step_seconds) == (3 - step, 1, 1.0)
            assert chunk.names == kinematics.place.robot.joints
            assert chunk.sequence == step + 1
        assert client.metadata["robot"] == "franka-allegro"
        assert client.metadata["image_size"] == [224, 392]
        assert abs(client.clock_offset) < 0.5


def test_openpis_own_client_gets_actions(url):
    """Its messages by the published layout, packed without our packer."""

    def array(values):
        facts = {b"data": values.tobytes(), b"dtype": values.dtype.str, b"shape": values.shape}
        return {b"__ndarray__": True, **facts}

    seen = {"state": array(READY.astype(np.float32)), "image": array(picture(1)), "goal": {"image": array(picture(7))}}
    standing = {"world_from_base": BASE, "world_from_camera": CAMERA, "intrinsics": INTRINSICS}
    seen |= {name: array(value) for name, value in standing.items()}
    with connect(url, compression=None, max_size=None) as plain:
        metadata = msgpack.unpackb(plain.recv())
        assert isinstance(metadata, dict)
        for _ in range(2):
            plain.send(msgpack.packb(seen))
            answer = msgpack.unpackb(plain.recv())
            actions = answer["actions"]
            assert actions[b"__ndarray__"]
            values = np.frombuffer(actions[b"data"], actions[b"dtype"]).reshape(actions[b"shape"])
            assert values.shape[1] == 23
            assert answer["server_timing"]["infer_ms"] > 0
        assert answer["server_timing"]["prev_total_ms"] > 0


def test_sessions_have_goals_histories_and_seeds_of_their_own(service):
    one, other = service.session(), service.session()
    goal = {"goal": {"image": picture(7), "seed": 1}}
    first = one.answer(observation() | goal)["actions"]
    one.answer(observation(2))
    np.testing.assert_array_equal(other.answer(observation() | goal)["actions"], first)
    assert [each._policy._generator.initial_seed() for each in (one, other)] == [1, 1]
    other.answer(observation() | {"goal": {"image": picture(7), "seed": 2}})
    assert [each._policy._generator.initial_seed() for each in (one, other)] == [1, 2]
    one.answer(observation(3) | {"goal": {"image": picture(8)}})
    assert len(one._policy._history) == 1  # a new goal begins anew, the same one doesn't
    one.answer(observation(4) | {"goal": {"image": picture(8)}})
    assert len(one._policy._history) == 2


def test_what_stands_still_is_sent_once_and_targets_are_those_that_were_sent(service):
    session = service.session()
    answer = session.answer(observation() | {"goal": {"image": picture(7)}})
    less = {"image": picture(2), "state": READY.astype(np.float32)}
    seen = session._observation(less)
    np.testing.assert_array_equal(seen.joint_targets, answer["actions"][0])
    np.testing.assert_array_equal(seen.intrinsics, INTRINSICS)


def test_a_chunk_begins_after_the_steps_that_are_under_way(service):
    session, ahead = service.session(), READY + 0.05
    assert service.metadata()["underway"]
    first = session.answer(observation() | {"goal": {"image": picture(7)}})
    assert first["search"] == {"rounds": 1, "candidates": 8, "complete": True}
    answer = session.answer(observation(2) | {"underway": np.stack([READY, ahead])})
    policy = session._policy
    assert [len(policy._history), policy._begin, policy._now] == [1, 2, 0]  # both pictures are of step 0
    assert np.abs(answer["actions"][0] - ahead).max() < 0.9  # a step from there
    later = session.answer(observation(3))
    assert [policy._begin, policy._now] == [3, 3]
    assert len(policy._history) == 1  # what was seen three steps before says nothing to the model
    assert later["actions"].shape == (1, 23)


WRONG = {
    "underway must be finite": observation(goal={"image": picture(7)}, underway=np.full((1, 23), np.nan)),
    "underway must be finite and": observation(goal={"image": picture(7)}, underway=np.zeros((1, 7))),
    "U at most 16": observation(goal={"image": picture(7)}, underway=np.zeros((17, 23))),
    "no goal yet": observation(),
    "observation lacks image": {"state": READY, "goal": {"image": picture(7)}},
    "is this another robot": observation(joint_positions=READY[:7], joint_targets=READY[:7]),
    "must be an array of numbers": observation(intrinsics="wide"),
    "beyond 1e": observation(world_from_base=np.full((4, 4), 1e300)),
    "holds NaN": observation(joint_positions=np.full(23, np.nan)),
    "image must be": observation(image=np.zeros((224, 392), np.uint8)),
    "one of `image`, `text` and `clicks`": observation(goal={"picture": 1}),
    "goal pictures": observation(goal={"image": np.zeros(3)}),
    "goal image must be": observation(goal={"image": np.zeros(3, np.uint8)}),
    "clicks must be": observation(goal={"clicks": np.zeros((2, 3))}),
    "a goal picture is needed": observation(goal={"clicks": np.zeros((2, 1, 2))}),
    "seed must be": observation(goal={"image": picture(7), "seed": -1}),
    "doesn't understand sentences": observation(prompt="push the ball"),
    "sub-goals": observation(goal={"image": picture(7), "then": [picture(8)]}),
}


@pytest.mark.parametrize("why", WRONG)
def test_what_is_wrong_with_an_observation_or_a_goal_is_told(url, why):
    with Client(url) as client:
        with pytest.raises(ServerError, match=why):
            client.ask(WRONG[why])
        assert client.ask(observation(goal={"image": picture(7)}))["actions"].shape == (2, 23)


def test_values_of_any_type_are_refused_and_nothing_else(service):
    rng, session = np.random.default_rng(916_000), service.session()
    strange = [None, True, 3, -1.5, "a", b"b", [], [1, "a"], [[1], [2, 3]], {}, np.zeros(0), np.zeros((2, 0)), np.inf]
    strange += [np.zeros((224, 392, 3)), np.zeros((3, 3), bool), np.full((4, 4), 1e300), np.uint8(3)]
    names = [*observation(), "goal", "prompt", "state", "sequence", "observed_at"]
    for _ in range(300):
        message = observation(goal={"image": picture(7)})
        for name in rng.choice(names, 2):
            message[name] = strange[rng.integers(len(strange))]
        if isinstance(message["goal"], dict) and rng.random() < 0.5:
            key = str(rng.choice(["image", "text", "clicks", "then", "seed"]))
            message["goal"] = message["goal"] | {key: strange[rng.integers(len(strange))]}
        try:
            answer = session.answer(message)
        except ValueError:
            continue
        assert np.isfinite(answer["actions"]).all()
        assert unpacked(packed(answer))


def test_waypoints_stay_within_limits_boxes_and_reach(config, tmp_path):
    boxes = tmp_path / "boxes.json"
    hand = [[0.3, -1.0, -1.0], [1.5, 1.0, 0.0]]
    boxes.write_text(json.dumps({"keep_out": [hand], "workspace": [[-1, -1, -1], [1, 1, 2]]}))
    service = PolicyService(PolicyConfig(config.checkpoint, "random", boxes=boxes))
    assert service.place.keep_out == (((0.3, -1.0, -1.0), (1.5, 1.0, 0.0)),)
    session, limits = service.session(), service.limits
    assert not service.metadata()["underway"]
    with pytest.raises(ValueError, match="random acts on what it sees"):
        service.session().answer(observation(goal={"image": picture(7)}, underway=READY[None]))
    for _ in range(5):
        answer = session.answer(observation(goal={"image": picture(7)}))
        assert (answer["actions"] >= limits.low).all()
        assert (answer["actions"] <= limits.high).all()
    boxes.write_text(json.dumps({"keepout": []}))
    with pytest.raises(ValueError, match="unknown fields keepout"):
        PolicyService(PolicyConfig(config.checkpoint, boxes=boxes))


LENS = (-0.2, 0.04, 1e-3, 0.0, 0.0)


@pytest.fixture(scope="module")
def raw_service(config, tmp_path_factory):
    """A service that knows its camera, and the view that it should give the models."""
    folder = tmp_path_factory.mktemp("camera")
    camera = Camera(np.array([[300.0, 0, 196], [0, 300, 120], [0, 0, 1]]), (240, 392), "plumb_bob", LENS)
    write_camera(folder / "camera.yaml", camera)
    write_hand_eye(folder / "mount.yaml", HandEye(False, BASE_FROM_CAMERA))
    files = {"camera": folder / "camera.yaml", "hand_eye": folder / "mount.yaml"}
    return PolicyService(replace(config, **files)), PinholeView(camera, (224, 392))


def raw_message(number, **more):
    image = np.random.default_rng(number).integers(0, 256, (240, 392, 3), np.uint8)
    return {"image": image, "joint_positions": READY, "joint_targets": READY, "world_from_base": MOVED, **more}


def test_raw_pictures_give_the_plan_of_the_models_own_pictures(service, raw_service):
    raw, view = raw_service
    goal = raw_message(7)["image"]
    found = raw.session().answer(raw_message(1, goal={"image": goal, "seed": 1}))
    own = {"image": view.image(raw_message(1)["image"]), "intrinsics": view.intrinsics}
    own |= {"world_from_camera": MOVED @ BASE_FROM_CAMERA, "goal": {"image": view.image(goal), "seed": 1}}
    np.testing.assert_array_equal(service.session().answer(raw_message(1) | own)["actions"], found["actions"])
    assert raw.metadata()["image_size"] == [240, 392]


def test_clicks_are_taken_on_the_raw_picture(raw_service):
    raw, view = raw_service
    raw.camera.filled(raw_message(1), set())
    clicks = np.array([[[100.0, 60.0]], [[250.0, 150.0]]])
    moved = raw.camera.goal({"clicks": clicks})["clicks"]
    np.testing.assert_allclose(moved, view.pixels(clicks))
    assert 1 < np.abs(moved - clicks + [[0, 8]]).max() < 40


def test_a_camera_on_the_hand_moves_with_the_flange(config):
    mounted = HandEye(True, BASE_FROM_CAMERA)
    camera = CameraInput(Camera(INTRINSICS, (224, 392)), mounted, (224, 392), FrankaAllegro())
    seen = camera.filled(observation(), set())
    pose, wrist = np.asarray(seen["world_from_camera"]), FrankaAllegro().forward(torch.from_numpy(READY)).wrist
    flange = pose @ np.linalg.inv(BASE_FROM_CAMERA)
    np.testing.assert_allclose(flange[:3, 3], wrist, atol=1e-9)
    turned = READY + 0.5 * np.eye(23)[6]
    other = camera.filled(observation(joint_positions=turned), set())
    flange = flange[:3, :3].T @ (np.asarray(other["world_from_camera"]) @ np.linalg.inv(BASE_FROM_CAMERA))[:3, :3]
    about_z = [[np.cos(0.5), -np.sin(0.5), 0], [np.sin(0.5), np.cos(0.5), 0], [0, 0, 1]]
    np.testing.assert_allclose(flange, about_z, atol=1e-9)


def test_a_camera_on_the_hand_of_a_described_robot_moves_with_the_body_that_its_file_names(tmp_path):
    (tmp_path / "hand.xml").write_text(hand_mjcf())
    (tmp_path / "hand.toml").write_text(HAND_TOML)
    robot = Robot.from_file(tmp_path / "hand.xml", tmp_path / "hand.toml")
    joints = robot.limits.mean(-1).numpy()
    mounted = HandEye(True, BASE_FROM_CAMERA, effector="thumb1")
    camera = CameraInput(Camera(INTRINSICS, (224, 392)), mounted, (224, 392), robot)
    seen = camera.filled(observation(joint_positions=joints, world_from_base=MOVED), set())
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "hand.xml"))
    data = mujoco.MjData(model)
    for name, position in zip(robot.joints, joints, strict=True):
        data.joint(name).qpos[0] = position
    mujoco.mj_kinematics(model, data)
    body = np.eye(4)
    body[:3, :3], body[:3, 3] = data.body("thumb1").xmat.reshape(3, 3), data.body("thumb1").xpos
    np.testing.assert_allclose(seen["world_from_camera"], MOVED @ body @ BASE_FROM_CAMERA, atol=1e-9)


def test_what_contradicts_the_camera_is_refused(raw_service, config, tmp_path):
    session = raw_service[0].session()
    goal = {"goal": {"image": raw_message(7)["image"]}}
    wrong = {
        "no intrinsics and no world_from_camera": raw_message(1, intrinsics=INTRINSICS, world_from_camera=CAMERA),
        "calibrated at 392 x 240": raw_message(1, image=picture(1)),
        "pictures must be": raw_message(1, image=3),
        "world_from_base must be": raw_message(1, joint_positions=READY[:3]),
    }
    for why, message in wrong.items():
        with pytest.raises(ValueError, match=why):
            session.answer(message | goal)
    write_camera(tmp_path / "c.yaml", Camera(np.array([[4.0, 0, 196], [0, 4, 120], [0, 0, 1]]), (240, 392)))
    with pytest.raises(ValueError, match="camera check"):
        PolicyService(replace(config, camera=tmp_path / "c.yaml"))
    write_camera(tmp_path / "own.yaml", Camera(INTRINSICS, (224, 392)))
    write_hand_eye(tmp_path / "hand.yaml", HandEye(True, np.eye(4)))
    (tmp_path / "hand.xml").write_text(hand_mjcf())
    motion = "[motion]\nvelocity = { arm = 0.2, fingers = 1.0 }\n[right]"
    (tmp_path / "hand.toml").write_text(HAND_TOML.replace("[right]", motion))
    mounted = {"camera": tmp_path / "own.yaml", "hand_eye": tmp_path / "hand.yaml"}
    assert not PolicyService(replace(config, **mounted)).ahead
    described = {"robot": str(tmp_path / "hand.xml"), "description": tmp_path / "hand.toml"}
    with pytest.raises(ValueError, match="robot_effector_frame"):
        PolicyService(replace(config, **mounted, **described))
    write_hand_eye(tmp_path / "hand.yaml", HandEye(True, np.eye(4), effector="wrist"))
    with pytest.raises(ValueError, match="no body or site 'wrist'"):
        PolicyService(replace(config, **mounted, **described))
    with pytest.raises(ValueError, match="needs --camera"):
        PolicyService(replace(config, hand_eye=tmp_path / "c.yaml"))


class Lost:
    """The answer of a replica that is gone."""

    def remote(self, *_):
        return self

    def result(self, timeout_s):
        from ray.exceptions import RayActorError

        raise RayActorError


def test_two_ray_replicas_plan_what_one_process_plans_and_a_lost_one_costs_no_plan(config, monkeypatch):
    pytest.importorskip("ray.serve", reason="the extra `ray-serve` is not installed")
    search = PlannerOptions(samples=9, elites=2, iterations=2, model_budget=5, horizon=2)
    here = PolicyService(replace(config, planning=search))
    there = PolicyService(replace(config, planning=search, ray="local", replicas=2))
    try:
        one, other = here.session(), there.session()
        for number in (1, 2, 3):
            if number == 3:
                monkeypatch.setattr(there._replicas, "_handle", type("Handle", (), {"costs": Lost()}))
            seen = observation(number, goal={"image": picture(7), "seed": 3})
            np.testing.assert_allclose(other.answer(seen)["actions"], one.answer(seen)["actions"], atol=1e-5)
            assert other._policy.statistics[-1].terms == pytest.approx(one._policy.statistics[-1].terms, rel=1e-4)
    finally:
        there.close()


def test_ray_is_asked_for_by_name_and_only_for_searches(config, monkeypatch):
    with pytest.raises(ValueError, match="random has none"):
        PolicyService(replace(config, policy="random", ray="local"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayMissingError, match="pip install"):
        PolicyService(replace(config, ray="local"))


def test_a_described_robot_is_served_within_the_limits_of_its_description(config, tmp_path):
    (tmp_path / "hand.xml").write_text(hand_mjcf())
    motion = "[motion]\nvelocity = { arm = 0.2, fingers = 1.0 }\n[right]"
    (tmp_path / "hand.toml").write_text(HAND_TOML.replace("[right]", motion))
    robot = {"robot": str(tmp_path / "hand.xml"), "description": tmp_path / "hand.toml"}
    service = PolicyService(PolicyConfig(config.checkpoint, planning=config.planning, **robot))
    start = service.place.robot.limits.mean(-1).numpy()
    seen = observation(joint_positions=start, joint_targets=start, goal={"image": picture(7)})
    actions = service.session().answer(seen)["actions"]
    assert actions.shape == (2, 6)
    assert (np.abs(np.diff(actions, axis=0, prepend=start[None]))[:, :2] <= 0.2).all()
    assert service.metadata()["joints"][0] == "along"


def test_the_benchmark_of_deadlines_says_how_late_plans_are_and_how_far_they_came():
    done = overshoot(0.1, 2, 918_000)
    assert done["late_p50"] <= done["late_p99"] <= done["late_worst"]
    assert done["late_worst"] > -0.5  # a search takes the time that it has
    assert done["rounds_p50"] >= 1
    assert done["candidates_p50"] >= 1


def test_what_does_not_go_together_is_said_before_anyone_connects(config):
    for options, why in (({"policy": "bc"}, "needs a checkpoint"), ({"task": "dance"}, "task 'dance' is unknown")):
        with pytest.raises(ValueError, match=why):
            PolicyService(PolicyConfig(config.checkpoint, **options))
