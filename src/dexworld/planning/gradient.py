"""Planning by gradient: Adam through the cost, from several starts at once; alone or after a shooting stage."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dexworld.planning.cem import CEM
from dexworld.planning.protocols import CostFunction, Gaussian, Plan, Solver
from dexworld.planning.search import Archive, check_bounds, clamp, white_noise


@dataclass(frozen=True)
class Adam:
    """Projected Adam on all starts together. Needs a differentiable cost.

    rate: step size in units of the initial std, so that arm and fingers move in proportion. Gradients of a learned
    model can find its errors instead of good plans: check the outcome against CEM.
    """

    steps: int = 30
    rate: float = 0.15

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rate <= 0:
            raise ValueError(f"Adam needs steps >= 1 and rate > 0, got {self.steps} and {self.rate}")

    def refine(
        self, cost_function: CostFunction, starts: Tensor, scale: Tensor, bounds: Tensor, archive: Archive
    ) -> None:
        """Descend from starts (R, T, A), everything seen into the archive. ValueError if the cost has no gradient."""
        with torch.enable_grad():
            unit = scale.clamp_min(1e-6)
            moves = torch.zeros_like(starts).requires_grad_()
            optimiser = torch.optim.Adam([moves], lr=self.rate)
            for step in range(self.steps + 1):
                samples = clamp(starts + unit * moves, bounds)
                costs = cost_function(samples)
                seen = archive.add(samples, costs)
                archive.record(seen, len(seen))
                if step == self.steps:
                    break
                if not costs.requires_grad:
                    raise ValueError("the cost has no gradient: use CEM, or a dynamics whose rollout is differentiable")
                total = torch.where(torch.isfinite(costs), costs, 0.0).sum()
                (gradient,) = torch.autograd.grad(total, moves)  # not backward(): the model's own gradients stay empty
                moves.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
                optimiser.step()
                with torch.no_grad():  # project, or a start beyond a bound would lose its gradient for good
                    moves.copy_((clamp(starts + unit * moves, bounds) - starts) / unit)


@dataclass(frozen=True)
class GradientSolver:
    """Adam from the initial mean, the proposals and random starts, `restarts` in all."""

    restarts: int = 8
    adam: Adam = field(default_factory=Adam)

    def __post_init__(self) -> None:
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, not {self.restarts}")

    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """See `Solver.solve`."""
        check_bounds(bounds, initial.mean.shape[1])
        fixed = initial.mean[None] if proposals is None else torch.cat([initial.mean[None], proposals])
        count = max(self.restarts - len(fixed), 0)
        drawn = initial.mean + initial.std * white_noise((count, *initial.mean.shape), generator, initial.mean)
        archive = Archive(self.restarts)
        self.adam.refine(cost_function, clamp(torch.cat([fixed, drawn]), bounds), initial.std, bounds, archive)
        return archive.plan(initial.std)


@dataclass(frozen=True)
class Hybrid:
    """CEM (with one iteration, plain random shooting), then Adam on its `top` best candidates."""

    shooting: CEM = field(default_factory=lambda: CEM(samples=128, elites=8, iterations=1))
    top: int = 8
    adam: Adam = field(default_factory=Adam)

    def __post_init__(self) -> None:
        if not 1 <= self.top <= self.shooting.elites:
            raise ValueError(f"top must be between 1 and the shooting's {self.shooting.elites} elites, not {self.top}")

    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """See `Solver.solve`."""
        shot = self.shooting.solve(cost_function, initial, bounds, generator, proposals)
        archive = Archive(self.shooting.elites, shot.history)
        archive.add(shot.elites, shot.elite_costs)
        self.adam.refine(cost_function, shot.elites[: self.top], initial.std, bounds, archive)
        return archive.plan(shot.distribution.std)


def kinematic_solver() -> Solver:
    """The solver for terms without a model: gradients through forward kinematics, which is smooth and exact.

    Keypoints in a picture fix the hand's distance only through its size, so a search must converge to a pixel or two.
    CEM doesn't in any reasonable number of samples.
    """
    return GradientSolver(restarts=4, adam=Adam(steps=50))


@dataclass(frozen=True)
class KinematicStart:
    """A search on the terms that need no model (0.2 CPU-seconds). The model-based one starts around what it found.

    STD_SHARE: of the initial std, for the model-based search. MIXED: candidates that still come from the original
    distribution at first, in case the hand alone leads nowhere. TIME_SHARE: of the time until a deadline.
    """

    solver: Solver = field(default_factory=kinematic_solver)

    STD_SHARE: ClassVar[float] = 0.2
    MIXED: ClassVar[int] = 16
    TIME_SHARE: ClassVar[float] = 1 / 3
