"""Solvers on costs whose optimum is known and isn't where they start."""

import math

import pytest
import torch

from dexworld.planning.cem import CEM
from dexworld.planning.gradient import Adam, GradientSolver, Hybrid
from dexworld.planning.protocols import Gaussian
from dexworld.planning.search import Archive

STEPS, ACTIONS = 3, 4
SOLVERS = {
    "cem": CEM(samples=200, elites=15, iterations=15),
    "cem with momentum": CEM(samples=200, elites=15, iterations=20, momentum=0.2, std_floor=0.01),
    "gradient": GradientSolver(restarts=4, adam=Adam(steps=60, rate=0.15)),
    "hybrid": Hybrid(CEM(samples=64, elites=8, iterations=1), top=4, adam=Adam(steps=60, rate=0.15)),
    "hybrid of cem": Hybrid(CEM(samples=64, elites=8, iterations=5), top=4, adam=Adam(steps=40, rate=0.1)),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS.keys())


class Bowl:
    """Squared distance to an optimum, remembering every candidate."""

    def __init__(self, optimum):
        self.optimum, self.samples, self.costs = optimum, [], []

    def __call__(self, samples):
        costs = (samples - self.optimum).square().sum((-1, -2))
        self.samples.append(samples.detach().clone())
        self.costs.append(costs.detach().clone())
        return costs


def optimum():
    return torch.tensor([[0.8, -0.5, 0.3, 0.0], [0.9, -0.7, 0.1, 0.4], [-0.6, 0.2, 0.5, -0.4]])


def start(std=0.5):
    return Gaussian(torch.zeros(STEPS, ACTIONS), torch.full((STEPS, ACTIONS), std))


def box(half=2.0):
    return torch.tensor([[-half, half]] * ACTIONS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@every_solver
def test_finds_an_optimum_that_is_not_its_start(solver):
    cost = Bowl(optimum())
    plan = solver.solve(cost, start(), box(), generator())
    assert plan.cost < 0.02 * float(cost(start().mean[None]))
    assert plan.actions.shape == (STEPS, ACTIONS)


@every_solver
def test_stays_within_bounds_and_ends_on_the_bound_next_to_an_outside_optimum(solver):
    bounds, cost = box(0.5), Bowl(optimum())
    plan = solver.solve(cost, start(), bounds, generator())
    assert all((samples >= bounds[:, 0]).all() and (samples <= bounds[:, 1]).all() for samples in cost.samples)
    nearest = optimum().clamp(-0.5, 0.5)
    assert plan.cost < float((nearest - optimum()).square().sum()) + 0.06
    assert float(plan.actions[0, 0]) == pytest.approx(0.5, abs=0.05)


@every_solver
def test_one_seed_gives_one_plan_and_another_seed_another(solver):
    plans = [solver.solve(Bowl(optimum()), start(), box(), generator(seed)) for seed in (3, 3, 4)]
    assert torch.equal(plans[0].actions, plans[1].actions)
    assert plans[0].history == plans[1].history
    assert plans[0].history != plans[2].history


@every_solver
def test_the_best_candidate_ever_seen_is_what_is_returned(solver):
    class Shaken(Bowl):  # a cost that changes between calls: the first population is the best
        def __call__(self, samples):
            costs = super().__call__(samples) + 10.0 * len(self.costs)
            self.costs[-1] = costs.detach()
            return costs

    cost = Shaken(optimum())
    plan = solver.solve(cost, start(), box(), generator())
    best = min(float(costs.min()) for costs in cost.costs)
    assert plan.cost == best == float(cost.costs[0].min())
    assert torch.equal(plan.actions, cost.samples[0][cost.costs[0].argmin()])


@every_solver
def test_a_proposal_that_is_far_from_the_start_is_considered(solver):
    far = torch.full((1, STEPS, ACTIONS), 1.9)

    def hole(samples):
        return 1.0 - torch.exp(-50 * (samples - far).square().sum((-1, -2)))

    plan = solver.solve(hole, start(0.05), box(), generator(), proposals=far)
    assert plan.cost == pytest.approx(0.0, abs=1e-6)


@every_solver
def test_a_warm_start_is_never_worse_than_the_plan_it_starts_from(solver):
    first = solver.solve(Bowl(optimum()), start(), box(), generator())
    again = solver.solve(Bowl(optimum()), Gaussian(first.actions, 0.2 * start().std), box(), generator(1))
    assert again.cost <= first.cost


@every_solver
def test_statistics_count_every_candidate_and_every_iteration(solver):
    cost = Bowl(optimum())
    plan = solver.solve(cost, start(), box(), generator())
    assert plan.evaluated == sum(len(samples) for samples in cost.samples)
    assert [step.best for step in plan.history] == pytest.approx([float(costs.min()) for costs in cost.costs])
    assert all(step.best <= step.elite_mean for step in plan.history)
    assert torch.equal(plan.elite_costs, plan.elite_costs.sort().values)


@every_solver
def test_candidates_of_nan_cost_are_passed_over_unless_all_are(solver):
    def half_broken(samples):
        costs = (samples - optimum()).square().sum((-1, -2))
        return torch.where(samples[:, 0, 3] > 0.05, math.nan, costs)

    assert solver.solve(half_broken, start(), box(), generator()).cost < 1.0
    with pytest.raises(ValueError, match="every candidate's cost is NaN or Inf"):
        solver.solve(lambda samples: samples.sum((-1, -2)) * math.nan, start(), box(), generator())


@pytest.mark.parametrize("solver", [SOLVERS["gradient"], SOLVERS["hybrid"]])
def test_gradient_solvers_refuse_a_cost_without_a_gradient_and_leave_none_in_the_model(solver):
    with pytest.raises(ValueError, match="no gradient"):
        solver.solve(lambda samples: samples.detach().sum((-1, -2)), start(), box(), generator())
    weight, bowl = torch.nn.Parameter(torch.tensor(2.0)), Bowl(optimum())
    solver.solve(lambda samples: weight * bowl(samples), start(), box(), generator())
    assert weight.grad is None


@every_solver
def test_bad_bounds_are_refused(solver):
    with pytest.raises(ValueError, match="bounds have shape"):
        solver.solve(Bowl(optimum()), start(), box()[:2], generator())
    with pytest.raises(ValueError, match="low <= high"):
        solver.solve(Bowl(optimum()), start(), box().flip(-1), generator())


def test_cem_refits_to_mean_and_population_std_of_the_elites():
    elites = torch.tensor([[[1.0]], [[3.0]]])
    old = Gaussian(torch.zeros(1, 1), torch.ones(1, 1))
    for momentum, mean in ((0.0, 2.0), (0.25, 1.5)):
        refit = CEM(samples=4, elites=2, momentum=momentum).refit(old, elites)
        assert (float(refit.mean), float(refit.std)) == (mean, 1.0)


def test_the_std_floor_is_a_share_of_the_initial_std():
    plan = CEM(samples=50, elites=2, iterations=30, std_floor=0.1).solve(Bowl(optimum()), start(), box(), generator())
    assert float(plan.distribution.std.min()) == pytest.approx(0.05)


def test_the_archive_keeps_the_best_once_each_over_many_populations():
    archive = Archive(2)
    first = torch.tensor([[[1.0]], [[2.0]], [[3.0]]])
    archive.add(first, torch.tensor([1.0, 2.0, 3.0]))
    archive.add(torch.tensor([[[1.0]], [[5.0]]]), torch.tensor([1.0, math.nan]))
    assert archive.samples.flatten().tolist() == [1.0, 2.0]
    assert archive.costs.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="3 candidates"):
        archive.add(first, torch.zeros(2))


def test_settings_that_make_no_search_are_refused():
    for build, message in (
        (lambda: CEM(samples=5, elites=6), "elites <= samples"),
        (lambda: CEM(momentum=1.0), "momentum"),
        (lambda: CEM(std_floor=-1.0), "std_floor"),
        (lambda: Adam(steps=0), "steps >= 1"),
        (lambda: GradientSolver(restarts=0), "restarts"),
        (lambda: Hybrid(CEM(samples=10, elites=4), top=5), "top"),
        (lambda: Gaussian(torch.zeros(3, 4), torch.full((3, 4), math.nan)), "finite"),
        (lambda: Gaussian(torch.zeros(3, 4), torch.zeros(3, 3)), r"\(T, A\)"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
