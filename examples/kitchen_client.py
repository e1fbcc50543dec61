"""A robot behind a socket, `dexworld play-robot`, that carries out what `dexworld serve` plans."""

import argparse
import json
import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from dexworld_client import Client, ControlLoop, JointLimits, Recorder


class RobotLink:
    """What a `ControlLoop` asks of a robot. One connection looks, the other commands."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._eyes, self._hands = Client(url, token), Client(url, token)
        self.facts = self._eyes.ask({"facts": True})
        self._seen, self._sequence = -1, 0

    def observe(self) -> tuple[dict[str, Any], float]:
        """The next frame that is not the last one again, and when it was taken on this machine's clock."""
        frame = self._eyes.ask({"observe": True})
        while frame["frame"] == self._seen:
            time.sleep(0.02)
            frame = self._eyes.ask({"observe": True})
        self._seen = frame["frame"]
        return frame["observation"], frame["observed_at"] - (self._eyes.clock_offset or 0.0)

    def command(self, positions: np.ndarray) -> np.ndarray:
        """Go to positions (J,) now; gives the measured ones."""
        self._sequence += 1
        return self._hands.ask({"command": positions, "sequence": self._sequence})["joint_positions"]

    def close(self) -> None:
        """Let go of the robot; it stops."""
        self._hands.close()
        self._eyes.close()


def main(arguments: list[str] | None = None) -> None:
    """Carry out chunks, and print what the filter did as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="ws://127.0.0.1:8000", help="of the policy")
    parser.add_argument("--robot", default="ws://127.0.0.1:8001", help="of the robot")
    parser.add_argument("--chunks", type=int, default=3, help="how many to ask for")
    parser.add_argument("--text", help="a goal in words, instead of the robot's goal picture")
    parser.add_argument("--max-age-s", type=float, default=60.0, help="older frames move nothing")
    parser.add_argument("--ahead", action="store_true", help="plan the next chunk while the last one is carried out")
    parser.add_argument("--record", type=Path, help="new file for what was seen and done, for `dexworld prepare`")
    parser.add_argument("--token-file", type=Path, help="holds the token of both")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    token = options.token_file.read_text(encoding="utf-8").strip() if options.token_file else None
    robot = RobotLink(options.robot, token)
    try:
        with Client(options.server, token) as policy, ExitStack() as files:
            policy.set_goal(**({"text": options.text} if options.text else {"image": robot.facts["goal_image"]}))
            limits = JointLimits(**robot.facts["limits"])
            kept: dict[str, Any] = {"ahead": options.ahead}
            if options.record:
                facts = {"robot": "franka-allegro", "task": options.text or robot.facts["task"]}
                kept["recorder"] = files.enter_context(Recorder(options.record, **facts))
            loop = ControlLoop(robot, policy, limits, max_age_s=options.max_age_s, paced=True, **kept)
            loop.run(options.chunks)
    finally:
        robot.close()
    sys.stdout.write(json.dumps({"chunks": options.chunks, "interventions": dict(loop.filter.counts)}) + "\n")


if __name__ == "__main__":
    main()
