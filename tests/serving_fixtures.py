"""A service that echoes, and messages that are none."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from serving import malformed  # noqa: E402, F401  what the full count is run with


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
