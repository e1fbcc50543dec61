"""The hand of Adroit's scenes as a `Robot`: the shipped description with the joints that a scene has."""

from dataclasses import replace
from functools import cache

from dexworld.robots.described_robot import DescribedRobot, described, shipped_description, shipped_model
from dexworld.robots.model_file import read_model


@cache
def adroit_robot(scene: str) -> DescribedRobot:
    """The robot of a scene ("relocate", "door", "hammer" or "pen"). Raises FileNotFoundError without the package."""
    description = shipped_description("adroit")
    model = read_model(shipped_model(description).with_name(f"adroit_{scene}.xml"))
    there = {joint.name for joints in model.joints for joint in joints}
    arm, fingers = (tuple(name for name in names if name in there) for names in (description.arm, description.fingers))
    return described(model, replace(description, arm=arm, fingers=fingers))
