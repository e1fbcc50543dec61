"""The reference robot: a Franka Panda with a right Allegro hand on its flange, in numbers and as batched kinematics.

The simulated body has the same numbers. Lengths in metres, angles in radians, quaternions (w, x, y, z). The base frame
is the arm's mounting frame, `panda_link0`.

Sources: Franka Emika Panda data sheet and the kinematics of franka_ros (Apache-2.0); Wonik Robotics' Allegro Hand
description (right hand, BSD).
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dexworld.geometry import rigid
from dexworld.hands import RIGHT
from dexworld.robots.kinematics import Kinematics, Numbers, Point, TreeJoint, quaternion_matrix
from dexworld.robots.robot import Grip, HandPose, Motion, spheres
from dexworld.robots.tree_robot import ORIGIN, HandLayout, TreeRobot

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
TipConvention = Literal["true", "release"]


class Joint(NamedTuple):
    """One hinge. Its body sits at `origin`, turned by `quaternion`, in its parent's frame, and rotates about `axis`.

    limits: radians. torque: newton metres.
    """

    name: str
    origin: Vector
    quaternion: Quaternion
    axis: Vector
    limits: tuple[float, float]
    torque: float


class Finger(NamedTuple):
    """Four hinges in a row, the first one on the palm, and where the tip lies in the last one's frame."""

    name: str
    joints: tuple[Joint, ...]
    tip: Vector


def _roll(angle: float) -> Quaternion:
    return (math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0)


_NONE = _roll(0.0)
_UP = _roll(math.pi / 2)
_DOWN = _roll(-math.pi / 2)
_Y, _Z = (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)

ARM: tuple[Joint, ...] = (
    Joint("panda_joint1", (0.0, 0.0, 0.333), _NONE, _Z, (-2.8973, 2.8973), 87.0),
    Joint("panda_joint2", (0.0, 0.0, 0.0), _DOWN, _Z, (-1.7628, 1.7628), 87.0),
    Joint("panda_joint3", (0.0, -0.316, 0.0), _UP, _Z, (-2.8973, 2.8973), 87.0),
    Joint("panda_joint4", (0.0825, 0.0, 0.0), _UP, _Z, (-3.0718, -0.0698), 87.0),
    Joint("panda_joint5", (-0.0825, 0.384, 0.0), _DOWN, _Z, (-2.8973, 2.8973), 12.0),
    Joint("panda_joint6", (0.0, 0.0, 0.0), _UP, _Z, (-0.0175, 3.7525), 12.0),
    Joint("panda_joint7", (0.088, 0.0, 0.0), _UP, _Z, (-2.8973, 2.8973), 12.0),
)
ARM_JOINTS = len(ARM)
FLANGE: Vector = (0.0, 0.0, 0.107)  # panda_link8 in the frame of joint 7: the wrist keypoint
HAND_ON_FLANGE: Vector = (0.0, 0.0, 0.095)  # the Allegro's palm frame in the flange frame, not rotated

FINGER_TORQUE = 0.7
# Of a finger's joints: origins of the last three in their parents, axes, limits; and its tip in the last joint's frame.
_FINGER = (
    ((0.0, 0.0, 0.0164), (0.0, 0.0, 0.054), (0.0, 0.0, 0.0384)),
    (_Z, _Y, _Y, _Y),
    ((-0.47, 0.47), (-0.196, 1.61), (-0.174, 1.709), (-0.227, 1.618)),
    (0.0, 0.0, 0.0267),
)
_THUMB_FINGER = (
    ((-0.027, 0.005, 0.0399), (0.0, 0.0, 0.0177), (0.0, 0.0, 0.0514)),
    ((-1.0, 0.0, 0.0), _Z, _Y, _Y),
    ((0.263, 1.396), (-0.105, 1.163), (-0.189, 1.644), (-0.162, 1.719)),
    (0.0, 0.0, 0.0423),
)
_THUMB_QUATERNION = (0.477714, -0.521334, -0.521334, -0.477714)
_TILT = 0.08726646  # 5 degrees: index and ring finger spread away from the middle one


def _finger(name: str, first: int, base: Vector, quaternion: Quaternion, numbers: tuple = _FINGER) -> Finger:
    origins, axes, limits, tip = numbers
    places = [(base, quaternion), *((origin, _NONE) for origin in origins)]
    rows = enumerate(zip(places, axes, limits, strict=True), first)
    joints = (Joint(f"joint_{number}", *place, axis, span, FINGER_TORQUE) for number, (place, axis, span) in rows)
    return Finger(name, tuple(joints), tip)


# Allegro's own order: joints 0-3 index, 4-7 middle, 8-11 ring, 12-15 thumb. Poses are in the palm frame: x out of the
# palm (where the fingers curl to), y towards the index finger, z towards the fingertips.
HAND: tuple[Finger, ...] = (
    _finger("index", 0, (0.0, 0.0435, -0.001542), _roll(-_TILT)),
    _finger("middle", 4, (0.0, 0.0, 0.0007), _NONE),
    _finger("ring", 8, (0.0, -0.0435, -0.001542), _roll(_TILT)),
    _finger("thumb", 12, (-0.0182, 0.019333, -0.045987), _THUMB_QUATERNION, _THUMB_FINGER),
)

# Arm, then hand: the order of every joint vector of this robot.
JOINTS: tuple[Joint, ...] = (*ARM, *(joint for finger in HAND for joint in finger.joints))
# From above, fingers to the left: of the poses that take things on a table the one that the arm reaches most of it in.
OPEN_FINGERS = (0.0, 0.0, 0.1, 0.1) * 3 + (1.3, 0.3, 0.1, 0.1)
CLOSED_FINGERS = (0.0, 1.2, 1.0, 0.8) * 3 + (1.396, 0.6, 0.7, 0.9)
OVERHAND = ((0.563228, -0.74747, 0.352226), (-0.211967, 0.281306, 0.935915), (-0.798652, -0.601794, 0.0))
# The arm's are Franka's (data sheet and FCI documentation). The lags and all of the hand's are our choice: fingers hold
# a thing by commands that lie inside it.
ARM_VELOCITY, ARM_ACCELERATION = (2.175,) * 4 + (2.61,) * 3, (15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0)
ARM_LAG = (0.2,) * 7
_INDEX, _MIDDLE, _RING, _THUMB = range(4)
# Spheres along lines between two of the arm's joints or its wrist (row 7): from, to, how many, radius.
_ARM_SPHERES = ((2, 3, 4, 0.075), (3, 5, 9, 0.065), (5, 6, 3, 0.06), (6, 7, 3, 0.05))


def base_from_flange(joint_positions: Tensor) -> Tensor:
    """Poses (..., 4, 4) of `panda_link8` for joint vectors (..., 7 or more) that begin with the arm's."""
    kinematics = Kinematics([tree_joint(joint, index - 1) for index, joint in enumerate(ARM)])
    frames = kinematics.frames(joint_positions[..., :ARM_JOINTS])
    place = frames.points(kinematics.places([(ARM_JOINTS - 1, FLANGE)]))[..., 0, :]
    return rigid(frames.rotation(*kinematics.link(ARM_JOINTS - 1)), place)


class FrankaAllegro(TreeRobot):
    """Kinematics of the reference robot: 7 joints of the arm, then 4 each of index, middle, ring finger and thumb.

    tips: `true` takes joints 1, 2, 3 and the tip of every finger, as on a human hand; `release`, as the DexWM release,
        the origins of the four links, so that its "tip" is the last joint, 27 to 42 mm short. In both, the ring finger
        stands in for the little finger too.
    """

    joints = tuple(joint.name for joint in JOINTS)
    arm = slice(0, ARM_JOINTS)
    grip = Grip(OVERHAND, (0.07, 0.0, 0.115), OPEN_FINGERS, CLOSED_FINGERS)
    motion = Motion((*ARM_VELOCITY, *(5.0,) * 16), (*ARM_ACCELERATION, *(50.0,) * 16), (*ARM_LAG, *(1.5,) * 16))

    def __init__(self, tips: TipConvention = "true") -> None:
        if tips not in ("true", "release"):
            raise ValueError(f"tips is {tips!r}; choose 'true' (fingertips) or 'release' (last joints)")
        self.tips = tips
        palm_on_link = np.add(FLANGE, HAND_ON_FLANGE)  # the flange isn't turned against joint 7
        keypoints: dict[int, Point] = {RIGHT.start: (ARM_JOINTS - 1, FLANGE)}
        for row, finger in enumerate((_THUMB, _INDEX, _MIDDLE, _RING, _RING)):
            first = ARM_JOINTS + 4 * finger
            places: list[Point] = [(first + joint, ORIGIN) for joint in range(4)]
            if tips == "true":
                places = [*places[1:], (first + 3, HAND[finger].tip)]
            keypoints |= {RIGHT.start + 1 + 4 * row + joint: place for joint, place in enumerate(places)}
        tree = [tree_joint(joint, index - 1) for index, joint in enumerate(ARM)]
        for _, (first_joint, *others), _ in HAND:
            tree.append(tree_joint(first_joint, ARM_JOINTS - 1, palm_on_link))
            tree += [tree_joint(joint, len(tree) - 1 + index) for index, joint in enumerate(others)]
        links = [(index, ORIGIN) for index in range(ARM_JOINTS)]
        limits = torch.tensor([joint.limits for joint in JOINTS], dtype=torch.float64)
        super().__init__(limits, Kinematics(tree), HandLayout(keypoints, RIGHT.start, (ARM_JOINTS - 1, None), links))

    def outline(self, pose: HandPose) -> tuple[Tensor, Tensor]:
        """Spheres over forearm, palm and fingers."""
        arm, wrist, hand = pose.links, pose.wrist, pose.keypoints[..., RIGHT, :]
        across, along = pose.hand_rotation[..., :, 1], pose.hand_rotation[..., :, 2]
        rows = [*arm.unbind(-2), wrist]
        lines = [(rows[start], rows[end], count, radius) for start, end, count, radius in _ARM_SPHERES]
        for side in (-0.035, 0.0, 0.035):
            lines.append((wrist + side * across + 0.01 * along, wrist + side * across + 0.085 * along, 3, 0.03))
        for joint in (4 * finger + joint for finger in range(4) for joint in range(1, 4)):
            lines.append((hand[..., joint, :], hand[..., joint + 1, :], 3, 0.016))
        return spheres(lines)


def tree_joint(joint: Joint, parent: int, offset: Numbers = ORIGIN) -> TreeJoint:
    """A joint in a tree, displaced by an offset (3) in its parent's frame."""
    parent_from_joint = np.eye(4)
    parent_from_joint[:3, :3] = quaternion_matrix(joint.quaternion)
    parent_from_joint[:3, 3] = np.add(joint.origin, offset)
    return TreeJoint(parent, parent_from_joint, joint.axis)
