"""The robots that dexworld has in code, by the names that servers and recorded runs call them."""

from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.franka_gripper import FrankaGripper
from dexworld.robots.robot import Robot

ROBOTS = {"franka-allegro": FrankaAllegro, "franka-gripper": FrankaGripper}


def robot_of(name: str, description: str | None = None) -> Robot:
    """The robot of a name, here or among the described ones, or of a model file and its description.

    Raises ValueError for an unknown name, FileNotFoundError where a model is missing.
    """
    if description is not None:
        return Robot.from_file(name, description)
    return ROBOTS[name]() if name in ROBOTS else Robot.named(name)
