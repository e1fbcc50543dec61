"""Data that teaches objects: pushes and grasps in steps of a second, and pictures of one scene set down anew.

Both carry tracked points on every object and on the counter, with whether the picture shows them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.sim.kitchen.expert import (
    FINGERS_CLOSED,
    FINGERS_OPEN,
    FINGERS_RAKE,
    OVERHAND,
    PRE_GRASP_OFFSET,
    RAKE_FACE,
    RAKE_HEIGHT,
    grasp_place,
    rake_rotation,
    solve_arm,
)
from dexworld.sim.kitchen.explore import COLUMNS, random_fingers, random_target, recorded, worn
from dexworld.sim.kitchen.kitchen_scene import COUNTER_AREA, COUNTER_TOP, random_layout, random_spot
from dexworld.sim.kitchen.kitchen_simulation import ARM, MAX_OBJECTS, Simulation
from dexworld.sim.kitchen.objects import KINDS
from dexworld.sim.kitchen.task_builders import AWAY_POSE, step
from dexworld.sim.poses import heading, orient, quaternion, turn_about_z
from dexworld.sim.renderer import DEFAULT_VIEW
from dexworld.track import Track

COUNTER_POINTS = 6
POINTS = 2 * MAX_OBJECTS + COUNTER_POINTS  # of every object its centre and a point of its surface, then the counter's
PUSH_MOVES = 3
_SURFACE = 0.008  # metres that a ray may miss a point of a surface by
_LONGEST_TURN = 1.5  # radians a joint may turn in one move


@dataclass(frozen=True)
class PushConfig:
    """Recordings of pushes: one frame a second, as planning moves. Objects are pushed, nudged, dragged and toppled.

    frames: of an episode. straight: share of pushes along a line; the others are random translations of the hand.
    aside: metres, spread of how far a push aims beside the object's centre. grasps: share of the times when an object
    is not pushed but grasped from above, lifted, carried about and let go; many of these grasps miss.
    """

    frames: int = 16
    straight: float = 0.4
    aside: float = 0.02
    grasps: float = 0.0
    look: RobotLook = PLAIN

    def __post_init__(self) -> None:
        if self.frames < 2 or not 0 <= self.straight <= 1 or self.aside < 0 or not 0 <= self.grasps <= 1:
            raise ValueError(f"pushes need frames >= 2, straight and grasps in [0, 1] and aside >= 0, got {self}")


@dataclass(frozen=True)
class PairConfig:
    """Static pairs: pictures of one scene, before each of which objects were set down elsewhere and the arm moved.

    Nothing moves between them, so no dynamics is learned from them. frames: pictures of a scene. spread: metres that
    an object is moved by, along each axis.
    """

    frames: int = 8
    spread: float = 0.09
    look: RobotLook = PLAIN

    def __post_init__(self) -> None:
        if self.frames < 2 or self.spread <= 0:
            raise ValueError(f"static pairs need frames >= 2 and spread > 0, got {self}")


class Points:
    """Points fixed to the bodies of a scene: of each object its centre and a place of its surface, and counter points.

    Rows of objects that the scene lacks are NaN and not visible.
    """

    def __init__(self, simulation: Simulation, rng: np.random.Generator) -> None:
        model, data, objects = simulation.model, simulation.data, simulation.objects
        self._simulation, self._centre = simulation, np.zeros(POINTS, bool)
        self._bodies, self._local = np.full(POINTS, -1), np.zeros((POINTS, 3))
        self._centre[:MAX_OBJECTS] = True
        for index, body in enumerate(objects):
            self._bodies[[index, MAX_OBJECTS + index]] = body
            radius = simulation.layout.objects[index].radius
            aim = data.xpos[body] + rng.uniform(-0.7, 0.7, 3) * radius
            hit, distance = self._first_hit(aim)
            if hit == body:
                eye = simulation.world_from_camera[:3, 3]
                place = eye + (aim - eye) / np.linalg.norm(aim - eye) * distance
                self._local[MAX_OBJECTS + index] = data.xmat[body].reshape(3, 3).T @ (place - data.xpos[body])
        self._bodies[2 * MAX_OBJECTS :] = model.body("world").id
        spots = [random_spot(rng, COUNTER_AREA) for _ in range(COUNTER_POINTS)]
        self._local[2 * MAX_OBJECTS :] = [(x, y, COUNTER_TOP) for x, y in spots]

    def row(self) -> dict[str, np.ndarray]:
        """The columns `points` (POINTS, 2) pixels and `points_visible` (POINTS,) of the scene as it is now."""
        simulation, data, there = self._simulation, self._simulation.data, self._bodies >= 0
        rotations = data.xmat[self._bodies].reshape(-1, 3, 3)
        places = data.xpos[self._bodies] + np.einsum("kij,kj->ki", rotations, self._local)
        camera = np.linalg.inv(simulation.world_from_camera)
        pixels = (places @ camera[:3, :3].T + camera[:3, 3]) @ simulation.intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        height, width = simulation.size
        inside = there & (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1)
        visible = np.array([bool(seen) and self._seen(number, places[number]) for number, seen in enumerate(inside)])
        return {"points": np.where(there[:, None], pixels, np.nan), "points_visible": visible}

    def _seen(self, number: int, place: np.ndarray) -> bool:
        hit, distance = self._first_hit(place)
        far = np.linalg.norm(place - self._simulation.world_from_camera[:3, 3])
        return hit == self._bodies[number] and bool(self._centre[number] or abs(distance - far) < _SURFACE)

    def _first_hit(self, place: np.ndarray) -> tuple[int, float]:
        """The body that the camera sees towards a place (3,), and how far away, metres."""
        model, data = self._simulation.model, self._simulation.data
        eye, geom = self._simulation.world_from_camera[:3, 3].copy(), np.full(1, -1, np.int32)
        ray = (place - eye) / np.linalg.norm(place - eye)
        distance = mujoco.mj_ray(model, data, eye, ray, DEFAULT_VIEW.mask(), 1, -1, geom)
        return (int(model.geom_bodyid[geom[0]]) if geom[0] >= 0 else -1), float(distance)


def record_pushes(seed: int, config: PushConfig = PushConfig(), backend: str = "auto") -> Track:
    """An episode of pushes in the scene of `seed`, one frame a second; columns as of exploration, and `points`."""
    rng = np.random.default_rng([seed, 5])
    with Simulation(random_layout(seed, config.look), backend) as simulation:
        simulation.move(simulation.joint_targets, 0.3)
        points, rows = Points(simulation, rng), []
        moves = _push_moves(simulation, rng, config)
        while True:
            rows.append(simulation.observation() | simulation.object_row() | described(simulation) | points.row())
            if len(rows) == config.frames:
                break
            step(simulation, np.clip(next(moves), *simulation.joint_limits.T))
    return recorded(rows, f"simulated pushes, seed {seed}{worn(config.look, seed)}", "push", seed, 1.0, _LABELS)


def record_pairs(seed: int, config: PairConfig = PairConfig(), backend: str = "auto") -> Track:
    """Pictures of the scene of `seed` with its objects set down anew, "a second" apart; columns as of pushes."""
    rng = np.random.default_rng([seed, 6])
    with Simulation(random_layout(seed, config.look), backend) as simulation:
        points, rows = Points(simulation, rng), []
        home = simulation.data.qpos.copy()
        for _ in range(config.frames):
            _rearrange(simulation, rng, home, config.spread)
            rows.append(simulation.observation() | simulation.object_row() | described(simulation) | points.row())
    return recorded(rows, f"static pairs, seed {seed}{worn(config.look, seed)}", "pairs", seed, 1.0, _LABELS)


def described(simulation: Simulation) -> dict[str, np.ndarray]:
    """The columns `object_kinds` (MAX_OBJECTS,) and `object_colours` (MAX_OBJECTS, 3) of a scene, for captions."""
    kinds, colours = np.full(MAX_OBJECTS, -1), np.full((MAX_OBJECTS, 3), np.nan)
    for index, item in enumerate(simulation.layout.objects):
        kinds[index], colours[index] = KINDS.index(item.kind), item.rgba[:3]
    return {"object_kinds": kinds, "object_colours": colours}


_LABELS = (*COLUMNS, "object_kinds", "object_colours", "points", "points_visible")


def _push_moves(simulation: Simulation, rng: np.random.Generator, config: PushConfig) -> Iterator[np.ndarray]:
    """Joint targets (23,): above and behind an object, then moves that push it; or a random move."""
    while True:
        if config.grasps and rng.random() < config.grasps:
            yield from _grasp_moves(simulation, rng)
            continue
        approach = _approach(simulation, rng, config.aside)
        if approach is None:
            here = simulation.joint_targets[ARM]
            yield np.concatenate([random_target(simulation, rng, here), random_fingers(rng)])
            continue
        direction, poses, fingers = approach
        yield from (np.concatenate([pose, fingers]) for pose in poses)
        straight, length = rng.random() < config.straight, rng.uniform(0.05, 0.1)
        rotation = rake_rotation(direction)
        for _ in range(int(rng.integers(2, PUSH_MOVES + 1))):
            ahead = heading(direction)
            shift = length * ahead + rng.normal(0, 0.005, 3)
            if not straight:
                shift = rng.uniform(0, 0.08) * ahead + rng.normal(0, 1, 3) * [0.09, 0.09, 0.014]
            palm, _ = simulation.palm_pose()
            arm = solve_arm(simulation, palm + shift.clip(-0.2, 0.2), rotation, near=simulation.joint_targets[ARM])
            yield np.concatenate([arm.joints, fingers])


def _grasp_moves(simulation: Simulation, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Joint targets (23,): above an object, around it, closed, lifted, carried about, set down, opened, raised.

    A third of the hands close beside the object or above it, and some lift without closing: grasps that fail teach
    where they succeed. A random move where the arm can't reach.
    """
    index = int(rng.integers(len(simulation.objects)))
    kind, position = simulation.layout.objects[index].kind, simulation.object_position(index)
    target, offset = grasp_place(kind, position)
    target += rng.normal(0, 1, 3) * (0.03 if rng.random() < 0.35 else 0.006)
    target[2] = max(target[2], position[2] - 0.01, COUNTER_TOP + 0.03) + rng.uniform(0, 0.02)
    rotation = orient(*(OVERHAND[:, axis] + rng.normal(0, 0.06, 3) for axis in (2, 0)))
    here = simulation.joint_targets[ARM]
    around = solve_arm(simulation, target, rotation, offset)
    above = solve_arm(simulation, target - rng.uniform(0.6, 1.3) * PRE_GRASP_OFFSET, rotation, offset, around.joints)
    if not (around.reachable and above.reachable) or np.abs(above.joints - here).max() > _LONGEST_TURN:
        yield np.concatenate([random_target(simulation, rng, here), random_fingers(rng)])
        return
    opened = FINGERS_OPEN + np.abs(rng.normal(0, 0.04, len(FINGERS_OPEN)))
    closing = rng.uniform(0.85, 1.0) if rng.random() < 0.9 else rng.uniform(0, 0.4)
    closed = FINGERS_OPEN + closing * (FINGERS_CLOSED - FINGERS_OPEN) + rng.normal(0, 0.04, len(FINGERS_OPEN))
    lift, carries = rng.uniform(0.04, 0.16), rng.normal(0, 1, (int(rng.integers(1, 4)), 3)) * [0.1, 0.1, 0.025]
    shifts = np.cumsum([[*rng.normal(0, 0.02, 2), lift], *carries.clip(-0.2, 0.2)], axis=0)
    shifts = np.vstack([shifts, [*shifts[-1, :2], rng.uniform(0, 0.03)]]).clip(min=[-1, -1, 0])
    arms = [around.joints]
    for shift in shifts:
        arms.append(solve_arm(simulation, target + shift, rotation, offset, arms[-1]).joints)
    raised = solve_arm(simulation, target + shifts[-1] - PRE_GRASP_OFFSET, rotation, offset, arms[-1]).joints
    yield from (np.concatenate([arm, opened]) for arm in (above.joints, around.joints))
    yield from (np.concatenate([arm, closed]) for arm in arms)
    yield from (np.concatenate([arm, opened]) for arm in (arms[-1], raised))


def _approach(
    simulation: Simulation, rng: np.random.Generator, aside: float
) -> tuple[float, list[np.ndarray], np.ndarray] | None:
    """A direction, the arm's poses (7,) above and behind an object, and its fingers; None if the arm can't."""
    position = simulation.object_position(int(rng.integers(len(simulation.objects))))
    direction = rng.uniform(-1.0, 2.1)
    ahead = heading(direction)
    left = np.array([-ahead[1], ahead[0], 0.0])
    place = np.array([*position[:2], COUNTER_TOP + RAKE_HEIGHT + abs(rng.normal(0, 0.006))])
    place = place - rng.uniform(0.07, 0.14) * ahead + rng.normal(0, aside) * left
    rotation = rake_rotation(direction)
    behind = solve_arm(simulation, place, rotation, RAKE_FACE)
    above = solve_arm(simulation, place + 0.16 * np.array([0.0, 0.0, 1.0]), rotation, RAKE_FACE, near=behind.joints)
    turns = np.abs(np.diff([simulation.joint_targets[ARM], above.joints, behind.joints], axis=0)).max()
    if not (behind.reachable and above.reachable) or turns > 2 * _LONGEST_TURN:
        return None
    closing = 0.0 if rng.random() < 0.7 else rng.uniform(0, 0.4)
    fingers = FINGERS_RAKE + closing * (FINGERS_OPEN - FINGERS_RAKE) + rng.normal(0, 0.04, len(FINGERS_RAKE))
    return direction, [above.joints, behind.joints], fingers


def _rearrange(simulation: Simulation, rng: np.random.Generator, home: np.ndarray, spread: float) -> None:
    """Objects somewhere near where the layout has them, upright and apart; the arm anywhere, not inside an object."""
    model, data = simulation.model, simulation.data
    for _ in range(10):
        data.qpos[:] = home
        _set_down(simulation, rng, spread)
        mujoco.mj_forward(model, data)
        data.qpos[simulation.joint_qpos] = _anywhere(simulation, rng, home[simulation.joint_qpos])
        data.qvel[:], data.ctrl[: len(simulation.joint_qpos)] = 0.0, data.qpos[simulation.joint_qpos]
        mujoco.mj_forward(model, data)
        if not simulation.touched().any():
            return


def _anywhere(simulation: Simulation, rng: np.random.Generator, rest: np.ndarray) -> np.ndarray:
    """Joints (23,) of a hand that is out of the way, behind or above an object, or anywhere."""
    kind = rng.random()
    if kind < 0.3:
        return np.concatenate([AWAY_POSE[ARM] + rng.normal(0, 0.05, 7), random_fingers(rng)])
    approach = _approach(simulation, rng, 0.03) if kind < 0.7 else None
    if approach is None:
        return np.concatenate([random_target(simulation, rng, rest[ARM]), random_fingers(rng)])
    _, poses, fingers = approach
    return np.concatenate([poses[int(rng.random() < 0.8)], fingers])


def _set_down(simulation: Simulation, rng: np.random.Generator, spread: float) -> None:
    """Move most of the objects, each to a free place of the counter."""
    data, spots = simulation.data, simulation.object_positions()[:, :2]
    radii = [item.radius for item in simulation.layout.objects]
    low, high = np.array(COUNTER_AREA).reshape(2, 2).T
    for index in np.flatnonzero(rng.random(len(spots)) < 0.7):
        for _ in range(20):
            spot = spots[index] + rng.normal(0, spread, 2)
            others = np.delete(np.linalg.norm(spot - spots, axis=1) - radii, index)
            if (spot > low).all() and (spot < high).all() and others.min(initial=1.0) > radii[index] + 0.01:
                spots[index] = spot
                break
        joint = simulation.model.body(simulation.objects[index]).jntadr[0]
        address = simulation.model.jnt_qposadr[joint]
        data.qpos[address : address + 2] = spots[index]
        data.qpos[address + 3 : address + 7] = quaternion(turn_about_z(rng.uniform(-math.pi, math.pi)))
