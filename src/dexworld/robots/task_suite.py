"""The seam of benchmarks: tasks, their episodes, and the environment that plays them.

`evaluate tasks --env NAME` takes any suite. The kitchen, Adroit, DexJoCo and the table come with dexworld; an
installed package brings its own in an entry point of the group `dexworld.task_suites`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np

from dexworld.robots.environment import Environment
from dexworld.robots.robot_meshes import PLAIN, RobotLook

_OURS = {
    "adroit": ("dexworld.sim.adroit.adroit_env", "ADROIT"),
    "dexjoco": ("dexworld.sim.dexjoco.dexjoco_env", "DEXJOCO"),
}
_OF_LOOKS = {"kitchen": ("dexworld.sim.kitchen.kitchen_env", "kitchen_suite")}  # functions of a `RobotLook`
_OF_ROBOTS = {"table": ("dexworld.sim.table.table_env", "table_suite")}  # functions of a robot's name
_GROUP = "dexworld.task_suites"


class Episode(Protocol):
    """One episode of a task, in the scene of a seed."""

    @property
    def task(self) -> str:
        """Its name in the suite."""

    @property
    def seed(self) -> int:
        """Of its scene."""

    @property
    def expert_moves(self) -> np.ndarray | None:
        """(T, J) joint targets of a script that solves it; None without one."""


@dataclass(frozen=True)
class Rejection:
    """Why a seed gives no episode of a task."""

    task: str
    seed: int
    reason: str


@dataclass(frozen=True)
class TaskSuite:
    """The tasks of one simulator, or of one real setup.

    tasks: names, and of each the planner's preset (`planning.presets.task_preset`). standard: those that are evaluated
    by default. draw: the episode of (task, seed, renderer), or why there is none; the same for the same arguments in
    any process. environment: of (task, renderer); its `reset(options={"episode": episode})` starts an episode.
    """

    name: str
    tasks: Mapping[str, str]
    standard: tuple[str, ...]
    draw: Callable[[str, int, str], Any]
    environment: Callable[[str, str], Environment]

    def check(self, tasks: tuple[str, ...]) -> None:
        """Raises ValueError for tasks that the suite doesn't have."""
        unknown = [task for task in tasks if task not in self.tasks]
        if unknown:
            raise ValueError(f"tasks {unknown} are not in {self.name}; choose from {', '.join(self.tasks)}")


def task_suite(name: str, robot: str = "", look: RobotLook = PLAIN) -> TaskSuite:
    """The suite of that name; robot: whose, as `described_robot.chosen_robot` takes it, for those of any robot.

    look: of the kitchen's robot. Raises ValueError with the names there are, and where a robot is missing or not asked
    for, as are meshes.
    """
    if look.meshes and name not in _OF_LOOKS:
        raise ValueError(f"env {name} draws its robot itself; --meshes is for {', '.join(_OF_LOOKS)}")
    if (name in _OF_ROBOTS) != bool(robot):
        raise ValueError(
            f"env {name} needs --robot: a description's file, or the name of a robot that dexworld ships"
            if name in _OF_ROBOTS
            else f"env {name} has a robot of its own; leave --robot out"
        )
    if name in _OF_ROBOTS:
        module, attribute = _OF_ROBOTS[name]
        return getattr(import_module(module), attribute)(robot)
    if name in _OF_LOOKS:
        module, attribute = _OF_LOOKS[name]
        return getattr(import_module(module), attribute)(look)
    if name in _OURS:
        module, attribute = _OURS[name]
        return getattr(import_module(module), attribute)
    others = {point.name: point for point in entry_points(group=_GROUP)}
    if name not in others:
        raise ValueError(
            f"env {name!r} is unknown; choose from {', '.join((*_OF_LOOKS, *_OURS, *_OF_ROBOTS, *others))}"
        )
    return others[name].load()
