"""DexJoCo's evaluator against our server: its observations in, its actions out."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dexjoco_stand_in import write_package
from dexworld.robots.dexjoco_arm import dexjoco_arm
from dexworld.serving.dexjoco_clients import DexJoCoClients, DexJoCoSession
from dexworld.serving.policy_service import PolicyConfig, PolicyService
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.socket_server import SocketServer
from dexworld.sim.poses import quaternion, rotation_about
from dexworld_client import Client, ServerError

READY = np.array([0.1, -0.7, 0.0, -2.3, 0.1, 1.6, 0.8, *[0.2] * 12, 0.4, 0.1, 0.1, 0.1])
TO = READY + np.array([0.2, 0.1, 0.0, 0.1, 0.0, 0.1, 0.0, *[0.1] * 16])
BASE = np.array([-0.75, 0.0, 0.924])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_package(tmp_path_factory.mktemp("models")).parent


def flange(robot, joints):
    """Position and rotation in the world: DexJoCo's palm stands on it upright, turned by half a turn about its axis."""
    pose = robot.forward(torch.from_numpy(joints))
    palm = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    half_turn = np.diag([-1.0, -1, 1])
    return pose.wrist.numpy() + BASE, pose.hand_rotation.numpy() @ (half_turn @ palm).T


def message(robot, joints, picture, **more):
    place, rotation = flange(robot, joints)
    state = np.concatenate([place, quaternion(rotation), joints[7:]])
    return {"base": picture, "wrist": picture, "state": state, "prompt": "Move the mouse.", **more}


def picture(seed, width=224):
    return np.random.default_rng(seed).integers(0, 256, (224, width, 3), np.uint8)


def test_states_become_joints_and_joint_targets_poses(models):
    robot, heard = dexjoco_arm(str(models / "dexjoco")), []
    answer = {"actions": np.stack([TO, TO]), "interventions": {}}
    inner = SimpleNamespace(answer=lambda seen: heard.append(seen) or answer)
    session = DexJoCoSession(inner, robot, picture(7, 392))
    actions = session.answer(message(robot, READY, picture(1)))["actions"]
    (seen,) = heard
    measured = robot.forward(torch.from_numpy(seen["joint_positions"]))
    np.testing.assert_allclose(measured.wrist, robot.forward(torch.from_numpy(READY)).wrist, atol=1e-6)
    np.testing.assert_allclose(seen["joint_positions"][7:], READY[7:], atol=1e-9)
    np.testing.assert_array_equal(seen["image"][:, 84:308], picture(1))
    np.testing.assert_array_equal(seen["image"][:, :84], picture(7, 392)[:, :84])  # as the goal has it
    np.testing.assert_array_equal(seen["goal"]["image"], picture(7, 392))
    assert seen["intrinsics"][0, 0] == pytest.approx(112 / np.tan(np.pi / 8))
    place, rotation = flange(robot, TO)
    assert actions.shape == (60, 22)
    np.testing.assert_allclose(actions[30:, :3], np.tile(place, (30, 1)), atol=1e-9)  # at rest in the second move
    np.testing.assert_allclose(rotation_about(actions[-1, 3:6]), rotation, atol=1e-4)
    np.testing.assert_allclose(actions[-1, 6:], TO[7:], atol=1e-9)
    behind = np.linalg.norm(np.diff(actions[:30, :3], axis=0), axis=1).max()
    assert 0 < behind < 0.05  # metres a step


def test_the_evaluators_messages_are_answered_over_a_socket(models, config, tmp_path, monkeypatch):
    monkeypatch.setenv("DEXWORLD_MODELS", str(models))
    dexjoco_arm.cache_clear()
    service = PolicyService(PolicyConfig(config.checkpoint, "kinematics_only", robot="dexjoco"))
    goal = tmp_path / "goal.png"
    Image.fromarray(picture(7, 392)).save(goal)
    served, robot = DexJoCoClients(service, goal), service.place.robot
    with SocketServer(ServerConfig(port=0), served, "policy") as server:
        url = f"ws://127.0.0.1:{server.port}"
        with Client(url) as client:
            first = client.ask(message(robot, READY, picture(1)))["actions"]
            again = client.ask(message(robot, READY, picture(2)))["actions"]
            assert (first.shape, again.shape) == ((90, 22), (60, 22))  # a plan of three steps, then of the two left
            assert np.isfinite(first).all()
            assert client.metadata["client"] == "dexjoco"
            with pytest.raises(ServerError, match="sends `base`, a picture"):
                client.ask(message(robot, READY, picture(1, 392)))
        with Client(url) as client, pytest.raises(ServerError, match="23 finite numbers: one arm and one hand"):
            client.ask({"base": picture(1), "state": np.zeros(46)})


def test_what_does_not_go_together_is_refused(tmp_path):
    config = SimpleNamespace(image_size=(224, 392))
    service = SimpleNamespace(config=SimpleNamespace(robot="dexjoco"), model=SimpleNamespace(config=config))
    goal = tmp_path / "goal.png"
    Image.fromarray(picture(7)).save(goal)
    with pytest.raises(ValueError, match="is 224x224, the model takes 392x224"):
        DexJoCoClients(service, goal)
    service.config.robot = "franka-allegro"
    with pytest.raises(ValueError, match="add --robot dexjoco"):
        DexJoCoClients(service, goal)
