"""The reference robot: a Franka Panda with a right Allegro hand on its flange, in numbers and as batched kinematics.

The simulated body has the same numbers. Lengths in metres, angles in radians, quaternions (w, x, y, z). The base frame
is the arm's mounting frame, `panda_link0`.

Sources: Franka Emika Panda data sheet and the kinematics of franka_ros (Apache-2.0); Wonik Robotics' Allegro Hand
description (right hand, BSD).
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dexworld.hands import RIGHT
from dexworld.robots.robot import Grip, HandPose, Motion, Robot, right_hand_pose, spheres

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


class Constants:
    """A robot's numbers in float64, and copies of them in other dtypes and on other devices, each made once."""

    def __init__(self, *numbers: Tensor) -> None:
        self.numbers, self._copies = numbers, dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]]()

    def like(self, other: Tensor) -> tuple[Tensor, ...]:
        """The numbers in the dtype and on the device of `other`."""
        key = (other.dtype, other.device)
        if key not in self._copies:
            self._copies[key] = tuple(number.to(other) for number in self.numbers)
        return self._copies[key]


class FrankaAllegro(Robot):
    """Kinematics of the reference robot: 7 joints of the arm, then 4 each of index, middle, ring finger and thumb.

    tips: `true` takes joints 1, 2, 3 and the tip of every finger, as on a human hand; `release`, as the DexWM release,
        the origins of the four links, so that its "tip" is the last joint, 27 to 42 mm short. In both, the ring finger
        stands in for the little finger too.
    """

    joints = tuple(joint.name for joint in JOINTS)
    arm = slice(0, len(ARM))
    grip = Grip(OVERHAND, (0.07, 0.0, 0.115), OPEN_FINGERS, CLOSED_FINGERS)
    motion = Motion((*ARM_VELOCITY, *(5.0,) * 16), (*ARM_ACCELERATION, *(50.0,) * 16), (*ARM_LAG, *(1.5,) * 16))

    def __init__(self, tips: TipConvention = "true") -> None:
        if tips not in ("true", "release"):
            raise ValueError(f"tips is {tips!r}; choose 'true' (fingertips) or 'release' (last joints)")
        self.tips = tips
        self.limits = torch.tensor([joint.limits for joint in JOINTS], dtype=torch.float64)
        tip_offsets = [finger.tip for finger in HAND]
        lengths = (torch.tensor(value, dtype=torch.float64) for value in (FLANGE, HAND_ON_FLANGE, tip_offsets))
        self._constants = Constants(joint_terms(JOINTS), *lengths)

    def forward(self, joint_positions: Tensor) -> HandPose:
        """As `Robot.forward`; `links` are the seven origins of the arm's joints."""
        self.check_shape(joint_positions)
        terms, flange, palm_offset, tip_offsets = self._constants.like(joint_positions)
        local = joint_transforms(terms, joint_positions)
        arm = chained(local[..., self.arm, :, :])
        rotation = arm[-1][..., :3, :3]
        links = torch.stack([pose[..., :3, 3] for pose in arm], dim=-2)
        wrist = links[..., -1, :] + (rotation @ flange[:, None])[..., 0]  # the flange isn't turned against joint 7

        fingers = chained(local[..., self.fingers, :, :].unflatten(-3, (len(HAND), 4)))  # palm_from_link
        origins = [pose[..., :3, 3] for pose in fingers]
        if self.tips == "true":
            tip = origins[-1] + (fingers[-1][..., :3, :3] @ tip_offsets[..., None])[..., 0]
            origins = [*origins[1:], tip]
        points = torch.stack(origins, dim=-2) + palm_offset  # (..., 4 fingers, 4, 3) in the flange frame
        points = points[..., (_THUMB, _INDEX, _MIDDLE, _RING, _RING), :, :].flatten(-3, -2)  # (..., 20, 3)
        points = points @ rotation.transpose(-1, -2) + wrist[..., None, :]
        return right_hand_pose(wrist, points, rotation, links)

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


def joint_transforms(terms: Tensor, angles: Tensor) -> Tensor:
    """parent_from_joint (..., J, 4, 4) for angles (..., J): linear in (1, cos q, sin q), with constants (J, 3, 16)."""
    constant, cosine, sine = terms.unbind(1)  # (J, 16) each
    flat = angles.cos()[..., None] * cosine  # in place from here on: fewer large temporaries
    return flat.add_(constant).add_(angles.sin()[..., None] * sine).unflatten(-1, (4, 4))


def chained(parent_from_joint: Tensor) -> list[Tensor]:
    """base_from_joint (..., 4, 4) of each joint in a row, from (..., J, 4, 4)."""
    poses = [parent_from_joint[..., 0, :, :]]
    for joint in range(1, parent_from_joint.shape[-3]):
        poses.append(poses[-1] @ parent_from_joint[..., joint, :, :])
    return poses


def joint_terms(joints: tuple[Joint, ...]) -> Tensor:
    """(J, 3, 16) numbers that `joint_transforms` takes."""
    return torch.stack([_terms_of(joint) for joint in joints])


def _terms_of(joint: Joint) -> Tensor:
    """Constant, cosine and sine parts (3, 16) of parent_from_joint(q): Rodrigues' formula after the fixed transform."""
    axis = torch.tensor(joint.axis, dtype=torch.float64)
    along = torch.outer(axis, axis)
    x, y, z = joint.axis
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    fixed = _quaternion_matrix(joint.quaternion)
    terms = torch.zeros(3, 4, 4, dtype=torch.float64)
    terms[0, :3, :3] = fixed @ along
    terms[0, :3, 3] = torch.tensor(joint.origin, dtype=torch.float64)
    terms[0, 3, 3] = 1.0
    terms[1, :3, :3] = fixed @ (torch.eye(3, dtype=torch.float64) - along)
    terms[2, :3, :3] = fixed @ cross
    return terms.flatten(1)


def _quaternion_matrix(quaternion: tuple[float, float, float, float]) -> Tensor:
    """Rotation (3, 3) of a quaternion (w, x, y, z), normalised first."""
    w, x, y, z = (torch.tensor(quaternion, dtype=torch.float64) / torch.tensor(quaternion).double().norm()).tolist()
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.tensor(rows, dtype=torch.float64)
