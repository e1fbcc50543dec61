"""Reach, grasp, place and push: start and goal states from the scripted expert, success by the DexWM paper (C.4).

A task episode is drawn from a scene's seed, or rejected with a reason that callers count. Every state comes out of
physics: the hand was driven there, the object was really held or pushed.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dexworld.hands import RIGHT, TIPS, WRIST
from dexworld.sim.kitchen.allegro_body import OPEN_FINGERS, REST_POSE
from dexworld.sim.kitchen.expert import FINGERS_CLOSED, OVERHAND, plan_grasp, plan_push, solve_arm
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP, Layout, random_layout
from dexworld.sim.kitchen.kitchen_simulation import ARM, SimState, Simulation

Task = Literal["reach", "grasp", "place", "push"]
TASKS: tuple[Task, ...] = ("reach", "grasp", "place", "push")
HORIZON = 3  # moves of an episode
STEP_SECONDS = 1.0  # of which the last fifth lets the arm settle
HOLD_TICKS = 10  # success must hold for one second (10 Hz) after the last move

# Metres: mean over wrist and four fingertips (reach), from wrist to object, with contact (grasp), else of the object
RADIUS = {"reach": 0.15, "grasp": 0.20, "place": 0.10, "push": 0.05}
_MIN_REACH = 0.22
_PLACE_DISTANCE = (0.18, 0.32)
_PUSH_DISTANCE = (0.10, 0.18)
_MIN_PUSHED = 0.08
_DISTURBED = 0.025  # metres: another object that moved further was disturbed

# Hand raised to the right, out of the way of the camera's view of the work area.
AWAY_POSE = np.concatenate([np.array([-0.75, -1.25, 0.1, -2.6, 0.4, 2.6, 0.98]), np.array(OPEN_FINGERS)])


@dataclass(frozen=True)
class TaskEpisode:
    """One episode: where it starts, where it should end, and how the script did it.

    goal_tips: (5, 3) metres, wrist and thumb, index, middle and ring tip in the goal state, world.
    goal_object: (3,) metres, centre of object 0 in the goal state, world.
    goal_image: (224, 392, 3) uint8.
    expert_moves: (3, 23) joint targets, radians, that lead from start to goal.
    """

    task: str
    seed: int
    layout: Layout
    start: SimState
    goal: SimState
    goal_image: np.ndarray
    goal_tips: np.ndarray
    goal_object: np.ndarray
    expert_moves: np.ndarray


@dataclass(frozen=True)
class Rejection:
    """Why a seed gives no episode of a task."""

    task: str
    seed: int
    reason: str


class _Reject(Exception):
    """Ends the construction of an episode; becomes a `Rejection`."""


def draw_episode(task: str, seed: int, backend: str = "auto") -> TaskEpisode | Rejection:
    """The episode of `task` in the scene of `seed`, or why there is none. About half a CPU-second."""
    if task not in TASKS:
        raise ValueError(f"task {task!r} is unknown; choose from {', '.join(TASKS)}")
    rng = np.random.default_rng([seed, 4, TASKS.index(task)])
    with Simulation(random_layout(seed), backend) as simulation:
        simulation.move(simulation.joint_targets, 0.3)
        try:
            start, goal, moves = _BUILDERS[task](simulation, rng)
            simulation.set_state(goal)
            image, tips, target = simulation.image(), tips_world(simulation), simulation.object_position()
            episode = TaskEpisode(task, seed, simulation.layout, start, goal, image, tips, target, moves)
            _check(simulation, episode)
        except _Reject as rejection:
            return Rejection(task, seed, str(rejection))
    return episode


def draw_episodes(
    task: str, first_seed: int, count: int, rejections: Counter | None = None, backend: str = "auto"
) -> Iterator[TaskEpisode]:
    """`count` episodes from consecutive seeds; `rejections` counts the reasons of the seeds passed over."""
    seed = first_seed
    while count > 0:
        episode = draw_episode(task, seed, backend)
        seed += 1
        if isinstance(episode, Rejection):
            if rejections is not None:
                rejections[episode.reason] += 1
            continue
        count -= 1
        yield episode


def distance(task: str, simulation: Simulation, episode: TaskEpisode) -> float:
    """How far the task is from done, metres; compare with the task's radius. Push counts the counter plane only."""
    if task == "reach":
        return float(np.linalg.norm(tips_world(simulation) - episode.goal_tips, axis=1).mean())
    if task == "grasp":
        return float(np.linalg.norm(simulation.keypoints_world()[0][RIGHT][WRIST] - simulation.object_position()))
    offset = simulation.object_position() - episode.goal_object
    return float(np.linalg.norm(offset[:2] if task == "push" else offset))


def satisfied(task: str, simulation: Simulation, episode: TaskEpisode) -> bool:
    """Whether the task's criterion holds at this moment."""
    near = distance(task, simulation, episode) < RADIUS[task]
    return near and (task != "grasp" or simulation.hand_touches())


def true_cost(task: str, simulation: Simulation, episode: TaskEpisode) -> float:
    """How far the task is from done, metres, including what leads towards it: the hand that must come near first."""
    left, tips = distance(task, simulation, episode), tips_world(simulation)
    if task == "push":  # the hand must come near the object before anything moves
        return left + 0.1 * float(np.linalg.norm(tips.mean(axis=0) - simulation.object_position()))
    towards_goal = float(np.linalg.norm(tips - episode.goal_tips, axis=1).mean())
    return left + towards_goal + (0.0 if satisfied(task, simulation, episode) else 0.1)


def step(simulation: Simulation, targets: np.ndarray, on_tick=None) -> None:
    """One world-model step: `STEP_SECONDS` of interpolated motion to `targets` (23,), the last fifth at rest."""
    simulation.move(targets, 0.8 * STEP_SECONDS, on_tick, settle=0.2 * STEP_SECONDS)


def hold(simulation: Simulation, episode: TaskEpisode, on_tick=None) -> bool:
    """Keep the last targets for one second; True if the criterion held at each of the ten ticks."""
    seen = []

    def judge(simulation: Simulation) -> None:
        seen.append(satisfied(episode.task, simulation, episode))
        if on_tick is not None:
            on_tick(simulation)

    simulation.move(simulation.joint_targets, 1.0, judge)
    return len(seen) >= HOLD_TICKS and all(seen[-HOLD_TICKS:])


def tips_world(simulation: Simulation) -> np.ndarray:
    """Wrist and the tips of thumb, index, middle and ring finger, (5, 3) metres."""
    points = simulation.keypoints_world()[0][RIGHT]
    return points[[WRIST, *TIPS[:4]]]


_States = tuple[SimState, SimState, np.ndarray]


def _build_reach(simulation: Simulation, rng: np.random.Generator) -> _States:
    rest = simulation.get_state()
    plan = _grasp_plan(simulation, rng)
    simulation.move(plan.pre_grasp, 1.5, settle=0.2)
    goal = simulation.get_state()
    goal_tips = tips_world(simulation)
    for _ in range(20):
        simulation.set_state(rest)
        pose = REST_POSE + np.concatenate([rng.normal(0, 0.2, 7), np.abs(rng.normal(0, 0.1, 16))])
        simulation.move(np.clip(pose, *simulation.joint_limits.T), 0.8, settle=0.2)
        tips = tips_world(simulation)
        above = tips[:, 2].min() > COUNTER_TOP + 0.08
        if above and np.linalg.norm(tips - goal_tips, axis=1).mean() > _MIN_REACH and _hand_in_view(simulation):
            break
    else:
        raise _Reject("no start pose far enough from the goal and in view")
    return simulation.get_state(), goal, _towards(simulation.joint_targets, plan.pre_grasp)


def _build_grasp(simulation: Simulation, rng: np.random.Generator) -> _States:
    plan, start = _hold_object(simulation, rng)
    goal = simulation.get_state()
    simulation.move(plan.lifted, 1.0, settle=0.3)
    lifted = simulation.object_position()[2]
    simulation.set_state(goal)
    if lifted < simulation.object_position()[2] + 0.05:
        raise _Reject("the object was not held when lifted")
    return start, goal, np.stack([plan.around, plan.closed, plan.closed])


def _build_place(simulation: Simulation, rng: np.random.Generator) -> _States:
    plan, _ = _hold_object(simulation, rng)
    before = simulation.object_position()
    simulation.move(plan.lifted, 1.0, settle=0.5)
    lifted = simulation.object_position()
    if lifted[2] < before[2] + 0.06:
        raise _Reject("the object was not held when lifted")
    start = simulation.get_state()
    palm, _ = simulation.palm_pose()
    for _ in range(20):
        angle, length = rng.uniform(-math.pi, math.pi), rng.uniform(*_PLACE_DISTANCE)
        shift = np.array([length * math.cos(angle), length * math.sin(angle), before[2] - lifted[2] + 0.02])
        spot = lifted + shift
        if not (0.58 < spot[0] < 0.95 and -0.35 < spot[1] < 0.25) or _occupied(simulation, spot):
            continue
        arm = solve_arm(simulation, palm + shift, OVERHAND, near=simulation.joint_targets[ARM])
        if arm.reachable and np.abs(arm.joints - simulation.joint_targets[ARM]).max() < 1.2:
            break
    else:
        raise _Reject("no free spot within reach to place the object")
    moves = _towards(simulation.joint_targets, np.concatenate([arm.joints, FINGERS_CLOSED]))
    for targets in moves:
        step(simulation, targets)
    simulation.move(simulation.joint_targets, 0.3)
    if not simulation.hand_touches() or np.linalg.norm(simulation.object_position() - spot) > 0.08:
        raise _Reject("the object was lost on the way")
    return start, simulation.get_state(), moves


def _build_push(simulation: Simulation, rng: np.random.Generator) -> _States:
    rest = simulation.get_state()
    before = simulation.object_positions()
    direction, length = rng.uniform(-0.5, 1.6), rng.uniform(*_PUSH_DISTANCE)
    plan = plan_push(simulation, before[0], direction, length, gap=rng.uniform(0.09, 0.12))
    if plan is None:
        raise _Reject("the arm can't reach a push")
    simulation.move(plan.retreat, 1.2)
    simulation.move(plan.behind, 1.0, settle=0.3)
    if np.linalg.norm(simulation.object_positions() - before, axis=1).max() > 0.01:
        raise _Reject("an object was touched on the way to the start")
    start = simulation.get_state()
    moves = _towards(plan.behind, plan.end)
    for targets in moves:
        step(simulation, targets)
    simulation.move(simulation.joint_targets, 1.0)
    after = simulation.object_positions()
    pushed = (after - before)[0, :2]
    if np.linalg.norm(pushed) < _MIN_PUSHED or pushed @ [math.cos(direction), math.sin(direction)] < _MIN_PUSHED:
        raise _Reject("the object was not pushed along")
    if len(after) > 1 and np.linalg.norm((after - before)[1:], axis=1).max() > _DISTURBED:
        raise _Reject("the push disturbed another object")
    if abs(after[0, 2] - before[0, 2]) > 0.012:
        raise _Reject("the object fell over")
    quaternion = simulation.data.xquat[simulation.objects[0]].copy()
    simulation.set_state(rest)
    simulation.move(AWAY_POSE, 1.2, settle=0.2)
    simulation.place_object(after[0] + [0, 0, 0.001], quaternion)
    simulation.move(AWAY_POSE, 0.3)
    if np.linalg.norm((simulation.object_position() - after[0])[:2]) > 0.01:
        raise _Reject("the object does not stand still at the goal")
    return start, simulation.get_state(), moves


_BUILDERS = {"reach": _build_reach, "grasp": _build_grasp, "place": _build_place, "push": _build_push}


def _grasp_plan(simulation: Simulation, rng: np.random.Generator):
    kind = simulation.layout.objects[0].kind
    plan = plan_grasp(simulation, kind, simulation.object_position(), slack=rng.normal(0, 0.004, 3))
    if plan is None:
        raise _Reject("the arm can't reach a grasp")
    return plan


def _hold_object(simulation: Simulation, rng: np.random.Generator):
    """Drive the scripted grasp until the fingers are closed; returns the plan and the state at the pre-grasp pose."""
    plan = _grasp_plan(simulation, rng)
    before = simulation.object_positions()
    simulation.move(plan.pre_grasp, 1.5, settle=0.3)
    if np.linalg.norm(simulation.object_positions() - before, axis=1).max() > 0.01:
        raise _Reject("an object was touched on the way to the start")
    start = simulation.get_state()
    for targets in (plan.around, plan.closed):
        step(simulation, targets)
    simulation.move(plan.closed, 0.5)
    if not simulation.hand_touches():
        raise _Reject("the hand closed beside the object")
    return plan, start


def _towards(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Joint targets (3, 23) in equal steps from `start` to `end`."""
    shares = np.arange(1, HORIZON + 1)[:, None] / HORIZON
    return start + shares * (end - start)


def _occupied(simulation: Simulation, spot: np.ndarray) -> bool:
    others = simulation.object_positions()[1:]
    return bool(len(others)) and bool((np.linalg.norm(others[:, :2] - spot[:2], axis=1) < 0.12).any())


def _hand_in_view(simulation: Simulation) -> bool:
    """All of `tips_world` project into the picture."""
    points = np.linalg.inv(simulation.world_from_camera) @ np.c_[tips_world(simulation), np.ones(5)].T
    pixels = simulation.intrinsics @ points[:3]
    u, v = pixels[:2] / pixels[2]
    height, width = 2 * simulation.intrinsics[1, 2], 2 * simulation.intrinsics[0, 2]
    return bool(((pixels[2] > 0) & (u > 0) & (u < width) & (v > 0) & (v < height)).all())


def _check(simulation: Simulation, episode: TaskEpisode) -> None:
    """The goal must satisfy the criterion, the goal picture must show the object, doing nothing must not succeed."""
    simulation.set_state(episode.goal)
    if not satisfied(episode.task, simulation, episode):
        raise _Reject("the goal state does not satisfy the criterion")
    if episode.task == "push":
        ids = simulation.renderer.segmentation(simulation.data, "ego")
        bodies = np.where(ids >= 0, simulation.model.geom_bodyid[ids], -1)
        if (bodies == simulation.objects[0]).sum() < 40:
            raise _Reject("the goal picture hides the object")
    simulation.set_state(episode.start)
    if satisfied(episode.task, simulation, episode):
        raise _Reject("solved at the start")
    targets = simulation.joint_targets
    for _ in range(HORIZON):
        step(simulation, targets)
    if hold(simulation, episode):
        raise _Reject("solved by doing nothing")
