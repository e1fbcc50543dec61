"""Carries out chunks on a robot: a thread commands it at a steady rate, while the caller observes and asks.

Motions are counted in commands, not in seconds of a clock: where commands are late, a robot is slower and not abrupt.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
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


@dataclass(eq=False)
class Follower:
    """What to want at each moment: smooth motions from waypoint to waypoint, at rest in each.

    seconds: of one command. max_age_s: chunks of older observations are refused, and given up on the way. clock: that
    observations are stamped by.
    """

    names: tuple[str, ...]
    seconds: float = 0.02
    max_age_s: float = 10.0
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._way: Chunk | None = None  # its `actions` are waypoints (T + 1, J), the first is where it begins
        self._next: Chunk | None = None
        self._sequence = self._commands = self._steps = 0  # of the last chunk; of this one, done and to be done
        self._dropped_at = -math.inf

    def take(self, chunk: Chunk, start: np.ndarray) -> str | None:
        """Begin a chunk at positions `start` (J,) when what is under way is over; else the reason why it is refused."""
        if chunk.names != self.names or chunk.actions.shape[1:] != (len(self.names),):
            return "robot"
        if not len(chunk.actions) or not np.isfinite(chunk.actions).all() or not chunk.step_seconds > 0:
            return "not_finite"
        if chunk.sequence <= self._sequence:
            return "order"
        if not 0 <= self.clock() - chunk.observed_at <= self.max_age_s or chunk.observed_at < self._dropped_at:
            return "stale"
        self._sequence = chunk.sequence
        self._next = replace(chunk, actions=np.concatenate([start[None], chunk.actions]))
        return None

    def drop(self) -> None:
        """Want nothing any more: the filter brakes. Chunks of what was seen before begin elsewhere, and are refused."""
        self._way, self._next, self._dropped_at = None, None, self.clock()

    @property
    def waiting(self) -> bool:
        """Whether a chunk was taken that is not begun yet."""
        return self._next is not None

    @property
    def done(self) -> bool:
        """Whether all steps that were to be carried out are, or there are none."""
        return not self.waiting and self._passed() >= self._steps

    def underway(self, seconds: float) -> np.ndarray:
        """Waypoints (U, J) of the present chunk, U steps of at least so many seconds, or all that it has; they will be
        carried out. (0, J) where there is no chunk, or it is over.
        """
        way, passed = self._way, self._passed()
        if way is None or passed >= self._steps:
            return np.zeros((0, len(self.names)))
        steps = int(passed) + math.ceil(seconds / way.step_seconds)
        self._steps = min(len(way.actions) - 1, max(self._steps, steps))
        return way.actions[int(passed) + 1 : self._steps + 1]

    def wanted(self) -> np.ndarray | str:
        """The next command's positions (J,), or the reason to stop."""
        if self._next is not None and self._passed() >= self._steps:
            self._way, self._next, self._commands = self._next, None, 0
            self._steps = min(max(1, self._way.execute), len(self._way.actions) - 1)
        if self._way is None:
            return "idle"
        if self._passed() < self._steps and self.clock() - self._way.observed_at > self.max_age_s:
            self.drop()
            return "stale"
        self._commands += 1
        number = min(int(self._passed()), self._steps - 1)
        share = min(1.0, (self._passed() - number) / MOVING)
        here, there = self._way.actions[number : number + 2]
        return here + share * share * (3 - 2 * share) * (there - here)

    def _passed(self) -> float:
        """Steps of the present chunk that were carried out."""
        return math.inf if self._way is None else self._commands * self.seconds / self._way.step_seconds


@dataclass(eq=False)
class ControlLoop:
    """Observes, asks, and carries out, one chunk after the other.

    limits: the robot's own, never those that a server tells. seconds: of one command. paced: whether the robot keeps
    the beat, so that `command` returns when the next one is due. ahead: ask for the next chunk while the last one is
    carried out, for the state in which the arm will then be; without, the robot stands still while a policy thinks.
    recorder: is given what is seen, commanded and answered. Where the server is lost, or late, the robot comes to rest
    at the end of its steps; `run` goes on once it is back.
    """

    robot: Robot
    policy: Client
    limits: JointLimits
    seconds: float = 0.02
    max_age_s: float = 10.0
    paced: bool = False
    ahead: bool = False
    recorder: Recorder | None = None

    def __post_init__(self) -> None:
        self.follower = Follower(self.limits.names, self.seconds, self.max_age_s)
        self.filter = JointFilter(self.limits, self.robot.observe()[0]["joint_targets"], self.seconds)
        self._looking, self._over = threading.Lock(), threading.Event()

    def run(self, chunks: int) -> None:
        """Carry out so many chunks, and come to rest. Raises what ends the robot's or the server's side."""
        lately = deque[float](maxlen=3)  # seconds of the last answers
        underway = self.follower.underway(0.0)
        with ThreadPoolExecutor() as pool:
            jobs = [pool.submit(self._command), *([pool.submit(self._record)] if self.recorder else [])]
            try:
                for number in range(chunks):
                    began = time.monotonic()
                    self._ask(underway)
                    lately.append(time.monotonic() - began)
                    ahead = self.ahead and number + 1 < chunks
                    while not self.follower.done and (self.follower.waiting or not ahead):
                        _check(jobs)
                        time.sleep(self.seconds)
                    underway = self.follower.underway(max(lately) if ahead else 0.0)
            finally:
                self.follower.drop()
                self._over.set()
        _check(jobs)

    def _ask(self, underway: np.ndarray) -> None:
        """Ask for a chunk that begins after joint targets (U, J)."""
        with self._looking:
            observation, stamp = self.robot.observe()
        chunk = self.policy.observe(observation | ({"underway": underway} if len(underway) else {}), stamp)
        if self.ahead and not self.policy.metadata.get("underway"):
            raise ServerError(f"{self.policy.url} doesn't plan ahead: it takes no `underway`")
        refused = self.follower.take(chunk, underway[-1] if len(underway) else self.filter.positions)
        if refused is not None:
            self.filter.counts[refused] += 1
            logger.warning("safety: a chunk is refused: %s", refused)
        if self.recorder:
            answer = {"actions": chunk.actions, "observed_at": chunk.observed_at, "timing": chunk.timing}
            self.recorder.write(chunk=answer | {"underway": underway, "refused": refused})

    def _command(self) -> None:
        measured, due = None, time.monotonic()
        while not (self._over.is_set() and self.filter.at_rest):
            wanted = self.follower.wanted()
            positions = self.filter.stop(wanted) if isinstance(wanted, str) else self.filter.step(wanted, measured)
            measured = self.robot.command(positions)
            due = max(due + self.seconds, time.monotonic())  # a late loop doesn't race
            time.sleep(0.0 if self.paced else max(0.0, due - time.monotonic()))

    def _record(self) -> None:
        """Keep pictures at the recorder's rate, with the command at that time."""
        assert self.recorder is not None
        while not self._over.wait(1.0 / self.recorder.fps):
            with self._looking:
                observation, stamp = self.robot.observe()
            counts = dict(self.filter.counts)
            self.recorder.write(frame=observation, stamp=stamp, command=self.filter.positions, counts=counts)


def _check(jobs: list[Future]) -> None:
    """Raises what ended one of the jobs."""
    for job in jobs:
        if job.done():
            job.result()
