"""Add a robot: a planar arm of three hinges, planned by its kinematics alone.

Nothing in dexworld is edited. A robot is a subclass of `dexworld.robots.robot.Robot` with the names and limits of its
joints and a batched `forward`. Planning, controls and evaluation then work with it.

    python examples/my_robot.py
"""

import numpy as np
import torch
from torch import Tensor

from dexworld.actions import hand_motion
from dexworld.planning.controls import KinematicsOnly
from dexworld.planning.objectives import JointLimits, KeypointPixels, Smoothness
from dexworld.robots.observation import Observation
from dexworld.robots.robot import HandPose, Robot, right_hand_pose

LENGTHS = (0.3, 0.25, 0.15)  # metres
# Four joints of five fingers in the hand's frame, x along the fingers.
FINGERS = torch.tensor([[0.02 * joint, 0.02 * finger, 0.0] for finger in range(-2, 3) for joint in range(1, 5)])
SIZE = (96, 96)
# A camera 1 m above the table that looks down: the picture's right is the world's x, its top the world's y.
WORLD_FROM_CAMERA = np.array([[1.0, 0, 0, 0.2], [0, -1, 0, 0.1], [0, 0, -1, 1.0], [0, 0, 0, 1]])
INTRINSICS = np.array([[60.0, 0, 48], [0, 60, 48], [0, 0, 1]])


class PlanarArm(Robot):
    """Three links on a table, turning about the vertical, with a stiff hand at the end."""

    joints = ("shoulder", "elbow", "wrist")
    arm = slice(0, 3)

    def __init__(self) -> None:
        self.limits = torch.tensor([[-2.0, 2.0]] * 3, dtype=torch.float64)

    def forward(self, joint_positions: Tensor) -> HandPose:
        """As `Robot.forward`."""
        self.check_shape(joint_positions)
        angles = joint_positions.cumsum(-1)
        cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
        ahead, aside = torch.stack([cos, sin, zero], dim=-1), torch.stack([-sin, cos, zero], dim=-1)
        ends = (ahead * ahead.new_tensor(LENGTHS)[:, None]).cumsum(-2)
        wrist, up = ends[..., -1, :], torch.zeros_like(ends[..., 0, :])
        up[..., 2] = 1.0
        rotation = torch.stack([ahead[..., -1, :], aside[..., -1, :], up], dim=-1)  # base_from_palm
        fingers = FINGERS.to(wrist) @ rotation.transpose(-1, -2) + wrist[..., None, :]
        return right_hand_pose(wrist, fingers, rotation, links=ends)


def observation(joints: np.ndarray) -> Observation:
    """What a policy sees; kinematics alone need no picture."""
    black = np.zeros((*SIZE, 3), np.uint8)
    return Observation(black, joints, WORLD_FROM_CAMERA, INTRINSICS, np.eye(4), joints)


def hand_pixels(robot: Robot, joints: np.ndarray) -> np.ndarray:
    """Where the camera sees the twelve tracked keypoints, (12, 2); NaN for those that the robot doesn't have."""
    numbers = (joints[None], np.eye(4), WORLD_FROM_CAMERA, INTRINSICS)
    track = robot.track(*(torch.as_tensor(value, dtype=torch.float64) for value in numbers))
    motion = hand_motion(track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)
    pixels = motion.pixels[0, :, :2].numpy()
    return np.where(motion.visible[0, :, None].numpy(), pixels, np.nan)


def main() -> float:
    """Reach for a pose that is given by its pixels; returns how far the wrist ends from it, metres."""
    robot = PlanarArm()
    start, goal = np.array([0.2, 0.3, 0.1]), np.array([0.7, -0.5, 0.4])
    objective = 0.001 * KeypointPixels() + 0.001 * Smoothness() + 0.01 * JointLimits()
    policy = KinematicsOnly(None, robot, objective)
    policy.reset(observation(goal).image, goal_pixels=hand_pixels(robot, goal))
    joints = start
    for _ in range(3):
        joints = robot.check_targets(policy.act(observation(joints)))
    reached, wanted = robot.forward(torch.tensor(np.stack([joints, goal]))).wrist
    return float((reached - wanted).norm())


if __name__ == "__main__":
    print(f"the wrist ends {100 * main():.2f} cm from its goal")
