"""Keeps joint commands within limits of position, velocity and acceleration, whatever is asked for.

J joints, radians, seconds. Leading dimensions of an array are robots that are filtered side by side.
"""

import logging
import time
from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

logger = logging.getLogger(__name__)
_SHAVE = 1.0 - 1e-9  # of the limits, so that rounding doesn't pass them
_ROUNDING = 1e-6  # radians, and share of a limit: what is further beyond counts as an intervention
_SAY_AGAIN_S = 1.0  # of an intervention that ends and begins again


@dataclass(frozen=True)
class JointLimits:
    """What joints may be commanded to do, each (J,). Raises ValueError naming the field that is wrong.

    low, high: positions. velocity, acceleration: magnitudes. lag: how far a command may lead the measured position, a
    proxy of torque (torque over the stiffness of position control).
    """

    names: tuple[str, ...]
    low: np.ndarray
    high: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    lag: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        for each in fields(self)[1:]:
            value = np.array(getattr(self, each.name), float)
            if value.shape != (len(self.names),) or not np.isfinite(value).all():
                raise ValueError(f"limits: {each.name} must be {len(self.names)} finite numbers, not {value}")
            if each.name not in ("low", "high") and not (value > 0).all():
                raise ValueError(f"limits: {each.name} must be positive, not {value}")
            object.__setattr__(self, each.name, value)
        if not (self.low < self.high).all():
            raise ValueError("limits: every low must be below its high")

    def as_dict(self) -> dict[str, object]:
        """Names and arrays, as a message holds them; `JointLimits(**values)` reads it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


class JointFilter:
    """Turns wanted positions into commands, one every `seconds`, that stay within `limits`.

    A command is a position (..., J). Velocity is the difference of two commands over `seconds`, acceleration that of
    two velocities. Each joint keeps room to brake: from every state that the filter leaves, braking at the limit of
    acceleration ends inside the limits of position. So there is always a next command, and braking is always one.

    positions (..., J): where the robot rests now. Outside the limits it is led back in, as fast as the others allow.
    `counts`: interventions by reason, one for every command of a robot.
    """

    def __init__(self, limits: JointLimits, positions: np.ndarray, seconds: float = 0.02) -> None:
        positions = np.array(positions, float)
        if positions.shape[-1:] != limits.low.shape or not np.isfinite(positions).all():
            raise ValueError(f"positions must be (..., {len(limits.names)}) finite numbers, not {positions.shape}")
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, not {seconds}")
        self.limits, self.seconds = limits, seconds
        self.positions, self.velocities = positions, np.zeros_like(positions)
        self.counts: Counter[str] = Counter()
        self._aim = positions
        self._fastest, self._change = _SHAVE * limits.velocity, _SHAVE * limits.acceleration * seconds
        self._reasons: set[str] = set()
        self._new: set[str] = set()
        self._said: dict[str, float] = {}

    @property
    def at_rest(self) -> bool:
        """Whether the last command didn't move."""
        return not self.velocities.any()

    def step(self, wanted: object, measured: np.ndarray | None = None) -> np.ndarray:
        """The next command (..., J) towards `wanted` (..., J). Whatever holds NaN or Inf, or can't be read, brakes.

        measured: (..., J) positions, for `JointLimits.lag`: commands are held back, or led back at the limit of
        acceleration, where they lead further.
        """
        try:
            target = np.asarray(wanted, float)
        except (TypeError, ValueError, OverflowError):
            target = np.zeros(0)
        shapes = {target.shape, self.positions.shape} | (set() if measured is None else {np.shape(measured)})
        if len(shapes) > 1:
            return self.stop("shape")
        known = np.isfinite(target).all(-1, keepdims=True)
        if measured is not None:
            known = known & np.isfinite(measured).all(-1, keepdims=True)
        self._new = set()
        self._count("not_finite", ~known)
        inside = np.clip(target, self.limits.low, self.limits.high)
        self._count("position", known & (np.abs(inside - target) > _ROUNDING))
        # The target's own velocity, and what still comes to rest at the target in its moving frame.
        behind = self._aim - self.positions
        velocities = (inside - self._aim) / self.seconds + np.sign(behind) * self._within(np.abs(behind))
        velocities = np.where(known, velocities, 0.0)
        self._aim = np.where(known, inside, self.positions)
        low, high = self._admissible(velocities, known)
        if measured is not None:
            lag = np.where(known, measured, self.positions) - self.positions
            most, least = self._within(lag + self.limits.lag), -self._within(self.limits.lag - lag)
            self._count("torque", known & ((velocities > _more(most)) | (velocities < -_more(-least))))
            low, high = np.clip(least, low, high), np.clip(most, low, high)
        brake = self._braked(self.velocities)
        chosen = np.where(known, np.clip(velocities, low, high), brake)
        return self._moved(self._cleared(chosen, brake))

    def stop(self, reason: str) -> np.ndarray:
        """The next command (..., J) of braking at the limit of acceleration; at rest it stays where it is."""
        self._new = set()
        self._count(reason, np.ones((*self.positions.shape[:-1], 1), bool))
        self._aim = self.positions
        return self._moved(self._braked(self.velocities))

    def _cleared(self, velocities: np.ndarray, brake: np.ndarray) -> np.ndarray:
        """Next velocities (..., J); a subclass chooses others on the way from `brake` to `velocities`."""
        return velocities

    def _admissible(self, wanted: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest next velocities (..., J): the other limits first, then positions with room to brake."""
        top, now = self._fastest, self.velocities
        low, high = np.maximum(-top, now - self._change), np.minimum(top, now + self._change)
        most = self._within(self.limits.high - self.positions)
        least = -self._within(self.positions - self.limits.low)
        reached = np.clip(wanted, low, high)
        self._count("position", known & ((reached > _more(most)) | (reached < -_more(-least))))
        self._count("velocity", known & (np.abs(wanted) > _more(top)))
        self._count("acceleration", known & (np.abs(wanted - now) > _more(self._change)))
        return np.clip(least, low, high), np.clip(most, low, high)

    def _within(self, room: np.ndarray) -> np.ndarray:
        """The highest next velocity after which braking ends `room` (..., J) further on; negative room leads back.

        Braking from w times the velocity of one period's change covers n w - n (n + 1) / 2 more such distances, n the
        whole part of w. The next command itself covers w.
        """
        distance = room / (self._change * self.seconds)
        whole = np.floor((np.sqrt(1.0 + 8.0 * np.maximum(distance, 0.0)) - 1.0) / 2.0)
        return (distance + whole * (whole + 1.0) / 2.0) / (whole + 1.0) * self._change

    def _braked(self, velocities: np.ndarray) -> np.ndarray:
        return np.sign(velocities) * np.maximum(np.abs(velocities) - self._change, 0.0)

    def _moved(self, velocities: np.ndarray) -> np.ndarray:
        """Take the next velocities."""
        before, limits = self.positions, self.limits
        outermost = np.minimum(limits.low, before), np.maximum(limits.high, before)  # of those that began outside
        self.positions = np.clip(before + velocities * self.seconds, *outermost)
        self.velocities = (self.positions - before) / self.seconds
        now = time.monotonic()
        for reason in sorted(self._new - self._reasons):
            if now - self._said.get(reason, -np.inf) > _SAY_AGAIN_S:
                self._said[reason] = now
                logger.warning("safety: %s (%d so far)", reason, self.counts[reason])
        self._reasons = self._new
        return self.positions.copy()

    def _count(self, reason: str, where: np.ndarray) -> None:
        """Count the robots in which `where` (..., J) holds for any joint."""
        number = int(where.any(-1).sum())
        if number:
            self.counts[reason] += number
            self._new.add(reason)


def _more(limit: np.ndarray) -> np.ndarray:
    """A limit with some room for rounding."""
    return limit + _ROUNDING * (1.0 + np.abs(limit))
