"""What all solvers share: bounded samples, the archive of the best candidates, the loop over populations."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dexworld.planning.protocols import CostFunction, Gaussian, IterationStatistics, Plan


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


@dataclass(frozen=True)
class PopulationSolver(ABC):
    """The loop that CEM, iCEM and MPPI share: draw, keep inside the bounds, evaluate, refit.

    A population's first rows are the distribution's mean, the best candidate so far, and what `carry` adds.
    std_floor: smallest std, as a share of the initial one; it keeps the search from freezing early.
    """

    samples: int = 128
    elites: int = 10
    iterations: int = 6
    std_floor: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 1 <= self.elites <= self.samples:
            raise ValueError(f"a search needs iterations >= 1 and 1 <= elites <= samples, not {self}")
        if self.std_floor < 0:
            raise ValueError(f"std_floor must not be negative, not {self.std_floor}")

    def population_size(self, iteration: int) -> int:
        """Number of candidates in an iteration."""
        return self.samples

    @abstractmethod
    def refit(self, current: Gaussian, elites: Tensor, costs: Tensor) -> Gaussian:
        """The next distribution from the population's elites (E, T, A), best first, and their finite costs (E,)."""

    def noise(self, count: int, current: Gaussian, generator: torch.Generator) -> Tensor:
        """Noise (count, T, A) of unit variance."""
        return white_noise((count, *current.mean.shape), generator, current.mean)

    def carry(self, elites: Tensor | None) -> list[Tensor]:
        """More candidates to join the population, each (E, T, A), given the last iteration's elites."""
        return []

    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """See `Solver.solve`. The paper's CEM draws no more than this does; proposals join the first population."""
        check_bounds(bounds, initial.mean.shape[1])
        current, elites, archive = initial, None, Archive(self.elites)
        with torch.no_grad():
            for iteration in range(self.iterations):
                # Draw.
                fixed = [current.mean[None], *self.carry(elites)]
                if len(archive.samples):
                    fixed.insert(1, archive.samples[:1])
                elif proposals is not None:
                    fixed.append(proposals)
                kept = torch.cat(fixed)
                count = max(self.population_size(iteration) - len(kept), 0)
                drawn = current.mean + current.std * self.noise(count, current, generator)
                samples = clamp(torch.cat([kept, drawn]), bounds)
                # Evaluate.
                costs = archive.add(samples, cost_function(samples))
                best = costs.argsort(stable=True)[: self.elites]
                best = best[torch.isfinite(costs[best])]
                elites = samples[best]
                # Refit.
                if len(best):
                    current = self.refit(current, elites, costs[best])
                current = Gaussian(current.mean, torch.maximum(current.std, self.std_floor * initial.std))
                archive.record(costs, self.elites)
        return archive.plan(current.std, current.mean)
