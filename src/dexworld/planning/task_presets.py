"""Planner presets for the four tasks: what changes from one task to the next, and why.

The paper does the same by hand: an orientation term for grasping, a smaller finger spread for placing (section 4.4 and
appendix C).
"""

from dataclasses import replace

from dexworld.planning.mpc import MPCConfig
from dexworld.planning.objectives import JointLimits, KeypointPixels, LatentDistance, Smoothness, WeightedSum
from dexworld.planning.policies import KinematicsOnly
from dexworld.planning.presets import PAPER_KEYPOINT_WEIGHT, PlannerPreset, preset
from dexworld.planning.protocols import Dynamics
from dexworld.robots.franka_allegro import JOINTS
from dexworld.robots.kinematics import FrankaAllegro

FINGER_STD = {"reach": 0.1, "grasp": 0.3, "place": 0.01, "push": 0.05}  # radians; a grasp has to close the hand
PUSH_ARM_STD = 0.2
_LIMITS = tuple(joint.limits for joint in JOINTS)


def task_preset(name: str, task: str) -> PlannerPreset:
    """The planner preset `name` for `task` (reach, grasp, place, push). Raises ValueError for an unknown name or
    task.
    """
    if task not in FINGER_STD:
        raise ValueError(f"task {task!r} is unknown; choose from {', '.join(FINGER_STD)}")
    chosen = preset(name)
    config = replace(chosen.config, finger_std=FINGER_STD[task])
    if task != "push":
        return replace(chosen, config=config)
    # The goal picture of a push shows the hand out of the way: driving the keypoints there would lead away from the
    # object. What counts is the scene around the hand, and there only what differs between start and goal.
    objective = push_objective()
    return replace(chosen, objective=objective, config=replace(config, arm_std=PUSH_ARM_STD, kinematic_start=None))


def push_objective() -> WeightedSum:
    """Latent distance of the scene without hand and forearm, where start and goal differ, and little motion."""
    scene = LatentDistance(hide_hand=1.2, hidden_cost=0.5, by_change=True)
    return 1.0 * scene + 0.005 * Smoothness() + 0.01 * JointLimits(_LIMITS)


def kinematics_only(task: str, dynamics: Dynamics, kinematics: FrankaAllegro, seed: int = 0) -> KinematicsOnly:
    """The control for `task` that drives the hand to the goal picture's keypoints and asks no model what happens."""
    objective = (
        PAPER_KEYPOINT_WEIGHT * KeypointPixels(robust_px=30.0) + 0.02 * Smoothness() + 0.01 * JointLimits(_LIMITS)
    )
    return KinematicsOnly(dynamics, kinematics, objective, config=MPCConfig(finger_std=FINGER_STD[task]), seed=seed)
