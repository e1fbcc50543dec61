"""Carries out chunks on a robot: a thread commands it at a steady rate, while the caller observes and asks.

Motions are counted in commands, not in seconds of a clock: where commands are late, a robot is slower and not abrupt.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from dexworld_client.client import Chunk, Client, ServerError
from dexworld_client.joint_filter import JointFilter, JointLimits
from dexworld_client.recorder import Recorder

logger = logging.getLogger(__name__)
MOVING = 0.8  # of a step; then the arm settles


class Robot(Protocol):
    """What the loop asks of a robot; it needs no lock. `command` comes from a thread of its own."""

    def observe(self) -> tuple[dict[str, Any], float]:
        """What the policy takes, and when it was seen, `time.time()`."""

    def command(self, positions: np.ndarray) -> np.ndarray:
        """Go to positions (J,) now; gives the measured ones. Where the robot keeps the beat, it returns at the next."""


class Follower:
    """What to want at each moment: smooth motions from waypoint to waypoint, at rest in each.

    seconds: of one command. max_age_s: chunks of older observations are refused, and given up on the way. clock: that
    observations are stamped by.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        seconds: float = 0.02,
        max_age_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.names, self.seconds, self.max_age_s, self._clock = tuple(names), seconds, max_age_s, clock
        self._way: tuple[Chunk, np.ndarray] | None = None  # with the waypoints (T + 1, J)
        self._next: tuple[Chunk, np.ndarray] | None = None
        self._sequence = self._commands = self._steps = 0
        self._dropped_at = -math.inf

    def take(self, chunk: Chunk, start: np.ndarray) -> str | None:
        """Begin a chunk at positions `start` (J,) when what is under way is over; else the reason why it is refused."""
        if chunk.names != self.names or chunk.actions.shape[1:] != (len(self.names),):
            return "robot"
        if not len(chunk.actions) or not np.isfinite(chunk.actions).all() or not chunk.step_seconds > 0:
            return "not_finite"
        if chunk.sequence <= self._sequence:
            return "order"
        age = self._clock() - chunk.observed_at
        if not 0 <= age <= self.max_age_s or chunk.observed_at < self._dropped_at:
            return "stale"
        self._sequence, self._next = chunk.sequence, (chunk, np.concatenate([start[None], chunk.actions]))
        return None

    def drop(self) -> None:
        """Want nothing any more: the filter brakes. Chunks of what was seen before begin elsewhere, and are refused."""
        self._way, self._next, self._dropped_at = None, None, self._clock()

    @property
    def waiting(self) -> bool:
        """Whether a chunk was taken that is not begun yet."""
        return self._next is not None

    @property
    def done(self) -> bool:
        """Whether all steps that were to be carried out are, or there are none."""
        return not self.waiting and self._over()

    def underway(self, seconds: float) -> np.ndarray:
        """Waypoints (U, J) of the present chunk, U steps of at least so many seconds, or all that it has; they will be
        carried out. (0, J) where there is no chunk, or it is over.
        """
        if self._way is None or self._over():
            return np.zeros((0, len(self.names)))
        chunk, way = self._way
        begun = int(self._commands * self.seconds / chunk.step_seconds)
        self._steps = min(len(way) - 1, max(self._steps, begun + math.ceil(seconds / chunk.step_seconds)))
        return way[begun + 1 : self._steps + 1]

    def wanted(self) -> np.ndarray | str:
        """The next command's positions (J,), or the reason to stop."""
        if self._next is not None and self._over():
            execute, most = self._next[0].execute, len(self._next[1]) - 1
            self._commands, self._steps = 0, min(max(1, execute), most)
            self._way, self._next = self._next, None
        if self._way is None:
            return "idle"
        chunk, way = self._way
        if not self._over() and self._clock() - chunk.observed_at > self.max_age_s:
            self.drop()
            return "stale"
        self._commands += 1
        steps = self._commands * self.seconds / chunk.step_seconds
        number = min(int(steps), self._steps - 1)
        share = min(1.0, (steps - number) / MOVING)
        return way[number] + share * share * (3 - 2 * share) * (way[number + 1] - way[number])

    def _over(self) -> bool:
        way = self._way
        return way is None or self._commands * self.seconds >= way[0].step_seconds * self._steps


class ControlLoop:
    """Observes, asks, and carries out, one chunk after the other.

    limits: the robot's own, never those that a server tells. seconds: of one command. paced: whether the robot keeps
    the beat, so that `command` returns when the next one is due. ahead: ask for the next chunk while the last one is
    carried out, for the state in which the arm will then be; without, the robot stands still while a policy thinks.
    recorder: is given what is seen, commanded and answered. Where the server is lost, or late, the robot comes to rest
    at the end of its steps; `run` goes on once it is back.
    """

    def __init__(
        self,
        robot: Robot,
        policy: Client,
        limits: JointLimits,
        seconds: float = 0.02,
        max_age_s: float = 10.0,
        paced: bool = False,
        ahead: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self.robot, self.policy, self.seconds, self._paced, self._ahead = robot, policy, seconds, paced, ahead
        self.follower = Follower(limits.names, seconds, max_age_s)
        observation, _ = robot.observe()
        self.filter = JointFilter(limits, observation["joint_targets"], seconds)
        self._recorder, self._looking = recorder, threading.Lock()
        self._failed: BaseException | None = None
        self._over = threading.Event()

    def run(self, chunks: int) -> None:
        """Carry out so many chunks, and come to rest. Raises what ends the robot's or the server's side."""
        threads = [threading.Thread(target=self._command, name="commands", daemon=True)]
        threads += [threading.Thread(target=self._record, name="record", daemon=True)] if self._recorder else []
        for thread in threads:
            thread.start()
        lately = deque[float](maxlen=3)  # seconds of the last answers
        underway = self.follower.underway(0.0)
        try:
            for number in range(chunks):
                began = time.monotonic()
                self._ask(underway)
                lately.append(time.monotonic() - began)
                ahead = self._ahead and number + 1 < chunks
                while not self.follower.done and (self.follower.waiting or not ahead):
                    self._check()
                    time.sleep(self.seconds)
                self._check()
                underway = self.follower.underway(max(lately) if ahead else 0.0)
        finally:
            self.follower.drop()
            self._over.set()
            for thread in threads:
                thread.join()

    def _ask(self, underway: np.ndarray) -> None:
        """Ask for a chunk that begins after joint targets (U, J)."""
        observation, stamp = self._observe()
        chunk = self.policy.observe(observation | ({"underway": underway} if len(underway) else {}), stamp)
        if self._ahead and not self.policy.metadata.get("underway"):
            raise ServerError(f"{self.policy.url} doesn't plan ahead: it takes no `underway`")
        start = underway[-1] if len(underway) else self.filter.positions
        reason = self.follower.take(chunk, start)
        if reason is not None:
            self.filter.counts[reason] += 1
            logger.warning("safety: a chunk is refused: %s", reason)
        if self._recorder:
            answer = {"actions": chunk.actions, "observed_at": chunk.observed_at, "timing": chunk.timing}
            self._recorder.write(chunk=answer | {"underway": underway, "refused": reason})

    def _observe(self) -> tuple[dict[str, Any], float]:
        with self._looking:
            return self.robot.observe()

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

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

    def _record(self) -> None:
        """Keep pictures at the recorder's rate, with the command at that time."""
        assert self._recorder is not None
        try:
            while not self._over.wait(1.0 / self._recorder.fps):
                observation, stamp = self._observe()
                counts = dict(self.filter.counts)
                self._recorder.write(frame=observation, stamp=stamp, command=self.filter.positions, counts=counts)
        except Exception as error:
            self._failed = error
