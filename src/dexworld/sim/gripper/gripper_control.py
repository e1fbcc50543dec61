"""Teleoperation in code: a commanded gripper pose that glides to goals, and the arm joints that follow it.

DROID's operators steer the gripper with a hand-held controller at 15 Hz; this is its stand-in, with limited speed,
gentle starts and stops and a little tremor, so that lines are neither exact nor jerky.
"""

import math
from dataclasses import dataclass

import numpy as np

from dexworld.sim.gripper.gripper_simulation import CONTROL_RATE, GRASP_POINT, HOME_ARM, GripperSimulation
from dexworld.sim.poses import rotation_about, rotation_vector

_PERIOD = 1.0 / CONTROL_RATE
_GAIN = 3.5  # 1 / s, of the commanded velocity on the remaining way
_SMOOTHING = 0.45  # share of a new velocity that is taken over in one step
_TURN_SPEED = 1.6  # rad / s
_JOINT_SPEED = 2.0  # rad / s, under Franka's 2.17
_OPENING_SPEED = 2.5  # openings / s: 0.4 s to close
_SLIP = 0.03  # metres that the commanded pose may run ahead of what the arm can reach


@dataclass(frozen=True)
class Waypoint:
    """Where the grasp point should go next, base frame.

    position (3,) metres of the point between the pads; rotation (3, 3) base_from_gripper; opening 0 closed to 1 open;
    speed m / s; tolerance metres (rotation: 10 times as many radians); seconds: how long it may take at most; hold:
    seconds to stay when it is there.
    """

    position: np.ndarray
    rotation: np.ndarray
    opening: float
    speed: float = 0.22
    tolerance: float = 0.012
    seconds: float = 4.0
    hold: float = 0.0


class Teleoperator:
    """Turns waypoints into commands, one at a time. `tremor` is the standard deviation of the hand's unrest, m / s."""

    def __init__(self, simulation: GripperSimulation, rng: np.random.Generator, tremor: float = 0.012) -> None:
        self._simulation, self._rng, self._tremor = simulation, rng, tremor
        self._arm, self._opening = np.array(HOME_ARM), simulation.opening
        self._pose = simulation.forward(self._arm)
        self._velocity, self._turning, self._unrest = np.zeros(3), np.zeros(3), np.zeros(3)

    def command(self, goal: Waypoint) -> tuple[np.ndarray, float, np.ndarray]:
        """The next step towards `goal`: arm joints (7,), opening, and the pose base_from_gripper (4, 4) behind them."""
        way = goal.position - grasp_point(self._pose)
        turn = rotation_vector(goal.rotation @ self._pose[:3, :3].T)
        self._velocity += _SMOOTHING * (_limited(_GAIN * way, goal.speed) - self._velocity)
        self._turning += _SMOOTHING * (_limited(_GAIN * turn, _TURN_SPEED) - self._turning)
        self._unrest += -0.25 * self._unrest + 0.66 * self._tremor * self._rng.normal(0, 1, 3)
        rotation = rotation_about(self._turning * _PERIOD) @ self._pose[:3, :3]
        place = grasp_point(self._pose) + (self._velocity + self._unrest) * _PERIOD
        self._pose[:3, :3], self._pose[:3, 3] = rotation, place - GRASP_POINT * rotation[:, 2]
        self._follow()
        change = goal.opening - self._opening
        self._opening += math.copysign(min(abs(change), _OPENING_SPEED * _PERIOD), change)
        return self._arm.copy(), self._opening, self._pose.copy()

    def reached(self, goal: Waypoint) -> bool:
        """Whether commanded pose and opening are at the goal."""
        away = float(np.linalg.norm(goal.position - grasp_point(self._pose)))
        turned = float(np.linalg.norm(rotation_vector(goal.rotation @ self._pose[:3, :3].T)))
        return away < goal.tolerance and turned < 10 * goal.tolerance and abs(goal.opening - self._opening) < 0.02

    def _follow(self) -> None:
        """Damped least squares towards the commanded pose, drawn to the home posture; the pose waits for the arm."""
        low, high = self._simulation.arm_limits.T + np.array([[0.03], [-0.03]])
        start, joints = self._arm, self._arm
        for _ in range(3):
            pose, jacobian = self._simulation.jacobian(joints)
            turn = rotation_vector(self._pose[:3, :3] @ pose[:3, :3].T)
            error = np.concatenate([self._pose[:3, 3] - pose[:3, 3], turn])
            inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + 1e-3 * np.eye(6))
            step = inverse @ error + (np.eye(7) - inverse @ jacobian) @ (0.02 * (np.array(HOME_ARM) - joints))
            step[6] = np.clip(step[6], -0.5, 0.5)
            joints = np.clip(joints + step, low, high)
        self._arm = start + np.clip(joints - start, -_JOINT_SPEED * _PERIOD, _JOINT_SPEED * _PERIOD)
        here = self._simulation.forward(self._arm)
        lag = self._pose[:3, 3] - here[:3, 3]
        if np.linalg.norm(lag) > _SLIP:
            self._pose[:3, 3] = here[:3, 3] + _limited(lag, _SLIP)
            self._velocity *= 0.5
        turn = rotation_vector(self._pose[:3, :3] @ here[:3, :3].T)
        if np.linalg.norm(turn) > 0.3:
            self._pose[:3, :3] = rotation_about(_limited(turn, 0.3)) @ here[:3, :3]


def grasp_point(pose: np.ndarray) -> np.ndarray:
    """The point between the pads (3,) of a gripper pose base_from_gripper (4, 4)."""
    return pose[:3, 3] + GRASP_POINT * pose[:3, 2]


def downward(yaw: float, tilt: float = 0.0, lean: float = 0.0) -> np.ndarray:
    """base_from_gripper rotation (3, 3) of a gripper that points down, radians.

    yaw 0: fingers slide along the robot's y, as at home. tilt: fingertips swing away from the robot; lean: to its left.
    """
    down = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
    swing = rotation_about(np.array([lean, 0.0, 0.0])) @ rotation_about(np.array([0.0, -tilt, 0.0]))
    return swing @ rotation_about(np.array([0.0, 0.0, yaw])) @ down


def _limited(vector: np.ndarray, length: float) -> np.ndarray:
    """`vector`, shortened to `length` where it is longer."""
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))
