"""DexJoCo's six one-arm tasks and the reaching part of each: episodes with a goal picture, and how far from done.

Success is the package's own judgement. It has no goal pictures; ours show a state that it calls a success: things put
where they belong and kept there until it says so, the hand over what it works on. Whether a hand can bring them there
in an episode's moves isn't known. `TASK_reach` is ours: wrist and fingertips where a script brought them, over the
thing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dexworld.geometry import transform_points
from dexworld.hands import RIGHT, TIPS, WRIST
from dexworld.robots.task_suite import Rejection
from dexworld.sim.dexjoco.dexjoco_process import DexJoCoSimulation

STEPS_PER_SECOND = 30  # of the package's environments, as it records them
MOVE_SECONDS, MOVES = 1.0, 5
MOVE_STEPS = round(MOVE_SECONDS * STEPS_PER_SECOND)
REACHED = 0.06  # metres, mean over wrist and fingertips
REACH = "_reach"
_ON, _ABOVE = np.array([0.0, 0.0, 0.06]), np.array([0.0, 0.0, 0.2])  # metres, of the grasp centre over a thing
_IN_REACH = 0.05  # metres that the hand may stay away
_STILL = 0.02  # metres that a thing may move while it is reached for
_PATIENCE = 60  # steps that the package may take to call a goal state a success

Put = tuple[dict[str, Any], dict[str, float]]


@dataclass(frozen=True)
class Scene:
    """One of the package's tasks.

    thing: what the hand works on. things: what has to get somewhere. goal: where `dexjoco_worker.ServedTask.hold` puts
    parts of the scene, and which numbers of the environment it sets, in a success.
    """

    thing: str
    things: tuple[str, ...]
    goal: Callable[[DexJoCoSimulation], Put]


@dataclass(frozen=True)
class DexJoCoEpisode:
    """One episode: where it starts, what it should look like at the end.

    goal_tips: (6, 3) metres, wrist and fingertips in the goal state, world. goal_things: (n, 3) metres, the scene's
    `things` there. goal_image: (224, 392, 3) uint8. expert_moves: (T, 23) joint targets that lead there, if known.
    """

    task: str
    seed: int
    start: dict[str, Any] = field(repr=False)
    goal_tips: np.ndarray
    goal_things: np.ndarray
    goal_image: np.ndarray = field(repr=False)
    expert_moves: np.ndarray | None = None

    @property
    def reaching(self) -> bool:
        """Whether it is the reaching part of a task."""
        return self.task.endswith(REACH)


class NoEpisode(Exception):
    """Why a scene gives none."""


def scene_name(task: str) -> str:
    """The package's name of a task of the suite."""
    return task.removesuffix(REACH)


def draw_episode(task: str, seed: int, backend: str = "auto") -> DexJoCoEpisode | Rejection:
    """The episode of `task` in the package's scene of `seed`, or why there is none."""
    with DexJoCoSimulation(scene_name(task), backend) as simulation:
        scene = SCENES[scene_name(task)]
        simulation.call("reset", seed=seed)
        rest = simulation.call("observe")["joint_targets"]
        simulation.call("move", targets=rest, steps=MOVE_STEPS)  # things settle
        start = simulation.get_state()
        moves = None
        try:
            if task.endswith(REACH):
                moves = _reached(simulation, scene)
            else:
                _succeeded(simulation, scene)
        except NoEpisode as rejection:
            return Rejection(task, seed, str(rejection))
        image = simulation.image()
        tips, things = tips_world(simulation), simulation.places(*scene.things)
        simulation.set_state(start)
    return DexJoCoEpisode(task, seed, start, tips, things, image, moves)


def tips_world(simulation: DexJoCoSimulation) -> np.ndarray:
    """Wrist and fingertips (6, 3), metres, world."""
    pose = simulation.robot.forward(torch.from_numpy(simulation.call("joints")))
    keypoints = transform_points(torch.from_numpy(simulation.world_from_base), pose.keypoints)
    return keypoints.numpy()[RIGHT][[WRIST, *TIPS]]


def distance(simulation: DexJoCoSimulation, episode: DexJoCoEpisode) -> float:
    """How far the task is from done, metres."""
    if episode.reaching:
        return float(np.linalg.norm(tips_world(simulation) - episode.goal_tips, axis=1).mean())
    things = simulation.places(*SCENES[episode.task].things)
    return float(np.linalg.norm(things - episode.goal_things, axis=1).mean())


def true_cost(simulation: DexJoCoSimulation, episode: DexJoCoEpisode) -> float:
    """How far the task is from done, metres, with a tenth of how far the palm is from what it works on."""
    palm, thing = simulation.places("body:allegro_palm", SCENES[scene_name(episode.task)].thing)
    return distance(simulation, episode) + 0.1 * float(np.linalg.norm(palm - thing))


def _reached(simulation: DexJoCoSimulation, scene: Scene) -> np.ndarray:
    (thing,) = simulation.places(scene.thing)
    above, on = _hand_at(simulation, thing + _ABOVE), _hand_at(simulation, thing + _ON)
    moves = np.stack([above, *[on] * (MOVES - 1)])
    for move in moves:
        simulation.call("move", targets=move, steps=MOVE_STEPS)
    if np.linalg.norm(simulation.places(scene.thing)[0] - thing) > _STILL:
        raise NoEpisode("the hand pushes the thing away")
    return moves


def _succeeded(simulation: DexJoCoSimulation, scene: Scene) -> None:
    put, numbers = scene.goal(simulation)
    rest = simulation.call("observe")["joint_targets"]
    simulation.call("hold", put=put, numbers={}, robot=rest, steps=0)  # to see where the thing then is
    hand = _hand_at(simulation, simulation.places(scene.thing)[0] + _ON)
    if not simulation.call("hold", put=put, numbers=numbers, robot=hand, steps=_PATIENCE):
        raise NoEpisode("the package doesn't call the goal state a success")


def _hand_at(simulation: DexJoCoSimulation, place: np.ndarray) -> np.ndarray:
    found = simulation.call("reach", place=place, turn=np.zeros(3))
    if found["off"] > _IN_REACH:
        raise NoEpisode(f"the hand stays {found['off']:.2f} m away from where it should be")
    return found["targets"]


def _moved(simulation: DexJoCoSimulation, joint: str, by: np.ndarray) -> np.ndarray:
    """Position (7,) of a free joint that is moved by (3,) metres."""
    position = simulation.call("qpos", joint=joint)
    position[:3] += by
    return position


def _mouse_on_its_pad(simulation: DexJoCoSimulation) -> Put:
    mouse, pad = simulation.places("body:link_3", "geom:mousepad")
    by = np.append((pad - mouse)[:2], 0.0)
    return {"mouse_root": _moved(simulation, "mouse_root", by), "mouse_joint_0": np.array([0.006])}, {}


def _food_in_the_raised_bucket(simulation: DexJoCoSimulation) -> Put:
    up = np.array([0.0, 0.0, 0.2])
    inside = simulation.places(*(f"site:bucket_ref_{corner}" for corner in range(8))).mean(axis=0) + up
    (food,) = simulation.places("body:boxed_food_0")
    moved = {"bucket_root": up, "boxed_food_0_freejoint": inside - food}
    return {joint: _moved(simulation, joint, by) for joint, by in moved.items()}, {}


def _plant_is_sprayed(simulation: DexJoCoSimulation) -> Put:
    nozzle, plant = simulation.places("site:ref_point", "body:plant")
    by = plant + np.array([-0.1, -0.1, 0.1]) - nozzle
    return {"spray_root": _moved(simulation, "spray_root", by), "joint_0": np.array([0.4])}, {}


def _nail_in(simulation: DexJoCoSimulation) -> Put:
    (nail,) = simulation.places("body:nail")
    return {"mocap:nail": nail - [0.0, 0.0, 0.04]}, {"_nail_depth": 0.04}


def _tongs_raised(simulation: DexJoCoSimulation) -> Put:
    return {"tongs_root": _moved(simulation, "tongs_root", np.array([0.0, 0.0, 0.15]))}, {"_pinch_count": 3}


def _glasses_folded_in_their_box(simulation: DexJoCoSimulation) -> Put:
    glasses, box = simulation.places("body:glass", "body:open_box")
    folded = {f"glass_joint_{side}": np.array([1.25]) for side in (0, 1)}
    return {"glass_root": _moved(simulation, "glass_root", box - glasses), **folded}, {}


SCENES = {
    "click_mouse": Scene("body:link_3", ("body:link_3",), _mouse_on_its_pad),
    "pick_bucket": Scene("body:bucket", ("body:bucket", "body:boxed_food_0"), _food_in_the_raised_bucket),
    "water_plant": Scene("body:link_2", ("body:link_2",), _plant_is_sprayed),
    "hammer_nail": Scene("body:hammer_body", ("body:nail",), _nail_in),
    "pinch_tongs": Scene("body:link_1", ("body:link_1",), _tongs_raised),
    "fold_glasses": Scene("body:glass", ("body:glass",), _glasses_folded_in_their_box),
}
