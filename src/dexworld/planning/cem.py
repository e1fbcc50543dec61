"""The cross-entropy method, the population search of the DexWM paper."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dexworld.planning.protocols import CostFunction, Gaussian, Plan
from dexworld.planning.search import Archive, check_bounds, clamp, white_noise


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method with a diagonal Gaussian (DexWM paper, section 4.4: 512 samples, 10 elites, 10 iterations).

    momentum: share of the old mean and std that is kept. std_floor: smallest std, as a share of the initial one; it
    keeps the search from freezing early. A population's first rows are the distribution's mean and the best candidate
    so far. Unlike in the release, candidates respect the bounds, and the plan is the best candidate ever seen instead
    of the final mean.
    """

    samples: int = 512
    elites: int = 10
    iterations: int = 10
    std_floor: float = 0.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 1 <= self.elites <= self.samples:
            raise ValueError(f"a search needs iterations >= 1 and 1 <= elites <= samples, not {self}")
        if self.std_floor < 0 or not 0 <= self.momentum < 1:
            raise ValueError(f"std_floor must not be negative and momentum must be in [0, 1), not {self}")

    def refit(self, current: Gaussian, elites: Tensor) -> Gaussian:
        """Mean and (population) std of the elites (E, T, A), as the release computes them."""
        mean, std = elites.mean(0), elites.std(0, correction=0)
        mean = self.momentum * current.mean + (1 - self.momentum) * mean
        std = self.momentum * current.std + (1 - self.momentum) * std
        return Gaussian(mean, std)

    @torch.no_grad()
    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """See `Solver.solve`. Proposals join the first population."""
        check_bounds(bounds, initial.mean.shape[1])
        current, archive = initial, Archive(self.elites)
        for _ in range(self.iterations):
            fixed = [current.mean[None]]
            if len(archive.samples):
                fixed.append(archive.samples[:1])
            elif proposals is not None:
                fixed.append(proposals)
            kept = torch.cat(fixed)
            shape = (max(self.samples - len(kept), 0), *current.mean.shape)
            drawn = current.mean + current.std * white_noise(shape, generator, current.mean)
            samples = clamp(torch.cat([kept, drawn]), bounds)
            costs = archive.add(samples, cost_function(samples))
            best = costs.argsort(stable=True)[: self.elites]
            best = best[torch.isfinite(costs[best])]
            if len(best):
                current = self.refit(current, samples[best])
            current = Gaussian(current.mean, torch.maximum(current.std, self.std_floor * initial.std))
            archive.record(costs, self.elites)
        return archive.plan(current.std, current.mean)
