"""Add a planner: random shooting in place of CEM, on the planar arm of `my_robot.py`.

Nothing in dexworld is edited. A planner is any object with the `solve` of `dexworld.planning.protocols.Solver`; an
`MPCPolicy` or a preset takes it as its `solver`.

    python examples/my_planner.py
"""

from dataclasses import dataclass

import torch
from my_robot import GOAL, START, hand_pixels, observation, planar_arm
from torch import Tensor

from dexworld.planning.cem import CEM
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.objectives import KeypointPixels, Smoothness
from dexworld.planning.protocols import CostFunction, Gaussian, Plan, Solver
from dexworld.planning.search import Archive, check_bounds, clamp, white_noise


@dataclass(frozen=True)
class RandomShooting:
    """Draws all candidates at once from the initial distribution and takes the cheapest."""

    samples: int = 512

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
        noise = white_noise((self.samples, *initial.mean.shape), generator, initial.mean)
        drawn = [initial.mean[None], initial.mean + initial.std * noise]
        samples = clamp(torch.cat(drawn if proposals is None else [*drawn, proposals]), bounds)
        archive = Archive(size=8)
        with torch.no_grad():
            costs = archive.add(samples, cost_function(samples))
        archive.record(costs, 8)
        return archive.plan(initial.std)


def reach(solver: Solver) -> float:
    """Cost of the first plan that `solver` finds for a pose given by its pixels."""
    robot = planar_arm()
    policy = MPCPolicy(None, robot, 0.001 * KeypointPixels() + 0.001 * Smoothness(), solver)
    policy.reset(observation(GOAL).image, goal_pixels=hand_pixels(robot, GOAL))
    policy.act(observation(START))
    return policy.statistics[-1].cost


def main() -> dict[str, float]:
    """The costs of plans by random shooting and by CEM with as many candidates, and of one candidate: staying."""
    solvers = {"staying": RandomShooting(0), "shooting": RandomShooting(512), "cem": CEM(128, elites=16, iterations=4)}
    return {name: reach(solver) for name, solver in solvers.items()}


if __name__ == "__main__":
    for name, cost in main().items():
        print(f"{name:10} {cost:.4f}")
