"""The kitchen as a Gymnasium environment: one step is one step of the world model, a second of robot motion."""

import logging
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from dexworld.hands import NUM_KEYPOINTS
from dexworld.robots.franka_allegro import FrankaAllegro, TipConvention
from dexworld.robots.observation import Observation
from dexworld.robots.robot_meshes import PLAIN, RobotLook
from dexworld.robots.task_suite import TaskSuite
from dexworld.sim.kitchen import kitchen_tasks as tasks
from dexworld.sim.kitchen.kitchen_scene import COUNTER_BOX, IMAGE_SIZE, TRAINING_SEEDS, Layout, random_layout
from dexworld.sim.kitchen.kitchen_simulation import TICKS_PER_FRAME, SimState, Simulation
from dexworld.sim.kitchen.kitchen_tasks import ALL_TASKS, MOVES, TASKS, TaskEpisode, draw_episode
from dexworld.sim.kitchen.task_builders import step

_FAR = 10.0  # metres; bounds of positions, which nothing at a counter reaches
_LONG = 10_000.0  # px; of focal lengths

logger = logging.getLogger(__name__)


class KitchenEnv(gymnasium.Env):
    """Franka arm with Allegro hand at a kitchen counter; an `Environment` and a `SimulatedEnvironment`.

    Observation: the fields of `dexworld.robots.observation.Observation`, and the true keypoints (`keypoints_world`
    (42, 3) metres, `keypoints_valid` (42,)), as float32; `observe` has them in full precision. Action: absolute joint
    targets (23,) radians, interpolated over a second.
    Reward: 1.0 when the task's criterion holds at the end of the step (0.0 without a task). An episode is truncated
    after its task's moves (`MOVES`); `info["distance"]` says how far the task is from done, metres.

    Without a task the scene just stands there to be explored, and nothing truncates.

    task: of resets whose options name none, so also of those by which a vector environment goes on. tips: as of
    `FrankaAllegro`. render_mode: `rgb_array` or None; `render` gives the picture in both. look: meshes that the robot
    wears; an episode that is given to `reset` has its own. Raises ValueError for an unknown task or mode.
    """

    keep_out = (COUNTER_BOX,)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012  Gymnasium's own declaration

    def __init__(
        self,
        task: str | None = None,
        backend: str = "auto",
        tips: TipConvention = "true",
        render_mode: str | None = "rgb_array",
        look: RobotLook = PLAIN,
    ):
        if task is not None and task not in ALL_TASKS:
            raise ValueError(f"task {task!r} is unknown; choose from {', '.join(ALL_TASKS)}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown; choose 'rgb_array' or None")
        self._task, self._backend, self._look = task, backend, look
        self.render_mode = render_mode
        self.robot = FrankaAllegro(tips)
        self.simulation: Simulation | None = None
        self.episode: TaskEpisode | None = None
        self.film: list[np.ndarray] = []
        self._filming = False
        box = gymnasium.spaces.Box
        low, high = self.robot.limits.float().numpy().T
        self.action_space = box(low, high)
        joints = box(-np.pi * 1.5, np.pi * 1.5, low.shape)  # measured ones overshoot a little
        pose = box(-_FAR, _FAR, (4, 4))
        self.observation_space: gymnasium.spaces.Dict = gymnasium.spaces.Dict(
            {
                "image": box(0, 255, (*IMAGE_SIZE, 3), np.uint8),
                "joint_positions": joints,
                "joint_targets": joints,
                "keypoints_world": box(-_FAR, _FAR, (NUM_KEYPOINTS, 3)),
                "keypoints_valid": gymnasium.spaces.MultiBinary(NUM_KEYPOINTS),
                "world_from_camera": pose,
                "world_from_base": pose,
                "intrinsics": box(0, _LONG, (3, 3)),
            }
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Build the scene of `seed`, or without one of a random training seed; `info["seed"]` is the scene's.

        With the environment's own task it is the first scene from there on that has an episode of it. The info then
        holds `goal_image`. options: `task`, one of `ALL_TASKS`, asks for an episode in the very scene of `seed`;
        ValueError says why there is none. `episode` takes a `TaskEpisode` instead. `film` keeps pictures at 5 Hz in
        `self.film`.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        episode, task, film = options.pop("episode", None), options.pop("task", None), options.pop("film", False)
        if options:
            raise ValueError(f"reset options {sorted(options)} are unknown; known: task, episode, film")
        if task is not None and episode is not None:
            raise ValueError("reset takes a task to draw an episode of, or an episode, not both")
        if episode is None:
            seed, episode = self._drawn(task or self._task, seed, exact=task is not None)
        else:
            seed = episode.seed
        simulation = self._load(random_layout(seed, self._look) if episode is None else episode.layout)
        self.episode, self._taken = episode, 0
        info: dict[str, Any] = {"seed": seed}
        if episode is not None:
            info["goal_image"] = episode.goal_image.copy()
            simulation.set_state(episode.start)
        self.film, self._filming, self._ticks = [], film, 0
        return self._observation(), info

    def step(self, action: np.ndarray):
        """Move to joint targets (23,) radians. Raises ValueError on NaN, on a wrong shape, or outside the limits."""
        step(self._running(), self.robot.check_targets(action), self._shoot)
        self._taken += 1
        info: dict[str, Any] = {"steps": self._taken}
        reward = 0.0
        if self.episode is not None:
            info["distance"] = self.distance()
            reward = float(tasks.satisfied(self.episode.task, self._running(), self.episode))
        truncated = self.episode is not None and self._taken >= MOVES[self.episode.task]
        return self._observation(), reward, False, truncated, info

    def move(self, action: np.ndarray) -> None:
        """As `step`, without observing or filming."""
        step(self._running(), self.robot.check_targets(action))

    def observe(self) -> Observation:
        """What a policy sees now."""
        return Observation.from_dict(self._running().observation())

    def distance(self) -> float:
        """How far the task is from done, metres."""
        simulation, episode = self._posed()
        return tasks.distance(episode.task, simulation, episode)

    def success(self) -> bool:
        """Hold still for a second: whether the task's criterion holds at each of ten ticks (the paper's success)."""
        simulation, episode = self._posed()
        return tasks.hold(simulation, episode, self._shoot)

    def true_cost(self) -> float:
        """How far the task is from done, metres, including what leads towards it."""
        simulation, episode = self._posed()
        return tasks.true_cost(episode.task, simulation, episode)

    def get_state(self) -> SimState:
        """The complete state, commanded targets included."""
        return self._running().get_state()

    def set_state(self, state: SimState) -> None:
        """Go to a state of this scene."""
        self._running().set_state(state)

    def render(self) -> np.ndarray:
        """The egocentric picture (224, 392, 3) uint8."""
        return self._running().image()

    def close(self) -> None:
        """Free the renderer."""
        if self.simulation is not None:
            self.simulation.close()
            self.simulation = None

    def _observation(self) -> dict[str, np.ndarray]:
        """What is seen, in the types of the observation space."""
        values = self._running().observation()
        return {name: values[name].astype(space.dtype) for name, space in self.observation_space.items()}

    def _drawn(self, task: str | None, seed: int | None, exact: bool) -> tuple[int, TaskEpisode | None]:
        """The seed to build, and its episode of the task if there is to be one."""
        while True:
            drawn = int(self.np_random.integers(TRAINING_SEEDS.start, TRAINING_SEEDS.stop)) if seed is None else seed
            if task is None:
                return drawn, None
            episode = draw_episode(task, drawn, self._backend, self._look)
            if isinstance(episode, TaskEpisode):
                return episode.seed, episode
            without = f"scene {drawn} has no {task} episode: {episode.reason}"
            if seed is not None and exact:
                raise ValueError(f"{without}; try the next seed")
            logger.info("%s; trying another", without)
            seed = None if seed is None else seed + 1

    def _load(self, layout: Layout) -> Simulation:
        if self.simulation is None or self.simulation.layout != layout:
            self.close()
            self.simulation = Simulation(layout, self._backend, self.robot.tips)
        else:
            self.simulation.reset()
        return self.simulation

    def _running(self) -> Simulation:
        if self.simulation is None:
            raise ValueError("the environment has no scene yet: call reset first")
        return self.simulation

    def _posed(self) -> tuple[Simulation, TaskEpisode]:
        if self.episode is None:
            raise ValueError("there is no task to succeed in; reset with options={'task': ...}")
        return self._running(), self.episode

    def _shoot(self, simulation: Simulation) -> None:
        """Called at 10 Hz of simulated time."""
        if self._filming and self._ticks % TICKS_PER_FRAME == 0:
            self.film.append(simulation.image())
        self._ticks += 1


def kitchen_suite(look: RobotLook = PLAIN) -> TaskSuite:
    """The kitchen's tasks, played by a robot of this look."""
    tasks: dict[str, str] = {task: task for task in ALL_TASKS}
    draw = partial(draw_episode, look=look)
    return TaskSuite("kitchen", tasks, TASKS, draw, lambda task, backend: KitchenEnv(task, backend, look=look))


KITCHEN = kitchen_suite()
