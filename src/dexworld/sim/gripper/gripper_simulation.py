"""The Franka arm with a parallel gripper in a kitchen: its body, the cameras that DROID puts around it, its physics.

The arm stands upright at the counter's front edge, its base at the height of the counter, as on DROID's mobile desk.
Gripper frame: origin on the flange, z towards the fingertips, y along which the fingers slide, x to the palm's front.
Positions and poses are in the arm's base frame, DROID's world: x away from the robot, y to its left, z up, the counter
at z = 0, metres. Palm and fingers have the sizes of the Franka hand (franka_ros, Apache-2.0), made of primitives.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import mujoco
import numpy as np

from dexworld.robots.franka_allegro import ARM
from dexworld.sim.kitchen.allegro_body import ROBOT_GROUP, add_arm
from dexworld.sim.kitchen.kitchen_scene import (
    COUNTER_TOP,
    Layout,
    add_decor,
    build_scene,
    place_objects,
    random_layout,
)
from dexworld.sim.kitchen.kitchen_simulation import ScenePhysics
from dexworld.sim.kitchen.objects import ObjectSpec, random_object
from dexworld.sim.poses import OPTICAL, looking_at, pose, quaternion

BASE_POSITION = (0.25, 0.0, COUNTER_TOP)  # the arm's base in the kitchen, upright: world and base differ by this alone
GRIPPER_BODY = "gripper_palm"
FINGER_NAMES = ("gripper_left_finger", "gripper_right_finger")
MAX_OPENING = 0.04  # metres that each finger slides
GRASP_POINT = 0.103  # metres from the flange, along z, to the middle of the pads
PAD_POINTS = tuple((0.0, side * 0.006, 0.0446) for side in (1.0, -1.0))  # middles of the pads, finger frames
HOME_ARM = (0.0, -0.15, 0.0, -2.45, 0.0, 2.3, math.pi / 4)  # gripper pointing down before the base

EXTERNAL_CAMERAS = ("ext1", "ext2")
WRIST_CAMERA = "wrist"
CAMERAS = (*EXTERNAL_CAMERAS, WRIST_CAMERA)
WRIST_FOVY_DEG = 2 * math.degrees(math.atan(360 / 700))  # a ZED Mini's 1280 x 720 picture, focal length about 700 px
CONTROL_RATE = 15.0  # Hz, DROID's
STEPS_PER_CONTROL = 32  # physics steps of 1 / 480 s
_TARGET_UPDATES = 4  # times per control step that the interpolated joint targets move on (60 Hz)

# Centres of objects in the arm's base frame: x low, x high, y low, y high. The first object stands in the inner part.
OBJECT_AREA = (0.34, 0.66, -0.3, 0.3)
TARGET_AREA = (0.38, 0.58, -0.22, 0.22)
FINGER_GAP = 0.06  # metres between objects: the open fingers fit

_FINGER_START = 0.0584  # metres from the flange to the fingers' bodies
_FINGER_FORCE = 30.0  # newtons each; the Franka hand holds with 70 at most
_FINGER_STIFFNESS, _FINGER_DAMPING = 1500.0, 60.0  # N / m, N s / m
_GEOM = mujoco.mjtGeom
_PALE, _DARK, _RUBBER = [0.88, 0.88, 0.9, 1], [0.22, 0.22, 0.24, 1], [0.12, 0.12, 0.12, 1]


def gripper_layout(seed: int) -> Layout:
    """The kitchen of `seed` with objects that stand within the arm's reach and mostly fit between the fingers."""
    layout = random_layout(seed)
    rng = np.random.default_rng([seed, 21])
    objects, positions = place_objects(
        rng, int(rng.integers(2, 6)), (TARGET_AREA, OBJECT_AREA), FINGER_GAP, _small_object
    )
    return replace(
        layout,
        objects=objects,
        positions=tuple((x + BASE_POSITION[0], y + BASE_POSITION[1]) for x, y in positions),
        yaws=tuple(float(yaw) for yaw in rng.uniform(-math.pi, math.pi, len(objects))),
    )


def _small_object(rng: np.random.Generator) -> ObjectSpec:
    """The kitchen's objects are sized for a hand; the fingers open 8 cm."""
    item = random_object(rng)
    scale = float(rng.uniform(0.6, 0.95))
    height = item.half_height * (scale if item.kind == "ball" else float(rng.uniform(0.8, 1.0)))
    return replace(item, radius=item.radius * scale, half_height=height)


def external_cameras(seed: int) -> dict[str, tuple[np.ndarray, float]]:
    """Where ext1 (left of the robot) and ext2 (right) stand in the scene of `seed`, looking at the work area.

    base_from_camera (4, 4), optical axes, and the vertical field of view in degrees.
    """
    rng = np.random.default_rng([seed, 22])
    mounts = {}
    for name, side in zip(EXTERNAL_CAMERAS, (1.0, -1.0), strict=True):
        place = np.array([rng.uniform(-0.05, 0.55), side * rng.uniform(0.65, 1.0), rng.uniform(0.4, 0.75)])
        target = np.array([0.46, 0.04 * side, 0.13]) + rng.normal(0, [0.03, 0.03, 0.02])
        mounts[name] = (looking_at(place, target, float(rng.normal(0, 0.03))), float(rng.uniform(46, 60)))
    return mounts


def gripper_mount(seed: int, height: int, width: int) -> Callable[[mujoco.MjSpec], None]:
    """What `build_scene` adds to the kitchen of `seed`: arm, gripper, cameras for height x width pixels, side walls."""

    def mount(spec: mujoco.MjSpec) -> None:
        spec.option.timestep = 1.0 / (CONTROL_RATE * STEPS_PER_CONTROL)
        buffer = spec.visual.global_
        buffer.offwidth, buffer.offheight = max(buffer.offwidth, width), max(buffer.offheight, height)
        _close_room(spec, np.random.default_rng([seed, 23]))
        pedestal = {"type": _GEOM.mjGEOM_CYLINDER, "rgba": _DARK, "group": ROBOT_GROUP}
        add_decor(spec.worldbody, [0.09, COUNTER_TOP / 2, 0], [*BASE_POSITION[:2], COUNTER_TOP / 2], **pedestal)
        palm = _add_gripper(spec, add_arm(spec, BASE_POSITION, (1.0, 0.0, 0.0, 0.0)))
        _add_wrist_camera(palm, np.random.default_rng([seed, 24]))
        for name, (place, fovy_deg) in external_cameras(seed).items():
            _add_camera(spec.worldbody, name, place[:3, :3], place[:3, 3] + BASE_POSITION, fovy_deg)

    return mount


def _close_room(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    """Walls to both sides and behind the robot: the kitchen is made for one camera that looks at the counter."""
    colour = [*rng.uniform(0.45, 0.9, 3), 1]
    for side in (-1.0, 1.0):
        add_decor(spec.worldbody, [2.0, 0.02, 1.4], [0.0, side * 1.9, 1.4], rgba=colour)
    add_decor(spec.worldbody, [0.02, 2.0, 1.4], [-1.4, 0, 1.4], rgba=[*rng.uniform(0.45, 0.9, 3), 1])


def _add_gripper(spec: mujoco.MjSpec, flange) -> mujoco.MjsBody:
    """Palm and two coupled fingers. The hand sits on the flange turned by -45 degrees, as Franka mounts it."""
    turn = -math.pi / 8
    palm = flange.add_body(name=GRIPPER_BODY, quat=[math.cos(turn), 0, 0, math.sin(turn)], gravcomp=1)
    _add_box(palm, [0.0315, 0.102, 0.0255], [0, 0, 0.0325], mass=0.55, rgba=_PALE)
    _add_box(palm, [0.045, 0.006, 0], [0, 0, 0.004], mass=0.1, rgba=_DARK, type=_GEOM.mjGEOM_CYLINDER)
    rubber = {"mass": 0.02, "rgba": _RUBBER, "friction": [1.3, 0.02, 0.001], "condim": 4}
    slide = {"type": mujoco.mjtJoint.mjJNT_SLIDE, "range": [0, MAX_OPENING], "limited": True}
    for name, side in zip(FINGER_NAMES, (1.0, -1.0), strict=True):
        finger = palm.add_body(name=name, pos=[0, 0, _FINGER_START], gravcomp=1)
        finger.add_joint(name=name, axis=[0, side, 0], armature=0.1, damping=5.0, **slide)
        _add_box(finger, [0.0105, 0.0065, 0.027], [0, side * 0.0185, 0.0265], mass=0.04, rgba=_DARK)
        _add_box(finger, [0.0105, 0.006, 0.0105], [0, side * 0.006, 0.0446], name=f"{name}_pad", **rubber)
        spec.add_exclude(bodyname1=GRIPPER_BODY, bodyname2=name)
        motor = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.set_to_position(kp=_FINGER_STIFFNESS, kv=_FINGER_DAMPING)
        motor.forcerange, motor.inheritrange = [-_FINGER_FORCE, _FINGER_FORCE], 1
    coupling = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1=FINGER_NAMES[0], name2=FINGER_NAMES[1])
    coupling.objtype = mujoco.mjtObj.mjOBJ_JOINT
    coupling.data[:5] = [0, 1, 0, 0, 0]  # uncoupled fingers would let what they hold slide from side to side
    return palm


def _add_box(body: mujoco.MjsBody, size: list[float], place: list[float], **style) -> None:
    style = {"type": _GEOM.mjGEOM_BOX, "group": ROBOT_GROUP, "solref": [0.01, 1], **style}
    body.add_geom(size=size, pos=place, **style)


def _add_wrist_camera(palm: mujoco.MjsBody, rng: np.random.Generator) -> None:
    """Above the palm's front, looking along the fingers: they reach into the picture from its lower edge."""
    place = np.array([0.075, 0.0, 0.04]) + rng.normal(0, 0.004, 3)
    ahead = np.array([-0.005, 0.0, 0.18]) - place + rng.normal(0, 0.006, 3)
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, [1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    optical = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    _add_camera(palm, WRIST_CAMERA, optical, place, WRIST_FOVY_DEG)


def _add_camera(body, name: str, optical: np.ndarray, position: np.ndarray, fovy_deg: float) -> None:
    """A camera with optical axes `optical` (3, 3): x right, y down, z forward. MuJoCo's looks along -z with y up."""
    body.add_camera(name=name, pos=list(map(float, position)), quat=quaternion(optical @ OPTICAL), fovy=fovy_deg)


class GripperSimulation(ScenePhysics):
    """A kitchen in motion, 15 control steps a second."""

    def __init__(self, layout: Layout, height: int = 180, width: int = 320, backend: str = "auto") -> None:
        model = build_scene(layout, gripper_mount(layout.seed, height, width))
        super().__init__(layout, model, (height, width), backend, BASE_POSITION)
        arm = [model.joint(joint.name).id for joint in ARM]
        self.arm_qpos, self.arm_dofs = model.jnt_qposadr[arm], model.jnt_dofadr[arm]
        self.arm_limits = model.jnt_range[arm].copy()
        self._finger_qpos = model.jnt_qposadr[[model.joint(name).id for name in FINGER_NAMES]]
        self.gripper = model.body(GRIPPER_BODY).id
        self.fingers = np.array([model.body(name).id for name in FINGER_NAMES])
        self.touching = np.array([self.gripper, *self.fingers])
        self.reset()

    def reset(self) -> None:
        """Objects to their places, the arm home at rest, fingers open."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.arm_qpos] = HOME_ARM
        self.data.qpos[self._finger_qpos] = MAX_OPENING
        self.data.ctrl[:] = [*HOME_ARM, MAX_OPENING, MAX_OPENING]
        mujoco.mj_forward(self.model, self.data)

    def step(self, arm: np.ndarray, opening: float) -> None:
        """One control step of 1/15 s towards arm joints (7,) radians and an opening of 0 (closed) to 1 (open)."""
        goal = np.array([*arm, *[min(max(opening, 0.0), 1.0) * MAX_OPENING] * 2])
        start = self.data.ctrl.copy()
        for update in range(1, _TARGET_UPDATES + 1):
            self.data.ctrl[:] = start + (goal - start) * update / _TARGET_UPDATES
            mujoco.mj_step(self.model, self.data, nstep=STEPS_PER_CONTROL // _TARGET_UPDATES)
        mujoco.mj_forward(self.model, self.data)  # contacts and poses of where it is now

    @property
    def opening(self) -> float:
        """How far the fingers are open: 0 closed, 1 open."""
        return float(np.clip(self.data.qpos[self._finger_qpos].mean() / MAX_OPENING, 0.0, 1.0))

    def measured(self) -> dict[str, np.ndarray]:
        """`cartesian_pose` (4, 4) of the gripper, `opening` (), and (7,) of the arm `joint_positions`,
        `joint_velocities` and `joint_torques` (without gravity compensation).
        """
        return {
            "cartesian_pose": self._pose(self.data),
            "joint_positions": self.data.qpos[self.arm_qpos].copy(),
            "joint_velocities": self.data.qvel[self.arm_dofs].copy(),
            "joint_torques": self.data.actuator_force[: len(ARM)].copy(),
            "opening": np.array(self.opening),
        }

    def forward(self, arm: np.ndarray) -> np.ndarray:
        """base_from_gripper (4, 4) for arm joints (7,), without touching the state."""
        self.scratch.qpos[self.arm_qpos] = arm
        mujoco.mj_kinematics(self.model, self.scratch)
        return self._pose(self.scratch)

    def jacobian(self, arm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """base_from_gripper (4, 4) and its Jacobian (6, 7) (metres, radians per radian) for arm joints (7,)."""
        base_from_gripper = self.forward(arm)
        mujoco.mj_comPos(self.model, self.scratch)
        full, place = np.zeros((6, self.model.nv)), base_from_gripper[:3, 3] + BASE_POSITION
        mujoco.mj_jac(self.model, self.scratch, full[:3], full[3:], place, self.gripper)
        return base_from_gripper, full[:, self.arm_dofs]

    def pad_points(self) -> np.ndarray:
        """The middles of the two pads (2, 3)."""
        rows = zip(self.fingers, PAD_POINTS, strict=True)
        points = [self.data.xpos[body] + self.data.xmat[body].reshape(3, 3) @ point for body, point in rows]
        return np.stack(points) - BASE_POSITION

    def object_rotation(self, index: int) -> np.ndarray:
        """Rotation (3, 3) base_from_object."""
        return self.data.xmat[self.objects[index]].reshape(3, 3).copy()

    def _pose(self, data: mujoco.MjData) -> np.ndarray:
        """base_from_gripper (4, 4): origin on the flange, z towards the fingertips, y along the fingers' slide."""
        return pose(data.xmat[self.gripper].reshape(3, 3), data.xpos[self.gripper] - BASE_POSITION)
