"""Planners that are ready to use: the paper's, and one that plans an episode of three moves in 3 s on one CPU
core.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from dexworld.planning.candidates import ModelConfig
from dexworld.planning.cem import CEM
from dexworld.planning.mpc import KinematicStart, MPCConfig, MPCPolicy
from dexworld.planning.objectives import JointLimits, KeypointPixels, LatentDistance, Smoothness, WeightedSum
from dexworld.planning.protocols import Dynamics, Solver
from dexworld.robots.robot import Robot

PAPER_KEYPOINT_WEIGHT = 0.001  # mu, DexWM paper, section 4.4


@dataclass(frozen=True)
class PlannerPreset:
    """An objective, a solver and the control loop around them."""

    objective: WeightedSum
    solver: Solver
    config: MPCConfig

    def policy(
        self,
        dynamics: Dynamics | None,
        robot: Robot,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        **changes: Any,
    ) -> MPCPolicy:
        """A policy; `changes` replace fields of the MPC config."""
        config = replace(self.config, **changes)
        return MPCPolicy(dynamics, robot, self.objective, self.solver, config, seed=seed, device=device)


def paper() -> PlannerPreset:
    """The paper's planner, {T, N, K, L} = {3, 512, 10, 10}: latents and the keypoint head's pixels, the model for
    all candidates.

    Departures from the release, each one a defect of it: bounds, the best candidate instead of the final mean,
    executed motions in the context, and a std that widens again.
    """
    objective = LatentDistance() + PAPER_KEYPOINT_WEIGHT * KeypointPixels(source="model", by_confidence=False)
    return PlannerPreset(objective, CEM(samples=512, elites=10, iterations=10), MPCConfig(rewiden=1.0))


def hand_objective() -> WeightedSum:
    """What needs no world model: the keypoints by kinematics at the goal's, little motion, away from joint limits."""
    keypoints = PAPER_KEYPOINT_WEIGHT * KeypointPixels(robust_px=30.0)
    return keypoints + 0.02 * Smoothness() + 0.01 * JointLimits()


def cpu() -> PlannerPreset:
    """The default: 4 x 24 model candidates per plan, chosen by kinematics; 576 candidate-steps for plans of 3, 2
    and 1 steps.

    The hand's keypoints come from forward kinematics, the model is left to tell what happens to everything else.
    """
    objective = LatentDistance() + hand_objective()
    solver = CEM(samples=96, elites=6, iterations=4, momentum=0.1, std_floor=0.05)
    model = ModelConfig(model_budget=24)
    return PlannerPreset(objective, solver, MPCConfig(kinematic_start=KinematicStart(), model=model))


PRESETS: dict[str, Callable[[], PlannerPreset]] = {"paper": paper, "cpu": cpu}


def preset(name: str) -> PlannerPreset:
    """The preset of that name. Raises ValueError with the names there are."""
    if name not in PRESETS:
        raise ValueError(f"no planner preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
