"""Planners that are ready to use, and what changes in them from one task to the next.

`paper` is the paper's; `cpu` plans an episode of three moves in 3 s on one CPU core; `realtime` is `cpu` with half its
rounds. The paper changes planners by hand too: an orientation term for grasping, a smaller finger spread for placing
(section 4.4 and appendix C).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from dexworld.planning.approach import Approach
from dexworld.planning.candidates import ModelConfig
from dexworld.planning.cem import CEM
from dexworld.planning.controls import KinematicsOnly
from dexworld.planning.gradient import Adam, GradientSolver, KinematicStart
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.mpc_config import MPCConfig
from dexworld.planning.objectives import JointLimits, KeepOut, KeypointPixels, LatentDistance, Smoothness, WeightedSum
from dexworld.planning.point_goal import PointGoal
from dexworld.planning.protocols import Dynamics, Solver
from dexworld.planning.scene_colours import SceneColours
from dexworld.planning.subgoals import TAKE_AND_PUT, Stage, SubgoalPolicy
from dexworld.robots.robot import Robot

# Radians, the spread of finger targets. Placing keeps the grip (the paper's value); grasping has to close the hand.
FINGER_STD = {"reach": 0.1, "grasp": 0.3, "place": 0.01, "push": 0.05}
# Harder tasks are planned as the task that they are nearest to; those of more moves look ahead the whole horizon.
LIKE = {"pick_place": "place", "push_around": "push", "reach_clutter": "reach", "grasp_unseen": "grasp"}
SUBGOALS = {"pick_place": TAKE_AND_PUT}
_LONG = ("pick_place", "push_around")
_PLACE_STD = (0.07, 0.07, 0.05)  # metres a step along the world's axes
_PUSH_STD = (0.1, 0.1, 0.015)
_KEEP_OUT = 10.0  # a metre, in heights of the picture
PAPER_KEYPOINT_WEIGHT = 0.001  # mu, DexWM paper, section 4.4


@dataclass(frozen=True)
class PlannerPreset:
    """An objective, a solver and the control loop around them; with `stages` over sub-goals."""

    objective: WeightedSum
    solver: Solver
    config: MPCConfig
    stages: tuple[Stage, ...] = ()

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
        parts = (dynamics, robot, self.objective, self.solver, config)
        if self.stages:
            return SubgoalPolicy(*parts, stages=self.stages, seed=seed, device=device)
        return MPCPolicy(*parts, seed=seed, device=device)


@dataclass(frozen=True)
class PlannerOptions:
    """What a run changes in its planner preset. None keeps what the preset has for the task."""

    horizon: int | None = None
    """Steps of a plan."""
    replan: Literal["shrink", "fixed"] | None = None
    """After a step: `shrink` plans the steps that remain, `fixed` always the whole horizon."""
    samples: int | None = None
    """Candidates of each population of the search."""
    elites: int | None = None
    """Best candidates that the next population is drawn around."""
    iterations: int | None = None
    """Populations of the search."""
    arm_std: float | None = None
    """Initial spread of the arm's joints, radians a step."""
    finger_std: float | None = None
    """Initial spread of the fingers' joints, radians a step."""
    rewiden: float | None = None
    """When re-planning, the spread is at least this share of the initial one."""
    model_budget: int | None = None
    """Candidates of each population that the world model sees; the rest is judged by kinematics."""
    max_batch: int | None = None
    """Candidates in one call of the world model, to bound memory."""
    deadline_s: float | None = None
    """Seconds that a plan may take: the search then returns its best so far."""

    def applied(self, preset: PlannerPreset) -> PlannerPreset:
        """The preset with these changes. Raises ValueError for values that its parts refuse."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        search = {name: given.pop(name) for name in ("samples", "elites", "iterations") if name in given}
        batches = {name: given.pop(name) for name in ("model_budget", "max_batch") if name in given}
        config = replace(preset.config, **given, model=replace(preset.config.model, **batches))
        solver: Any = preset.solver  # of the CEM family, or one in the hand's space around it
        inside = isinstance(solver, HandSpaceSolver)
        solver = replace(solver, solver=replace(solver.solver, **search)) if inside else replace(solver, **search)
        return replace(preset, config=config, solver=solver)


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


def realtime() -> PlannerPreset:
    """`cpu` with half its rounds and a shorter kinematic start: 2 x 24 model candidates per plan."""
    return _hurried(cpu())


def _hurried(chosen: PlannerPreset) -> PlannerPreset:
    """The preset with half its rounds, always looking its whole horizon ahead, so that an arm has steps to carry out
    while the next plan is made. Later plans are warm starts, as always: they begin with the rest of the last one.
    """
    search: Any = chosen.solver.solver if isinstance(chosen.solver, HandSpaceSolver) else chosen.solver
    fewer = PlannerOptions(iterations=search.iterations // 2, replan="fixed").applied(chosen)
    start = KinematicStart(GradientSolver(restarts=2, adam=Adam(steps=25)))
    return replace(fewer, config=replace(fewer.config, kinematic_start=fewer.config.kinematic_start and start))


PRESETS: dict[str, Callable[[], PlannerPreset]] = {"paper": paper, "cpu": cpu, "realtime": realtime}
Planner = Literal["cpu", "paper", "realtime"]


def preset(name: str) -> PlannerPreset:
    """The preset of that name. Raises ValueError with the names there are."""
    if name not in PRESETS:
        raise ValueError(f"no planner preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()


def task_preset(name: str, task: str, points: bool = False, subgoals: bool = True) -> PlannerPreset:
    """The planner preset `name` for `task` (of `FINGER_STD` or `LIKE`). Raises ValueError for an unknown name or task.

    points: whether the world model follows points; `cpu` then pushes by them, and picks and places by them over
    sub-goals. subgoals: False leaves those out, for comparison. `realtime` changes as `cpu` does, `paper` nothing but
    the finger spread of placing. With `cpu`, placing and pushing search over straight hand translations: what is held
    or pushed needs a hand that does not turn, and nine numbers need fewer roll-outs than 69.
    """
    if name == "realtime":
        return _hurried(task_preset("cpu", task, points, subgoals))
    if task in SUBGOALS and name == "cpu" and points:
        config = MPCConfig(replan="fixed", model=ModelConfig(contact_deadband=False))
        if subgoals:
            solver = CEM(96, elites=8, iterations=4, momentum=0.1, std_floor=0.1)
            return PlannerPreset(point_objective(), solver, config, SUBGOALS[task])
        return PlannerPreset(point_objective(), hand_space(_PLACE_STD, samples=128, closing=0.4), config)
    if task in LIKE:
        nearest = task_preset(name, LIKE[task], points)
        if task == "pick_place" and name == "cpu":  # its goal picture has the hand out of the way
            nearest = replace(nearest, objective=LatentDistance() + 0.02 * Smoothness() + 0.01 * JointLimits())
        return replace(nearest, config=replace(nearest.config, replan="fixed")) if task in _LONG else nearest
    if task not in FINGER_STD:
        raise ValueError(f"task {task!r} is unknown; choose from {', '.join((*FINGER_STD, *LIKE))}")
    chosen = preset(name)
    if name == "paper":
        return replace(chosen, config=replace(chosen.config, finger_std=0.01 if task == "place" else 0.1))
    config = replace(chosen.config, finger_std=FINGER_STD[task])
    if task in ("reach", "grasp"):
        return replace(chosen, config=config)
    config = replace(config, kinematic_start=None, model=ModelConfig())
    if task == "place":
        return replace(chosen, solver=hand_space(_PLACE_STD, samples=32), config=config)
    if points:
        config = replace(config, approach=Approach())
        objective = point_objective() + _KEEP_OUT * KeepOut()
        return replace(chosen, objective=objective, solver=hand_space(_PUSH_STD, samples=64), config=config)
    return replace(chosen, objective=push_objective(), solver=hand_space(_PUSH_STD, samples=48), config=config)


def hand_space(std: tuple[float, float, float], samples: int, iterations: int = 4, closing: float = 0.0) -> Solver:
    """CEM over straight hand translations with `std` metres a step along the world's axes; see `HandSpaceSolver`."""
    solver = CEM(samples, elites=6, iterations=iterations, momentum=0.1, std_floor=0.1)
    return HandSpaceSolver(solver, std, closing=closing)


def push_objective() -> WeightedSum:
    """The decoded scene around the robot's silhouette should look as in the goal picture, with little motion.

    The goal picture of a push shows the hand out of the way: driving the keypoints there would lead away from the
    object. A latent distance can't take its place: patches are larger than objects and mix them with the arm.
    """
    return 1.0 * SceneColours() + 0.005 * Smoothness() + 0.01 * JointLimits()


def point_objective() -> WeightedSum:
    """The goal's points should be where the goal has them, with little motion."""
    return 1.0 * PointGoal() + 0.005 * Smoothness() + 0.01 * JointLimits()


def kinematics_only(
    task: str,
    dynamics: Dynamics,
    robot: Robot,
    seed: int = 0,
    *,
    device: torch.device | str = "cpu",
    **changes: Any,
) -> KinematicsOnly:
    """The control for `task` that drives the hand to the goal picture's keypoints and asks no model what happens.

    It searches the same space as the planner for that task, with a larger budget, since kinematics cost little.
    changes: fields of its `MPCConfig`, such as `image_size` and `keep_out`.
    """
    task = LIKE.get(task, task)
    solver = hand_space(_PLACE_STD, samples=64, iterations=8) if task == "place" else None
    config = MPCConfig(finger_std=FINGER_STD[task], **changes)
    return KinematicsOnly(dynamics, robot, hand_objective(), solver, config, seed=seed, device=device)
