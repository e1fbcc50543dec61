"""DexJoCo as an `Environment`: one step is a second of joint targets, an episode five; DexJoCo judges it."""

import numpy as np

from dexworld.robots.task_suite import Rejection, TaskSuite
from dexworld.sim.dexjoco import dexjoco_tasks
from dexworld.sim.dexjoco.dexjoco_process import IMAGE_SIZE, DexJoCoSimulation
from dexworld.sim.dexjoco.dexjoco_tasks import MOVE_SECONDS, MOVE_STEPS, MOVES, DexJoCoEpisode, draw_episode
from dexworld.sim.task_env import TaskEnv

_EVERY = 6  # steps between two pictures of a film
HOLD_STEPS = 15
TASKS = tuple(name for scene in dexjoco_tasks.SCENES for name in (scene, scene + dexjoco_tasks.REACH))


class DexJoCoEnv(TaskEnv):
    """One of DexJoCo's tasks; see `TaskEnv`. Joint targets are 23, in radians, and a step is thirty of the package's.

    Reward: 1.0 where DexJoCo calls the task a success, which ends an episode, as in the package; for `TASK_reach`,
    where the hand is there. task: one of `TASKS`. Raises ImportError where DexJoCo isn't set up.
    """

    metadata = TaskEnv.metadata | {"render_fps": 1 / MOVE_SECONDS}
    tasks, moves = TASKS, MOVES

    def __init__(self, task: str, backend: str = "auto", render_mode: str | None = "rgb_array") -> None:
        self.checked(task, render_mode)
        self.simulation, self._succeeded = DexJoCoSimulation(dexjoco_tasks.scene_name(task), backend), False
        super().__init__(task, self.simulation.robot, IMAGE_SIZE, backend, render_mode)

    def draw(self, seed: int) -> DexJoCoEpisode | Rejection:
        """The task's episode in the scene of a seed."""
        return draw_episode(self._task, seed, self._backend)

    def load(self, seed: int) -> None:
        """Nothing was solved yet; a state holds its whole scene."""
        self._succeeded = False

    def step(self, action: np.ndarray):
        """Move to joint targets (23,). Raises ValueError on NaN, on a wrong shape, or outside the limits."""
        over = self._move(action, MOVE_STEPS)
        self._taken += 1
        reaching, distance = self.begun().reaching, self.distance()
        done = distance < dexjoco_tasks.REACHED if reaching else self._succeeded
        info = {"steps": self._taken, "distance": distance}
        return self._observation(), float(done), over and not reaching, self._taken >= MOVES, info

    def move(self, action: np.ndarray) -> None:
        """As `step`, without observing or filming."""
        self.simulation.call("move", targets=self.robot.check_targets(action), steps=MOVE_STEPS)

    def distance(self) -> float:
        """How far the task is from done, metres."""
        return dexjoco_tasks.distance(self.simulation, self.begun())

    def true_cost(self) -> float:
        """How far the task is from done, metres, including what leads towards it."""
        return dexjoco_tasks.true_cost(self.simulation, self.begun())

    def satisfied(self) -> bool:
        """Whether DexJoCo called the task a success, or for reaching whether the hand is there."""
        return self.distance() < dexjoco_tasks.REACHED if self.begun().reaching else self._succeeded

    def success(self) -> bool:
        """Hold still for half a second: whether the task is done then."""
        self._move(self.observe().joint_targets, HOLD_STEPS)
        return self.satisfied()

    def close(self) -> None:
        """Give DexJoCo's process back."""
        self.simulation.close()

    def _move(self, action: np.ndarray, steps: int) -> bool:
        """Whether DexJoCo says that the episode is over."""
        targets, reaching = self.robot.check_targets(action), self.begun().reaching
        every = {"every": _EVERY} if self._filming else {}
        moved = self.simulation.call("move", targets=targets, steps=steps, stop=not reaching, **every)
        self._succeeded = self._succeeded or moved["succeeded"]
        self.film += [seen["image"] for seen in moved["seen"]]
        return moved["over"]


# Each is planned as the kitchen's task that it is nearest to.
_LIKE = {name: "reach" if name.endswith(dexjoco_tasks.REACH) else "grasp" for name in TASKS}
DEXJOCO = TaskSuite("dexjoco", _LIKE, TASKS, draw_episode, DexJoCoEnv)
