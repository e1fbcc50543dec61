"""Pushes that the goal's points suggest."""

import numpy as np
import pytest
import torch
from helpers_planning import HEIGHT, WIDTH, observation

from dexworld.geometry import invert, project, transform_points
from dexworld.hands import RIGHT, TIPS
from dexworld.planning.approach import Approach
from dexworld.planning.candidates import Scene
from dexworld.planning.protocols import GoalPoints
from dexworld.robots.franka_allegro import FrankaAllegro

ROBOT = FrankaAllegro()


def scene():
    """What `observation` shows, with a camera a metre above the fingertips that looks down on them."""
    seen = observation()
    values = (seen.joint_positions, seen.joint_targets, seen.world_from_base)
    joints, targets, base = (torch.as_tensor(value, dtype=torch.float64) for value in values)
    hand = transform_points(base, ROBOT.forward(joints).keypoints[RIGHT][list(TIPS[1:4])]).mean(dim=0)
    camera = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    camera[:3, 3] = hand + torch.tensor([0.0, 0.0, 1.0])
    intrinsics = torch.tensor([[200.0, 0, WIDTH / 2], [0, 200.0, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)
    return Scene(joints, targets, base, camera, intrinsics, (HEIGHT, WIDTH)), hand


def pixels_of(place, offset):
    """Pixels (1, 2) of what lies `offset` metres from the fingertips on the plane that points are taken to lie on."""
    where, hand = place
    point = hand + torch.tensor([*offset, 0.02])
    return project(transform_points(invert(where.world_from_camera), point[None]), where.intrinsics)[0]


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, -1.0), (0.6, 0.8)])
def test_the_hand_ends_behind_where_the_points_should_be_and_never_before_them(direction, steps):
    place, ahead = scene(), np.array(direction)
    start, wanted = pixels_of(place, 0.1 * ahead), pixels_of(place, 0.3 * ahead)
    points = GoalPoints(start, wanted, torch.ones(1, dtype=torch.float64))
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    drawn, again = (Approach(200).displacements(ROBOT, place[0], points, start, steps, each) for each in generators)
    assert drawn.shape == (200, steps, 3)
    assert torch.equal(drawn, again)
    end = drawn.sum(dim=1)
    along, aside = end[:, :2] @ torch.tensor(ahead), end[:, :2] @ torch.tensor([-ahead[1], ahead[0]])
    assert 0.24 < along.mean() < 0.27  # 0.3 less the gap
    assert along.max() < 0.34
    assert aside.mean().abs() < 0.01
    assert aside.std() < 0.03
    assert end[:, 2].abs().max() < 0.05


def test_points_that_are_moved_nowhere_or_lie_at_the_horizon_give_finite_pushes():
    where, _ = place = scene()
    start = pixels_of(place, (0.1, 0.0))
    points = GoalPoints(start, start, torch.zeros(1, dtype=torch.float64))
    level = where.world_from_camera.clone()
    level[:3, :3] = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    for seen in (where, Scene(**{**vars(where), "world_from_camera": level})):
        pixels = torch.tensor([[WIDTH / 2, HEIGHT / 2]], dtype=torch.float64)
        moves = Approach(8).displacements(ROBOT, seen, points, pixels, 3, torch.Generator().manual_seed(0))
        assert torch.isfinite(moves).all()


def test_an_approach_without_candidates_is_refused():
    with pytest.raises(ValueError, match="count"):
        Approach(0)
