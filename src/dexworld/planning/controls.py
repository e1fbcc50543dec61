"""The controls: policies that any claim of a planner has to be held against. All act as `MPCPolicy` does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dexworld.planning.cem import CEM
from dexworld.planning.gradient import kinematic_solver
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.mpc_config import MPCConfig
from dexworld.planning.objectives import Objective, as_sum
from dexworld.planning.protocols import Dynamics, Gaussian, Solver
from dexworld.robots.environment import SearchSpace, SimulatedEnvironment
from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot

SIMULATOR_SEARCH = CEM(samples=24, elites=5, iterations=4)
SPACE_SEARCH = CEM(samples=48, elites=8, iterations=24, momentum=0.1, std_floor=0.2)


class DoNothing:
    """Keeps the joint targets in force."""

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Nothing to remember."""

    def act(self, observation: Observation) -> np.ndarray:
        """The observation's joint targets (J,)."""
        return np.array(observation.joint_targets, dtype=np.float64)


class RandomTargets:
    """Random joint targets around those in force, drawn as a planner's first population is.

    The k-th reset of a policy draws from seeds (seed, k), so that episodes differ.
    """

    def __init__(self, robot: Robot, seed: int) -> None:
        self._limits = robot.limits.float().double().cpu().numpy()  # in single precision, as a planner's bounds
        self._std = np.full(len(robot.joints), MPCConfig.finger_std)
        self._std[robot.arm] = MPCConfig.arm_std
        self._seed, self._episode = seed, -1

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Start the next episode's random numbers, or those of `seed`."""
        self._episode += 1
        self._random = np.random.default_rng((self._seed, self._episode) if seed is None else seed)

    def act(self, observation: Observation) -> np.ndarray:
        """Random targets (J,) within the limits."""
        targets = observation.joint_targets + self._std * self._random.standard_normal(len(self._std))
        return np.clip(targets, self._limits[:, 0], self._limits[:, 1])


class KinematicsOnly(MPCPolicy):
    """Drives the hand's keypoints to the goal's by kinematics; terms of the objective that need a model are left out.

    The dynamics finds the goal's keypoints; it may be None if `reset` is given them. Raises ValueError if no term
    remains.
    """

    def __init__(
        self,
        dynamics: Dynamics | None,
        robot: Robot,
        objective: Objective,
        solver: Solver | None = None,
        config: MPCConfig = MPCConfig(),
        **options: Any,
    ) -> None:
        objective = as_sum(objective).part(needs_model=False)
        if not objective.terms:
            raise ValueError("no term of this objective works without a world model: add KeypointPixels()")
        super().__init__(dynamics, robot, objective, solver or kinematic_solver(), config, **options)


class Replay:
    """A policy that carries out given moves (T, J), whatever it sees."""

    def __init__(self, moves: np.ndarray) -> None:
        self._moves, self._next = moves, 0

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Start over."""
        self._next = 0

    def act(self, observation: Observation) -> np.ndarray:
        """The next move (J,)."""
        self._next += 1
        return self._moves[self._next - 1]


class TrueSimulator(Replay):
    """Carries out what a search on the true simulator finds from the present state, with the true state as its cost.

    This is what planning could reach with a perfect model. Horizon and initial spread are those of `MPCConfig`; an
    episode of more moves is searched again from where the last ones led. Where the environment says a `SearchSpace`,
    all moves are searched in it at once, by a larger search.
    """

    def __init__(self, environment: SimulatedEnvironment, search: Solver = SIMULATOR_SEARCH) -> None:
        super().__init__(np.empty(0))
        self._environment, self._search = environment, search

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Search, and leave the environment in the state that it was in."""
        self._generator = torch.Generator().manual_seed(seed or 0)
        self._find()

    def act(self, observation: Observation) -> np.ndarray:
        """The next move (J,)."""
        if self._next == len(self._moves):
            self._find()
        return super().act(observation)

    def _find(self) -> None:
        start, robot = self._environment.get_state(), self._environment.robot
        targets = torch.from_numpy(np.asarray(self._environment.observe().joint_targets))
        mean = targets.expand(MPCConfig.horizon, -1).clone()
        std = torch.full_like(mean, MPCConfig.finger_std)
        std[:, robot.arm] = MPCConfig.arm_std

        def cost(samples: torch.Tensor) -> torch.Tensor:
            costs = [true_cost(self._environment, start, moves) for moves in samples.numpy()]
            return torch.tensor(costs, dtype=mean.dtype)

        space = getattr(self._environment, "search_space", lambda: None)()
        if space is None:
            plan = self._search.solve(cost, Gaussian(mean, std), robot.limits.to(mean), self._generator)
            self._moves, self._next = plan.actions.numpy(), 0
        else:
            self._moves, self._next = self._found_in(space, cost), 0
        self._environment.set_state(start)

    def _found_in(self, space: SearchSpace, cost: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        limits = self._environment.robot.limits.numpy()
        std = torch.from_numpy(space.std).expand(len(space.moves), -1).clone()
        bounds = 10.0 * std.new_tensor([[-1.0, 1.0]]) * std[0][:, None]

        def of_units(units: torch.Tensor) -> torch.Tensor:
            return cost(torch.from_numpy(space.targets(units.numpy(), limits)))

        plan = SPACE_SEARCH.solve(of_units, Gaussian(torch.zeros_like(std), std), bounds, self._generator)
        return space.targets(plan.actions.numpy(), limits)


def true_cost(environment: SimulatedEnvironment, start: Any, moves: np.ndarray) -> float:
    """`environment.true_cost` after moves (T, J) from the state `start`."""
    environment.set_state(start)
    for targets in moves:
        environment.move(targets)
    return environment.true_cost()
