"""The Franka arm and Allegro hand as a MuJoCo body made of primitives: no mesh, no asset package.

Kinematics come from `dexworld.robots.franka_allegro`, shared with the batched forward kinematics; this file adds shape,
mass and motors. Position-controlled joints with gravity compensation: at rest the arm stays within 1e-4 rad of its
target.
"""

import math

import mujoco
import numpy as np

from dexworld.robots import franka_allegro as robot

HAND_PREFIX = "hand_"
BASE_BODY = "arm_base"
FLANGE_BODY = "arm_flange"
PALM_BODY = f"{HAND_PREFIX}palm"
JOINT_NAMES: tuple[str, ...] = tuple(joint.name for joint in robot.JOINTS)

# The mount of the DexWM robot's right arm: a shoulder that is tilted to the right, world frame.
MOUNT_POSITION = (0.247, -0.050681, 0.65)
MOUNT_QUATERNION = (0.865807, 0.436878, 0.0222879, 0.242939)

REST_ARM = (0.10, -1.0, 0.17, -2.8, 0.66, 2.9, 0.98)
OPEN_FINGERS, CLOSED_FINGERS = robot.OPEN_FINGERS, robot.CLOSED_FINGERS
REST_POSE = np.array(REST_ARM + OPEN_FINGERS)

_GEOM = mujoco.mjtGeom
_WHITE, _DARK, _TIP = [0.9, 0.9, 0.92, 1], [0.2, 0.2, 0.2, 1], [0.9, 0.9, 0.9, 1]
ROBOT_GROUP = 2  # geoms of the robot; objects and room are group 0
_ARM_MASS = (4.97, 0.65, 3.23, 3.59, 1.23, 1.67, 0.74)
_ARM_STIFFNESS = (2000, 2000, 1500, 1500, 800, 800, 400)  # N m / rad
_FINGER_STIFFNESS, _FINGER_DAMPING = 5.0, 0.1
# Capsules of every arm link in its joint's frame: from, to, radius.
_ARM_CAPSULES = (
    (((0, 0, -0.19), (0, 0, -0.02), 0.062), ((0, -0.05, 0), (0, 0.05, 0), 0.06)),
    (((0, 0, -0.07), (0, 0, 0.06), 0.06), ((0, -0.19, 0), (0, -0.05, 0), 0.06)),
    (
        ((0, 0, -0.14), (0, 0, -0.07), 0.06),
        ((0.0825, 0, -0.05), (0.0825, 0, 0.05), 0.055),
        ((0, 0, -0.08), (0.07, 0, 0), 0.06),
    ),
    (
        ((0, 0, -0.05), (0, 0, 0.05), 0.055),
        ((-0.0825, 0.09, 0), (-0.0825, 0.04, 0), 0.058),
        ((-0.01, 0, 0), (-0.08, 0.07, 0), 0.058),
    ),
    (
        ((0, 0, -0.26), (0, 0, -0.2), 0.06),
        ((0, 0.06, -0.18), (0, 0.08, 0), 0.032),
        ((0, 0.02, -0.2), (0, 0.06, -0.16), 0.045),
        ((0, 0.01, 0), (0, 0.075, 0), 0.05),
    ),
    (((0, 0, -0.05), (0, 0, 0.02), 0.05), ((0.02, 0, 0), (0.085, 0, 0), 0.045)),
    (((0, 0, 0.02), (0, 0, 0.075), 0.045),),
)
# Length and mass of the four links of a finger and of the thumb.
_FINGER_LINKS = ((0.0164, 0.0119), (0.054, 0.065), (0.0384, 0.0355), (0.0267, 0.0096))
_THUMB_LINKS = ((0.0, 0.0176), (0.0177, 0.0119), (0.0514, 0.038), (0.0423, 0.0388))


def add_robot(spec: mujoco.MjSpec) -> None:
    """Mount arm and hand in a scene: 23 joints, 23 position motors in the order of `JOINT_NAMES`."""
    _add_pedestal(spec.worldbody)
    _add_hand(spec, add_arm(spec))


def add_arm(
    spec: mujoco.MjSpec,
    position: tuple[float, float, float] = MOUNT_POSITION,
    quaternion: tuple[float, float, float, float] = MOUNT_QUATERNION,
) -> mujoco.MjsBody:
    """Mount the arm alone at `position` (metres, world) turned by `quaternion` (w, x, y, z); returns its flange."""
    base = spec.worldbody.add_body(name=BASE_BODY, pos=position, quat=quaternion, gravcomp=1)
    base.add_geom(
        type=_GEOM.mjGEOM_CYLINDER, fromto=[0, 0, 0, 0, 0, 0.14], size=[0.065, 0, 0], rgba=_WHITE, mass=0.7,
        group=ROBOT_GROUP,
    )  # fmt: skip
    body = base
    for index, joint in enumerate(robot.ARM):
        body = _add_joint(spec, body, f"arm_link{index + 1}", joint, armature=0.1, damping=1.0)
        for start, end, radius in _ARM_CAPSULES[index]:
            body.add_geom(
                type=_GEOM.mjGEOM_CAPSULE, fromto=[*start, *end], size=[radius, 0, 0], rgba=_WHITE,
                group=ROBOT_GROUP, mass=_ARM_MASS[index] / len(_ARM_CAPSULES[index]), solref=[0.01, 1],
            )  # fmt: skip
        stiffness = _ARM_STIFFNESS[index]
        _add_motor(spec, joint, stiffness, damping=1.8 * math.sqrt(0.6 * stiffness))
    flange = body.add_body(name=FLANGE_BODY, pos=robot.FLANGE, gravcomp=1)
    flange.add_geom(
        type=_GEOM.mjGEOM_CYLINDER, fromto=[0, 0, -0.02, 0, 0, 0], size=[0.035, 0, 0], rgba=[0.3, 0.3, 0.3, 1],
        group=ROBOT_GROUP, mass=0.05,
    )  # fmt: skip
    links = [f"arm_link{index}" for index in range(1, 8)]
    for near, far in [*zip(links, links[2:], strict=False), (BASE_BODY, "arm_link2"), ("arm_link5", FLANGE_BODY)]:
        spec.add_exclude(bodyname1=near, bodyname2=far)
    return flange


def keypoint_bodies(tips: str = "true") -> tuple[str, ...]:
    """Bodies whose origins are the 21 keypoints of a hand; tips: as of `FrankaAllegro`."""
    fingers = {finger.name: finger for finger in robot.HAND}
    bodies = [FLANGE_BODY]
    for name in ("thumb", "index", "middle", "ring", "ring"):
        links = [f"{HAND_PREFIX}{joint.name}" for joint in fingers[name].joints]
        bodies += links if tips == "release" else [*links[1:], f"{HAND_PREFIX}{name}_tip"]
    return tuple(bodies)


def _add_pedestal(world) -> None:
    style = {"rgba": [0.25, 0.25, 0.27, 1], "contype": 0, "conaffinity": 0, "group": ROBOT_GROUP}
    world.add_geom(type=_GEOM.mjGEOM_CYLINDER, size=[0.09, 0.42, 0], pos=[0.16, 0, 0.42], **style)
    world.add_geom(type=_GEOM.mjGEOM_BOX, size=[0.07, 0.12, 0.2], pos=[0.16, 0, 0.75], **style)


def _add_joint(spec, parent, name: str, joint: robot.Joint, armature: float, damping: float):
    """A body `name` hanging on `joint`."""
    body = parent.add_body(name=name, pos=joint.origin, quat=joint.quaternion, gravcomp=1)
    body.add_joint(
        name=joint.name, axis=joint.axis, range=joint.limits, limited=True, armature=armature, damping=damping
    )
    return body


def _add_motor(spec, joint: robot.Joint, stiffness: float, damping: float) -> None:
    motor = spec.add_actuator(name=joint.name, target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    motor.set_to_position(kp=stiffness, kv=damping)
    motor.forcerange = [-joint.torque, joint.torque]
    motor.inheritrange = 1


def _add_hand(spec: mujoco.MjSpec, flange) -> None:
    style = {"group": ROBOT_GROUP, "friction": [1.2, 0.02, 0.001], "condim": 4, "solref": [0.01, 1]}
    palm = flange.add_body(name=PALM_BODY, pos=robot.HAND_ON_FLANGE, gravcomp=1)
    size, place = [0.0204, 0.0565, 0.0475], [-0.0093, 0, -0.0475]
    palm.add_geom(type=_GEOM.mjGEOM_BOX, size=size, pos=place, mass=0.4154, rgba=_DARK, **style)
    for finger in robot.HAND:
        links = _THUMB_LINKS if finger.name == "thumb" else _FINGER_LINKS
        names, body = [PALM_BODY], palm
        for joint, (length, mass) in zip(finger.joints, links, strict=True):
            names.append(f"{HAND_PREFIX}{joint.name}")
            body = _add_joint(spec, body, names[-1], joint, armature=0.002, damping=0.05)
            if length:
                size, place = [0.0098, 0.01375, length / 2 - 0.001], [0, 0, length / 2]
            else:
                size, place = [0.0179, 0.017, 0.02275], [-0.0179, 0.009, 0.0145]  # the thumb's mount
            body.add_geom(type=_GEOM.mjGEOM_BOX, size=size, pos=place, mass=mass, rgba=_DARK, **style)
            _add_motor(spec, joint, _FINGER_STIFFNESS, _FINGER_DAMPING)
        tip = body.add_body(name=f"{HAND_PREFIX}{finger.name}_tip", pos=finger.tip, gravcomp=1)
        tip.add_geom(type=_GEOM.mjGEOM_SPHERE, size=[0.012, 0, 0], mass=0.0168, rgba=_TIP, **style)
        names.append(tip.name)
        # Neighbours overlap at the joints: no contact between links one or two apart.
        for gap in (1, 2):
            for near, far in zip(names, names[gap:], strict=False):
                spec.add_exclude(bodyname1=near, bodyname2=far)
