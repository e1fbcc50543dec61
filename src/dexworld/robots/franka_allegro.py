"""The reference robot in numbers: a Franka Panda with a right Allegro hand on its flange.

One source for the batched kinematics and for the simulated body. Lengths in metres, angles in radians, quaternions
(w, x, y, z). The base frame is the arm's mounting frame, `panda_link0`. Every joint is a hinge: its body sits at
`origin`, turned by `quaternion`, in its parent's frame and rotates about `axis` through its own origin.

Sources: Franka Emika Panda data sheet and the kinematics of franka_ros (Apache-2.0); Wonik Robotics' Allegro Hand
description (right hand, BSD).
"""

import math
from typing import NamedTuple

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class Joint(NamedTuple):
    """One hinge. `limits` in radians, `torque` in newton metres."""

    name: str
    origin: Vector
    quaternion: Quaternion
    axis: Vector
    limits: tuple[float, float]
    torque: float


class Finger(NamedTuple):
    """Four hinges in a row, the first one on the palm, and where the tip lies in the last one's frame."""

    name: str
    joints: tuple[Joint, Joint, Joint, Joint]
    tip: Vector


def _roll(angle: float) -> Quaternion:
    return (math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0)


_NONE = _roll(0.0)
_UP = _roll(math.pi / 2)
_DOWN = _roll(-math.pi / 2)
_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)

ARM: tuple[Joint, ...] = (
    Joint("panda_joint1", (0.0, 0.0, 0.333), _NONE, _Z, (-2.8973, 2.8973), 87.0),
    Joint("panda_joint2", (0.0, 0.0, 0.0), _DOWN, _Z, (-1.7628, 1.7628), 87.0),
    Joint("panda_joint3", (0.0, -0.316, 0.0), _UP, _Z, (-2.8973, 2.8973), 87.0),
    Joint("panda_joint4", (0.0825, 0.0, 0.0), _UP, _Z, (-3.0718, -0.0698), 87.0),
    Joint("panda_joint5", (-0.0825, 0.384, 0.0), _DOWN, _Z, (-2.8973, 2.8973), 12.0),
    Joint("panda_joint6", (0.0, 0.0, 0.0), _UP, _Z, (-0.0175, 3.7525), 12.0),
    Joint("panda_joint7", (0.088, 0.0, 0.0), _UP, _Z, (-2.8973, 2.8973), 12.0),
)
FLANGE: Vector = (0.0, 0.0, 0.107)  # panda_link8 in the frame of joint 7: the wrist keypoint
HAND_ON_FLANGE: Vector = (0.0, 0.0, 0.095)  # the Allegro's palm frame in the flange frame, not rotated

FINGER_TORQUE = 0.7
_FINGER_ORIGINS = ((0.0, 0.0, 0.0164), (0.0, 0.0, 0.054), (0.0, 0.0, 0.0384))  # joints 1, 2, 3 in their parents
_FINGER_AXES = (_Z, _Y, _Y, _Y)
_FINGER_LIMITS = ((-0.47, 0.47), (-0.196, 1.61), (-0.174, 1.709), (-0.227, 1.618))
_FINGER_TIP = (0.0, 0.0, 0.0267)
_THUMB_ORIGINS = ((-0.027, 0.005, 0.0399), (0.0, 0.0, 0.0177), (0.0, 0.0, 0.0514))
_THUMB_AXES = ((-1.0, 0.0, 0.0), _Z, _Y, _Y)
_THUMB_LIMITS = ((0.263, 1.396), (-0.105, 1.163), (-0.189, 1.644), (-0.162, 1.719))
_THUMB_TIP = (0.0, 0.0, 0.0423)


def _finger(
    name: str,
    first: int,
    base: Vector,
    quaternion: Quaternion,
    origins: tuple[Vector, ...],
    axes: tuple[Vector, ...],
    limits: tuple[tuple[float, float], ...],
    tip: Vector,
) -> Finger:
    places = ((base, quaternion), *((origin, _NONE) for origin in origins))
    joints = [
        Joint(f"joint_{first + index}", origin, turned, axes[index], limits[index], FINGER_TORQUE)
        for index, (origin, turned) in enumerate(places)
    ]
    return Finger(name, (joints[0], joints[1], joints[2], joints[3]), tip)


_TILT = 0.08726646  # 5 degrees: index and ring finger spread away from the middle one
_FINGER = (_FINGER_ORIGINS, _FINGER_AXES, _FINGER_LIMITS, _FINGER_TIP)
_THUMB_QUATERNION = (0.477714, -0.521334, -0.521334, -0.477714)

# Allegro's own order: joints 0-3 index, 4-7 middle, 8-11 ring, 12-15 thumb. Poses are in the palm frame: x out of the
# palm (where the fingers curl to), y towards the index finger, z towards the fingertips.
HAND: tuple[Finger, ...] = (
    _finger("index", 0, (0.0, 0.0435, -0.001542), _roll(-_TILT), *_FINGER),
    _finger("middle", 4, (0.0, 0.0, 0.0007), _NONE, *_FINGER),
    _finger("ring", 8, (0.0, -0.0435, -0.001542), _roll(_TILT), *_FINGER),
    _finger(
        "thumb",
        12,
        (-0.0182, 0.019333, -0.045987),
        _THUMB_QUATERNION,
        _THUMB_ORIGINS,
        _THUMB_AXES,
        _THUMB_LIMITS,
        _THUMB_TIP,
    ),
)

# Arm then hand: the order of every 23-vector in the package.
JOINTS: tuple[Joint, ...] = (*ARM, *(joint for finger in HAND for joint in finger.joints))
