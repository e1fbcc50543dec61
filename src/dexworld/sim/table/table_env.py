"""A described robot's table as an `Environment`: one step is a second of joint targets, an episode three of them."""

from functools import partial

from dexworld.robots.task_suite import Rejection, TaskSuite
from dexworld.sim.table import table_tasks
from dexworld.sim.table.station import station
from dexworld.sim.table.table_scene import IMAGE_SIZE
from dexworld.sim.table.table_simulation import TableSimulation
from dexworld.sim.table.table_tasks import HOLD_SECONDS, MOVE_SECONDS, MOVES, TASKS, TableEpisode, draw_episode
from dexworld.sim.task_env import TaskEnv


class TableEnv(TaskEnv):
    """A task of `TASKS` at the table of a robot, which `described_robot.chosen_robot` names; see `TaskEnv`."""

    metadata = TaskEnv.metadata | {"render_fps": 1}
    tasks, moves, move_seconds, hold_seconds = TASKS, MOVES, MOVE_SECONDS, HOLD_SECONDS

    def __init__(self, robot: str, task: str, backend: str = "auto", render_mode: str | None = "rgb_array") -> None:
        self._station, self._named = station(robot), robot
        super().__init__(task, self._station.robot, IMAGE_SIZE, backend, render_mode)
        self.simulation = None

    def draw(self, seed: int) -> TableEpisode | Rejection:
        """The task's episode in the scene of a seed."""
        return draw_episode(self._named, self._task, seed, self._backend)

    def load(self, seed: int) -> None:
        """Have the scene of a seed."""
        if self.simulation is None or self.simulation.layout.seed != seed:
            self.close()
            self.simulation = TableSimulation(self._station, seed, self._backend)

    def distance(self) -> float:
        """How far the task is from done, metres."""
        return table_tasks.distance(self.simulation, self.begun())

    def true_cost(self) -> float:
        """How far the task is from done, metres, including what leads towards it."""
        return table_tasks.true_cost(self.simulation, self.begun())

    def satisfied(self) -> bool:
        """Whether the task is done at this moment."""
        return self.distance() < table_tasks.RADIUS[self._task]

    def close(self) -> None:
        """Free the renderer."""
        if self.simulation is not None:
            self.simulation.close()
            self.simulation = None


def table_suite(robot: str) -> TaskSuite:
    """The tasks at the table of a robot."""
    return TaskSuite(
        "table", {task: task for task in TASKS}, TASKS, partial(draw_episode, robot), partial(TableEnv, robot)
    )
