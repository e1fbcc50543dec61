"""A Franka Panda with a parallel gripper, whose dummy hand opens and closes as the gripper does.

The arm's numbers are those of `franka_allegro`. The gripper sits on the flange turned by -45 degrees, as Franka mounts
it. Its frame has z towards the fingertips and y along the fingers' slide. The dummy hand is that of the data reader
(`GripperHand`): circles around the flange, perpendicular to z, whose radii are linear in the opening (DexWM paper,
appendix C.2).
"""

import math

import torch
from torch import Tensor

from dexworld.hands import FINGERS, GRIPPER_CLOSED_RADII, GRIPPER_OPEN_RADII
from dexworld.robots.franka_allegro import ARM, FLANGE
from dexworld.robots.kinematics import Constants, chained, joint_terms, joint_transforms
from dexworld.robots.robot import HandPose, Robot, right_hand

_TURN = -math.pi / 4  # about z, from the flange to the gripper
_PADS = 0.103  # metres from the flange, along z, to the middle of the pads


class FrankaGripper(Robot):
    """Seven joints of the arm in radians, then the opening: 0 closed, 1 open (two fingers of 4 cm each)."""

    name = "franka_gripper"
    joints = (*(joint.name for joint in ARM), "gripper_opening")
    arm = slice(0, len(ARM))
    unit = "rad (the gripper: share of its opening)"

    def __init__(self) -> None:
        self.limits = torch.tensor([*(joint.limits for joint in ARM), (0.0, 1.0)], dtype=torch.float64)
        angle = 2 * math.pi * torch.arange(len(FINGERS), dtype=torch.float64) / len(FINGERS)
        spokes = torch.stack([angle.cos(), angle.sin()], dim=-1)  # (5, 2) in the plane of the circles
        cos, sin = math.cos(_TURN), math.sin(_TURN)
        turn = ((cos, -sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0))
        radii = (GRIPPER_CLOSED_RADII, GRIPPER_OPEN_RADII)
        numbers = (torch.tensor(value, dtype=torch.float64) for value in (radii, FLANGE, turn))
        self._constants = Constants(joint_terms(ARM), spokes, *numbers)

    def forward(self, joint_positions: Tensor) -> HandPose:
        """As `Robot.forward`; the wrist is the flange, `hand_rotation` base_from_gripper, `links` the arm's joints."""
        self.check_shape(joint_positions)
        terms, spokes, radii, flange, turn = self._constants.like(joint_positions)
        batch = joint_positions.shape[:-1]
        joints = joint_positions.reshape(-1, len(self.joints))
        arm = chained(joint_transforms(terms, joints[:, self.arm]))
        links = torch.stack([pose[:, :3, 3] for pose in arm], dim=1)
        rotation = arm[-1][:, :3, :3] @ turn
        wrist = links[:, -1] + (arm[-1][:, :3, :3] @ flange[:, None])[..., 0]
        opening = joints[:, -1:]
        radius = opening * radii[1] + (1.0 - opening) * radii[0]  # (B, 4)
        in_plane = radius[:, None, :, None] * spokes[None, :, None, :]  # (B, 5 fingers, 4, 2)
        points = in_plane.flatten(1, 2) @ rotation[:, :, :2].transpose(-1, -2) + wrist[:, None]
        keypoints, valid = right_hand(wrist, points)
        return HandPose(
            keypoints.reshape(*batch, *keypoints.shape[1:]),
            valid,
            rotation.reshape(*batch, 3, 3),
            wrist.reshape(*batch, 3),
            links.reshape(*batch, len(ARM), 3),
        )

    def body_points(self, pose: HandPose) -> Tensor:
        """The arm from its elbow to the flange, and the gripper to its pads: the dummy hand is in no picture."""
        pads = pose.wrist + _PADS * pose.hand_rotation[..., :, 2]
        return torch.cat([pose.links[..., 3:, :], pose.wrist[..., None, :], pads[..., None, :]], dim=-2)

    def outline(self, pose: HandPose) -> tuple[Tensor, Tensor]:
        """Spheres along the lines between `body_points`."""
        points = self.body_points(pose)
        share = torch.linspace(0.0, 1.0, 4, dtype=points.dtype, device=points.device)[:, None, None]
        centres = points[..., None, :-1, :] + share * (points[..., 1:, :] - points[..., :-1, :])[..., None, :, :]
        centres = centres.flatten(-3, -2)
        return centres, centres.new_full(centres.shape[-2:-1], 0.06)
