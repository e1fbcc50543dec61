"""The seam of robots: what data, planning and evaluation know of one.

`Robot.from_file` reads one from an MJCF or URDF file and a description of its hand; `examples/my_robot.py` shows it.
A robot that no file describes is a subclass with its joints and its `forward`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dexworld.geometry import transform_points
from dexworld.hands import RIGHT
from dexworld.robots.kinematics import Frames
from dexworld.track import Track

LIMIT_SLACK = 1e-4  # radians; rounding of float32 policies
DIFFERENCE = 1e-6  # radians or metres, of derivatives that a robot has no formula for


@dataclass(frozen=True)
class HandPose:
    """Where the hand is, in the robot's base frame, metres.

    keypoints: (..., 42, 3); rows that the robot doesn't have are zero. valid: (42,) bool, the rows that it has.
    hand_rotation: (..., 3, 3), base_from_palm. wrist: (..., 3), the wrist keypoint.
    links: (..., L, 3), origins of the arm's joints from the base on: what the robot's own outline is made of.
    frames: of all links, where the robot is a `TreeRobot`.
    """

    keypoints: Tensor
    valid: Tensor
    hand_rotation: Tensor
    wrist: Tensor
    links: Tensor
    frames: Frames | None = None


@dataclass(frozen=True)
class Grip:
    """How a hand takes things: world_from_palm, rows (3, 3); where they lie in it, metres from the wrist along the
    palm's axes; the fingers' joint targets (F,), opened and closed.
    """

    world_from_palm: tuple[tuple[float, float, float], ...]
    centre: tuple[float, float, float]
    opened: tuple[float, ...]
    closed: tuple[float, ...]


@dataclass(frozen=True)
class Motion:
    """How fast joints (J,) may move: velocities and accelerations, radians and seconds. lag: how far a command may lead
    the measured position, radians, a proxy of torque.
    """

    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    lag: tuple[float, ...]


class Robot(ABC):
    """A robot with a hand, as numbers and batched kinematics. It holds no state.

    joints: their names, in the order of every joint vector (J,). limits: (J, 2) float64, low and high. arm: the joints
    that move the hand about; planners search them with the arm's spread and the others with the fingers'. grip: how its
    hand takes things, and motion: how fast it may move; None if nobody said.
    """

    joints: tuple[str, ...]
    arm: slice
    limits: Tensor
    grip: Grip | None = None
    motion: Motion | None = None

    @staticmethod
    def from_file(model: str | Path, description: str | Path) -> "Robot":
        """The robot of an MJCF or URDF file, with a hand as a TOML file describes it; see docs/robots.md.

        Needs MuJoCo (extra `sim`) to read the file, not to use the robot. Raises ValueError that says what to change.
        """
        return import_module("dexworld.robots.described_robot").read_robot(model, description)  # imports this module

    @staticmethod
    def named(name: str) -> "Robot":
        """A robot that dexworld ships a description of, such as `allegro-right`; an installed package has its model.

        Raises ValueError for an unknown name, and FileNotFoundError that says which package to install.
        """
        return import_module("dexworld.robots.described_robot").named_robot(name)

    @property
    def fingers(self) -> slice:
        """The joints after the arm's."""
        return slice(self.arm.stop, len(self.joints))

    @abstractmethod
    def forward(self, joint_positions: Tensor) -> HandPose:
        """Hand pose for joint positions (..., J), in their dtype and on their device. Differentiable.

        Raises ValueError if the last dimension isn't J. Limits aren't checked here: see `clamp`.
        """

    def jacobian(self, joint_positions: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (..., 42, 3), and how the joints change them, (..., 3, 42, J). By default from differences."""
        count = joint_positions.shape[-1]
        steps = DIFFERENCE * torch.eye(count, dtype=joint_positions.dtype, device=joint_positions.device)
        here, ahead = self.forward(joint_positions), self.forward(joint_positions[..., None, :] + steps)
        change = (ahead.keypoints - here.keypoints[..., None, :, :]) / DIFFERENCE  # (..., J, 42, 3)
        return here.keypoints, change.transpose(-3, -1)

    def outline(self, pose: HandPose) -> tuple[Tensor, Tensor]:
        """Spheres that cover the robot: centres (..., M, 3) in the base frame and radii (M,), metres.

        By default 3 cm around the keypoints that there are.
        """
        centres = pose.keypoints[..., pose.valid, :]
        return centres, centres.new_full(centres.shape[-2:-1], 0.03)

    def clamp(self, joint_positions: Tensor) -> Tensor:
        """Joint positions (..., J) moved to the nearest point within the limits."""
        limits = self.limits.to(joint_positions)
        return torch.minimum(torch.maximum(joint_positions, limits[:, 0]), limits[:, 1])

    def check_targets(self, targets: np.ndarray) -> np.ndarray:
        """Joint targets (J,) that are finite and within the limits; ValueError names the joint otherwise.

        Targets that rounding put `LIMIT_SLACK` outside are moved to the limit.
        """
        targets, limits = np.asarray(targets, float), self.limits.cpu().numpy()
        if targets.shape != (len(self.joints),):
            raise ValueError(f"joint targets have shape {targets.shape}, expected ({len(self.joints)},)")
        if not np.isfinite(targets).all():
            raise ValueError(f"joint target {int(np.argmin(np.isfinite(targets)))} is NaN or Inf; nothing was moved")
        outside = (targets < limits[:, 0] - LIMIT_SLACK) | (targets > limits[:, 1] + LIMIT_SLACK)
        if outside.any():
            joint = int(np.argmax(outside))
            span = "[{:.3f}, {:.3f}]".format(*limits[joint])
            raise ValueError(
                f"joint {joint} is asked to go to {targets[joint]:.3f}, outside {span} "
                f"of {self.joints[joint]}; clip targets to the robot's `limits` first"
            )
        return np.clip(targets, limits[:, 0], limits[:, 1])

    def track(
        self, joint_path: Tensor, world_from_base: Tensor, world_from_camera: Tensor, intrinsics: Tensor
    ) -> Track:
        """The track of a robot that goes through T joint vectors, as a camera sees it; see `keypoint_track`.

        joint_path: (..., T, J). All floating-point inputs must have the path's dtype and device.
        """
        pose = self.forward(joint_path)
        return keypoint_track(pose.keypoints, pose.valid, world_from_base, world_from_camera, intrinsics)

    def check_shape(self, joint_positions: Tensor) -> None:
        """Raises ValueError unless the last dimension is J."""
        shape, joints = tuple(joint_positions.shape), len(self.joints)
        if shape[-1:] != (joints,):
            raise ValueError(f"joint positions have shape {shape}, expected (..., {joints})")


def keypoint_track(
    keypoints_base: Tensor, valid: Tensor, world_from_base: Tensor, world_from_camera: Tensor, intrinsics: Tensor
) -> Track:
    """A track (..., T) of keypoints (..., T, 42, 3) in the base frame, of which the rows `valid` (42,) exist.

    world_from_base: (4, 4). intrinsics: (3, 3). world_from_camera: (4, 4) of a still camera or (..., T, 4, 4).
    """
    *batch, length = keypoints_base.shape[:-2]
    keypoints_world = transform_points(world_from_base, keypoints_base)
    return Track(
        world_from_camera.expand(*batch, length, 4, 4),
        intrinsics.expand(*batch, 3, 3),
        {"keypoints_world": keypoints_world, "keypoints_valid": valid.expand(keypoints_world.shape[:-1])},
    )


def right_hand_pose(wrist: Tensor, fingers: Tensor, hand_rotation: Tensor, links: Tensor) -> HandPose:
    """The pose of a robot with a right hand: its wrist (..., 3), and four joints each of five fingers (..., 20, 3)."""
    left = fingers.new_zeros(*fingers.shape[:-2], RIGHT.start, 3)
    valid = torch.zeros(RIGHT.stop, dtype=torch.bool, device=fingers.device)
    valid[RIGHT] = True
    return HandPose(torch.cat([left, wrist[..., None, :], fingers], dim=-2), valid, hand_rotation, wrist, links)


def spheres(lines: Sequence[tuple[Tensor, Tensor, int, float]]) -> tuple[Tensor, Tensor]:
    """An outline from lines, each from (..., 3) to (..., 3), with so many spheres of a radius in metres along it."""
    centres, radii = [], []
    for start, end, count, radius in lines:
        share = torch.linspace(0.0, 1.0, count, dtype=start.dtype, device=start.device)[:, None]
        centres.append(start[..., None, :] + share * (end - start)[..., None, :])
        radii += [radius] * count
    return torch.cat(centres, dim=-2), lines[0][0].new_tensor(radii)
