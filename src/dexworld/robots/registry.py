"""The robots that there are, by name."""

from collections.abc import Callable

from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.franka_gripper import FrankaGripper
from dexworld.robots.robot import Robot

ROBOTS: dict[str, Callable[[], Robot]] = {each.name: each for each in (FrankaAllegro, FrankaGripper)}


def make_robot(name: str) -> Robot:
    """The robot of that name. Raises ValueError with the names there are."""
    if name not in ROBOTS:
        raise ValueError(f"there is no robot {name!r}; choose one of {', '.join(ROBOTS)}")
    return ROBOTS[name]()
