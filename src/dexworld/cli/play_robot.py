"""The verb `play-robot`: a simulated robot behind a websocket."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from dexworld.evaluation.results import write_results
from dexworld.serving.serve_config import ServerConfig
from dexworld.serving.simulated_robot import RobotConfig, SimulatedRobot
from dexworld.serving.socket_server import SocketServer

logger = logging.getLogger("dexworld")


@dataclass(frozen=True)
class PlayRobot:
    """Play the robot: the simulated kitchen in its own time, behind the socket that `examples/kitchen_client.py` takes.

    Runs until it is stopped.
    """

    output: Path
    """Folder for results.json: what the safety filter did, how near commands came to the limits, and the outcome."""
    robot: Annotated[RobotConfig, tyro.conf.arg(name="")] = field(default_factory=RobotConfig)
    server: Annotated[ServerConfig, tyro.conf.arg(name="")] = field(default_factory=lambda: ServerConfig(port=8001))

    def run(self) -> None:
        """Play until the end, and write what came of it."""
        robot = SimulatedRobot(self.robot)
        try:
            robot.start()
            try:
                with SocketServer(self.server, robot, "robot") as server:
                    server.wait()
            finally:
                path = write_results(self.output, robot.outcome(), seed=self.robot.seed)
                logger.info("what came of it: %s", path)
        finally:
            robot.stop()
