"""Model predictive path integral control (Williams et al. 2017), with elites as in TD-MPC (Hansen et al. 2022)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dexworld.planning.protocols import Gaussian
from dexworld.planning.search import PopulationSolver


@dataclass(frozen=True)
class MPPI(PopulationSolver):
    """Like CEM, but elites count by the softmax of their costs.

    temperature: in standard deviations of the elites' costs, so that it means the same for any objective; small
    values trust the best alone. std_decay: the std is the larger of the weighted elites' own and std_decay times the
    last one.
    """

    samples: int = 128
    elites: int = 32
    iterations: int = 6
    std_floor: float = 0.0
    temperature: float = 0.5
    std_decay: float = 0.5

    def __post_init__(self) -> None:
        self.check()
        if self.temperature <= 0 or not 0 <= self.std_decay <= 1:
            raise ValueError("MPPI needs temperature > 0 and std_decay between 0 and 1")

    def refit(self, current: Gaussian, elites: Tensor, costs: Tensor) -> Gaussian:
        """Softmax-weighted mean and std of the elites."""
        scale = self.temperature * costs.std(correction=0) + 1e-12
        weights = torch.softmax(-(costs - costs[0]) / scale, dim=0)[:, None, None]
        mean = (weights * elites).sum(0)
        spread = (weights * (elites - mean).square()).sum(0).sqrt()
        return Gaussian(mean, torch.maximum(spread, self.std_decay * current.std))
