"""Robots as commands and recorded runs name them."""

from collections.abc import Callable
from pathlib import Path

from dexworld.robots.described_robot import chosen_robot
from dexworld.robots.dexjoco_arm import dexjoco_arm
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.franka_gripper import FrankaGripper
from dexworld.robots.robot import Robot

_IN_CODE: dict[str, Callable[[], Robot]] = {
    "franka-allegro": FrankaAllegro,
    "franka-gripper": FrankaGripper,
    "dexjoco": dexjoco_arm,
}


def find_robot(robot: str, description: Path | None = None) -> Robot:
    """A robot that dexworld has in code, or else one as `described_robot.chosen_robot` takes it.

    Raises as that does.
    """
    if description is None and robot in _IN_CODE:
        return _IN_CODE[robot]()
    return chosen_robot(robot, description)
