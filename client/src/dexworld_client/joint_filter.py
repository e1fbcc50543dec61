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
_ROUNDING = 1e-6  # radians, and share of what is asked for: what is further beyond a limit counts as an intervention
_SAY_AGAIN_S = 1.0  # without an intervention; then the next one is said


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
        for name in (each.name for each in fields(self)[1:]):
            value = np.array(getattr(self, name), float)
            object.__setattr__(self, name, value)
            if value.shape != (len(self.names),) or not np.isfinite(value).all():
                raise ValueError(f"limits: {name} must be {len(self.names)} finite numbers, not {value}")
            if name not in ("low", "high") and not (value > 0).all():
                raise ValueError(f"limits: {name} must be positive, not {value}")
        if not (self.low < self.high).all():
            raise ValueError("limits: every low must be below its high")


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
        self.positions = self._aim = positions
        self.velocities, self.counts = np.zeros_like(positions), Counter[str]()
        self._fastest, self._change = _SHAVE * limits.velocity, _SHAVE * limits.acceleration * seconds
        self._counted: dict[str, float] = {}  # when, lastly

    @property
    def at_rest(self) -> bool:
        """Whether the last command didn't move."""
        return not self.velocities.any()

    def step(self, wanted: object, measured: np.ndarray | None = None) -> np.ndarray:
        """The next command (..., J) towards `wanted` (..., J). Whatever holds NaN or Inf, or can't be read, brakes.

        measured: (..., J) positions, for `JointLimits.lag`: commands are held back, or led back at the limit of
        acceleration, where they lead further.
        """
        limits, now = self.limits, self.velocities
        try:
            target = np.asarray(wanted, float)
            seen = self.positions if measured is None else np.asarray(measured, float)
        except (TypeError, ValueError, OverflowError):
            return self.stop("shape")
        if not target.shape == seen.shape == self.positions.shape:
            return self.stop("shape")
        known = (np.isfinite(target) & np.isfinite(seen)).all(-1, keepdims=True)
        seen = np.where(known, seen, self.positions)
        inside = np.where(known, np.clip(target, limits.low, limits.high), self.positions)
        # The target's own velocity, and what still comes to rest at the target in its moving frame.
        behind = self._aim - self.positions
        velocities = (inside - self._aim) / self.seconds + np.sign(behind) * self._within(np.abs(behind))
        # Each limit within the ones before, so that all of those hold whatever it asks for.
        bounds = {"velocity": (-self._fastest, self._fastest), "acceleration": (now - self._change, now + self._change)}
        bounds["position"] = self._between(limits.low, limits.high)
        if measured is not None:
            bounds["torque"] = self._between(seen - limits.lag, seen + limits.lag)
        low, high = np.full_like(now, -np.inf), np.full_like(now, np.inf)
        changed = {"position": _beyond(target, inside)}
        for reason, (least, most) in bounds.items():
            low, high = np.clip(least, low, high), np.clip(most, low, high)
            asked, velocities = velocities, np.clip(velocities, low, high)
            changed[reason] = _beyond(asked, velocities) | changed.get(reason, False)
        self._count("not_finite", ~known)
        for reason, where in changed.items():
            self._count(reason, known & where)
        self._aim, brake = inside, self._braked()
        return self._moved(self._cleared(np.where(known, velocities, brake), brake))

    def stop(self, reason: str) -> np.ndarray:
        """The next command (..., J) of braking at the limit of acceleration; at rest it stays where it is."""
        self._count(reason, np.ones((*self.positions.shape[:-1], 1), bool))
        self._aim = self.positions
        return self._moved(self._braked())

    def _count(self, reason: str, where: np.ndarray) -> None:
        """Count the robots in which `where` (..., J) holds for any joint."""
        number = int(where.any(-1).sum())
        if number:
            self.counts[reason] += number
            before, self._counted[reason] = self._counted.get(reason, -np.inf), time.monotonic()
            if self._counted[reason] - before > _SAY_AGAIN_S:
                logger.warning("safety: %s (%d so far)", reason, self.counts[reason])

    def _cleared(self, velocities: np.ndarray, brake: np.ndarray) -> np.ndarray:
        """Next velocities (..., J); a subclass chooses others on the way from `brake` to `velocities`."""
        return velocities

    def _within(self, room: np.ndarray) -> np.ndarray:
        """The highest next velocity after which braking ends `room` (..., J) further on; negative room leads back.

        Braking from w times the velocity of one period's change covers n w - n (n + 1) / 2 more such distances, n the
        whole part of w. The next command itself covers w.
        """
        distance = room / (self._change * self.seconds)
        whole = np.floor((np.sqrt(1.0 + 8.0 * np.maximum(distance, 0.0)) - 1.0) / 2.0)
        return (distance + whole * (whole + 1.0) / 2.0) / (whole + 1.0) * self._change

    def _between(self, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest next velocity after which braking ends between two positions."""
        return -self._within(self.positions - first), self._within(last - self.positions)

    def _braked(self) -> np.ndarray:
        return np.sign(self.velocities) * np.maximum(np.abs(self.velocities) - self._change, 0.0)

    def _moved(self, velocities: np.ndarray) -> np.ndarray:
        """Take the next velocities."""
        before, limits = self.positions, self.limits
        outermost = np.minimum(limits.low, before), np.maximum(limits.high, before)  # of those that began outside
        self.positions = np.clip(before + velocities * self.seconds, *outermost)
        self.velocities = (self.positions - before) / self.seconds
        return self.positions.copy()


def _beyond(asked: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Where what is asked for lies further from what is allowed than rounding."""
    return np.abs(asked - allowed) > _ROUNDING * (1.0 + np.abs(asked))
