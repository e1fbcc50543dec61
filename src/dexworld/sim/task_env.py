"""What the environments of Adroit, DexJoCo and the table share: an episode of a few moves, played in one simulation."""

from abc import abstractmethod
from typing import Any

import gymnasium
import numpy as np

from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot
from dexworld.robots.task_suite import Rejection

_FAR = 10.0  # metres; bounds of positions


class TaskEnv(gymnasium.Env):
    """One task in the scenes of a simulator; an `Environment` and a `SimulatedEnvironment`.

    Observation: the fields of `dexworld.robots.observation.Observation` as float32; `observe` has them in full
    precision. Action: absolute joint targets (J,), metres for slides and radians for hinges, interpolated over
    `move_seconds`. Reward: 1.0 where the task is done at the end of the step. An episode is truncated after `moves`.

    simulation: with the `move`, `observation`, `image` and states that `AdroitSimulation` has.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  Gymnasium's own
    simulation: Any
    tasks: tuple[str, ...]
    moves: int
    move_seconds: float
    hold_seconds: float

    def __init__(
        self, task: str, robot: Robot, image_size: tuple[int, int], backend: str, render_mode: str | None
    ) -> None:
        self.checked(task, render_mode)
        self._task, self._backend, self.robot, self.render_mode = task, backend, robot, render_mode
        self.episode: Any = None
        self.film: list[np.ndarray] = []
        self._filming, self._taken = False, 0
        box = gymnasium.spaces.Box
        low, high = robot.limits.float().numpy().T
        self.action_space = box(low, high)
        joints, pose = box(-_FAR, _FAR, low.shape), box(-_FAR, _FAR, (4, 4))
        self.observation_space: gymnasium.spaces.Dict = gymnasium.spaces.Dict(
            {
                "image": box(0, 255, (*image_size, 3), np.uint8),
                "joint_positions": joints,
                "joint_targets": joints,
                "world_from_camera": pose,
                "world_from_base": pose,
                "intrinsics": box(0, 10_000.0, (3, 3)),
            }
        )

    @classmethod
    def checked(cls, task: str, render_mode: str | None = None) -> str:
        """A task that is known, as is the render mode. Raises ValueError with those that are."""
        if task not in cls.tasks:
            raise ValueError(f"task {task!r} is unknown; choose from {', '.join(cls.tasks)}")
        if render_mode not in (None, *cls.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown; choose 'rgb_array' or None")
        return task

    @abstractmethod
    def draw(self, seed: int) -> Any:
        """The task's episode in the scene of a seed, or a `Rejection`."""

    @abstractmethod
    def load(self, seed: int) -> None:
        """Have the scene of a seed in `simulation`."""

    @abstractmethod
    def distance(self) -> float:
        """How far the task is from done, metres."""

    @abstractmethod
    def true_cost(self) -> float:
        """How far the task is from done, metres, including what leads towards it."""

    @abstractmethod
    def satisfied(self) -> bool:
        """Whether the task is done at this moment."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start the episode of scene `seed`, of a random one without a seed, or `options["episode"]`.

        `options["film"]` keeps pictures at 5 Hz in `self.film`. Raises ValueError where a seed has no episode.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        episode, film = options.pop("episode", None), options.pop("film", False)
        if options:
            raise ValueError(f"reset options {sorted(options)} are unknown; known: episode, film")
        while episode is None:
            drawn = int(self.np_random.integers(900_000)) if seed is None else seed
            found = self.draw(drawn)
            if not isinstance(found, Rejection):
                episode = found
            elif seed is not None:
                raise ValueError(f"scene {seed} has no {self._task} episode: {found.reason}; try the next seed")
        if episode.task != self._task:
            raise ValueError(f"the episode is of {episode.task}, this environment of {self._task}")
        self.load(episode.seed)
        self.simulation.set_state(episode.start)
        self.episode, self.film, self._filming, self._taken = episode, [], film, 0
        return self._observation(), {"seed": episode.seed, "goal_image": episode.goal_image.copy()}

    def step(self, action: np.ndarray):
        """Move to joint targets (J,). Raises ValueError on NaN, on a wrong shape, or outside the limits."""
        self.simulation.move(self.robot.check_targets(action), self.move_seconds, self._shoot)
        self._taken += 1
        info = {"steps": self._taken, "distance": self.distance()}
        return self._observation(), float(self.satisfied()), False, self._taken >= self.moves, info

    def move(self, action: np.ndarray) -> None:
        """As `step`, without observing or filming."""
        self.simulation.move(self.robot.check_targets(action), self.move_seconds)

    def observe(self) -> Observation:
        """What a policy sees now."""
        return Observation.from_dict(self.simulation.observation())

    def success(self) -> bool:
        """Hold still for `hold_seconds`: whether the task is done then."""
        self.simulation.move(self.simulation.joint_targets, self.hold_seconds, self._shoot)
        return self.satisfied()

    def get_state(self) -> Any:
        """The complete state, commanded targets included."""
        return self.simulation.get_state()

    def set_state(self, state: Any) -> None:
        """Go to a state of this scene."""
        self.simulation.set_state(state)

    def render(self) -> np.ndarray:
        """The picture (H, W, 3) uint8."""
        return self.simulation.image()

    def begun(self) -> Any:
        """The episode. Raises ValueError before the first reset."""
        if self.episode is None:
            raise ValueError("the environment has no episode yet: call reset first")
        return self.episode

    def _observation(self) -> dict[str, np.ndarray]:
        values = self.simulation.observation()
        return {name: values[name].astype(space.dtype) for name, space in self.observation_space.items()}

    def _shoot(self, simulation: Any) -> None:
        if self._filming:
            self.film.append(simulation.image())
