"""Planning with a world model: objectives, solvers, model predictive control, and the controls to hold them against."""

from dexworld.planning.candidates import CandidateCost, ModelConfig, Scene
from dexworld.planning.cem import CEM, ICEM
from dexworld.planning.gradient import Adam, GradientSolver, Hybrid
from dexworld.planning.mpc import KinematicStart, MPCConfig, MPCPolicy
from dexworld.planning.mppi import MPPI
from dexworld.planning.objectives import (
    HandOrientation,
    JointLimits,
    KeypointPixels,
    LatentDistance,
    Smoothness,
    TimeWeights,
    WeightedSum,
)
from dexworld.planning.policies import DoNothing, KinematicsOnly, RandomTargets
from dexworld.planning.presets import PRESETS, PlannerPreset, preset
from dexworld.planning.protocols import Dynamics, Gaussian, Goal, Plan, PlanStatistics, Policy, Rollout, Solver
from dexworld.planning.scene_colours import SceneColours

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PRESETS",
    "Adam",
    "CandidateCost",
    "DoNothing",
    "Dynamics",
    "Gaussian",
    "Goal",
    "GradientSolver",
    "HandOrientation",
    "Hybrid",
    "JointLimits",
    "KeypointPixels",
    "KinematicStart",
    "KinematicsOnly",
    "LatentDistance",
    "MPCConfig",
    "MPCPolicy",
    "ModelConfig",
    "Plan",
    "PlanStatistics",
    "PlannerPreset",
    "Policy",
    "RandomTargets",
    "Rollout",
    "Scene",
    "SceneColours",
    "Smoothness",
    "Solver",
    "TimeWeights",
    "WeightedSum",
    "preset",
]
