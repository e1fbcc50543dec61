"""What stands around a robot: boxes that its arm has to stay out of."""

from typing import NamedTuple

import torch
from torch import Tensor

Corner = tuple[float, float, float]
Box = tuple[Corner, Corner]  # low and high, metres in the world
ARM_RADIUS = 0.07  # metres
_ALONG = 9  # places along a link


class Boxes(NamedTuple):
    """K boxes along the world's axes, low and high (K, 3) metres, around a robot whose base stands at (4, 4)."""

    low: Tensor
    high: Tensor
    world_from_base: Tensor

    def depth(self, links: Tensor) -> Tensor:
        """How deep the deepest place of arms (..., L, 3), origins in the base frame, is in a box, metres (...).

        Negative outside. An arm is `ARM_RADIUS` thick.
        """
        share = torch.linspace(0.0, 1.0, _ALONG).to(links)[:, None, None]
        arm = torch.lerp(links[..., None, :-1, :], links[..., None, 1:, :], share).flatten(-3, -2)  # (..., M, 3)
        return self.sphere_depth(arm, arm.new_tensor(ARM_RADIUS))

    def sphere_depth(self, centres: Tensor, radii: Tensor) -> Tensor:
        """How deep the deepest of M spheres, centres (..., M, 3) in the base frame, is in a box, metres (...)."""
        places = self._in_world(centres)
        outside = torch.maximum(self.low.to(places) - places, places - self.high.to(places))  # (..., M, K, 3)
        distance = outside.clamp_min(0.0).norm(dim=-1) + outside.amax(-1).clamp_max(0.0)
        return (radii[..., None] - distance).amax((-1, -2))

    def sphere_overhang(self, centres: Tensor, radii: Tensor) -> Tensor:
        """How far the sphere that is furthest out sticks out of the nearest box, metres (...). Negative inside."""
        places = self._in_world(centres)
        beyond = torch.maximum(self.low.to(places) - places, places - self.high.to(places)).amax(-1)  # (..., M, K)
        return (beyond.amin(-1) + radii).amax(-1)

    def _in_world(self, points: Tensor) -> Tensor:
        """Points (..., M, 3) of the base frame in the world's, (..., M, 1, 3) beside the boxes."""
        place = self.world_from_base.to(points)
        return (points @ place[:3, :3].T + place[:3, 3])[..., None, :]
