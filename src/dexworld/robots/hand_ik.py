"""Inverse kinematics of a robot's arm: joints that bring its hand to a pose, all in one batch."""

import torch
from torch import Tensor

from dexworld.robots.boxes import Boxes
from dexworld.robots.robot import Robot

_DIFFERENCE = 1e-3  # radians, for the numerical Jacobian
_ROTATION_WEIGHT = 0.3  # metres per radian
_LARGEST_STEP, _LARGEST_TURN = 0.4, 0.15  # radians
_SPARE, _FLAT = 0.01, 1e-3  # metres between arm and boxes, and square metres per square radian


def hand_joints(
    robot: Robot,
    joints: Tensor,
    bounds: Tensor,
    wrist: Tensor,
    rotation: Tensor,
    iterations: int,
    keep_out: Boxes | None = None,
) -> Tensor:
    """Joints (..., J), found from `joints`, whose wrist is at (..., 3) and base_from_palm (..., 3, 3); fingers stay.

    Damped Gauss-Newton within bounds (J, 2); where a pose is out of reach, it ends near it. The joint that an arm has
    to spare turns its elbow away from the `keep_out` boxes.
    """
    damping = 1e-3 * torch.eye(6, dtype=joints.dtype, device=joints.device)
    for _ in range(iterations):
        residual, jacobian, depth = _linearised(robot, joints, wrist, rotation, keep_out)
        gain = jacobian.transpose(-1, -2) @ torch.linalg.inv(jacobian @ jacobian.transpose(-1, -2) + damping)
        step = (gain @ residual[..., None])[..., 0].clamp(-_LARGEST_STEP, _LARGEST_STEP)
        if keep_out is not None:
            slope = (depth[..., 1:] - depth[..., :1]) / _DIFFERENCE
            free = slope - (gain @ (jacobian @ slope[..., None]))[..., 0]  # what doesn't move the hand
            needed = (depth[..., :1] + _SPARE).clamp_min(0.0)
            aside = -needed * free / (free.square().sum(-1, keepdim=True) + _FLAT)
            step = step + aside.clamp(-_LARGEST_TURN, _LARGEST_TURN)
        low, high = bounds[robot.arm].unbind(-1)
        arm = torch.minimum(torch.maximum(joints[..., robot.arm] + step, low), high)
        joints = torch.cat([arm, joints[..., robot.fingers]], dim=-1)
    return joints


def _linearised(
    robot: Robot, joints: Tensor, wrist: Tensor, rotation: Tensor, keep_out: Boxes | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What is left to go (..., 6), metres and weighted radians, and how the arm's K joints change it (..., 6, K).

    The last is the depth in the boxes, metres (..., 1 + K): here, and with each joint `_DIFFERENCE` further.
    """
    count = robot.arm.stop
    nudged = joints[..., None, :].repeat_interleave(count + 1, dim=-2)
    nudged[..., 1:, robot.arm] += torch.eye(count, dtype=joints.dtype, device=joints.device) * _DIFFERENCE
    pose = robot.forward(nudged)
    left = wrist[..., None, :] - pose.wrist
    turn = 0.5 * torch.linalg.cross(pose.hand_rotation, rotation[..., None, :, :], dim=-2).sum(dim=-1)
    error = torch.cat([left, _ROTATION_WEIGHT * turn], dim=-1)  # (..., K + 1, 6)
    jacobian = (error[..., :1, :] - error[..., 1:, :]) / _DIFFERENCE
    depth = error[..., 0] if keep_out is None else keep_out.depth(pose.links)
    return error[..., 0, :], jacobian.transpose(-1, -2), depth
