"""Transforms, projection and angles, against results worked out by hand."""

import math

import pytest
import torch

from dexworld.geometry import (
    euler_xyz,
    geodesic_angle,
    invert,
    project,
    rigid,
    rotation_from_euler_xyz,
    transform_points,
    wrap_angle,
)

INTRINSICS = torch.tensor([[100.0, 0, 50], [0, 200, 30], [0, 0, 1]], dtype=torch.float64)


def random_rotations(count: int) -> torch.Tensor:
    angles = torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rotation_from_euler_xyz((angles - 0.5) * torch.tensor([6.2, 3.1, 6.2], dtype=torch.float64))


def about_z(angle: float) -> torch.Tensor:
    return rotation_from_euler_xyz(torch.tensor([0.0, 0.0, angle], dtype=torch.float64))


def test_a_point_is_projected_by_focal_length_over_depth_from_the_principal_point():
    points = torch.tensor([[0.5, -0.1, 2.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    pixels, depth = project(points, INTRINSICS)
    assert pixels.tolist() == [[75.0, 20.0], [50.0, 30.0]]
    assert depth.tolist() == [2.0, 1.0]
    # behind the camera, and in its plane
    points = torch.tensor([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0]], dtype=torch.float64)
    pixels, depth = project(points, INTRINSICS)
    assert depth.tolist() == [-1.0, 0.0]
    assert torch.isfinite(pixels).all()


def test_a_transform_rotates_then_translates():
    target_from_source = rigid(about_z(math.pi / 2), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    moved = transform_points(target_from_source, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))
    assert torch.allclose(moved, torch.tensor([[1.0, 3.0, 3.0]], dtype=torch.float64))


def test_the_inverse_takes_points_back_in_batches():
    transforms = rigid(random_rotations(8), torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double())
    assert torch.allclose(invert(transforms) @ transforms, torch.eye(4).double().expand(8, 4, 4), atol=1e-12)


def test_euler_angles_come_back_from_their_rotation():
    angles = torch.tensor([[0.3, -1.2, 2.9], [-3.0, 1.5, -0.1], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(euler_xyz(rotation_from_euler_xyz(angles)), angles, atol=1e-9)


def test_at_the_gimbal_lock_the_angles_still_describe_the_rotation():
    for pitch in (math.pi / 2, -math.pi / 2):
        locked = rotation_from_euler_xyz(torch.tensor([0.4, pitch, 0.7], dtype=torch.float64))
        angles = euler_xyz(locked)
        assert angles[2] == 0
        assert torch.allclose(rotation_from_euler_xyz(angles), locked, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.5, math.pi - 1e-7, math.pi])
def test_the_angle_between_rotations_is_exact_near_zero_and_near_pi_and_symmetric(angle):
    start = random_rotations(1)[0]
    assert geodesic_angle(start, start @ about_z(angle)).item() == pytest.approx(angle, abs=1e-9)
    first, second = random_rotations(12).split(6)
    assert torch.allclose(geodesic_angle(first, second), geodesic_angle(second, first))


def test_angles_are_wrapped_into_one_turn_and_pi_becomes_minus_pi():
    angles = torch.tensor([0.0, math.pi, -math.pi, 3.5, -3.5, 7.0], dtype=torch.float64)
    turn = 2 * math.pi
    expected = torch.tensor([0.0, -math.pi, -math.pi, 3.5 - turn, turn - 3.5, 7.0 - turn], dtype=torch.float64)
    assert torch.allclose(wrap_angle(angles), expected)
