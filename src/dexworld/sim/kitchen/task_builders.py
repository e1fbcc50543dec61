"""Start and goal states of reach, grasp, place and push, and the script's moves between them.

Every state comes out of physics: the hand was driven there, the object was really held or pushed.
"""

import math
from collections.abc import Iterable

import numpy as np

from dexworld.hands import RIGHT, TIPS, WRIST
from dexworld.sim.kitchen.allegro_body import OPEN_FINGERS, REST_POSE
from dexworld.sim.kitchen.expert import FINGERS_CLOSED, OVERHAND, plan_grasp, plan_push, solve_arm
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP
from dexworld.sim.kitchen.kitchen_simulation import ARM, SimState, Simulation

HORIZON = 3  # moves of an episode
STILL = 0.03  # metres that an object which must be left alone may move
STEP_SECONDS = 1.0  # of which the last fifth lets the arm settle
_MIN_REACH = 0.22
_PLACE_DISTANCE = (0.18, 0.32)
_PUSH_DISTANCE = (0.10, 0.18)
_MIN_PUSHED = 0.08
_DISTURBED = 0.025  # metres: another object that moved further was disturbed

# Hand raised to the right, out of the way of the camera's view of the work area.
AWAY_POSE = np.concatenate([np.array([-0.75, -1.25, 0.1, -2.6, 0.4, 2.6, 0.98]), np.array(OPEN_FINGERS)])


class NoEpisode(Exception):
    """Ends the construction of an episode; becomes a `Rejection`."""


def step(simulation: Simulation, targets: np.ndarray, on_tick=None) -> None:
    """One world-model step: `STEP_SECONDS` of interpolated motion to `targets` (23,), the last fifth at rest."""
    simulation.move(targets, 0.8 * STEP_SECONDS, on_tick, settle=0.2 * STEP_SECONDS)


def carry_out(simulation: Simulation, moves: Iterable[np.ndarray]) -> None:
    """One step to each of the joint targets (23,)."""
    for targets in moves:
        step(simulation, targets)


def tips_world(simulation: Simulation) -> np.ndarray:
    """Wrist and the tips of thumb, index, middle and ring finger, (5, 3) metres."""
    points = simulation.keypoints_world()[0][RIGHT]
    return points[[WRIST, *TIPS[:4]]]


States = tuple[SimState, SimState, np.ndarray]


def build_reach(simulation: Simulation, rng: np.random.Generator) -> States:
    """From a random pose above the counter to above object 0, ready to grasp."""
    rest = simulation.get_state()
    plan = grasp_plan_of(simulation, rng)
    simulation.move(plan.pre_grasp, 1.5, settle=0.2)
    goal = simulation.get_state()
    goal_tips = tips_world(simulation)
    for _ in range(20):
        simulation.set_state(rest)
        pose = REST_POSE + np.concatenate([rng.normal(0, 0.2, 7), np.abs(rng.normal(0, 0.1, 16))])
        simulation.move(np.clip(pose, *simulation.joint_limits.T), 0.8, settle=0.2)
        tips = tips_world(simulation)
        above = tips[:, 2].min() > COUNTER_TOP + 0.08
        if above and np.linalg.norm(tips - goal_tips, axis=1).mean() > _MIN_REACH and hand_in_view(simulation):
            break
    else:
        raise NoEpisode("no start pose far enough from the goal and in view")
    return simulation.get_state(), goal, towards(simulation.joint_targets, plan.pre_grasp)


def build_grasp(simulation: Simulation, rng: np.random.Generator) -> States:
    """From above object 0 to fingers closed around it."""
    plan, start = hold_object(simulation, rng)
    goal = simulation.get_state()
    simulation.move(plan.lifted, 1.0, settle=0.3)
    lifted = simulation.object_position()[2]
    simulation.set_state(goal)
    if lifted < simulation.object_position()[2] + 0.05:
        raise NoEpisode("the object was not held when lifted")
    return start, goal, np.stack([plan.around, plan.closed, plan.closed])


def build_place(simulation: Simulation, rng: np.random.Generator) -> States:
    """From object 0 held in the air to a free spot, in the hand."""
    plan, _ = hold_object(simulation, rng)
    before = simulation.object_position()
    simulation.move(plan.lifted, 1.0, settle=0.5)
    lifted = simulation.object_position()
    if lifted[2] < before[2] + 0.06:
        raise NoEpisode("the object was not held when lifted")
    start = simulation.get_state()
    palm, _ = simulation.palm_pose()
    for _ in range(20):
        angle, length = rng.uniform(-math.pi, math.pi), rng.uniform(*_PLACE_DISTANCE)
        shift = np.array([length * math.cos(angle), length * math.sin(angle), before[2] - lifted[2] + 0.02])
        spot = lifted + shift
        if not (0.58 < spot[0] < 0.95 and -0.35 < spot[1] < 0.25) or occupied(simulation, spot):
            continue
        arm = solve_arm(simulation, palm + shift, OVERHAND, near=simulation.joint_targets[ARM])
        if arm.reachable and np.abs(arm.joints - simulation.joint_targets[ARM]).max() < 1.2:
            break
    else:
        raise NoEpisode("no free spot within reach to place the object")
    moves = towards(simulation.joint_targets, np.concatenate([arm.joints, FINGERS_CLOSED]))
    carry_out(simulation, moves)
    simulation.move(simulation.joint_targets, 0.3)
    if not simulation.hand_touches() or np.linalg.norm(simulation.object_position() - spot) > 0.08:
        raise NoEpisode("the object was lost on the way")
    return start, simulation.get_state(), moves


def build_push(simulation: Simulation, rng: np.random.Generator) -> States:
    """From fingers down behind object 0 to where a straight push takes it."""
    rest = simulation.get_state()
    before = simulation.object_positions()
    direction, length = rng.uniform(-0.5, 1.6), rng.uniform(*_PUSH_DISTANCE)
    plan = plan_push(simulation, before[0], direction, length, gap=rng.uniform(0.09, 0.12))
    if plan is None:
        raise NoEpisode("the arm can't reach a push")
    simulation.move(plan.retreat, 1.2)
    simulation.move(plan.behind, 1.0, settle=0.3)
    if np.linalg.norm(simulation.object_positions() - before, axis=1).max() > 0.01:
        raise NoEpisode("an object was touched on the way to the start")
    start = simulation.get_state()
    moves = towards(plan.behind, plan.end)
    carry_out(simulation, moves)
    simulation.move(simulation.joint_targets, 1.0)
    after = simulation.object_positions()
    pushed = (after - before)[0, :2]
    if np.linalg.norm(pushed) < _MIN_PUSHED or pushed @ [math.cos(direction), math.sin(direction)] < _MIN_PUSHED:
        raise NoEpisode("the object was not pushed along")
    if len(after) > 1 and np.linalg.norm((after - before)[1:], axis=1).max() > _DISTURBED:
        raise NoEpisode("the push disturbed another object")
    if abs(after[0, 2] - before[0, 2]) > 0.012:
        raise NoEpisode("the object fell over")
    quaternion = simulation.data.xquat[simulation.objects[0]].copy()
    simulation.set_state(rest)
    return start, stood_at(simulation, after[0], quaternion), moves


def stood_at(simulation: Simulation, place: np.ndarray, quaternion: np.ndarray) -> SimState:
    """The hand taken out of the way, and object 0 put to `place` (3,) turned by `quaternion` (4,), where it stands."""
    simulation.move(AWAY_POSE, 1.2, settle=0.2)
    simulation.place_object(place + np.array([0, 0, 0.001]), quaternion)
    simulation.move(AWAY_POSE, 0.3)
    if np.linalg.norm((simulation.object_position() - place)[:2]) > 0.01:
        raise NoEpisode("the object does not stand still at the goal")
    return simulation.get_state()


def grasp_plan_of(simulation: Simulation, rng: np.random.Generator):
    """A grasp of object 0, a few millimetres off."""
    kind = simulation.layout.objects[0].kind
    plan = plan_grasp(simulation, kind, simulation.object_position(), slack=rng.normal(0, 0.004, 3))
    if plan is None:
        raise NoEpisode("the arm can't reach a grasp")
    return plan


def hold_object(simulation: Simulation, rng: np.random.Generator):
    """Drive the scripted grasp until the fingers are closed; returns the plan and the state at the pre-grasp pose."""
    plan = grasp_plan_of(simulation, rng)
    before = simulation.object_positions()
    simulation.move(plan.pre_grasp, 1.5, settle=0.3)
    if np.linalg.norm(simulation.object_positions() - before, axis=1).max() > 0.01:
        raise NoEpisode("an object was touched on the way to the start")
    start = simulation.get_state()
    carry_out(simulation, (plan.around, plan.closed))
    simulation.move(plan.closed, 0.5)
    if not simulation.hand_touches():
        raise NoEpisode("the hand closed beside the object")
    return plan, start


def towards(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Joint targets (3, 23) in equal steps from `start` to `end`."""
    shares = np.arange(1, HORIZON + 1)[:, None] / HORIZON
    return start + shares * (end - start)


def occupied(simulation: Simulation, spot: np.ndarray) -> bool:
    """Whether another object stands within 12 cm of `spot` (3,)."""
    others = simulation.object_positions()[1:]
    return bool(len(others)) and bool((np.linalg.norm(others[:, :2] - spot[:2], axis=1) < 0.12).any())


def hand_in_view(simulation: Simulation) -> bool:
    """All of `tips_world` project into the picture."""
    points = np.linalg.inv(simulation.world_from_camera) @ np.c_[tips_world(simulation), np.ones(5)].T
    pixels = simulation.intrinsics @ points[:3]
    u, v = pixels[:2] / pixels[2]
    height, width = 2 * simulation.intrinsics[1, 2], 2 * simulation.intrinsics[0, 2]
    return bool(((pixels[2] > 0) & (u > 0) & (u < width) & (v > 0) & (v < height)).all())
