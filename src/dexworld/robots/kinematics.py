"""Hinges in a row, batched: a robot's joints as numbers, and their transforms for many configurations at once.

Lengths in metres, angles in radians, quaternions (w, x, y, z).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class Joint(NamedTuple):
    """One hinge. Its body sits at `origin`, turned by `quaternion`, in its parent's frame, and rotates about `axis`.

    limits: radians. torque: newton metres.
    """

    name: str
    origin: Vector
    quaternion: Quaternion
    axis: Vector
    limits: tuple[float, float]
    torque: float


class Constants:
    """Numbers of a robot, kept as float64, with copies for every dtype and device that asks, made once."""

    def __init__(self, *values: Tensor) -> None:
        self._values = values
        self._copies: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def like(self, other: Tensor) -> tuple[Tensor, ...]:
        """The numbers in the dtype and on the device of `other`."""
        key = (other.dtype, other.device)
        if key not in self._copies:
            self._copies[key] = tuple(value.to(other) for value in self._values)
        return self._copies[key]


def joint_terms(joints: Sequence[Joint]) -> Tensor:
    """Constants (J, 3, 16) for `joint_transforms`: parent_from_joint is linear in (1, cos q, sin q)."""
    return torch.stack([_joint_terms(joint) for joint in joints])


def joint_transforms(terms: Tensor, angles: Tensor) -> Tensor:
    """parent_from_joint (..., J, 4, 4) for angles (..., J), all in one product with constants. Differentiable."""
    waves = torch.stack([torch.ones_like(angles), angles.cos(), angles.sin()], dim=-1)  # (..., J, 3)
    return (waves[..., None] * terms).sum(-2).unflatten(-1, (4, 4))


def chained(parent_from_joint: Tensor) -> list[Tensor]:
    """base_from_joint (..., 4, 4) of each joint in a row, from (..., J, 4, 4)."""
    poses = [parent_from_joint[..., 0, :, :]]
    for joint in range(1, parent_from_joint.shape[-3]):
        poses.append(poses[-1] @ parent_from_joint[..., joint, :, :])
    return poses


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
