"""Start and goal states of the harder tasks, where moving the hand to its place in the goal picture isn't enough.

`pick_place` begins at rest and ends with the hand away. In `push_around` and `reach_clutter` an object stands on the
straight way. `grasp_unseen` has a goal picture without the hand. Goals come out of physics; the script's moves led
there.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.sim.kitchen.expert import (
    FINGERS_CLOSED,
    FINGERS_OPEN,
    OVERHAND,
    PRE_GRASP_OFFSET,
    PushPlan,
    plan_push,
    solve_arm,
)
from dexworld.sim.kitchen.kitchen_scene import Layout, random_layout, random_spot
from dexworld.sim.kitchen.kitchen_simulation import ARM, SimState, Simulation
from dexworld.sim.kitchen.objects import random_object
from dexworld.sim.kitchen.task_builders import (
    AWAY_POSE,
    STILL,
    NoEpisode,
    States,
    carry_out,
    grasp_plan_of,
    hand_in_view,
    hold_object,
    occupied,
    stood_at,
    towards,
)
from dexworld.sim.poses import heading

_CARRY = (0.20, 0.30)  # metres from the object to its goal
_REACH = (0.30, 0.42)  # metres that the hand has to go past the clutter
_PUSHED_FROM = (0.62, 0.78, -0.28, 0.04)  # x and y, metres, of the object that is pushed around another
_WAITING = (0.97, 0.36)  # metres, where the obstacle stands before it is set down on the straight way
_LEG = (0.18, 0.25)  # metres of each of two pushes
_TURN = (1.2, 1.9)  # radians from the first to the second
_AROUND = 0.22  # metres or more from the object to its goal behind the obstacle
_TOPPLED = 0.012  # metres that a centre may rise or sink
_TOUCHED = 0.015  # metres: an object that moved further was not left alone by the script
_SPOTS = (0.58, 1.0, -0.42, 0.30)  # x and y, metres, where objects are brought to
_GAP = 0.03  # metres of free space around an obstacle that is set down
_MISSED = 0.05  # metres: a push that ends further from its goal failed
_TRIES, _DRAWS = 6, 60  # set-ups tried out in physics before a scene is given up, each the first in reach of 60


def build_grasp_unseen(simulation: Simulation, rng: np.random.Generator) -> States:
    """Object 0 is to hang in the air as in the picture, held."""
    plan, start = hold_object(simulation, rng)
    before = simulation.object_position()
    simulation.set_state(start)
    moves = np.stack([plan.around, plan.closed, plan.lifted])
    carry_out(simulation, moves)
    if simulation.object_position()[2] < before[2] + 0.08:
        raise NoEpisode("the object was not held when lifted")
    return start, simulation.get_state(), moves


def build_pick_place(simulation: Simulation, rng: np.random.Generator) -> States:
    """From rest: above object 0, around it, closed, lifted, carried, lowered, opened, raised, away."""
    start, before = simulation.get_state(), simulation.object_positions()
    plan = grasp_plan_of(simulation, rng)
    moves = [plan.pre_grasp, plan.around, plan.closed, plan.lifted]
    carry_out(simulation, moves)
    lifted = simulation.object_position()
    if lifted[2] < before[0, 2] + 0.06 or not simulation.hand_touches():
        raise NoEpisode("the object was not held when lifted")
    palm, _ = simulation.palm_pose()

    def posture(shift: np.ndarray) -> np.ndarray | None:
        """Arm joints (7,) of the palm displaced by `shift` (3,), if the arm gets there in its posture."""
        arm = solve_arm(simulation, palm + shift, OVERHAND, near=plan.lifted[ARM])
        near = np.abs(arm.joints - plan.lifted[ARM]).max() < 1.2
        return arm.joints if arm.reachable and near else None

    down = np.array([0.0, 0.0, before[0, 2] - lifted[2] + 0.008])
    for _ in range(20):
        angle, length = rng.uniform(-math.pi, math.pi), rng.uniform(*_CARRY)
        aside = length * heading(angle)
        spot = before[0] + aside
        if not _inside(spot) or occupied(simulation, spot):
            continue
        aside[:2] += (before[0] - lifted)[:2]
        postures = [posture(aside), posture(aside + down), posture(aside + down - PRE_GRASP_OFFSET)]
        if all(arm is not None for arm in postures):
            break
    else:
        raise NoEpisode("no free spot within reach to place the object")
    carried, lowered, raised = postures
    for arm, fingers in ((carried, FINGERS_CLOSED), (lowered, FINGERS_CLOSED), (lowered, FINGERS_OPEN)):
        moves.append(np.concatenate([arm, fingers]))
    moves += [np.concatenate([raised, FINGERS_OPEN]), AWAY_POSE]
    carry_out(simulation, moves[4:])
    simulation.move(AWAY_POSE, 1.0)
    after = simulation.object_positions()
    if np.linalg.norm((after[0] - spot)[:2]) > 0.08:
        raise NoEpisode("the object was lost on the way")
    if _moved(simulation, before)[1:].max(initial=0.0) > _TOUCHED:
        raise NoEpisode("the script touched another object")
    return start, simulation.get_state(), np.stack(moves)


def build_reach_clutter(simulation: Simulation, rng: np.random.Generator) -> States:
    """The hand, fingers down, is to come beside object 0; on the straight way stands another object."""
    obstacle, rest, target = _obstacle(simulation, rng), simulation.get_state(), simulation.object_position()
    for _ in range(_TRIES):
        simulation.set_state(rest)
        way = next(filter(None, (_way_past(simulation, rng, target) for _ in range(_DRAWS))), None)
        if way is None or not _set_down(simulation, obstacle, way[2]):
            continue
        start, goal, _ = way
        if not _brought_to(simulation, start) or not hand_in_view(simulation):
            continue
        state, before = simulation.get_state(), simulation.object_positions()
        carry_out(simulation, towards(start.behind, goal.behind))
        if _moved(simulation, before).max() < 2 * STILL:
            continue
        simulation.set_state(state)
        moves = np.stack([start.retreat, goal.retreat, goal.behind])
        carry_out(simulation, moves)
        if _moved(simulation, before).max() < _TOUCHED and hand_in_view(simulation):
            return state, simulation.get_state(), moves
    raise NoEpisode("no way past an object on the straight way")


def push_around_layout(seed: int, look: RobotLook = PLAIN) -> Layout:
    """The scene of `seed` with two objects only: a low one that can be pushed far without toppling, and the obstacle.

    The obstacle waits at the counter's far left; the start state has it on the straight way.
    """
    rng = np.random.default_rng([seed, 4, 1])
    pushed = random_object(rng, ("box", "can", "mug", "bowl"))
    pushed = replace(pushed, half_height=min(pushed.half_height, 0.9 * pushed.radius))
    obstacle = random_object(rng, ("box", "can", "bottle"))
    yaw, turned = rng.uniform(-math.pi, math.pi, 2).tolist()
    positions = (random_spot(rng, _PUSHED_FROM), _WAITING)
    return replace(random_layout(seed, look), objects=(pushed, obstacle), positions=positions, yaws=(yaw, turned))


def build_push_around(simulation: Simulation, rng: np.random.Generator) -> States:
    """Two pushes with a turn between them; then the obstacle is set down on the straight way to where they led."""
    rest, origin = simulation.get_state(), simulation.object_position()
    for _ in range(_TRIES):
        simulation.set_state(rest)
        pushes = next(filter(None, (_turning_push(simulation, rng, origin) for _ in range(_DRAWS))), None)
        if pushes is None:
            raise NoEpisode("the arm can't reach two pushes with a turn")
        if not _brought_to(simulation, pushes[0]):
            continue
        start = simulation.get_state()
        moves, corner = _push_twice(simulation, *pushes)
        end = simulation.object_position()
        far = np.linalg.norm((end - origin)[:2]) > _AROUND
        if moves is None or not far or abs(end[2] - origin[2]) > _TOPPLED:
            continue
        for spot in _on_the_way(origin, end, corner, 0.5 * sum(each.radius for each in simulation.layout.objects)):
            simulation.set_state(start)
            if not _set_down(simulation, 1, spot):
                continue
            state, before = simulation.get_state(), simulation.object_positions()
            carry_out(simulation, moves)
            simulation.move(moves[-1], 1.0)
            end, quaternion = simulation.object_position(), simulation.data.xquat[simulation.objects[0]].copy()
            blocked = np.linalg.norm((end - origin)[:2]) > _AROUND and _blocks(simulation, before, end)
            if blocked and _moved(simulation, before)[1] < _TOUCHED and _straight_fails(simulation, state, end):
                simulation.set_state(state)
                return state, stood_at(simulation, end, quaternion), moves
    raise NoEpisode("no push around an obstacle on the straight way")


def _way_past(simulation: Simulation, rng: np.random.Generator, target: np.ndarray):
    """Plans of a low hand at the start and beside `target` (3,), and the spot (2,) between them; None out of reach."""
    gap, facing = rng.uniform(0.09, 0.12), rng.uniform(-0.5, 1.6)
    shift, turn = rng.uniform(*_REACH) * heading(rng.uniform(-math.pi, math.pi)), rng.normal(0, 0.15)
    if not _inside(target + shift):
        return None
    goal = plan_push(simulation, target, facing, 0.05, gap)
    start = goal and plan_push(simulation, target + shift, facing + turn, 0.05, gap)
    if goal is None or start is None:
        return None
    return start, goal, (target - gap * heading(facing) + rng.uniform(0.45, 0.55) * shift)[:2]


def _turning_push(simulation: Simulation, rng: np.random.Generator, origin: np.ndarray):
    """The plan of a push from `origin` (3,), and direction and length of the next one; None if the arm can't."""
    direction, turn = rng.uniform(-0.5, 1.6), rng.choice([-1.0, 1.0]) * rng.uniform(*_TURN)
    lengths, gap = rng.uniform(*_LEG, 2), rng.uniform(0.09, 0.11)
    corner = origin + lengths[0] * heading(direction)
    target = corner + lengths[1] * heading(direction + turn)
    if not _inside(corner) or not _inside(target):
        return None
    plan = plan_push(simulation, origin, direction, lengths[0], gap)
    if plan is None or plan_push(simulation, corner, direction + turn, lengths[1], gap) is None:
        return None
    return plan, direction + turn, lengths[1]


def _push_twice(simulation: Simulation, first: PushPlan, direction: float, length: float):
    """Carry out a push, and from there the next. Moves (7, 23), None out of reach; the object's place (3,) between."""
    halfway = 0.5 * (first.behind + first.end)
    moves = [halfway, first.end, halfway]  # raised at once, the fingers would fling the object
    carry_out(simulation, moves)
    corner = simulation.object_position()
    second = plan_push(simulation, corner, direction, length, 0.1)
    if second is None:
        return None, corner
    moves += [second.retreat, second.behind, 0.5 * (second.behind + second.end), second.end]
    carry_out(simulation, moves[3:])
    simulation.move(second.end, 1.0)
    return np.stack(moves), corner


def _on_the_way(origin: np.ndarray, end: np.ndarray, corner: np.ndarray, aside: float) -> Iterator[np.ndarray]:
    """Spots (2,) near the middle of the straight way: `aside` metres beside it, away from the corner, and on it."""
    along = (end - origin)[:2]
    across = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    away = -np.sign(across @ (corner - origin)[:2]) * across
    for off in (aside, 0.0):
        for share in (0.5, 0.6, 0.4):
            yield origin[:2] + share * along + off * away


def _blocks(simulation: Simulation, before: np.ndarray, end: np.ndarray) -> bool:
    """Whether object 1 of `before` (n, 3) stands between object 0 and `end` (3,), well inside its straight way."""
    way, reach = (end - before[0])[:2], (before[1] - before[0])[:2]
    share = reach @ way / (way @ way)
    aside = np.linalg.norm(reach - share * way)
    return bool(0.2 < share < 0.8 and aside < 0.8 * sum(each.radius for each in simulation.layout.objects))


def _straight_fails(simulation: Simulation, start: SimState, target: np.ndarray) -> bool:
    """Whether a straight push to `target` (3,) is out of reach, misses, or moves another object."""
    simulation.set_state(start)
    way = (target - simulation.object_position())[:2]
    direction, length = math.atan2(way[1], way[0]), float(np.linalg.norm(way))
    plan = plan_push(simulation, simulation.object_position(), direction, length, 0.1)
    if plan is None:
        return True
    before = simulation.object_positions()
    carry_out(simulation, (plan.retreat, plan.behind, *towards(plan.behind, plan.end)))
    missed = np.linalg.norm((simulation.object_position() - target)[:2]) > _MISSED
    return bool(missed or _moved(simulation, before)[1:].max() > STILL)


def _brought_to(simulation: Simulation, plan: PushPlan) -> bool:
    """Move the hand from above to where a push begins; False if an object was touched."""
    before = simulation.object_positions()
    simulation.move(plan.retreat, 1.5)
    simulation.move(plan.behind, 1.0, settle=0.3)
    return bool(_moved(simulation, before).max() < _TOUCHED)


def _obstacle(simulation: Simulation, rng: np.random.Generator) -> int:
    """Which object is to stand in the way."""
    if len(simulation.objects) < 2:
        raise NoEpisode("there is no second object")
    return int(rng.integers(1, len(simulation.objects)))


def _set_down(simulation: Simulation, index: int, spot: np.ndarray) -> bool:
    """Put an object at `spot` (2,) as it stands; False if that is too near to another one."""
    positions, objects = simulation.object_positions(), simulation.layout.objects
    for other, position in enumerate(positions):
        gap = np.linalg.norm(position[:2] - spot) - objects[other].radius - objects[index].radius
        if other != index and gap < _GAP:
            return False
    place = np.array([*spot, positions[index, 2] + 0.001])
    simulation.place_object(place, simulation.data.xquat[simulation.objects[index]].copy(), index)
    simulation.move(simulation.joint_targets, 0.3)
    return bool(np.linalg.norm(simulation.object_position(index) - place) < 0.01)


def _inside(spot: np.ndarray) -> bool:
    x_low, x_high, y_low, y_high = _SPOTS
    return bool(x_low < spot[0] < x_high and y_low < spot[1] < y_high)


def _moved(simulation: Simulation, before: np.ndarray) -> np.ndarray:
    """Metres (n,) that the objects are from where they were, `before` (n, 3)."""
    return np.linalg.norm(simulation.object_positions() - before, axis=1)
