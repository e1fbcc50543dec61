"""A robot as commands name it."""

from pathlib import Path

from dexworld.robots.described_robot import DescribedRobot, named_robot, read_robot


def chosen_robot(robot: str, description: Path | None) -> DescribedRobot:
    """A robot of a file and its description, or one that dexworld ships a description of, by name.

    Raises ValueError for a file without a description; otherwise as `Robot.from_file` and `Robot.named`.
    """
    if description is not None:
        return read_robot(robot, description)
    if Path(robot).suffix:
        raise ValueError(f"{robot} needs a description of its hand: give --description FILE.toml (docs/robots.md)")
    return named_robot(robot)
