"""The controls: policies that any claim of a planner has to be held against. All act as `MPCPolicy` does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dexworld.planning.cem import CEM
from dexworld.planning.mpc import MPCConfig, MPCPolicy, kinematic_solver
from dexworld.planning.objectives import Objective, WeightedSum, as_sum
from dexworld.planning.protocols import Dynamics, Gaussian, Solver
from dexworld.robots.environment import SimulatedEnvironment
from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot


class DoNothing:
    """Keeps the joint targets in force."""

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Nothing to remember."""

    def act(self, observation: Observation) -> np.ndarray:
        """The observation's joint targets (J,)."""
        return np.array(observation.joint_targets, dtype=np.float64)


class RandomTargets:
    """Random joint targets around those in force, drawn as a planner's first population is; every reset starts the
    seed anew.

    arm_std, finger_std: radians. The k-th reset of a policy draws from seeds (seed, k), so that episodes differ.
    """

    def __init__(self, robot: Robot, seed: int, *, arm_std: float = 0.3, finger_std: float = 0.1) -> None:
        if arm_std < 0 or finger_std < 0:
            raise ValueError(f"standard deviations must not be negative, got {arm_std} and {finger_std}")
        self._limits = robot.limits.float().double().cpu().numpy()  # in single precision, as a planner's bounds
        self._std = np.full(len(robot.joints), finger_std)
        self._std[robot.arm] = arm_std
        self._seed, self._episode = seed, -1
        self._random = np.random.default_rng((seed, 0))

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Start the next episode's random numbers, or those of `seed`."""
        self._episode += 1
        self._random = np.random.default_rng((self._seed, self._episode) if seed is None else seed)

    def act(self, observation: Observation) -> np.ndarray:
        """Random targets (J,) within the limits."""
        targets = observation.joint_targets + self._std * self._random.standard_normal(len(self._std))
        return np.clip(targets, self._limits[:, 0], self._limits[:, 1])


class KinematicsOnly(MPCPolicy):
    """Drives the hand's keypoints (by kinematics) to the goal's, with no world model: what it reaches is not the
    model's merit.

    The dynamics is asked for the goal's keypoints only; it may be None if `reset` is given them. Terms of the
    objective that need a model are left out. Raises ValueError if none remains.
    """

    def __init__(
        self,
        dynamics: Dynamics | None,
        robot: Robot,
        objective: Objective | WeightedSum,
        solver: Solver | None = None,
        config: MPCConfig = MPCConfig(),
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        objective = as_sum(objective).part(needs_model=False)
        if not objective.terms:
            raise ValueError("no term of this objective works without a world model: add KeypointPixels()")
        super().__init__(dynamics, robot, objective, solver or kinematic_solver(), config, seed=seed, device=device)


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


@dataclass(frozen=True)
class SimulatorSearch:
    """CEM on the true simulator, with the true state as its cost: what planning could reach with a perfect model.

    It sees what no policy sees, so it bounds the planner and its budget, not the world model. Fingers and arm start
    with the spread of the model-based planner. horizon: moves of a plan.
    """

    samples: int = 24
    elites: int = 5
    iterations: int = 4
    arm_std: float = 0.3
    finger_std: float = 0.1
    horizon: int = 3

    def plan(self, environment: SimulatedEnvironment, seed: int) -> np.ndarray:
        """Moves (T, J) from the environment's present state; about `samples * iterations` simulated episodes."""
        robot, start = environment.robot, environment.get_state()
        mean = torch.from_numpy(np.asarray(environment.observe().joint_targets)).expand(self.horizon, -1).clone()
        std = torch.full_like(mean, self.finger_std)
        std[:, robot.arm] = self.arm_std

        def cost(samples: torch.Tensor) -> torch.Tensor:
            costs = [true_cost(environment, start, moves) for moves in samples.numpy()]
            return torch.tensor(costs, dtype=mean.dtype)

        solver = CEM(samples=self.samples, elites=self.elites, iterations=self.iterations)
        generator = torch.Generator().manual_seed(seed)
        return solver.solve(cost, Gaussian(mean, std), robot.limits.to(mean), generator).actions.numpy()


def true_cost(environment: SimulatedEnvironment, start: Any, moves: np.ndarray) -> float:
    """`environment.true_cost` after moves (T, J) from the state `start`."""
    environment.set_state(start)
    for targets in moves:
        environment.move(targets)
    return environment.true_cost()


class TrueSimulator(Replay):
    """Carries out what `SimulatorSearch` finds at the environment's present state, with the episode's seed."""

    def __init__(self, environment: SimulatedEnvironment, search: SimulatorSearch = SimulatorSearch()) -> None:
        super().__init__(np.empty(0))
        self._environment, self._search = environment, search

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Search, and leave the environment in the state that it was in."""
        start = self._environment.get_state()
        self._moves, self._next = self._search.plan(self._environment, seed or 0), 0
        self._environment.set_state(start)
