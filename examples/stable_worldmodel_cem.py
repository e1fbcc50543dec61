"""Plan with a dexworld model and the CEM of stable-worldmodel, and compare it with dexworld's at the same budget.

`StableCEM` is a `dexworld.planning.protocols.Solver`, so an `MPCPolicy` takes it like any other: the model, the goal
picture and the objective stay dexworld's.

    pip install stable-worldmodel
    python examples/stable_worldmodel_cem.py
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.models.world_model import load_world_model
from dexworld.planning.cem import CEM
from dexworld.planning.presets import paper
from dexworld.planning.protocols import CostFunction, Gaussian, Plan, Solver
from dexworld.planning.search import Archive, check_bounds, clamp
from dexworld.sim.kitchen.kitchen_env import KitchenEnv


@dataclass(frozen=True)
class StableCEM:
    """stable-worldmodel's CEM as a solver. Its candidates are in units of the initial spread, and know no bounds."""

    samples: int = 64
    elites: int = 8
    iterations: int = 4

    @torch.no_grad()
    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """See `Solver.solve`. Proposals are not used; the plan is the final mean, as theirs is."""
        from stable_worldmodel.policy import PlanConfig
        from stable_worldmodel.solver.cem import CEMSolver

        check_bounds(bounds, initial.mean.shape[1])
        archive = Archive(self.elites)

        def targets(candidates: Tensor) -> Tensor:
            return clamp(initial.mean + initial.std * candidates, bounds)

        def get_cost(_: dict, candidates: Tensor) -> Tensor:  # (environments, N, T, A)
            costs = archive.add(targets(candidates[0]), cost_function(targets(candidates[0])))
            archive.record(costs, self.elites)
            return costs[None]

        search = {"num_samples": self.samples, "topk": self.elites, "n_steps": self.iterations}
        seed = int(torch.randint(2**31, (), generator=generator))
        solver = CEMSolver(SimpleNamespace(get_cost=get_cost), **search, seed=seed)
        steps, joints = initial.mean.shape
        space = Box(-np.inf, np.inf, (1, joints))
        solver.configure(action_space=space, n_envs=1, config=PlanConfig(steps, receding_horizon=1))
        found = targets(solver.solve({"environment": torch.zeros(1, 1)})["actions"][0].to(initial.mean))
        plan = archive.plan(initial.std)
        return replace(plan, actions=found, cost=float(cost_function(found[None])[0]))


def cost_of_first_plan(solver: Solver, environment: KitchenEnv, seed: int, checkpoint: str) -> float:
    """The cost that `solver` reaches in the scene of `seed`, for the task reach."""
    _, info = environment.reset(seed=seed, options={"task": "reach"})
    model = load_world_model(checkpoint)
    policy = replace(paper(), solver=solver).policy(model, environment.robot, image_size=model.config.image_size)
    policy.reset(info["goal_image"], seed=seed)
    policy.act(environment.observe())
    return policy.statistics[-1].cost


def main(checkpoint: str = checkpoint_path(REFERENCE), seeds: tuple[int, ...] = (900_003, 900_004)) -> dict[str, float]:
    """Mean cost of the first plans over scenes, by either search with the same number of candidates."""
    solvers: dict[str, Solver] = {"stable-worldmodel": StableCEM(), "dexworld": CEM(64, elites=8, iterations=4)}
    with KitchenEnv() as environment:
        return {
            name: float(np.mean([cost_of_first_plan(solver, environment, seed, checkpoint) for seed in seeds]))
            for name, solver in solvers.items()
        }


if __name__ == "__main__":
    for name, cost in main().items():
        print(f"{name:18} {cost:.4f}")
