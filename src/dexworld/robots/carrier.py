"""A hand without an arm on a carrier of three slides, so that it can be moved about."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dexworld.robots.described_robot import DescribedRobot
from dexworld.robots.model_file import ModelJoint, RobotModel
from dexworld.robots.model_parts import joined

SLIDES = ("carrier_x", "carrier_y", "carrier_z")
_RANGES = ((-0.25, 0.25), (-0.25, 0.25), (0.0, 0.35))  # metres


def on_carrier(robot: DescribedRobot, world_from_palm: np.ndarray) -> DescribedRobot:
    """The robot with its wrist on three slides along the world's axes, which are its first joints, turned so that its
    palm has the axes (3, 3) while its own arm is at rest. Its base is the world.
    """
    plain = DescribedRobot(robot.model, replace(robot.description, base="world"))
    pose = plain.forward(plain.clamp(torch.zeros(len(plain.joints), dtype=torch.float64)))
    placed = np.eye(4)
    placed[:3, :3] = world_from_palm @ pose.hand_rotation.numpy().T
    placed[:3, 3] = -placed[:3, :3] @ pose.wrist.numpy()
    moving = robot.model.moving(robot.drives, 0)  # a file may have a table beside the hand
    bare = replace(robot.model, shapes=tuple(each for each in robot.model.shapes if each.body in moving))
    model = joined(_slides(), bare, len(SLIDES), placed)
    description = replace(plain.description, arm=(*SLIDES, *robot.description.arm))
    return DescribedRobot(replace(model, path=robot.model.path), description)


def _slides() -> RobotModel:
    """Three bodies in a row, each on a slide."""
    joints = [
        ModelJoint(name, "slide", np.zeros(3), axis, 0.0, limits)
        for name, axis, limits in zip(SLIDES, np.eye(3), _RANGES, strict=True)
    ]
    return RobotModel(
        path=Path("carrier"),
        bodies=("world", *SLIDES),
        parents=(0, 0, 1, 2),
        places=(np.eye(4),) * 4,
        joints=((), *((joint,) for joint in joints)),
        sites={},
        shapes=(),
        coupled={},
        missing=(),
    )
