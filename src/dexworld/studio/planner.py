"""What runs in a worker process behind the view *Plan*: scenes with a goal, searches, and what the simulator does."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mujoco
import numpy as np
import torch

from dexworld.data.resize import Fit
from dexworld.evaluation.policy_setup import policy_setup
from dexworld.models.latent_readers import AUTO, drawing_of
from dexworld.models.world_model import load_world_model
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.policies import world_model
from dexworld.planning.sentence_goal import sentence_points
from dexworld.report.play_demo import followed_points
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.sim.kitchen.allegro_body import ROBOT_GROUP
from dexworld.sim.kitchen.kitchen_env import KitchenEnv
from dexworld.sim.kitchen.kitchen_tasks import MOVES, RADIUS, TASKS, TaskEpisode, draw_episodes
from dexworld.sim.kitchen.worn_meshes import HIDDEN_GROUP
from dexworld.studio.search_watch import SearchNews, WatchedSearch

SCENES = 3  # that stay open
KINDS = {
    int(mujoco.mjtGeom.mjGEOM_BOX): "box",
    int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
    int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
    int(mujoco.mjtGeom.mjGEOM_SPHERE): "ellipsoid",
    int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "ellipsoid",
}
Pixel = tuple[float, float]


@dataclass(frozen=True)
class GoalChoice:
    """A task's scene and what is to be reached in it.

    seed: the first scene from there on that has an episode of the task. moves: joint targets (J,), carried out first.
    The goal is one of these, or else the episode's picture:
    points: from pixel and to pixel [u, v] of the start picture. sentence: says both. pixels: of a picture of one's own
    (height, width, 3), uint8.
    """

    task: str = "push"
    seed: int = 900_000
    points: tuple[Pixel, Pixel] | None = None
    sentence: str = ""
    pixels: bytes = field(default=b"", repr=False)
    size: tuple[int, int] = (0, 0)
    moves: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task {self.task!r} is unknown; choose from {', '.join(TASKS)}")
        if len(self.moves) > MOVES[self.task]:
            raise ValueError(f"{self.task} has {MOVES[self.task]} moves, not {len(self.moves)}")

    @property
    def judged(self) -> bool:
        """Whether the simulator can say how far the goal is: it knows the episode's own."""
        return self.points is None and not self.sentence and not self.pixels


class Shape(NamedTuple):
    """A part of the robot or of an object. kind: of `KINDS`' values. size: half lengths, or radius and half length."""

    kind: str
    size: tuple[float, float, float]
    place: np.ndarray
    rotation: np.ndarray
    colour: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class PlanScene:
    """How the scene stands after some moves: joint targets, (J,) each.

    goal: the picture to reach, None for points; `points` then. objects: (n, 3) metres, world. distance: metres to the
    goal, None where nobody can judge it.
    """

    image: np.ndarray
    goal: np.ndarray | None
    points: tuple[Pixel, Pixel] | None
    intrinsics: np.ndarray
    world_from_camera: np.ndarray
    keypoints: np.ndarray
    valid: np.ndarray
    shapes: tuple[Shape, ...]
    joints: np.ndarray
    limits: np.ndarray
    objects: np.ndarray
    seed: int
    moves: tuple[tuple[float, ...], ...]
    distance: float | None
    needed: float
    over: bool
    imagined: np.ndarray | None = None
    success: bool | None = None

    @property
    def steps(self) -> int:
        """Moves so far."""
        return len(self.moves)


@dataclass
class _Open:
    environment: KitchenEnv
    policy: MPCPolicy
    episode: TaskEpisode
    judged: bool
    goal: np.ndarray
    points: tuple[Pixel, Pixel] | None
    search: WatchedSearch | None = None
    imagined: np.ndarray | None = None
    moves: tuple[tuple[float, ...], ...] = ()
    over: bool = False
    success: bool | None = None


class Planner:
    """The planner of a checkpoint, for several visitors. decoder: as of `drawing_of`. look: of the simulated robot."""

    def __init__(self, checkpoint: str, decoder: str = AUTO, look: RobotLook = PLAIN) -> None:
        self._look = look
        self.model: Any = load_world_model(checkpoint)
        self.drawing = drawing_of(self.model, decoder)
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._episodes: OrderedDict[tuple[str, int], TaskEpisode] = OrderedDict()

    def set(self, visitor: int, choice: GoalChoice) -> PlanScene:
        """Set the scene and the goal. Raises ValueError for a goal that this model doesn't understand."""
        self.leave(visitor)
        episode, environment = self._episode(choice), KitchenEnv()
        try:
            environment.reset(options={"episode": episode})
            setup = policy_setup(choice.task, self.model, "cpu", environment)
            policy, points = world_model(setup, subgoals=False), choice.points
            if choice.sentence:
                found = sentence_points(self.model, environment.observe().image, choice.sentence)
                (u, v), (s, t) = ([float(each) for each in pixels[0]] for pixels in found)
                points = (u, v), (s, t)
            goal = own_goal(choice, episode.goal_image.shape[:2]) if choice.pixels else episode.goal_image
            if points is None:
                policy.reset(goal, seed=episode.seed)
            else:
                policy.reset(goal_points=(np.array([points[0]]), np.array([points[1]])), seed=episode.seed)
            opened = _Open(environment, policy, episode, choice.judged, goal, points)
            for move in choice.moves:
                self._carry_out(opened, np.array(move))
        except BaseException:
            environment.close()
            raise
        self._open[visitor] = opened
        while len(self._open) > SCENES:
            self.leave(next(iter(self._open)))
        return self._scene(self._open[visitor])

    def search(self, visitor: int) -> SearchNews:
        """The next population of the search for the next move, or its plan. Raises ValueError without a scene."""
        opened = self._of(visitor)
        if opened.over:
            raise ValueError("the moves of this task are used up; set the scene anew")
        if opened.search is None or opened.search.actions is not None:
            opened.search = WatchedSearch(opened.policy, opened.environment.observe())
        try:
            return opened.search.next()
        except Exception:
            opened.search = None
            raise

    def stop(self, visitor: int) -> None:
        """Give the search up."""
        opened = self._of(visitor)
        if opened.search is not None:
            opened.search.stop()
            opened.search = None

    def move(self, visitor: int) -> PlanScene:
        """Carry the plan's first move out in the simulator. Raises ValueError before a plan is found."""
        opened = self._of(visitor)
        if opened.search is None or opened.search.actions is None:
            raise ValueError("there is no plan yet: search first")
        opened.imagined = self._imagined(opened)
        self._carry_out(opened, opened.search.actions)
        opened.search = None
        return self._scene(opened)

    def leave(self, visitor: int) -> None:
        """Forget a visitor's scene."""
        if visitor in self._open:
            self.stop(visitor)
            self._open.pop(visitor).environment.close()

    def _carry_out(self, opened: _Open, targets: np.ndarray) -> None:
        *_, truncated, _ = opened.environment.step(targets)
        opened.moves, opened.over = (*opened.moves, tuple(float(each) for each in targets)), bool(truncated)
        if opened.over and opened.judged:
            opened.success = opened.environment.success()

    def _of(self, visitor: int) -> _Open:
        if visitor not in self._open:
            raise ValueError("this scene was left long ago; set it anew")
        self._open.move_to_end(visitor)
        return self._open[visitor]

    def _episode(self, choice: GoalChoice) -> TaskEpisode:
        key = (choice.task, choice.seed)
        if key not in self._episodes:
            (self._episodes[key],) = draw_episodes(choice.task, choice.seed, 1, look=self._look)
            while len(self._episodes) > 8:
                self._episodes.popitem(last=False)
        return self._episodes[key]

    def _imagined(self, opened: _Open) -> np.ndarray | None:
        """What the plan's first move was expected to lead to."""
        rollout = opened.policy.imagined
        if rollout.points is not None:
            return followed_points(opened.policy, rollout.points, opened.environment.observe().image)
        if rollout.latents is None or self.drawing.decode is None:
            return None
        return self.drawing.decode(rollout.latents[0, :1])[0].numpy()

    def _scene(self, opened: _Open) -> PlanScene:
        environment, simulation = opened.environment, opened.environment.simulation
        assert simulation is not None
        seen = environment.observe()
        keypoints, valid = simulation.keypoints_world()
        return PlanScene(
            image=seen.image,
            goal=opened.goal if opened.points is None else None,
            points=opened.points,
            intrinsics=seen.intrinsics,
            world_from_camera=seen.world_from_camera,
            keypoints=keypoints,
            valid=valid,
            shapes=shapes(simulation),
            joints=seen.joint_positions,
            limits=environment.robot.limits.numpy(),
            objects=simulation.object_positions(),
            seed=opened.episode.seed,
            moves=opened.moves,
            distance=environment.distance() if opened.judged else None,
            needed=RADIUS[opened.episode.task],
            over=opened.over,
            imagined=opened.imagined,
            success=opened.success,
        )


def own_goal(choice: GoalChoice, size: tuple[int, int]) -> np.ndarray:
    """The goal picture of one's own, brought to a size (height, width)."""
    picture = torch.from_numpy(np.frombuffer(choice.pixels, np.uint8).reshape(1, *choice.size, 3).copy())
    return Fit.cover(choice.size, size).images(picture).numpy()[0]


def shapes(simulation: Any) -> tuple[Shape, ...]:
    """The parts of the robot and of the objects, where they are now."""
    model, data, found = simulation.model, simulation.data, []
    objects = set(simulation.objects.tolist())
    for number in range(model.ngeom):
        kind = KINDS.get(int(model.geom_type[number]))
        of_robot = model.geom_group[number] in (ROBOT_GROUP, HIDDEN_GROUP)  # meshes are drawn by what is below them
        if kind is None or not (of_robot or int(model.geom_bodyid[number]) in objects):
            continue
        rgba = model.geom_rgba[number]
        if rgba[3] < 0.05:
            continue
        x, y, z = (float(each) for each in model.geom_size[number])
        size = (x, x, x) if int(model.geom_type[number]) == int(mujoco.mjtGeom.mjGEOM_SPHERE) else (x, y, z)
        red, green, blue = (int(255 * each) for each in rgba[:3])
        rotation = data.geom_xmat[number].reshape(3, 3).copy()
        found.append(Shape(kind, size, data.geom_xpos[number].copy(), rotation, (red, green, blue)))
    return tuple(found)
