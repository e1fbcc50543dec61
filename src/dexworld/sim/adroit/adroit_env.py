"""Adroit as an `Environment`: one step is 0.4 seconds of joint targets, an episode is the package's two seconds."""

from typing import Any

import gymnasium
import numpy as np

from dexworld.robots.observation import Observation
from dexworld.robots.task_suite import TaskSuite
from dexworld.sim.adroit import adroit_tasks as tasks
from dexworld.sim.adroit.adroit_robots import adroit_robot
from dexworld.sim.adroit.adroit_simulation import IMAGE_SIZE, AdroitSimulation, AdroitState
from dexworld.sim.adroit.adroit_tasks import MOVE_SECONDS, MOVES, SCENE_OF, AdroitEpisode, draw_episode

_FAR = 10.0  # metres; bounds of positions


class AdroitEnv(gymnasium.Env):
    """One of Adroit's scenes; an `Environment` and a `SimulatedEnvironment`.

    Observation: the fields of `dexworld.robots.observation.Observation` as float32; `observe` has them in full
    precision. Action: absolute joint targets (J,), metres for slides and radians for hinges, interpolated over 0.4 s.
    Reward: 1.0 where the task is done at the end of the step. An episode is truncated after five steps.

    task: one of `SCENE_OF`. Raises ImportError where gymnasium-robotics is missing.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1 / MOVE_SECONDS}  # noqa: RUF012  Gymnasium's own

    def __init__(self, task: str, backend: str = "auto", render_mode: str | None = "rgb_array") -> None:
        if task not in SCENE_OF:
            raise ValueError(f"task {task!r} is unknown; choose from {', '.join(SCENE_OF)}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown; choose 'rgb_array' or None")
        self._task, self._backend, self.render_mode = task, backend, render_mode
        self.robot = adroit_robot(SCENE_OF[task])
        self.simulation = AdroitSimulation(SCENE_OF[task], self.robot, backend)
        self.episode: AdroitEpisode | None = None
        self.film: list[np.ndarray] = []
        self._filming, self._taken = False, 0
        box = gymnasium.spaces.Box
        low, high = self.robot.limits.float().numpy().T
        self.action_space = box(low, high)
        joints, pose = box(-_FAR, _FAR, low.shape), box(-_FAR, _FAR, (4, 4))
        self.observation_space: gymnasium.spaces.Dict = gymnasium.spaces.Dict(
            {
                "image": box(0, 255, (*IMAGE_SIZE, 3), np.uint8),
                "joint_positions": joints,
                "joint_targets": joints,
                "world_from_camera": pose,
                "world_from_base": pose,
                "intrinsics": box(0, 10_000.0, (3, 3)),
            }
        )

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
            found = draw_episode(self._task, drawn, self._backend)
            if isinstance(found, AdroitEpisode):
                episode = found
            elif seed is not None:
                raise ValueError(f"scene {seed} has no {self._task} episode: {found.reason}; try the next seed")
        if episode.task != self._task:
            raise ValueError(f"the episode is of {episode.task}, this environment of {self._task}")
        self.simulation.reset(episode.seed)
        self.simulation.set_state(episode.start)
        self.episode, self.film, self._filming, self._taken = episode, [], film, 0
        return self._observation(), {"seed": episode.seed, "goal_image": episode.goal_image.copy()}

    def step(self, action: np.ndarray):
        """Move to joint targets (J,). Raises ValueError on NaN, on a wrong shape, or outside the limits."""
        self.simulation.move(self.robot.check_targets(action), MOVE_SECONDS, self._shoot)
        self._taken += 1
        reward = float(tasks.satisfied(self.simulation, self._begun()))
        info = {"steps": self._taken, "distance": self.distance()}
        return self._observation(), reward, False, self._taken >= MOVES, info

    def move(self, action: np.ndarray) -> None:
        """As `step`, without observing or filming."""
        self.simulation.move(self.robot.check_targets(action), MOVE_SECONDS)

    def observe(self) -> Observation:
        """What a policy sees now."""
        return Observation.from_dict(self.simulation.observation())

    def distance(self) -> float:
        """How far the task is from done, metres."""
        return tasks.distance(self.simulation, self._begun())

    def success(self) -> bool:
        """Hold still for a fifth of a second: whether the task is done then."""
        self.simulation.move(self.simulation.joint_targets, tasks.HOLD_SECONDS, self._shoot)
        return tasks.satisfied(self.simulation, self._begun())

    def true_cost(self) -> float:
        """How far the task is from done, metres, including what leads towards it."""
        return tasks.true_cost(self.simulation, self._begun())

    def get_state(self) -> AdroitState:
        """The complete state, commanded targets included."""
        return self.simulation.get_state()

    def set_state(self, state: AdroitState) -> None:
        """Go to a state of this scene."""
        self.simulation.set_state(state)

    def render(self) -> np.ndarray:
        """The picture (224, 392, 3) uint8."""
        return self.simulation.image()

    def close(self) -> None:
        """Free the renderer."""
        self.simulation.close()

    def _observation(self) -> dict[str, np.ndarray]:
        values = self.simulation.observation()
        return {name: values[name].astype(space.dtype) for name, space in self.observation_space.items()}

    def _begun(self) -> AdroitEpisode:
        if self.episode is None:
            raise ValueError("the environment has no episode yet: call reset first")
        return self.episode

    def _shoot(self, simulation: AdroitSimulation) -> None:
        if self._filming:
            self.film.append(simulation.image())


# Each is planned as the kitchen's task that it is nearest to.
_LIKE = {"relocate_reach": "reach", "relocate": "grasp", "door": "grasp", "hammer": "grasp", "pen": "grasp"}
ADROIT = TaskSuite("adroit", _LIKE, tuple(SCENE_OF), draw_episode, AdroitEnv)
