"""Rigid transforms, rotations and pinhole projection, batched in torch.

A transform is a (..., 4, 4) matrix named `target_from_source`: it takes points of the source frame to the target frame.
Camera frames are optical: x right, y down, z forward. Lengths are metres, angles radians, pixels have their origin at
the top-left corner of the image (the centre of the first pixel is (0.5, 0.5)).
"""

import torch
from torch import Tensor


def invert(target_from_source: Tensor) -> Tensor:
    """Inverse of rigid transforms (..., 4, 4)."""
    rotation = target_from_source[..., :3, :3].transpose(-1, -2)
    translation = -(rotation @ target_from_source[..., :3, 3:])
    return rigid(rotation, translation[..., 0])


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """Transforms (..., 4, 4) from rotations (..., 3, 3) and translations (..., 3) in metres."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1.0
    return torch.cat([top, bottom], dim=-2)


def transform_points(target_from_source: Tensor, points: Tensor) -> Tensor:
    """Take points (..., N, 3) in metres from the source to the target frame of transforms (..., 4, 4)."""
    rotation, translation = target_from_source[..., :3, :3], target_from_source[..., None, :3, 3]
    return points @ rotation.transpose(-1, -2) + translation


def project(points_camera: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Pinhole projection of optical-frame points (..., N, 3) with intrinsics (..., 3, 3).

    Returns pixels (..., N, 2) and depth (..., N) in metres. Pixels of points at or behind the camera plane are
    meaningless: test `depth > 0`.
    """
    depth = points_camera[..., 2]
    safe_depth = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    focal = torch.stack([intrinsics[..., 0, 0], intrinsics[..., 1, 1]], dim=-1)
    centre = intrinsics[..., :2, 2]
    pixels = points_camera[..., :2] / safe_depth[..., None] * focal[..., None, :] + centre[..., None, :]
    return pixels, depth


def euler_xyz(rotation: Tensor) -> Tensor:
    """Extrinsic x-y-z Euler angles (..., 3) in radians of rotations (..., 3, 3): R = Rz(c) Ry(b) Rx(a).

    The middle angle lies in [-pi/2, pi/2]; at the gimbal lock the third is set to zero.
    """
    sine = (-rotation[..., 2, 0]).clamp(-1.0, 1.0)
    pitch = torch.asin(sine)
    locked = sine.abs() > 1.0 - 1e-9
    roll = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    yaw = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    roll_locked = torch.atan2(-rotation[..., 1, 2], rotation[..., 1, 1])
    return torch.stack([torch.where(locked, roll_locked, roll), pitch, torch.where(locked, 0.0 * yaw, yaw)], dim=-1)


def rotation_from_euler_xyz(angles: Tensor) -> Tensor:
    """Rotations (..., 3, 3) from extrinsic x-y-z Euler angles (..., 3) in radians."""
    cos, sin = angles.cos().unbind(-1), angles.sin().unbind(-1)
    (cx, cy, cz), (sx, sy, sz) = cos, sin
    rows = [
        torch.stack([cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx], dim=-1),
        torch.stack([sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx], dim=-1),
        torch.stack([-sy, cy * sx, cy * cx], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def geodesic_angle(rotation_a: Tensor, rotation_b: Tensor) -> Tensor:
    """Angle (...,) in radians, 0 to pi, of the rotation that takes (..., 3, 3) `rotation_a` to `rotation_b`.

    Computed from sine and cosine together, so it is accurate near 0 and near pi.
    """
    relative = rotation_a.transpose(-1, -2) @ rotation_b
    trace = relative.diagonal(dim1=-2, dim2=-1).sum(-1)
    skew = relative - relative.transpose(-1, -2)
    axis = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1)
    return torch.atan2(torch.linalg.vector_norm(axis, dim=-1), trace - 1.0)


def wrap_angle(angle: Tensor) -> Tensor:
    """Angles in radians wrapped into [-pi, pi)."""
    return torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
