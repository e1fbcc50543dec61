"""The controls: policies that any claim of a planner has to be held against. All act as `MPCPolicy` does."""

import numpy as np
import torch

from dexworld.hands import ARM_JOINTS, ROBOT_JOINTS
from dexworld.planning.mpc import MPCConfig, MPCPolicy, kinematic_solver
from dexworld.planning.objectives import Objective, WeightedSum, as_sum
from dexworld.planning.protocols import Dynamics, Solver
from dexworld.robots.kinematics import FrankaAllegro
from dexworld.robots.observation import Observation


class DoNothing:
    """Keeps the joint targets in force."""

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Nothing to remember."""

    def act(self, observation: Observation) -> np.ndarray:
        """The observation's joint targets (23,)."""
        return np.array(observation.joint_targets, dtype=np.float64)


class RandomTargets:
    """Random joint targets around those in force, drawn as a planner's first population is; every reset starts the
    seed anew.

    arm_std, finger_std: radians. The k-th reset of a policy draws from seeds (seed, k), so that episodes differ.
    """

    def __init__(self, kinematics: FrankaAllegro, seed: int, *, arm_std: float = 0.3, finger_std: float = 0.1) -> None:
        if arm_std < 0 or finger_std < 0:
            raise ValueError(f"standard deviations must not be negative, got {arm_std} and {finger_std}")
        self._limits = kinematics.limits.cpu().double().numpy()
        self._std = np.array([arm_std] * ARM_JOINTS + [finger_std] * (ROBOT_JOINTS - ARM_JOINTS))
        self._seed, self._episode = seed, -1
        self._random = np.random.default_rng((seed, 0))

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Start the next episode's random numbers, or those of `seed`."""
        self._episode += 1
        self._random = np.random.default_rng((self._seed, self._episode) if seed is None else seed)

    def act(self, observation: Observation) -> np.ndarray:
        """Random targets (23,) within the limits."""
        targets = observation.joint_targets + self._std * self._random.standard_normal(ROBOT_JOINTS)
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
        kinematics: FrankaAllegro,
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
        solver = solver or kinematic_solver()
        super().__init__(dynamics, kinematics, objective, solver, config, seed=seed, device=device)
