"""Batched forward kinematics of the Franka Panda with an Allegro hand: from joint angles to hand keypoints.

Every joint's transform is linear in (1, cos q, sin q), so all 23 come out of one product with constants; then the arm's
are chained, and the four fingers side by side. This runs for every candidate of a planner.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dexworld.actions import ActionConvention, HandMotion, hand_motion
from dexworld.geometry import transform_points
from dexworld.hands import ARM_JOINTS, NUM_KEYPOINTS, RIGHT, ROBOT_JOINTS
from dexworld.robots.franka_allegro import FLANGE, HAND, HAND_ON_FLANGE, JOINTS, Joint

TipConvention = Literal["true", "release"]
_INDEX, _MIDDLE, _RING, _THUMB = range(4)


@dataclass(frozen=True)
class HandPose:
    """Where the hand is, in the robot's base frame (`panda_link0`), metres.

    keypoints: (..., 42, 3); the left hand's rows are zero. valid: (42,) bool, true for the right hand's rows.
    hand_rotation: (..., 3, 3), base_from_palm. wrist: (..., 3), the flange's origin, which is the wrist keypoint.
    arm: (..., 7, 3), origins of the arm's joints; 3 is the elbow, 4 and 5 the end of the forearm.
    """

    keypoints: Tensor
    valid: Tensor
    hand_rotation: Tensor
    wrist: Tensor
    arm: Tensor


class FrankaAllegro:
    """Kinematics of the reference robot.

    tips: `true` takes joints 1, 2, 3 and the fingertip of every finger, as on a human hand; `release` takes the
        origins of the four links, so that its "tip" is the last joint, 27 to 42 mm short (what the DexWM release does).
        In both, the ring finger stands in for the little finger too.
    dtype, device: of the constants and of `limits`. Inputs of another kind use their own copy, made once.
    """

    def __init__(
        self,
        tips: TipConvention = "true",
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if tips not in ("true", "release"):
            raise ValueError(f"tips is {tips!r}; choose 'true' (fingertips) or 'release' (last joints)")
        self.tips: TipConvention = tips
        self._limits = torch.tensor([joint.limits for joint in JOINTS], dtype=torch.float64)
        self.limits = self._limits.to(device, dtype)
        self._terms = torch.stack([_joint_terms(joint) for joint in JOINTS])  # (23, 3, 16): 1, cos and sin parts
        self._flange = torch.tensor(FLANGE, dtype=torch.float64)
        self._palm_offset = torch.tensor(HAND_ON_FLANGE, dtype=torch.float64)
        self._tip_offsets = torch.tensor([finger.tip for finger in HAND], dtype=torch.float64)
        self._cache: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def forward(self, joint_positions: Tensor) -> HandPose:
        """Hand pose for joint angles (..., 23) in radians, arm then fingers. Differentiable.

        Raises ValueError if the last dimension isn't 23. Limits aren't checked here: see `clamp`.
        """
        if joint_positions.shape[-1:] != (ROBOT_JOINTS,):
            raise ValueError(
                f"joint positions have shape {tuple(joint_positions.shape)}, expected (..., {ROBOT_JOINTS})"
            )
        terms, flange, palm_offset, tip_offsets, valid = self._constants(joint_positions)
        batch = joint_positions.shape[:-1]
        joints = joint_positions.reshape(-1, ROBOT_JOINTS)
        waves = torch.stack([torch.ones_like(joints), joints.cos(), joints.sin()], dim=-1)  # (B, 23, 3)
        local = (waves[..., None] * terms).sum(-2).unflatten(-1, (4, 4))  # (B, 23, 4, 4) parent_from_joint

        base_from_link = local[:, 0]
        arm = [base_from_link[:, :3, 3]]
        for joint in range(1, ARM_JOINTS):
            base_from_link = base_from_link @ local[:, joint]
            arm.append(base_from_link[:, :3, 3])
        rotation = base_from_link[:, :3, :3]
        wrist = arm[-1] + (rotation @ flange[:, None])[..., 0]  # the flange isn't turned against joint 7

        fingers = local[:, ARM_JOINTS:].unflatten(1, (len(HAND), 4))  # (B, 4 fingers, 4 joints, 4, 4)
        palm_from_link = fingers[:, :, 0]
        origins = [palm_from_link[..., :3, 3]]
        for joint in (1, 2, 3):
            palm_from_link = palm_from_link @ fingers[:, :, joint]
            origins.append(palm_from_link[..., :3, 3])
        if self.tips == "true":
            tip = palm_from_link[..., :3, 3] + (palm_from_link[..., :3, :3] @ tip_offsets[..., None])[..., 0]
            origins = [*origins[1:], tip]
        points = torch.stack(origins, dim=2) + palm_offset  # (B, 4 fingers, 4, 3) in the flange frame
        points = points[:, (_THUMB, _INDEX, _MIDDLE, _RING, _RING)].flatten(1, 2)  # (B, 20, 3)
        points = points @ rotation.transpose(-1, -2) + wrist[:, None]

        left = points.new_zeros(len(joints), RIGHT.start, 3)
        keypoints = torch.cat([left, wrist[:, None], points], dim=1)
        return HandPose(
            keypoints.reshape(*batch, NUM_KEYPOINTS, 3),
            valid,
            rotation.reshape(*batch, 3, 3),
            wrist.reshape(*batch, 3),
            torch.stack(arm, dim=1).reshape(*batch, ARM_JOINTS, 3),
        )

    def clamp(self, joint_positions: Tensor) -> Tensor:
        """Joint angles (..., 23) moved to the nearest point within the limits."""
        limits = self.limits.to(joint_positions)
        return torch.minimum(torch.maximum(joint_positions, limits[:, 0]), limits[:, 1])

    def _constants(self, like: Tensor) -> tuple[Tensor, ...]:
        key = (like.dtype, like.device)
        if key not in self._cache:
            valid = torch.zeros(NUM_KEYPOINTS, dtype=torch.bool, device=like.device)
            valid[RIGHT] = True
            floats = (self._terms, self._flange, self._palm_offset, self._tip_offsets)
            self._cache[key] = (*(value.to(like) for value in floats), valid)
        return self._cache[key]


def motion_from_joints(
    kinematics: FrankaAllegro,
    joint_path: Tensor,
    world_from_base: Tensor,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    convention: ActionConvention = ActionConvention(),
) -> HandMotion:
    """The hand motion, as the world model sees it, of a robot that goes through T + 1 joint vectors.

    joint_path (..., T + 1, 23) radians, world_from_base (4, 4), intrinsics (3, 3), world_from_camera (4, 4) for a still
    camera or (..., T + 1, 4, 4). All floating-point inputs must have the path's dtype and device.
    """
    pose = kinematics.forward(joint_path)
    keypoints_world = transform_points(world_from_base, pose.keypoints)
    cameras = world_from_camera.expand(*joint_path.shape[:-1], 4, 4)
    return hand_motion(keypoints_world, pose.valid.expand(keypoints_world.shape[:-1]), cameras, intrinsics, convention)


def _joint_terms(joint: Joint) -> Tensor:
    """Constant, cosine and sine parts (3, 16) of parent_from_joint(q): Rodrigues' formula after the fixed transform."""
    axis = torch.tensor(joint.axis, dtype=torch.float64)
    along = torch.outer(axis, axis)
    x, y, z = joint.axis
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    fixed = _quaternion_matrix(joint.quaternion)
    terms = torch.zeros(3, 4, 4, dtype=torch.float64)
    terms[0, :3, :3] = fixed @ along
    terms[0, :3, 3] = torch.tensor(joint.origin, dtype=torch.float64)
    terms[0, 3, 3] = 1.0
    terms[1, :3, :3] = fixed @ (torch.eye(3, dtype=torch.float64) - along)
    terms[2, :3, :3] = fixed @ cross
    return terms.flatten(1)


def _quaternion_matrix(quaternion: tuple[float, float, float, float]) -> Tensor:
    """Rotation (3, 3) of a quaternion (w, x, y, z), normalised first."""
    w, x, y, z = (torch.tensor(quaternion, dtype=torch.float64) / torch.tensor(quaternion).double().norm()).tolist()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor(rows, dtype=torch.float64)
