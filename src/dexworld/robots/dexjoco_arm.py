"""DexJoCo's robot: a Franka Panda with a right Allegro hand, mounted otherwise than ours; from DexJoCo's model file."""

from functools import cache
from pathlib import Path

from dexworld.robots.described_robot import DescribedRobot, described, named_robot, shipped_description
from dexworld.robots.franka_allegro import FrankaAllegro
from dexworld.robots.model_file import read_model


@cache
def dexjoco_arm(package: str | None = None) -> DescribedRobot:
    """The robot, from the package's folder, or where DEXWORLD_MODELS or this environment has the package.

    Arm and hand are those of `FrankaAllegro`, so it may move as fast. Raises FileNotFoundError without the package.
    """
    if package is None:
        robot = named_robot("dexjoco")
    else:
        description = shipped_description("dexjoco")
        robot = described(read_model(Path(package).parent / description.model), description)
    robot.motion = FrankaAllegro.motion
    return robot
