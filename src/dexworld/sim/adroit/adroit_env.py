"""Adroit as an `Environment`: one step is 0.4 seconds of joint targets, an episode is the package's two seconds."""

from dexworld.robots.environment import SearchSpace
from dexworld.robots.task_suite import Rejection, TaskSuite
from dexworld.sim.adroit import adroit_tasks
from dexworld.sim.adroit.adroit_robots import adroit_robot
from dexworld.sim.adroit.adroit_search import search_space
from dexworld.sim.adroit.adroit_simulation import IMAGE_SIZE, AdroitSimulation
from dexworld.sim.adroit.adroit_tasks import HOLD_SECONDS, MOVE_SECONDS, MOVES, SCENE_OF, AdroitEpisode, draw_episode
from dexworld.sim.task_env import TaskEnv


class AdroitEnv(TaskEnv):
    """One of Adroit's scenes; see `TaskEnv`.

    task: one of `SCENE_OF`. Raises ImportError where gymnasium-robotics is missing.
    """

    metadata = TaskEnv.metadata | {"render_fps": 1 / MOVE_SECONDS}
    tasks, moves, move_seconds, hold_seconds = tuple(SCENE_OF), MOVES, MOVE_SECONDS, HOLD_SECONDS

    def __init__(self, task: str, backend: str = "auto", render_mode: str | None = "rgb_array") -> None:
        scene = SCENE_OF[self.checked(task)]
        super().__init__(task, adroit_robot(scene), IMAGE_SIZE, backend, render_mode)
        self.simulation = AdroitSimulation(scene, self.robot, backend)

    def draw(self, seed: int) -> AdroitEpisode | Rejection:
        """The task's episode in the package's scene of a seed."""
        return draw_episode(self._task, seed, self._backend)

    def load(self, seed: int) -> None:
        """Have the package put things where it does for a seed."""
        self.simulation.reset(seed)

    def distance(self) -> float:
        """How far the task is from done, metres."""
        return adroit_tasks.distance(self.simulation, self.begun())

    def true_cost(self) -> float:
        """How far the task is from done, metres, including what leads towards it, after as long a hold as `success`."""
        state = self.simulation.get_state()
        self.simulation.move(self.simulation.joint_targets, HOLD_SECONDS)
        cost = adroit_tasks.true_cost(self.simulation, self.begun())
        self.simulation.set_state(state)
        return cost

    def search_space(self) -> SearchSpace | None:
        """Where the door's search begins; None in the other tasks."""
        return search_space(self.simulation, pulls=True) if self._task == "door" else None

    def satisfied(self) -> bool:
        """Whether the task is done at this moment."""
        return adroit_tasks.satisfied(self.simulation, self.begun())

    def close(self) -> None:
        """Free the renderer."""
        self.simulation.close()


# Each is planned as the kitchen's task that it is nearest to.
_LIKE = {"relocate_reach": "reach", "relocate": "grasp", "door": "grasp", "hammer": "grasp", "pen": "grasp"}
ADROIT = TaskSuite("adroit", _LIKE, tuple(SCENE_OF), draw_episode, AdroitEnv)
