"""Adroit's four tasks and the reaching part of one: episodes with a goal picture, and how far each is from done.

Success is the package's own: the ball within 10 cm of its target, the door open by 1.35 rad, the nail within 1 cm, the
pen within 7.5 cm and 18 degrees of the one beside it. `relocate_reach` is ours: wrist and fingertips around the ball.
The package has no goal pictures. Ours show what success looks like: the thing in its place, the hand where it reaches
it. Whether a hand can bring it there in an episode's moves isn't known, except for `relocate_reach`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import mujoco
import numpy as np

from dexworld.hands import RIGHT, TIPS, WRIST
from dexworld.robots.task_suite import Rejection
from dexworld.sim.adroit.adroit_robots import adroit_robot
from dexworld.sim.adroit.adroit_simulation import STEPS_PER_SECOND, AdroitSimulation, AdroitState

MOVE_SECONDS, MOVES = 0.4, 5  # 200 of the package's steps, its limit
REACHED = 0.06  # metres, mean over wrist and fingertips
HOLD_SECONDS = 0.2
SCENE_OF = {"relocate_reach": "relocate", "relocate": "relocate", "door": "door", "hammer": "hammer", "pen": "pen"}
_ABOVE, _ON = np.array([0.0, 0.0, 0.14]), np.array([0.0, 0.0, 0.035])  # metres, of the palm over a thing
_IN_REACH = 0.05  # metres that the palm may stay away
_STILL = 0.02  # metres that the ball may have moved in the goal of reaching
_OPEN = {"door_hinge": 1.5}
_AJAR, _TURNED = 0.2, 1.8  # radians, of the door and of its latch
_NEAR, _LATCHED = 0.17, 0.15  # metres a metre, and metres


@dataclass(frozen=True)
class AdroitEpisode:
    """One episode: where it starts, what it should look like at the end.

    goal_tips: (6, 3) metres, wrist and fingertips in the goal state, world. goal_things: (n, 3) metres, the `things` of
    the scene there. goal_image: (224, 392, 3) uint8. expert_moves: (T, J) joint targets that lead there, if known.
    """

    task: str
    seed: int
    start: AdroitState
    goal_tips: np.ndarray
    goal_things: np.ndarray
    goal_image: np.ndarray = field(repr=False)
    expert_moves: np.ndarray | None = None


class NoEpisode(Exception):
    """Why a scene gives none."""


def draw_episode(task: str, seed: int, backend: str = "auto") -> AdroitEpisode | Rejection:
    """The episode of `task` in the package's scene of `seed`, or why there is none."""
    kind = SCENE_OF[task]
    with AdroitSimulation(kind, adroit_robot(kind), backend) as simulation:
        simulation.reset(seed)
        simulation.move(simulation.joint_targets, MOVE_SECONDS)  # what the hand sinks by its weight
        start = simulation.get_state()
        try:
            moves = _GOALS[task](simulation)
        except NoEpisode as rejection:
            return Rejection(task, seed, str(rejection))
        tips, things, image = tips_world(simulation), things_world(task, simulation), simulation.image()
        episode = AdroitEpisode(task, seed, start, tips, things, image, moves)
        simulation.move(simulation.joint_targets, 1 / STEPS_PER_SECOND)
        if not satisfied(simulation, episode):
            return Rejection(task, seed, "the goal state does not satisfy the criterion")
        simulation.set_state(start)
        simulation.move(simulation.joint_targets, HOLD_SECONDS)
        if satisfied(simulation, episode):
            return Rejection(task, seed, "solved by doing nothing")
    return episode


def tips_world(simulation: AdroitSimulation) -> np.ndarray:
    """Wrist and fingertips (6, 3), metres, world."""
    keypoints, _ = simulation.keypoints_world()
    return keypoints[RIGHT][[WRIST, *TIPS]]


def things_world(task: str, simulation: AdroitSimulation) -> np.ndarray:
    """What has to get somewhere (n, 3), metres, world: ball, handle, nail, or both ends of the pen."""
    sites = {"pen": ("object_top", "object_bottom"), "hammer": ("S_target",)}
    if task in sites:
        return np.stack([simulation.place("site", name) for name in sites[task]])
    return simulation.thing[None]


def distance(simulation: AdroitSimulation, episode: AdroitEpisode) -> float:
    """How far the task is from done, metres."""
    if episode.task == "relocate_reach":
        return float(np.linalg.norm(tips_world(simulation) - episode.goal_tips, axis=1).mean())
    things = things_world(episode.task, simulation)
    return float(np.linalg.norm(things - episode.goal_things, axis=1).mean())


def satisfied(simulation: AdroitSimulation, episode: AdroitEpisode) -> bool:
    """Whether the task is done at this moment."""
    if episode.task == "relocate_reach":
        return distance(simulation, episode) < REACHED
    return simulation.achieved


def true_cost(simulation: AdroitSimulation, episode: AdroitEpisode) -> float:
    """How far the task is from done, metres, with a share of how far the palm is from what it works on; at a door that
    is shut also of how far its latch is from turned.
    """
    left, palm = distance(simulation, episode), float(np.linalg.norm(simulation.palm - simulation.thing))
    if episode.task != "door":
        return left + 0.1 * palm
    hinge, latch = (float(simulation.data.joint(name).qpos[0]) for name in ("door_hinge", "latch"))
    shut = 1.0 if hinge < _AJAR else 0.3
    return left + shut * _NEAR * palm + (_LATCHED * (1.0 - latch / _TURNED) if hinge < _AJAR else 0.0)


def _around_the_ball(simulation: AdroitSimulation) -> np.ndarray:
    ball = simulation.thing
    above, on = _palm_at(simulation, ball + _ABOVE), _palm_at(simulation, ball + _ON)
    moves = np.stack([above, *[on] * (MOVES - 1)])
    for move in moves:
        simulation.move(move, MOVE_SECONDS)
    if np.linalg.norm(simulation.thing - ball) > _STILL:
        raise NoEpisode("the hand pushes the ball away")
    return moves


def _ball_at_its_target(simulation: AdroitSimulation) -> None:
    offset = simulation.place("site", "target") - simulation.thing
    joints = {f"OBJT{axis}": float(simulation.data.joint(f"OBJT{axis}").qpos[0] + change)
              for axis, change in zip("xyz", offset, strict=True)}  # fmt: skip
    simulation.posed(**joints)
    simulation.put_hand(_palm_at(simulation, simulation.thing + _ON))


def _door_open(simulation: AdroitSimulation) -> None:
    simulation.posed(**_OPEN)
    simulation.put_hand(simulation.arm_to(simulation.thing)[0])


def _nail_in(simulation: AdroitSimulation) -> None:
    depth = np.linalg.norm(simulation.place("site", "nail_goal") - simulation.place("site", "S_target"))
    simulation.posed(nail_dir=float(depth))


def _pen_turned(simulation: AdroitSimulation) -> None:
    joints, wanted = [f"OBJR{axis}" for axis in "xyz"], _axis(simulation, "target")
    for _ in range(30):  # Gauss-Newton on its three hinges
        off, body = _axis(simulation, "object") - wanted, simulation.model.body("Object").id
        jacobian = np.zeros((3, simulation.model.nv))
        mujoco.mj_jacBody(simulation.model, simulation.data, None, jacobian, body)
        dofs = [simulation.model.joint(name).dofadr[0] for name in joints]
        turns = np.cross(jacobian[:, dofs].T, _axis(simulation, "object")).T  # of the pen's axis by each hinge
        step = np.linalg.lstsq(turns, -off, rcond=1e-6)[0]
        angles = [float(simulation.data.joint(name).qpos[0]) for name in joints]
        simulation.posed(**{name: angle + change for name, angle, change in zip(joints, angles, step, strict=True)})


def _axis(simulation: AdroitSimulation, what: str) -> np.ndarray:
    """Direction (3,) of a pen, the "object" or the "target"."""
    along = simulation.place("site", f"{what}_top") - simulation.place("site", f"{what}_bottom")
    return along / np.linalg.norm(along)


def _palm_at(simulation: AdroitSimulation, place: np.ndarray) -> np.ndarray:
    joints, off = simulation.arm_to(place)
    if off > _IN_REACH:
        raise NoEpisode(f"the palm stays {off:.2f} m away from where it should be")
    return joints


_GOALS: dict[str, Callable[[AdroitSimulation], np.ndarray | None]] = {
    "relocate_reach": _around_the_ball,
    "relocate": _ball_at_its_target,
    "door": _door_open,
    "hammer": _nail_in,
    "pen": _pen_turned,
}
