"""A search that has to be over at a time: its best so far, a few candidates at a time, and never late."""

import numpy as np
import pytest
import torch
from helpers_planning import REST, ToyDynamics, image_of, moved, observation

from dexworld.planning.candidates import ModelConfig
from dexworld.planning.cem import CEM
from dexworld.planning.deadline import Deadline
from dexworld.planning.gradient import Adam, GradientSolver, Hybrid
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.mpc_config import MPCConfig
from dexworld.planning.objectives import KeypointPixels, LatentDistance
from dexworld.planning.protocols import Gaussian
from dexworld.robots.franka_allegro import FrankaAllegro

BOUNDS = torch.tensor([[-1.0, 1.0]] * 2)
START = Gaussian(torch.zeros(3, 2), torch.full((3, 2), 0.5))
SOLVERS = {
    "cem": CEM(64, 8, 10),
    "gradient": GradientSolver(16, Adam(10)),
    "hybrid": Hybrid(CEM(32, 8, 2), 8, Adam(10)),
}


class Bowl:
    """A cost that takes 10 ms a candidate on a clock of its own; `seen` holds what it was asked for."""

    def __init__(self):
        self.now, self.seen = 0.0, []

    def __call__(self, samples):
        self.now += 0.01 * len(samples)
        self.seen.append(samples.detach())
        return (samples - 0.3).square().sum((1, 2))


def searched(solver, seconds):
    bowl = Bowl()
    deadline = Deadline(seconds, lambda: bowl.now)

    def cost(samples):
        return deadline.costs(lambda some: bowl(samples[some]), len(samples))

    return deadline.search(solver, cost, START, BOUNDS, torch.Generator().manual_seed(0)), bowl


@pytest.mark.parametrize("name", SOLVERS)
def test_a_search_ends_in_time_with_the_best_that_it_has_evaluated(name):
    plan, bowl = searched(SOLVERS[name], 1.0)
    seen = torch.cat(bowl.seen)
    costs = (seen - 0.3).square().sum((1, 2))
    assert 0.9 < bowl.now <= 1.0 + 1e-6
    assert 0.01 * len(seen) == pytest.approx(bowl.now)
    assert plan.cost == pytest.approx(float(costs.min()))
    assert torch.equal(plan.actions, seen[costs.argmin()])
    assert not plan.complete
    assert max(map(len, bowl.seen)) <= 8  # 3 % of the time, but for the first batch


@pytest.mark.parametrize("name", SOLVERS)
def test_enough_time_and_no_deadline_give_the_same_plan(name):
    solver = SOLVERS[name]
    (plain, _), (timed, _) = searched(solver, None), searched(solver, 1e3)
    assert torch.equal(plain.actions, timed.actions)
    assert torch.equal(plain.distribution.std, timed.distribution.std)
    assert plain.complete
    assert timed.complete
    assert timed.evaluated == plain.evaluated


def test_a_few_candidates_are_evaluated_however_late_it_is():
    plan, bowl = searched(SOLVERS["cem"], 0.001)
    assert len(torch.cat(bowl.seen)) == 8
    assert np.isfinite(plan.cost)


class Slow(ToyDynamics):
    """The toy world, a few milliseconds a candidate."""

    def rollout(self, context, motion, max_batch=None):
        until = torch.zeros(1)
        for _ in range(20 * len(motion.deltas)):
            until = until + torch.ones(20_000).sum()
        return super().rollout(context, motion, max_batch)


@pytest.mark.parametrize("budget", [None, 24])
@pytest.mark.parametrize("hand", [False, True])
def test_a_policy_keeps_its_deadline_and_says_how_far_it_came(budget, hand):
    config = MPCConfig(deadline_s=0.15, model=ModelConfig(model_budget=budget))
    solver = CEM(48, 6, 100)
    objective = LatentDistance() + 0.001 * KeypointPixels()
    solver = HandSpaceSolver(solver) if hand else solver
    policy = MPCPolicy(Slow(), FrankaAllegro(), objective, solver, config)
    policy.reset(image_of(moved()))
    policy.act(observation(REST))
    (entry,) = policy.statistics
    assert not entry.complete
    assert 1 <= len(entry.history) < 100
    assert entry.model_candidates >= 8
    assert entry.seconds < 1.5  # 0.15 on a machine with nothing else to do


def test_a_deadline_must_be_positive():
    with pytest.raises(ValueError, match="deadline_s must be above 0"):
        MPCConfig(deadline_s=0.0)
