"""The batched kinematics: shapes, precision, gradients and motion. `sim/test_simulation.py` compares with MuJoCo."""

import numpy as np
import pytest
import torch

from dexworld.actions import OFFICIAL, ActionConvention, hand_motion
from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.geometry import rigid, rotation_from_euler_xyz
from dexworld.hands import RIGHT, TRACKED
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.franka_gripper import FrankaGripper
from dexworld.sim.gripper.gripper_simulation import GripperSimulation, gripper_layout

ROBOT = FrankaAllegro()


def random_joints(count, dtype=torch.float64, robot=ROBOT):
    limits = robot.limits.to(dtype)
    share = torch.rand(count, len(limits), generator=torch.Generator().manual_seed(0), dtype=dtype)
    return limits[:, 0] + share * (limits[:, 1] - limits[:, 0])


def test_single_precision_and_leading_dimensions_give_the_same_keypoints():
    joints = random_joints(200)
    single = ROBOT.forward(joints.float()).keypoints
    assert single.dtype == torch.float32
    assert (single - ROBOT.forward(joints).keypoints).abs().max() < 5e-6

    joints = random_joints(6)
    flat, nested = ROBOT.forward(joints), ROBOT.forward(joints.view(2, 3, 23))
    assert torch.equal(flat.keypoints, nested.keypoints.flatten(0, 1))
    assert nested.hand_rotation.shape == (2, 3, 3, 3)
    assert ROBOT.forward(joints[0]).wrist.shape == (3,)
    assert torch.allclose(ROBOT.forward(joints[0]).keypoints, flat.keypoints[0], atol=1e-12)


def test_gradients_agree_with_finite_differences():
    joints = random_joints(2).requires_grad_()
    assert torch.autograd.gradcheck(lambda value: ROBOT.forward(value).keypoints[:, RIGHT], (joints,))


def test_joint_vectors_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 7\), expected \(\.\.\., 23\)"):
        ROBOT.forward(torch.zeros(2, 7))
    with pytest.raises(ValueError, match="tips is 'distal'"):
        FrankaAllegro("distal")


def test_clamp_moves_only_what_lies_outside_the_limits():
    inside = random_joints(1, dtype=torch.float32)[0]
    assert torch.equal(ROBOT.clamp(inside), inside)
    for end, value in enumerate((-9.0, 9.0)):
        assert torch.equal(ROBOT.clamp(torch.full((23,), value)), ROBOT.limits[:, end].float())


def placed(angles, position):
    angles, position = (torch.tensor(value, dtype=torch.float64) for value in (angles, position))
    return rigid(rotation_from_euler_xyz(angles), position)


def camera():
    return placed([-2.2, 0.1, -1.5], [-0.4, 0.3, 1.0])


def motion(track, convention=ActionConvention()):
    place = (track.world_from_camera, track.intrinsics)
    return hand_motion(track.keypoints_world, track.keypoints_valid, *place, convention)


@pytest.mark.parametrize("convention", [ActionConvention(), OFFICIAL])
def test_motion_of_a_still_robot_is_zero_and_of_a_moving_one_is_its_displacement(convention):
    intrinsics = torch.tensor([[146.0, 0, 196], [0, 146.0, 112], [0, 0, 1]], dtype=torch.float64)
    world_from_base = placed([0.2, -0.3, 0.4], [0.2, 0.0, 0.6])
    path = random_joints(3)
    moving = motion(ROBOT.track(path, world_from_base, camera(), intrinsics), convention)
    still = motion(ROBOT.track(path[:1].expand(3, -1), world_from_base, camera(), intrinsics), convention)
    assert moving.deltas.shape == (2, 44, 3)
    assert moving.pixels.shape == (3, len(TRACKED), 3)
    assert not still.deltas[:, :42].any()
    assert torch.allclose(still.deltas[:, 42:], torch.zeros(2, 2, 3, dtype=torch.float64), atol=1e-12)
    lengths = (ROBOT.forward(path[1:]).keypoints - ROBOT.forward(path[:-1]).keypoints).norm(dim=-1)
    assert torch.allclose(moving.deltas[:, :42].norm(dim=-1), lengths)
    assert not moving.visible[:, :6].any()


@pytest.mark.parametrize(("robot", "last"), [(ROBOT, "joint_15"), (FrankaGripper(), "gripper_opening")])
def test_a_robot_has_an_outline_a_track_and_limits_that_name_the_joint(robot, last):
    joints = random_joints(3, robot=robot)
    pose = robot.forward(joints)
    centres, radii = robot.outline(pose)
    assert centres.shape == (3, len(radii), 3)
    assert (radii > 0).all()
    eye = torch.eye(4, dtype=torch.float64)
    assert torch.equal(robot.track(joints, eye, eye, eye[:3, :3]).keypoints_world, pose.keypoints)
    assert np.array_equal(robot.check_targets(joints.numpy()[0]), joints.numpy()[0])
    with pytest.raises(ValueError, match=f"of {last}; clip targets"):
        robot.check_targets(robot.limits[:, 1].numpy() + np.eye(len(joints[0]))[-1])


def test_the_grippers_dummy_hand_is_that_of_the_data_reader_on_mujocos_gripper():
    robot = FrankaGripper()
    joints = random_joints(20, robot=robot)
    pose = robot.forward(joints)
    with GripperSimulation(gripper_layout(0)) as simulation:
        poses = np.stack([simulation.forward(arm) for arm in joints[:, robot.arm].numpy()])
    keypoints, valid = GripperHand().keypoints(poses, joints[:, -1].numpy())
    assert np.abs(pose.keypoints.numpy() - keypoints).max() < 1e-6
    assert np.abs(pose.hand_rotation.numpy() - poses[:, :3, :3]).max() < 1e-6
    assert np.abs(pose.wrist.numpy() - poses[:, :3, 3]).max() < 1e-6
    assert np.array_equal(pose.valid.numpy(), valid[0])
