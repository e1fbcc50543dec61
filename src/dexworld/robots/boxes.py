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
        place = self.world_from_base.to(arm)
        arm = (arm @ place[:3, :3].T + place[:3, 3])[..., None, :]
        outside = torch.maximum(self.low.to(arm) - arm, arm - self.high.to(arm))  # (..., M, K, 3)
        distance = outside.clamp_min(0.0).norm(dim=-1) + outside.amax(-1).clamp_max(0.0)
        return (ARM_RADIUS - distance).amax((-1, -2))
