"""A Franka Panda with a parallel gripper, whose dummy hand opens and closes as the gripper does.

The gripper sits on the flange turned by -45 degrees, as Franka mounts it. Its frame has z towards the fingertips and y
along the fingers' slide. The dummy hand is that of the data reader (`GripperHand`): circles around the flange,
perpendicular to z, whose radii are linear in the opening (DexWM paper, appendix C.2).
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from dexworld.hands import FINGERS, GRIPPER_CLOSED_RADII, GRIPPER_OPEN_RADII
from dexworld.robots.franka_allegro import ARM, ARM_JOINTS, FLANGE, tree_joint
from dexworld.robots.kinematics import Constants, Kinematics
from dexworld.robots.robot import HandPose, Robot, right_hand_pose, spheres
from dexworld.robots.tree_robot import ORIGIN

_TURN = -math.pi / 4  # about z, from the flange to the gripper
_PADS = 0.103  # metres from the flange, along z, to the middle of the pads


class FrankaGripper(Robot):
    """Seven joints of the arm in radians, then the opening: 0 closed, 1 open (two fingers of 4 cm each)."""

    joints = (*(joint.name for joint in ARM), "gripper_opening")
    arm = slice(0, ARM_JOINTS)

    def __init__(self) -> None:
        self.limits = torch.tensor([*(joint.limits for joint in ARM), (0.0, 1.0)], dtype=torch.float64)
        angle = 2 * math.pi * torch.arange(len(FINGERS), dtype=torch.float64) / len(FINGERS)
        spokes = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (5, 2) in the plane of the circles
        cos, sin = math.cos(_TURN), math.sin(_TURN)
        turn = ((cos, -sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0))
        radii = (GRIPPER_CLOSED_RADII, GRIPPER_OPEN_RADII)
        numbers = (torch.tensor(value, dtype=torch.float64) for value in (radii, turn))
        self._constants = Constants(spokes, *numbers)
        self._kinematics = Kinematics([tree_joint(joint, index - 1) for index, joint in enumerate(ARM)])
        places = [*((index, ORIGIN) for index in range(ARM_JOINTS)), (ARM_JOINTS - 1, FLANGE)]
        self._places = self._kinematics.places(places)

    def forward(self, joint_positions: Tensor) -> HandPose:
        """As `Robot.forward`; the wrist is the flange, `hand_rotation` base_from_gripper, `links` the arm's joints."""
        self.check_shape(joint_positions)
        spokes, radii, turn = self._constants.like(joint_positions)
        frames = self._kinematics.frames(joint_positions[..., self.arm])
        points = frames.points(self._places)
        links, wrist = points[..., :-1, :], points[..., -1, :]
        rotation = frames.rotation(*self._kinematics.link(ARM_JOINTS - 1)) @ turn
        opening = joint_positions[..., -1:]
        radius = opening * radii[1] + (1.0 - opening) * radii[0]  # (..., 4)
        in_plane = radius[..., None, :, None] * spokes[:, None, :]  # (..., 5 fingers, 4, 2)
        points = in_plane.flatten(-3, -2) @ rotation[..., :2].transpose(-1, -2) + wrist[..., None, :]
        return right_hand_pose(wrist, points, rotation, links)

    def outline(self, pose: HandPose) -> tuple[Tensor, Tensor]:
        """Spheres from the elbow to the gripper's pads: the dummy hand is in no picture."""
        rows = [*pose.links[..., 2:, :].unbind(-2), pose.wrist, pose.wrist + _PADS * pose.hand_rotation[..., :, 2]]
        return spheres([(start, end, 4, 0.06) for start, end in pairwise(rows)])
