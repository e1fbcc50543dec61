"""Robots whose forward pass is a tree of joints with keypoints fixed to its links."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexworld.hands import NUM_KEYPOINTS
from dexworld.robots.kinematics import BASE, Constants, Kinematics, Point
from dexworld.robots.robot import HandPose, Robot

ORIGIN = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class HandLayout:
    """Where the hand is on the tree.

    keypoints: by row of `hands.KEYPOINT_NAMES`. wrist: the row of the wrist that planning moves. palm: its link, and
    link_from_palm (3, 3), None where they are turned alike. links: of the arm, at least two.
    """

    keypoints: Mapping[int, Point]
    wrist: int
    palm: tuple[int, Tensor | None]
    links: Sequence[Point]


class TreeRobot(Robot):
    """A `Robot` of a `Kinematics` and a `HandLayout`. spheres: (place, radius in metres) that cover it."""

    def __init__(
        self,
        limits: Tensor,
        kinematics: Kinematics,
        layout: HandLayout,
        spheres: Sequence[tuple[Point, float]] = (),
    ) -> None:
        self.limits, self.kinematics, self._wrist = limits, kinematics, layout.wrist
        rows = [layout.keypoints.get(row, (BASE, ORIGIN)) for row in range(NUM_KEYPOINTS)]
        self._points = kinematics.places([*rows, *layout.links])
        self._chains = kinematics.chains(rows)
        self._spheres = kinematics.places([place for place, _ in spheres])
        valid = torch.tensor([row in layout.keypoints for row in range(NUM_KEYPOINTS)])
        self._numbers = Constants(valid, torch.tensor([radius for _, radius in spheres], dtype=torch.float64))
        joint, turn = layout.palm
        self._palm, self._turn = kinematics.link(joint), None if turn is None else Constants(turn.double())

    def forward(self, joint_positions: Tensor) -> HandPose:
        """As `Robot.forward`."""
        self.check_shape(joint_positions)
        frames = self.kinematics.frames(joint_positions)
        keypoints, links = frames.points(self._points).tensor_split([NUM_KEYPOINTS], dim=-2)
        rotation = frames.rotation(*self._palm)
        if self._turn is not None:
            rotation = rotation @ self._turn.like(rotation)[0]
        valid, _ = self._numbers.like(keypoints)
        return HandPose(keypoints, valid, rotation, keypoints[..., self._wrist, :], links, frames)

    def jacobian(self, joint_positions: Tensor) -> tuple[Tensor, Tensor]:
        """As `Robot.jacobian`, exact."""
        pose = self.forward(joint_positions)
        assert pose.frames is not None
        return pose.keypoints, self.kinematics.jacobian(joint_positions, pose.keypoints, pose.frames, self._chains)

    def outline(self, pose: HandPose) -> tuple[Tensor, Tensor]:
        """The spheres that the robot was given, or as `Robot.outline`."""
        _, radii = self._numbers.like(pose.keypoints)
        if pose.frames is None or not len(radii):
            return super().outline(pose)
        return pose.frames.points(self._spheres), radii
