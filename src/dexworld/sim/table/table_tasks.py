"""The table's two tasks, for any described robot: reaching for a pose, and pushing the thing somewhere else.

`reach`: wrist and fingertips as in the goal picture. `push`: the thing where the goal picture has it; the hand starts
behind it, and the picture shows the hand back there. A script did both, so that every episode can be solved.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from dexworld.robots.task_suite import Rejection
from dexworld.sim.kitchen.kitchen_simulation import SimState
from dexworld.sim.poses import heading
from dexworld.sim.table.station import OutOfReach, station
from dexworld.sim.table.table_simulation import TableSimulation

TASKS = ("reach", "push")
MOVES, MOVE_SECONDS, HOLD_SECONDS = 3, 1.0, 1.0
RADIUS = {"reach": 0.05, "push": 0.04}  # metres
WORK = 0.13  # metres about the table's middle that the hand works in
LIFTS = (0.02, 0.2)  # metres of the hand above where it nearly touches the table
GAP, PUSHED = (0.02, 0.05), (0.08, 0.14)  # metres from fingertips to the thing, and of the push
_APART, _STILL, _LEAST = 0.12, 0.01, 0.06  # metres: start and goal of reaching; the thing then; a push
_BENT = 0.3  # share of closing with which the hand pushes


@dataclass(frozen=True)
class TableEpisode:
    """One episode. goal_tips: (n, 3) and goal_thing: (3,) metres in the goal state. goal_image: (224, 392, 3) uint8.
    expert_moves: (3, J) joint targets that lead there.
    """

    task: str
    seed: int
    start: SimState
    goal_tips: np.ndarray
    goal_thing: np.ndarray
    goal_image: np.ndarray = field(repr=False)
    expert_moves: np.ndarray


def draw_episode(robot: str, task: str, seed: int, backend: str = "auto") -> TableEpisode | Rejection:
    """The episode of `task` in the table's scene of `seed`, or why there is none. robot: as of `station`."""
    rng = np.random.default_rng([seed, 4, TASKS.index(task)])
    with TableSimulation(station(robot), seed, backend) as simulation:
        try:
            start, moves = (_reach if task == "reach" else _push)(simulation, rng)
        except OutOfReach as reason:
            return Rejection(task, seed, f"out of reach: {str(reason).split(' stays')[0]}")
        simulation.reset(start)
        simulation.move(start, MOVE_SECONDS)
        began, thing = simulation.get_state(), simulation.object_positions()[0]
        for move in moves:
            simulation.move(move, MOVE_SECONDS)
        simulation.move(moves[-1], HOLD_SECONDS)
        tips, pushed = simulation.tips_world(), simulation.object_positions()[0]
        moved = float(np.linalg.norm((pushed - thing)[:2]))
        if task == "reach" and moved > _STILL:
            return Rejection(task, seed, "the hand touches the thing")
        if task == "push" and (moved < _LEAST or abs(pushed[2] - thing[2]) > _STILL):
            return Rejection(task, seed, "the thing was not pushed, or fell")
        if task == "push":
            simulation.put_robot(start)
        episode = TableEpisode(task, seed, began, tips, pushed, simulation.image(), moves)
        simulation.set_state(began)
        simulation.move(start, MOVES * MOVE_SECONDS + HOLD_SECONDS)
        if distance(simulation, episode) < RADIUS[task]:
            return Rejection(task, seed, "solved by doing nothing")
    return episode


def distance(simulation: TableSimulation, episode: TableEpisode) -> float:
    """How far the task is from done, metres: the mean over wrist and fingertips, or the thing in the table's plane."""
    if episode.task == "reach":
        return float(np.linalg.norm(simulation.tips_world() - episode.goal_tips, axis=1).mean())
    return float(np.linalg.norm((simulation.object_positions()[0] - episode.goal_thing)[:2]))


def true_cost(simulation: TableSimulation, episode: TableEpisode) -> float:
    """How far the task is from done, metres, with a tenth of how far the hand is from the thing in `push`."""
    left = distance(simulation, episode)
    if episode.task == "push":
        tips = simulation.tips_world()[1:]
        left += 0.1 * float(np.linalg.norm(tips.mean(axis=0) - simulation.object_positions()[0]))
    return left


def random_pose(simulation: TableSimulation, rng: np.random.Generator) -> np.ndarray:
    """Joint positions (J,) with the hand somewhere over the table. Raises OutOfReach."""
    station = simulation.station
    place = [*rng.uniform(-WORK, WORK, 2), station.low + rng.uniform(*LIFTS)]
    return station.hand_at(place, rng.uniform(-0.3, 0.3), rng.uniform(0.0, 0.8))


def push_poses(
    simulation: TableSimulation, rng: np.random.Generator, gap: tuple[float, float] = GAP
) -> tuple[np.ndarray, ...]:
    """Joint positions (J,) of a straight push: fingertips low behind the thing, halfway, and as far as it goes.

    Raises OutOfReach.
    """
    station, thing = simulation.station, simulation.layout.objects[0]
    simulation.put_robot(station.hand_at([0.0, 0.0, station.low + LIFTS[1]], bent=_BENT))
    tips = simulation.tips_world()
    middle = tips[1:].mean(axis=0) - tips[0]  # of the fingertips, from the wrist
    left = np.cross([0.0, 0.0, 1.0], station.ahead)
    spot = simulation.object_positions()[0] - station.centre
    along = heading(rng.uniform(-math.pi, math.pi))
    behind = -math.hypot(thing.radius, thing.radius * thing.aspect) - rng.uniform(*gap)
    last, poses = rng.uniform(*PUSHED) - thing.radius, []
    for way in (behind, 0.5 * (behind + last), last):
        wrist = spot + way * along - middle
        poses.append(station.hand_at([wrist @ station.ahead, wrist @ left, station.low + 0.005], bent=_BENT))
    return tuple(poses)


def _reach(simulation: TableSimulation, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    goal = random_pose(simulation, rng)
    simulation.put_robot(goal)
    tips = simulation.tips_world()
    for _ in range(20):
        start = random_pose(simulation, rng)
        simulation.put_robot(start)
        if np.linalg.norm(simulation.tips_world() - tips, axis=1).mean() > _APART:
            return start, np.stack([goal] * MOVES)
    raise OutOfReach("a start that is far enough stays out of reach")


def _push(simulation: TableSimulation, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    start, halfway, end = push_poses(simulation, rng)
    return start, np.stack([halfway, end, end])
