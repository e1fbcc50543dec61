"""Pushes that the goal's points suggest: the hand goes behind them, seen from where they should be, and then along.

They are the first candidates of a search. Drawn from what pushes look like, they find fewer errors of the world model
than a search of the whole space does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dexworld.geometry import transform_points
from dexworld.hands import LEFT, RIGHT, TIPS
from dexworld.planning.candidates import Scene
from dexworld.planning.protocols import GoalPoints
from dexworld.planning.search import white_noise
from dexworld.robots.robot import Robot

_GAP = (0.01, 0.08)  # metres between the fingertips and the points' centre while the hand pushes
_FREE = 0.03  # metres more, when the hand goes behind first
_ABOVE_TIPS = 0.02  # metres: the height at which points are taken to lie
_STRAIGHT = 0.6  # share of pushes that go straight to where they end
_ASIDE = 0.015  # metres, spread of the line across itself
_UNEVEN = (0.008, 0.008, 0.006)  # metres, of every step along the world's axes


@dataclass(frozen=True)
class Approach:
    """Draws `count` pushes for the first population of a search."""

    count: int = 48

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"an approach needs count >= 1, not {self.count}")

    def displacements(
        self, robot: Robot, scene: Scene, points: GoalPoints, pixels: Tensor, steps: int, generator: torch.Generator
    ) -> Tensor:
        """Translations of the hand, (count, steps, 3) metres a step along the world's axes.

        points: the goal's; pixels (Q, 2): where they are now. They are taken to lie at the height of the fingertips.
        """
        pose = robot.forward(scene.joint_positions)
        keypoints = pose.keypoints[RIGHT if pose.valid[RIGHT].any() else LEFT]
        tips = transform_points(scene.world_from_base, keypoints[list(TIPS[1:4])]).mean(dim=0)
        both = torch.stack([points.share @ pixels, points.share @ points.wanted])
        (start, end), hand = at_height(scene, both, tips[2] + _ABOVE_TIPS)[:, :2], tips[:2]
        ahead = functional.normalize(end - start, dim=0)
        across = torch.stack([-ahead[1], ahead[0]])
        drawn = torch.rand((2, self.count, 1), generator=generator).to(tips)
        noise = white_noise((self.count, 3 * steps + 1), generator, tips)
        gap = _GAP[0] + (_GAP[1] - _GAP[0]) * drawn[0]
        line = _ASIDE * noise[:, -1:] * across - hand
        whole, behind = end - gap * ahead + line, start - (gap + _FREE) * ahead + line
        first = torch.where(drawn[1] < (_STRAIGHT if steps > 1 else 1.0), whole / steps, behind)
        rest = ((whole - first) / max(steps - 1, 1))[:, None].expand(-1, steps - 1, -1)
        way = functional.pad(torch.cat([first[:, None], rest], dim=1), (0, 1))
        uneven = tips.new_tensor(_UNEVEN) * noise[:, :-1].unflatten(-1, (steps, 3))
        return (way + uneven).nan_to_num(0.0, 0.0, 0.0)


def at_height(scene: Scene, pixels: Tensor, height: Tensor) -> Tensor:
    """Where rays through pixels (N, 2) meet the plane at a height, (N, 3) metres, world."""
    rays = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=-1) @ torch.linalg.inv(scene.intrinsics).T
    rays, eye = rays @ scene.world_from_camera[:3, :3].T, scene.world_from_camera[:3, 3]
    return eye + (height - eye[2]) / rays[:, 2:] * rays
