"""A service that echoes, and messages that are none."""

import sys
import time
from pathlib import Path

for folder in ("benchmarks", "examples"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / folder))

import kitchen_client  # noqa: E402, F401
from kitchen_client import RobotLink  # noqa: E402, F401

from latency import play  # noqa: E402, F401
from robot_kills import KINDS, Loop, killed  # noqa: E402, F401
from served import summary  # noqa: E402, F401
from serving import NAMES, malformed, overshoot  # noqa: E402, F401


class Echo:
    """Answers with the message; `work` computes so many seconds, `wrong` and `defect` fail."""

    def metadata(self):
        return {"service": "echo"}

    def session(self):
        return self

    def answer(self, message):
        if "wrong" in message:
            raise ValueError("the robot has no arm")
        until = time.monotonic() + message.get("work", 0.0)
        while time.monotonic() < until:
            pass
        return message if "defect" not in message else 1 / 0

    def close(self):
        pass
