"""The batched kinematics against MuJoCo's, on a body tree built here from the same numbers."""

import mujoco
import numpy as np
import pytest
import torch

from dexworld.actions import OFFICIAL, ActionConvention, hand_motion
from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.geometry import rigid, rotation_from_euler_xyz
from dexworld.hands import LEFT, RIGHT, TRACKED
from dexworld.robots.franka_allegro import ARM, FLANGE, HAND, HAND_ON_FLANGE, JOINTS, FrankaAllegro
from dexworld.robots.registry import ROBOTS, make_robot
from dexworld.sim.gripper.gripper_robot import gripper_layout
from dexworld.sim.gripper.gripper_simulation import GripperSimulation

ROBOT = FrankaAllegro()


def add_joint(parent, joint):
    body = parent.add_body(name=joint.name, pos=joint.origin, quat=joint.quaternion)
    body.add_joint(name=joint.name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=joint.axis)
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.01, 0, 0], mass=0.1)
    return body


@pytest.fixture(scope="module")
def mujoco_robot():
    spec = mujoco.MjSpec()
    body = spec.worldbody
    for joint in ARM:
        body = add_joint(body, joint)
    flange = body.add_body(name="flange", pos=FLANGE)
    palm = flange.add_body(name="palm", pos=HAND_ON_FLANGE)
    for finger in HAND:
        body = palm
        for joint in finger.joints:
            body = add_joint(body, joint)
        body.add_body(name=f"{finger.name}_tip", pos=finger.tip)
    model = spec.compile()
    return model, mujoco.MjData(model)


def mujoco_pose(robot, joints, tips):
    model, data = robot
    for value, joint in zip(joints, JOINTS, strict=True):
        data.qpos[model.jnt_qposadr[model.joint(joint.name).id]] = value
    mujoco.mj_kinematics(model, data)
    by_name = {finger.name: finger for finger in HAND}
    names = ["flange"]
    for name in ("thumb", "index", "middle", "ring", "ring"):
        links = [joint.name for joint in by_name[name].joints]
        names += [*links[1:], f"{name}_tip"] if tips == "true" else links
    return np.stack([data.body(name).xpos for name in names]), data.body("palm").xmat.reshape(3, 3)


def random_joints(count, seed=0, dtype=torch.float64, robot=ROBOT):
    limits = robot.limits.to(dtype)
    share = torch.rand(count, len(robot.joints), generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return limits[:, 0] + share * (limits[:, 1] - limits[:, 0])


@pytest.mark.parametrize("tips", ["true", "release"])
def test_keypoints_and_rotation_equal_mujoco_within_a_micrometre(mujoco_robot, tips):
    joints = random_joints(100)
    pose = FrankaAllegro(tips).forward(joints)
    for index, vector in enumerate(joints.numpy()):
        keypoints, rotation = mujoco_pose(mujoco_robot, vector, tips)
        assert np.abs(pose.keypoints[index, RIGHT].numpy() - keypoints).max() < 1e-6
        assert np.abs(pose.hand_rotation[index].numpy() - rotation).max() < 1e-6
        assert np.abs(pose.wrist[index].numpy() - keypoints[0]).max() < 1e-6
    assert not pose.keypoints[:, LEFT].any()
    assert pose.valid.tolist() == [False] * 21 + [True] * 21


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


def test_batches_of_candidates_share_camera_and_base():
    eye, intrinsics = torch.eye(4, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    paths = random_joints(8).view(2, 4, 23)
    batched = motion(ROBOT.track(paths, eye, camera(), intrinsics))
    alone = motion(ROBOT.track(paths[1], eye, camera(), intrinsics))
    assert torch.allclose(batched.index(1).deltas, alone.deltas)
    assert torch.allclose(batched.index(1).pixels, alone.pixels)


def test_the_grippers_dummy_hand_is_that_of_the_data_reader_on_mujocos_gripper():
    robot = make_robot("franka_gripper")
    joints = random_joints(20, robot=robot)
    pose = robot.forward(joints)
    with GripperSimulation(gripper_layout(0)) as simulation:
        poses = np.stack([simulation.forward(arm) for arm in joints[:, robot.arm].numpy()])
    keypoints, valid = GripperHand().keypoints(poses, joints[:, -1].numpy())
    assert np.abs(pose.keypoints.numpy() - keypoints).max() < 1e-6
    assert np.abs(pose.hand_rotation.numpy() - poses[:, :3, :3]).max() < 1e-6
    assert np.abs(pose.wrist.numpy() - poses[:, :3, 3]).max() < 1e-6
    assert np.array_equal(pose.valid.numpy(), valid[0])


@pytest.mark.parametrize("name", ROBOTS)
def test_every_robot_has_limits_a_hand_an_outline_and_a_track(name):
    robot = make_robot(name)
    joints = random_joints(3, robot=robot).requires_grad_()
    assert robot.name == name
    assert robot.limits.shape == (len(robot.joints), 2)
    assert (robot.arm.start, robot.fingers) == (0, slice(robot.arm.stop, len(robot.joints)))
    pose = robot.forward(joints)
    assert torch.autograd.grad(pose.keypoints[:, pose.valid].sum(), joints, retain_graph=True)[0].abs().sum() > 0
    centres, radii = robot.outline(pose)
    assert centres.shape == (3, len(radii), 3)
    assert (radii > 0).all()
    eye = torch.eye(4, dtype=torch.float64)
    track = robot.track(joints.detach(), eye, eye, eye[:3, :3])
    assert torch.equal(track.keypoints_world, pose.keypoints.detach())
    assert np.array_equal(robot.check_targets(joints.detach().numpy()[0]), joints.detach().numpy()[0])
    with pytest.raises(ValueError, match=rf"of {robot.joints[-1]}; clip targets"):
        robot.check_targets(robot.limits[:, 1].numpy() + np.eye(len(robot.joints))[-1])
    with pytest.raises(ValueError, match="choose one of franka_allegro, franka_gripper"):
        make_robot("arm")
