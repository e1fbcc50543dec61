"""Joint states of a described robot in a LeRobot dataset become keypoints, where MuJoCo has them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from lerobot_fixtures import change_info, write_dataset

from dexworld.cli.reader_options import reader_options
from dexworld.data.readers.lerobot import LeRobotOptions, open_lerobot
from dexworld.data.readers.robot_states import PoseMapping, RobotStates
from dexworld.hands import LEFT, RIGHT
from dexworld.robots.robot import Robot
from robot_fixtures import HAND_TOML, TWO_HANDS_TOML, hand_mjcf, mujoco_keypoints, two_hands_urdf

pytest.importorskip("mujoco", reason="reading robot files needs the extra `sim`")
LENGTH = 9


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    """The files of the sliding hand, and joint positions (T, 6) within its limits."""
    folder = tmp_path_factory.mktemp("hand")
    (folder / "hand.xml").write_text(hand_mjcf())
    (folder / "hand.toml").write_text(HAND_TOML)
    limits = Robot.from_file(folder / "hand.xml", folder / "hand.toml").limits.numpy()
    joints = np.random.default_rng(1).uniform(*limits.T, (LENGTH, len(limits)))
    return folder / "hand.xml", folder / "hand.toml", joints


def states(hand, **changes):
    """The mapping of DexJoCo's schema: position, quaternion w first, joints; what else there is comes behind."""
    base = PoseMapping("observation.state", "xyz-wxyz", columns=tuple(range(7)))
    mapping = RobotStates(str(hand[0]), "observation.state", str(hand[1]), columns=tuple(range(7, 13)), base=base)
    return replace(mapping, **changes)


def written(folder, joints, scale=1.0):
    """A dataset whose `observation.state` and `action` hold a moving base and joints; world_from_base (T, 4, 4)."""
    rng = np.random.default_rng(2)
    place, quaternion = rng.normal(size=(LENGTH, 3)), rng.normal(size=(LENGTH, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    state = np.concatenate([place, quaternion, scale * joints, rng.normal(size=(LENGTH, 7))], axis=1)
    columns = {"observation.state": state.astype(np.float32), "action": state[:, :13].astype(np.float32)}
    write_dataset(folder, (LENGTH,), ("observation.images.ego_right",), columns=columns)
    w, x, y, z = quaternion.T
    rows = [[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]]  # fmt: skip
    poses = np.tile(np.eye(4), (LENGTH, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = np.array(rows).transpose(2, 0, 1), place
    return poses


def moved(poses, points):
    return np.einsum("tij,tkj->tki", poses[:, :3, :3], points) + poses[:, None, :3, 3]


def test_a_dataset_in_dexjocos_schema_has_the_keypoints_of_mujoco(hand, tmp_path):
    poses = written(tmp_path, hand[2])
    mount = (0.1, 0.0, 0.05, 0.0, 0.0, 0.5**0.5, 0.5**0.5)  # a quarter turn about z
    track = open_lerobot(tmp_path, LeRobotOptions(robots=(states(hand, targets="action", mount=mount),)))[0]
    robot = Robot.from_file(*hand[:2])
    poses[:, :3, 3] += poses[:, :3, :3] @ mount[:3]
    poses[:, :3, :3] = poses[:, :3, :3] @ [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    expected = moved(poses, mujoco_keypoints(hand[0], robot.description, robot.joints, hand[2]))
    seen = track.keypoints_valid[0]
    assert seen[RIGHT].sum() == robot.forward(robot.limits.mean(dim=1)).valid.sum() > 10
    np.testing.assert_allclose(track.keypoints_world[:, seen], expected[:, seen], atol=1e-5)
    assert not track.keypoints_valid[:, LEFT].any()
    np.testing.assert_allclose(track["joint_positions"], hand[2], atol=1e-6)
    np.testing.assert_allclose(track["joint_targets"], hand[2], atol=1e-6)


def test_joints_are_found_by_their_names_and_two_hands_are_put_together(tmp_path):
    (tmp_path / "two.urdf").write_text(two_hands_urdf())
    (tmp_path / "two.toml").write_text(TWO_HANDS_TOML)
    robot = Robot.from_file(tmp_path / "two.urdf", tmp_path / "two.toml")
    joints = np.random.default_rng(3).uniform(*robot.limits.numpy().T, (LENGTH, 6))
    state = np.concatenate([joints[:, ::-1], np.ones((LENGTH, 1))], axis=1)
    write_dataset(tmp_path / "data", (LENGTH,), columns={"observation.state": state.astype(np.float32)})
    names = [*reversed(robot.joints), "gripper"]
    change_info(tmp_path / "data", lambda info: info["features"]["observation.state"].update(names={"motors": names}))
    given = {
        "robot": str(tmp_path / "two.urdf"),
        "description": str(tmp_path / "two.toml"),
        "joints": "observation.state",
    }
    (tmp_path / "reader.json").write_text(json.dumps({"lerobot": {"robots": [given]}}))
    track = open_lerobot(tmp_path / "data", reader_options((str(tmp_path / "reader.json"),)).lerobot)[0]
    expected = mujoco_keypoints(tmp_path / "two.urdf", robot.description, robot.joints, joints)
    seen = track.keypoints_valid[0]
    assert seen[LEFT].any()
    assert seen[RIGHT].any()
    np.testing.assert_allclose(track.keypoints_world[:, seen], expected[:, seen], atol=1e-5)
    again = {"robots": (RobotStates(**given), RobotStates(**given))}
    with pytest.raises(ValueError, match=r"two robots of .* have the same hand"):
        open_lerobot(tmp_path / "data", LeRobotOptions(**again))[0]


@pytest.mark.parametrize(
    ("scale", "changes", "message"),
    [
        (57.29578, {}, r"along is at .*, and .* allows -0.20 to 0.30. .*degrees \(0.017453\)"),
        (57.29578, {"unit": 0.0174533}, ""),
        (1.0, {"columns": ()}, "20 numbers a frame, of which 20 are taken; .* has 6 joints"),
        (1.0, {"columns": (15, 16, 17, 18, 19, 20)}, "20 numbers a frame, of which 6 are taken"),
        (1.0, {"base": PoseMapping("observation.state", "xyz-wxyz", columns=(0, 1, 2, 3, 4, 5, 44))}, "no number 44"),
        (1.0, {"base": PoseMapping("observation.state", "xyz-quaternion")}, "20 numbers a frame, or NaN"),
        (1.0, {"joints": "state"}, "has no feature state; it has action"),
    ],
)
def test_numbers_that_are_not_the_robots_are_refused_with_what_to_change(hand, tmp_path, scale, changes, message):
    written(tmp_path, hand[2], scale)
    options = LeRobotOptions(robots=(states(hand, **changes),))
    if not message:
        np.testing.assert_allclose(open_lerobot(tmp_path, options)[0]["joint_positions"], hand[2], atol=1e-4)
        return
    with pytest.raises(ValueError, match=message):
        open_lerobot(tmp_path, options)[0]


def test_settings_that_contradict_themselves_are_refused(hand):
    with pytest.raises(ValueError, match="unit is 0"):
        states(hand, unit=0.0)
    with pytest.raises(ValueError, match="a quaternion x, y, z, w that is not 0"):
        states(hand, mount=(0.0,) * 7)
    with pytest.raises(ValueError, match="leave `keypoints`, `joint_positions`, `joint_targets` out"):
        LeRobotOptions(robots=(states(hand),), joint_positions="observation.state")
