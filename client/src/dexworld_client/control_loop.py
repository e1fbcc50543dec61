"""Carries out chunks on a robot: a thread commands it at a steady rate, while the caller observes and asks.

Motions are counted in commands, not in seconds of a clock: where commands are late, a robot is slower and not abrupt.
"""

import logging
import threading
import time
from typing import Any, Protocol

import numpy as np

from dexworld_client.client import Chunk, Client
from dexworld_client.joint_filter import JointFilter, JointLimits

logger = logging.getLogger(__name__)
MOVING = 0.8  # of a step; then the arm settles


class Robot(Protocol):
    """What the loop asks of a robot; it needs no lock, `observe` and `command` come from two threads."""

    def observe(self) -> tuple[dict[str, Any], float]:
        """What the policy takes, and when it was seen, `time.time()`."""

    def command(self, positions: np.ndarray) -> np.ndarray:
        """Go to positions (J,) now; gives the measured ones. Where the robot keeps the beat, it returns at the next."""


class Follower:
    """What to want at each moment: smooth motions from waypoint to waypoint of the last chunk that was taken.

    seconds: of one command. max_age_s: chunks of older observations are refused, and given up on the way.
    """

    def __init__(self, names: tuple[str, ...], seconds: float = 0.02, max_age_s: float = 10.0) -> None:
        self.names, self.seconds, self.max_age_s = tuple(names), seconds, max_age_s
        self._way: tuple[Chunk, np.ndarray] | None = None  # with the waypoints (T + 1, J)
        self._sequence = self._commands = 0

    def take(self, chunk: Chunk, start: np.ndarray) -> str | None:
        """Begin a chunk at the commanded positions `start` (J,); else the reason why it is refused."""
        if chunk.names != self.names or chunk.actions.shape[1:] != (len(self.names),):
            return "robot"
        if not len(chunk.actions) or not np.isfinite(chunk.actions).all() or not chunk.step_seconds > 0:
            return "not_finite"
        if chunk.sequence <= self._sequence:
            return "order"
        if not 0 <= time.time() - chunk.observed_at <= self.max_age_s:
            return "stale"
        self._sequence, self._commands = chunk.sequence, 0
        self._way = chunk, np.concatenate([start[None], chunk.actions[: max(1, chunk.execute)]])
        return None

    def drop(self) -> None:
        """Want nothing any more: the filter brakes."""
        self._way = None

    @property
    def done(self) -> bool:
        """Whether the last step has been carried out, or there is none."""
        way = self._way
        return way is None or self._commands * self.seconds >= way[0].step_seconds * (len(way[1]) - 1)

    def wanted(self) -> np.ndarray | str:
        """The next command's positions (J,), or the reason to stop."""
        if self._way is None:
            return "idle"
        chunk, way = self._way
        if not self.done and time.time() - chunk.observed_at > self.max_age_s:
            self.drop()
            return "stale"
        self._commands += 1
        steps = self._commands * self.seconds / chunk.step_seconds
        number = min(int(steps), len(way) - 2)
        share = min(1.0, (steps - number) / MOVING)
        return way[number] + share * share * (3 - 2 * share) * (way[number + 1] - way[number])


class ControlLoop:
    """Observes, asks, and carries out, one chunk after the other; the robot stands still while a policy thinks.

    limits: the robot's own, never those that a server tells. seconds: of one command. paced: whether the robot keeps
    the beat, so that `command` returns when the next one is due. Where the server is lost the robot comes to rest at
    the end of its chunk; `run` goes on once it is back.
    """

    def __init__(
        self,
        robot: Robot,
        policy: Client,
        limits: JointLimits,
        seconds: float = 0.02,
        max_age_s: float = 10.0,
        paced: bool = False,
    ) -> None:
        self.robot, self.policy, self.seconds, self._paced = robot, policy, seconds, paced
        self.follower = Follower(limits.names, seconds, max_age_s)
        observation, _ = robot.observe()
        self.filter = JointFilter(limits, observation["joint_targets"], seconds)
        self._failed: BaseException | None = None
        self._over = threading.Event()

    def run(self, chunks: int) -> None:
        """Carry out so many chunks, and come to rest. Raises what ends the robot's or the server's side."""
        thread = threading.Thread(target=self._command, name="commands", daemon=True)
        thread.start()
        try:
            for _ in range(chunks):
                chunk = self.policy.observe(*self.robot.observe())
                reason = self.follower.take(chunk, self.filter.positions)
                if reason is not None:
                    self.filter.counts[reason] += 1
                    logger.warning("safety: a chunk is refused: %s", reason)
                while not self.follower.done and self._failed is None:
                    time.sleep(self.seconds)
                if self._failed is not None:
                    raise self._failed
        finally:
            self.follower.drop()
            self._over.set()
            thread.join()

    def _command(self) -> None:
        measured, due = None, time.monotonic()
        try:
            while not (self._over.is_set() and self.filter.at_rest):
                wanted = self.follower.wanted()
                positions = self.filter.stop(wanted) if isinstance(wanted, str) else self.filter.step(wanted, measured)
                measured = self.robot.command(positions)
                due = max(due + self.seconds, time.monotonic())  # a late loop doesn't race
                time.sleep(0.0 if self._paced else max(0.0, due - time.monotonic()))
        except Exception as error:  # of the robot's side; `run` raises it
            self._failed = error
