"""DexJoCo as an `Environment`: one step is a second of joint targets, an episode five; DexJoCo judges it."""

from typing import Any

import gymnasium
import numpy as np

from dexworld.robots.observation import Observation
from dexworld.robots.task_suite import TaskSuite
from dexworld.sim.dexjoco import dexjoco_tasks as tasks
from dexworld.sim.dexjoco.dexjoco_process import IMAGE_SIZE, DexJoCoSimulation
from dexworld.sim.dexjoco.dexjoco_tasks import MOVE_SECONDS, MOVE_STEPS, MOVES, DexJoCoEpisode, draw_episode

_FAR = 10.0  # metres; bounds of positions
_EVERY = 6  # steps between two pictures of a film
HOLD_STEPS = 15
TASKS = tuple(name for scene in tasks.SCENES for name in (scene, scene + tasks.REACH))


class DexJoCoEnv(gymnasium.Env):
    """One of DexJoCo's tasks; an `Environment` and a `SimulatedEnvironment`.

    Observation: the fields of `dexworld.robots.observation.Observation` as float32; `observe` has them in full
    precision. Action: absolute joint targets (23,) radians, interpolated over thirty steps of the package's
    environment. Reward: 1.0 where DexJoCo calls the task a success, which ends an episode, as in the package; for
    `TASK_reach`, where the hand is there. An episode is truncated after five steps.

    task: one of `TASKS`. Raises ImportError where DexJoCo isn't set up.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1 / MOVE_SECONDS}  # noqa: RUF012  Gymnasium's own

    def __init__(self, task: str, backend: str = "auto", render_mode: str | None = "rgb_array") -> None:
        if task not in TASKS:
            raise ValueError(f"task {task!r} is unknown; choose from {', '.join(TASKS)}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r} is unknown; choose 'rgb_array' or None")
        self._task, self._backend, self.render_mode = task, backend, render_mode
        self.simulation = DexJoCoSimulation(tasks.scene_name(task), backend)
        self.robot = self.simulation.robot
        self.episode: DexJoCoEpisode | None = None
        self.film: list[np.ndarray] = []
        self._filming, self._taken, self._succeeded = False, 0, False
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
            if isinstance(found, DexJoCoEpisode):
                episode = found
            elif seed is not None:
                raise ValueError(f"scene {seed} has no {self._task} episode: {found.reason}; try the next seed")
        if episode.task != self._task:
            raise ValueError(f"the episode is of {episode.task}, this environment of {self._task}")
        self.simulation.call("set_state", state=episode.start)
        self.episode, self.film, self._filming, self._taken = episode, [], film, 0
        self._succeeded = False
        return self._observation(), {"seed": episode.seed, "goal_image": episode.goal_image.copy()}

    def step(self, action: np.ndarray):
        """Move to joint targets (23,). Raises ValueError on NaN, on a wrong shape, or outside the limits."""
        over = self._move(action, MOVE_STEPS)
        self._taken += 1
        distance = self.distance()
        done = distance < tasks.REACHED if self._begun().reaching else self._succeeded
        info = {"steps": self._taken, "distance": distance}
        terminated = over and not self._begun().reaching
        return self._observation(), float(done), terminated, self._taken >= MOVES, info

    def move(self, action: np.ndarray) -> None:
        """As `step`, without observing or filming."""
        self.simulation.call("move", targets=self.robot.check_targets(action), steps=MOVE_STEPS)

    def observe(self) -> Observation:
        """What a policy sees now."""
        return Observation.from_dict(self.simulation.observation())

    def distance(self) -> float:
        """How far the task is from done, metres."""
        return tasks.distance(self.simulation, self._begun())

    def success(self) -> bool:
        """Hold still for half a second: whether DexJoCo called the task a success, or for reaching whether the hand is
        there.
        """
        self._move(self.observe().joint_targets, HOLD_STEPS)
        return self.distance() < tasks.REACHED if self._begun().reaching else self._succeeded

    def true_cost(self) -> float:
        """How far the task is from done, metres, including what leads towards it."""
        return tasks.true_cost(self.simulation, self._begun())

    def get_state(self) -> dict[str, Any]:
        """The complete state, commanded targets included."""
        return self.simulation.call("get_state")

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a state of this scene."""
        self.simulation.call("set_state", state=state)

    def render(self) -> np.ndarray:
        """The picture (224, 392, 3) uint8."""
        return self.simulation.call("observe")["image"]

    def close(self) -> None:
        """Give DexJoCo's process back."""
        self.simulation.close()

    def _move(self, action: np.ndarray, steps: int) -> bool:
        """Whether DexJoCo says that the episode is over."""
        targets, reaching = self.robot.check_targets(action), self._begun().reaching
        every = {"every": _EVERY} if self._filming else {}
        moved = self.simulation.call("move", targets=targets, steps=steps, stop=not reaching, **every)
        self._succeeded = self._succeeded or moved["succeeded"]
        self.film += [seen["image"] for seen in moved["seen"]]
        return moved["over"]

    def _observation(self) -> dict[str, np.ndarray]:
        values = self.simulation.observation()
        return {name: values[name].astype(space.dtype) for name, space in self.observation_space.items()}

    def _begun(self) -> DexJoCoEpisode:
        if self.episode is None:
            raise ValueError("the environment has no episode yet: call reset first")
        return self.episode


# Each is planned as the kitchen's task that it is nearest to.
_LIKE = {name: "reach" if name.endswith(tasks.REACH) else "grasp" for name in TASKS}
DEXJOCO = TaskSuite("dexjoco", _LIKE, TASKS, draw_episode, DexJoCoEnv)
