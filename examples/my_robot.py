"""Add a robot: a planar arm with a hand, from its MJCF file and a description, planned by its kinematics alone.

Nothing in dexworld is edited. `planar_arm.toml` says what in `planar_arm.xml` is the hand; docs/robots.md has all keys.
Look at it first: `dexworld robot check examples/planar_arm.xml --description examples/planar_arm.toml`.

    python examples/my_robot.py
"""

from pathlib import Path

import numpy as np
import torch

from dexworld.actions import hand_motion
from dexworld.planning.controls import KinematicsOnly
from dexworld.planning.objectives import JointLimits, KeypointPixels, Smoothness
from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot

FILES = Path(__file__).resolve().parent
SIZE = (96, 96)
# A camera 1 m above the table that looks down: the picture's right is the world's x, its top the world's y.
WORLD_FROM_CAMERA = np.array([[1.0, 0, 0, 0.2], [0, -1, 0, 0.1], [0, 0, -1, 1.0], [0, 0, 0, 1]])
INTRINSICS = np.array([[60.0, 0, 48], [0, 60, 48], [0, 0, 1]])


def planar_arm() -> Robot:
    """Three joints of an arm on a table, then thumb and index finger, which the middle finger copies."""
    return Robot.from_file(FILES / "planar_arm.xml", FILES / "planar_arm.toml")


# Where it starts, and where it should end.
START, GOAL = np.array([0.2, 0.3, 0.1, 0.1, 0.1]), np.array([0.7, -0.5, 0.4, 0.1, 0.1])


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
    robot = planar_arm()
    objective = 0.001 * KeypointPixels() + 0.001 * Smoothness() + 0.01 * JointLimits()
    policy = KinematicsOnly(None, robot, objective)
    policy.reset(observation(GOAL).image, goal_pixels=hand_pixels(robot, GOAL))
    joints = START
    for _ in range(3):
        joints = robot.check_targets(policy.act(observation(joints)))
    reached, wanted = robot.forward(torch.tensor(np.stack([joints, GOAL]))).wrist
    return float((reached - wanted).norm())


if __name__ == "__main__":
    print(f"the wrist ends {100 * main():.2f} cm from its goal")
