"""The verb `robot check`: does a robot from a file look and move as it should?"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from dexworld.report.robot_page import write_robot_page
from dexworld.robots.described_robot import chosen_robot
from dexworld.robots.robot_findings import robot_findings

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class CheckRobot:
    """Draw a robot with its keypoints, move every joint, and name what is implausible; exit code 1 if anything is."""

    robot: tyro.conf.Positional[str]
    """MJCF or URDF file, with --description; or the name of a robot that dexworld ships a description of."""
    description: Path | None = None
    """TOML file that says what its hand is (docs/robots.md)."""
    output: Path = Path("outputs/robot")
    """Folder for report.html."""

    def run(self) -> None:
        """Check, show the findings, and write the page."""
        robot = chosen_robot(self.robot, self.description)
        findings = robot_findings(robot)
        for finding in findings:
            sys.stdout.write(f"{finding.kind}: {finding.text}\n")
        page = write_robot_page(self.output, robot, findings)
        logger.info("open %s in a browser", page)
        if any(finding.kind == "problem" for finding in findings):
            sys.exit(1)
