"""Exploratory data: the arm moves, objects get touched and pushed about, nothing is ever picked up or put down.

Both strategies of the DexWM paper (section 4.5): scripted lifts replayed with noise after the objects were moved, so
that the grasps fail, and random 3-D targets; clips in which only the fingers open and close (section C.2). Ours in
addition: sweeps, random straight lines at the height of the objects, so that objects move often enough to learn from.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.sim.kitchen.allegro_body import REST_POSE
from dexworld.sim.kitchen.expert import (
    FINGERS_CLOSED,
    FINGERS_OPEN,
    FINGERS_RAKE,
    OVERHAND,
    RAKE_FACE,
    RAKE_HEIGHT,
    ArmSolution,
    plan_grasp,
    rake_rotation,
    solve_arm,
)
from dexworld.sim.kitchen.kitchen_scene import COUNTER_TOP, random_layout
from dexworld.sim.kitchen.kitchen_simulation import (
    ARM,
    FINGERS,
    FRAMES_PER_SECOND,
    TICKS_PER_FRAME,
    Simulation,
    stack_rows,
    with_motion,
)
from dexworld.sim.poses import heading, orient
from dexworld.track import ArrayFrames, Track

STRATEGIES = ("lift_replay", "random_targets", "sweep", "fingers")
REACH_BOX = ((0.5, -0.42, COUNTER_TOP + 0.06), (0.95, 0.25, 1.4))  # metres: corners of the random palm targets
HELD_HEIGHT = 0.02  # metres above where it stood: an object this high with the hand on it is held
HELD_FRAMES = 3
_HAND = ("keypoints_world", "keypoints_valid", "joint_positions", "joint_targets")  # recorded columns
COLUMNS = (*_HAND, "object_positions", "object_touched", "object_motion")
_MAX_JUMP = 1.5  # radians a joint may turn in one move

Move = tuple[np.ndarray, float]  # joint targets (23,) and seconds


@dataclass(frozen=True)
class ExploreConfig:
    """What exploratory episodes look like. `weights` are the shares of `STRATEGIES`, in that order."""

    frames: int = 40
    weights: tuple[float, float, float, float] = (0.3, 0.3, 0.32, 0.08)
    arm_noise: float = 0.03  # radians, standard deviation on every arm target
    finger_noise: float = 0.12
    look: RobotLook = PLAIN

    def __post_init__(self) -> None:
        if self.frames < 2 or len(self.weights) != len(STRATEGIES) or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError(f"exploration needs frames >= 2 and {len(STRATEGIES)} weights >= 0, got {self}")


def record_exploration(
    seed: int, attempt: int = 0, config: ExploreConfig | None = None, backend: str = "auto"
) -> Track:
    """One episode of 5 Hz frames in the scene of `seed`. `attempt` draws other motions in the same scene.

    The episode's columns: `object_positions` (T, 5, 3) metres, NaN-padded, `object_motion` (T,) metres that the objects
    moved since the frame before, `object_touched` (T, 5) and `attempt` (T,).
    """
    config = config or ExploreConfig()
    rng = np.random.default_rng([seed, 3, attempt])
    strategy = str(rng.choice(STRATEGIES, p=np.array(config.weights) / sum(config.weights)))
    with Simulation(random_layout(seed, config.look), backend) as simulation:
        rows: list[dict[str, np.ndarray]] = []
        ticks = count()

        def record(simulation: Simulation) -> None:
            if next(ticks) % TICKS_PER_FRAME == 0 and len(rows) < config.frames:
                rows.append(simulation.observation() | simulation.object_row())

        _start_pose(simulation, rng, strategy)
        moves = _MOVES[strategy](simulation, rng, config)
        while len(rows) < config.frames:
            targets, seconds = next(moves)
            simulation.move(np.clip(targets, *simulation.joint_limits.T), seconds, record)
    rows = [row | {"attempt": np.array(attempt)} for row in rows]
    source = f"simulated exploration, {strategy}, seed {seed}{worn(config.look, seed)}"
    return recorded(rows, source, strategy, seed, FRAMES_PER_SECOND, (*COLUMNS, "attempt"))


def worn(look: RobotLook, seed: int) -> str:
    """What the source of a recording says of the meshes in it."""
    return f", meshes {look.worn(seed)}" if look.worn(seed) else ""


def holds_object(episode: Track) -> bool:
    """Whether any object was held: `HELD_HEIGHT` off the counter, with the hand on it, for `HELD_FRAMES` in a row."""
    heights = episode.columns["object_positions"][..., 2]
    held = (heights > heights[:1] + HELD_HEIGHT) & episode.columns["object_touched"]
    runs = np.stack([held[start : len(held) - HELD_FRAMES + 1 + start] for start in range(HELD_FRAMES)])
    return bool(runs.all(axis=0).any())


def recorded(
    rows: list[dict[str, np.ndarray]], source: str, task: str, seed: int, fps: float, names: tuple[str, ...]
) -> Track:
    """The track of recorded rows (observations with objects), with the columns `names`."""
    stacked = with_motion(stack_rows(rows))
    columns = {name: stacked[name] for name in names}
    columns |= {name: stacked[name].astype(np.float32) for name in _HAND if name != "keypoints_valid"}
    track = {"world_from_camera": stacked["world_from_camera"], "intrinsics": stacked["intrinsics"][0]}
    track |= {"source": source, "task": task, "seed": seed}
    return Track(frames=ArrayFrames(stacked["image"]), fps=fps, **track, columns=columns)


def _start_pose(simulation: Simulation, rng: np.random.Generator, strategy: str) -> None:
    """Begin at the rest pose half of the time, else somewhere in the reach box above the objects."""
    pose = REST_POSE + _noise(rng, 0.08, 0.1)
    if rng.random() < 0.5 or strategy == "fingers":
        target = random_target(simulation, rng, REST_POSE[ARM], low=COUNTER_TOP + 0.18)
        pose = np.concatenate([target, random_fingers(rng)])
    simulation.reset(np.clip(pose, *simulation.joint_limits.T))
    simulation.move(simulation.joint_targets, 0.2)


def _noise(rng: np.random.Generator, arm: float, fingers: float) -> np.ndarray:
    return np.concatenate([rng.normal(0, arm, 7), rng.normal(0, fingers, len(FINGERS_OPEN))])


def random_fingers(rng: np.random.Generator) -> np.ndarray:
    """Joint angles (16,) between open and closed, the same for all fingers or different."""
    closing = rng.random() if rng.random() < 0.7 else np.repeat(rng.random(4), 4)
    fingers = FINGERS_OPEN + closing * (FINGERS_CLOSED - FINGERS_OPEN)
    return fingers + rng.normal(0, 0.08, len(FINGERS_OPEN))


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Mostly overhand, sometimes with the fingers down, always with some tilt."""
    base = OVERHAND if rng.random() < 0.65 else rake_rotation(rng.uniform(-1.2, 2.2))
    palm, fingers = base[:, 0] + rng.normal(0, 0.2, 3), base[:, 2] + rng.normal(0, 0.2, 3)
    return orient(fingers, palm)


def random_target(
    simulation: Simulation, rng: np.random.Generator, near: np.ndarray, low: float = REACH_BOX[0][2]
) -> np.ndarray:
    """Arm joints (7,) of a random reachable palm pose in the reach box, not further than one posture away."""
    bottom, top = np.array(REACH_BOX)
    for _ in range(30):
        position = rng.uniform([*bottom[:2], low], top)
        if rng.random() < 0.5:  # targets crowd near the objects, where something can happen
            anchor = simulation.object_position(int(rng.integers(len(simulation.objects))))
            position[:2] = anchor[:2] + rng.normal(0, 0.09, 2)
            position[2] = max(low, COUNTER_TOP + abs(rng.normal(0.1, 0.06)))
        found = solve_arm(simulation, position, _random_rotation(rng), np.array([0.05, 0, 0.02]), near=near)
        if found.reachable and np.abs(found.joints - near).max() < _MAX_JUMP:
            return found.joints
    return near + rng.normal(0, 0.1, 7)


def _random_moves(simulation: Simulation, rng: np.random.Generator, config: ExploreConfig) -> Iterator[Move]:
    while True:
        arm = random_target(simulation, rng, simulation.joint_targets[ARM])
        fingers = random_fingers(rng) if rng.random() < 0.5 else simulation.joint_targets[FINGERS]
        yield np.concatenate([arm, fingers]) + _noise(rng, 0, 0.5 * config.finger_noise), rng.uniform(0.6, 1.6)


def _lift_moves(simulation: Simulation, rng: np.random.Generator, config: ExploreConfig) -> Iterator[Move]:
    """Scripted lifts of a place where the object no longer is, with noise on every target, then random moves."""
    for _ in range(3):
        index = int(rng.integers(len(simulation.objects)))
        angle, distance = rng.uniform(-math.pi, math.pi), rng.uniform(0.05, 0.13)
        ghost = simulation.object_position(index) + distance * heading(angle)
        kind = simulation.layout.objects[index].kind
        plan = plan_grasp(simulation, kind, ghost, lift=rng.uniform(0.05, 0.2), slack=rng.normal(0, 0.01, 3))
        if plan is not None:
            for targets in (plan.pre_grasp, plan.around, plan.closed, plan.lifted):
                yield targets + _noise(rng, config.arm_noise, config.finger_noise), rng.uniform(0.6, 1.5)
            release = np.concatenate([plan.lifted[ARM], FINGERS_OPEN])
            yield release + _noise(rng, config.arm_noise, config.finger_noise), rng.uniform(0.5, 1.0)
    yield from _random_moves(simulation, rng, config)


def _sweep_moves(simulation: Simulation, rng: np.random.Generator, config: ExploreConfig) -> Iterator[Move]:
    """Straight lines through the neighbourhood of an object, the hand at its height, in a random direction."""
    while True:
        index = int(rng.integers(len(simulation.objects)))
        angle, length = rng.uniform(-1.2, 2.4), rng.uniform(0.12, 0.3)
        ahead = heading(angle)
        left = np.array([-ahead[1], ahead[0], 0])
        rake = rng.random() < 0.75
        rotation = rake_rotation(angle + rng.normal(0, 0.25)) if rake else OVERHAND
        face = RAKE_FACE if rake else np.array([0.02, 0.0, 0.06])
        height = COUNTER_TOP + (RAKE_HEIGHT + abs(rng.normal(0, 0.012)) if rake else rng.uniform(0.05, 0.09))
        middle = np.array([*simulation.object_position(index)[:2], height]) + left * rng.normal(0, 0.03)
        fingers = (FINGERS_RAKE if rake else random_fingers(rng)) + rng.normal(0, 0.08, len(FINGERS_OPEN))
        here = simulation.joint_targets[ARM]
        start = solve_arm(simulation, middle - rng.uniform(0.08, 0.14) * ahead, rotation, face, near=here)
        end = solve_arm(simulation, middle + (length - 0.1) * ahead, rotation, face, near=start.joints)
        above = solve_arm(simulation, middle - 0.1 * ahead + [0, 0, 0.13], rotation, face, near=start.joints)
        poses = (above, start, end)
        if not all(pose.reachable for pose in poses) or _jump(here, start, end) > _MAX_JUMP:
            yield next(_random_moves(simulation, rng, config))
            continue
        for pose in (*poses, start) if rng.random() < 0.3 else poses:
            yield np.concatenate([pose.joints, fingers]) + _noise(rng, 0.3 * config.arm_noise, 0), rng.uniform(0.6, 1.5)


def _finger_moves(simulation: Simulation, rng: np.random.Generator, config: ExploreConfig) -> Iterator[Move]:
    arm = simulation.joint_targets[ARM]
    while True:
        yield np.concatenate([arm, random_fingers(rng)]), rng.uniform(0.4, 1.2)


def _jump(joints: np.ndarray, *poses: ArmSolution) -> float:
    """The furthest that a joint turns from one of the poses to the next, radians."""
    path = np.stack([joints, *(pose.joints for pose in poses)])
    return float(np.abs(np.diff(path, axis=0)).max())


_MOVES = {"lift_replay": _lift_moves, "random_targets": _random_moves, "sweep": _sweep_moves, "fingers": _finger_moves}
