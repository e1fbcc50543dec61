"""What all solvers share: bounded samples and the archive of the best candidates."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dexworld.planning.protocols import Gaussian, IterationStatistics, Plan


def check_bounds(bounds: Tensor, actions: int) -> None:
    """Raises ValueError unless bounds (A, 2) are finite, for `actions` numbers, and every low is at most its high."""
    if tuple(bounds.shape) != (actions, 2):
        raise ValueError(f"bounds have shape {tuple(bounds.shape)}, expected ({actions}, 2)")
    if not torch.isfinite(bounds).all() or (bounds[:, 0] > bounds[:, 1]).any():
        raise ValueError("bounds must be finite, with low <= high for every action")


def clamp(samples: Tensor, bounds: Tensor) -> Tensor:
    """Samples (..., A) moved into bounds (A, 2)."""
    return torch.minimum(torch.maximum(samples, bounds[:, 0]), bounds[:, 1])


def white_noise(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers from an explicit generator, on the device and in the dtype of `like`.

    Drawn on the generator's own device in single precision, so that one seed gives one plan whatever runs the model.
    """
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


class Archive:
    """The best `size` candidates ever evaluated, best first, and a record of every iteration."""

    def __init__(self, size: int, history: Sequence[IterationStatistics] = ()) -> None:
        self.size, self.history = size, list(history)
        self.samples, self.costs = torch.empty(0), torch.empty(0)

    def add(self, samples: Tensor, costs: Tensor) -> Tensor:
        """Take in candidates (N, T, A) with costs (N,). Returns the costs; those that aren't finite are Inf in them.

        Raises ValueError if no cost so far is finite: the objective or the model is broken.
        """
        samples, costs = samples.detach(), costs.detach()
        if costs.shape != samples.shape[:1]:
            raise ValueError(f"the cost function gave {tuple(costs.shape)} costs for {len(samples)} candidates")
        costs = torch.where(torch.isfinite(costs), costs, math.inf)
        pool, values = samples, costs
        if len(self.samples):
            pool, values = torch.cat([self.samples, samples]), torch.cat([self.costs, costs])
        order = values.argsort(stable=True)[: 3 * self.size]
        if not math.isfinite(float(values[order[0]])):
            raise ValueError("every candidate's cost is NaN or Inf: check the goal, the observation and the model")
        pool, values = pool[order], values[order]
        same = (pool[:, None] == pool).flatten(2).all(-1).tril(-1).any(-1)  # a candidate that was evaluated again
        self.samples, self.costs = pool[~same][: self.size], values[~same][: self.size]
        return costs

    def record(self, costs: Tensor, elites: int) -> None:
        """Record an iteration: its costs (N,) from `add`, and how many of them are elites."""
        best = costs.sort().values[:elites]
        finite = best[torch.isfinite(best)]
        mean = float(finite.mean()) if len(finite) else math.inf
        self.history.append(IterationStatistics(float(best[0]), mean, len(costs)))

    def plan(self, std: Tensor, mean: Tensor | None = None) -> Plan:
        """The search's outcome, with the distribution that it ended with; by default around the best candidate."""
        distribution = Gaussian(self.samples[0].clone() if mean is None else mean, std)
        finite = torch.isfinite(self.costs)
        samples, costs = self.samples[finite], self.costs[finite]
        return Plan(samples[0].clone(), float(costs[0]), distribution, samples, costs, tuple(self.history))
