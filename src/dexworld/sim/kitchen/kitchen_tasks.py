"""The tasks of the kitchen: their episodes from the scripted expert, and success by the DexWM paper (C.4).

A task episode is drawn from a scene's seed, or rejected with a reason that callers count. `TASKS` are the paper's three
and pushing; `HARDER_TASKS` are those in which moving the hand to its place in the goal picture does not suffice.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dexworld.hands import RIGHT, WRIST
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.robots.task_suite import Rejection
from dexworld.sim.kitchen import harder_builders, task_builders
from dexworld.sim.kitchen.kitchen_scene import Layout, random_layout
from dexworld.sim.kitchen.kitchen_simulation import SimState, Simulation
from dexworld.sim.kitchen.task_builders import HORIZON, STILL, NoEpisode, carry_out, tips_world

Task = Literal["reach", "grasp", "place", "push", "pick_place", "push_around", "reach_clutter", "grasp_unseen"]
TASKS: tuple[Task, ...] = ("reach", "grasp", "place", "push")
HARDER_TASKS: tuple[Task, ...] = ("pick_place", "push_around", "reach_clutter", "grasp_unseen")
ALL_TASKS = TASKS + HARDER_TASKS
HOLD_TICKS = 10  # success must hold for one second (10 Hz) after the last move

MOVES = {"reach": HORIZON, "grasp": HORIZON, "place": HORIZON, "push": HORIZON}  # of an episode
MOVES |= {"pick_place": 9, "push_around": 7, "reach_clutter": 3, "grasp_unseen": 3}
# Metres: mean over wrist and four fingertips (reach), from wrist to object, with contact (grasp), else of the object
RADIUS = {"reach": 0.15, "grasp": 0.20, "place": 0.10, "push": 0.05}
RADIUS |= {"pick_place": 0.10, "push_around": 0.05, "reach_clutter": 0.15, "grasp_unseen": 0.05}
_RESTING = 0.02  # metres a second, the speed below which an object counts as put down
# Objects that must be left alone
_LEFT_ALONE = {"push_around": slice(1, None), "reach_clutter": slice(None)}
_OBJECT_IN_VIEW = ("push", "pick_place", "push_around", "grasp_unseen")  # tasks whose goal picture must show object 0
_BUILDERS = {task: getattr(task_builders, f"build_{task}") for task in TASKS}
_BUILDERS |= {task: getattr(harder_builders, f"build_{task}") for task in HARDER_TASKS}


@dataclass(frozen=True)
class TaskEpisode:
    """One episode: where it starts, where it should end, and how the script did it.

    goal_tips: (5, 3) metres, wrist and thumb, index, middle and ring tip in the goal state, world.
    goal_object: (3,) metres, centre of object 0 in the goal state, world.
    goal_image: (224, 392, 3) uint8.
    expert_moves: (T, 23) joint targets, radians, that lead from start to goal.
    start_objects: (n, 3) metres, centres of all objects in the start state, world.
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
    start_objects: np.ndarray


def draw_episode(task: str, seed: int, backend: str = "auto", look: RobotLook = PLAIN) -> TaskEpisode | Rejection:
    """The episode of `task` in the scene of `seed`, or why there is none. About half a CPU-second."""
    if task not in ALL_TASKS:
        raise ValueError(f"task {task!r} is unknown; choose from {', '.join(ALL_TASKS)}")
    rng = np.random.default_rng([seed, 4, ALL_TASKS.index(task)])
    layout = (harder_builders.push_around_layout if task == "push_around" else random_layout)(seed, look)
    with Simulation(layout, backend) as simulation:
        simulation.move(simulation.joint_targets, 0.3)
        try:
            start, goal, moves = _BUILDERS[task](simulation, rng)
            simulation.set_state(start)
            objects = simulation.object_positions()
            simulation.set_state(goal)
            tips, target, image = tips_world(simulation), simulation.object_position(), _goal_image(simulation, task)
            episode = TaskEpisode(task, seed, layout, start, goal, image, tips, target, moves, objects)
            _check(simulation, episode)
        except NoEpisode as rejection:
            return Rejection(task, seed, str(rejection))
    return episode


def draw_episodes(
    task: str,
    first_seed: int,
    count: int,
    rejections: Counter | None = None,
    backend: str = "auto",
    look: RobotLook = PLAIN,
) -> Iterator[TaskEpisode]:
    """`count` episodes from consecutive seeds; `rejections` counts the reasons of the seeds passed over."""
    seed = first_seed
    while count > 0:
        episode = draw_episode(task, seed, backend, look)
        seed += 1
        if isinstance(episode, Rejection):
            if rejections is not None:
                rejections[episode.reason] += 1
            continue
        count -= 1
        yield episode


def distance(task: str, simulation: Simulation, episode: TaskEpisode) -> float:
    """How far the task is from done, metres; compare with the task's radius. Pushes count the counter plane only."""
    if task in ("reach", "reach_clutter"):
        return float(np.linalg.norm(tips_world(simulation) - episode.goal_tips, axis=1).mean())
    if task == "grasp":
        return float(np.linalg.norm(simulation.keypoints_world()[0][RIGHT][WRIST] - simulation.object_position()))
    offset = simulation.object_position() - episode.goal_object
    return float(np.linalg.norm(offset[:2] if task in ("push", "push_around") else offset))


def satisfied(task: str, simulation: Simulation, episode: TaskEpisode) -> bool:
    """Whether the task's criterion holds at this moment."""
    near = distance(task, simulation, episode) < RADIUS[task]
    if task in ("grasp", "grasp_unseen"):
        return near and simulation.hand_touches()
    if task == "pick_place":
        return near and not simulation.hand_touches() and simulation.object_speed() < _RESTING
    return near and (task not in _LEFT_ALONE or _disturbance(task, simulation, episode) < STILL)


def true_cost(task: str, simulation: Simulation, episode: TaskEpisode) -> float:
    """How far the task is from done, metres, including what leads towards it: the hand that must come near first."""
    left, tips = distance(task, simulation, episode), tips_world(simulation)
    if task in _LEFT_ALONE:
        left += _disturbance(task, simulation, episode)
    if task in ("push", "pick_place", "push_around"):  # the hand must come near the object before anything moves
        return left + 0.1 * float(np.linalg.norm(tips.mean(axis=0) - simulation.object_position()))
    towards_goal = float(np.linalg.norm(tips - episode.goal_tips, axis=1).mean())
    return left + towards_goal + (0.0 if satisfied(task, simulation, episode) else 0.1)


def hold(simulation: Simulation, episode: TaskEpisode, on_tick=None) -> bool:
    """Keep the last targets for one second; True if the criterion held at each of the ten ticks."""
    seen = []

    def judge(simulation: Simulation) -> None:
        seen.append(satisfied(episode.task, simulation, episode))
        if on_tick is not None:
            on_tick(simulation)

    simulation.move(simulation.joint_targets, 1.0, judge)
    return len(seen) >= HOLD_TICKS and all(seen[-HOLD_TICKS:])


def _disturbance(task: str, simulation: Simulation, episode: TaskEpisode) -> float:
    """Metres that the objects which must be left alone have moved since the start, the most of them."""
    moved = (simulation.object_positions() - episode.start_objects)[_LEFT_ALONE[task]]
    return float(np.linalg.norm(moved, axis=1).max(initial=0.0))


def _goal_image(simulation: Simulation, task: str) -> np.ndarray:
    """The picture of the present state; without the robot for `grasp_unseen`.

    Raises NoEpisode if the picture must show object 0 and doesn't.
    """
    with simulation.without_robot() if task == "grasp_unseen" else nullcontext():
        if task in _OBJECT_IN_VIEW:
            ids = simulation.renderer.segmentation(simulation.data, "ego")
            bodies = np.where(ids >= 0, simulation.model.geom_bodyid[ids], -1)
            if (bodies == simulation.objects[0]).sum() < 40:
                raise NoEpisode("the goal picture hides the object")
        return simulation.image()


def _check(simulation: Simulation, episode: TaskEpisode) -> None:
    """The goal must satisfy the criterion, doing nothing must not. In harder tasks the script must solve it again."""
    simulation.set_state(episode.goal)
    if not satisfied(episode.task, simulation, episode):
        raise NoEpisode("the goal state does not satisfy the criterion")
    simulation.set_state(episode.start)
    if satisfied(episode.task, simulation, episode):
        raise NoEpisode("solved at the start")
    if _solved_by(simulation, episode, np.tile(simulation.joint_targets, (MOVES[episode.task], 1))):
        raise NoEpisode("solved by doing nothing")
    if episode.task in HARDER_TASKS and not _solved_by(simulation, episode, episode.expert_moves):
        raise NoEpisode("the script's moves do not succeed again")


def _solved_by(simulation: Simulation, episode: TaskEpisode, moves: np.ndarray) -> bool:
    """Whether moves (T, 23) from the start lead to success."""
    simulation.set_state(episode.start)
    carry_out(simulation, moves)
    return hold(simulation, episode)
