"""The physics of one kitchen with the gripper robot: joint and finger commands in, poses, contacts and pictures out.

All positions and poses are in the arm's base frame, DROID's world: x away from the robot, y to its left, z up, the
counter at z = 0, metres.
"""

import math

import mujoco
import numpy as np

from dexworld.robots.franka_allegro import ARM
from dexworld.sim.gripper_robot import (
    BASE_POSITION,
    FINGER_NAMES,
    GRIPPER_BODY,
    HOME_ARM,
    MAX_OPENING,
    PAD_POINTS,
    STEPS_PER_CONTROL,
    gripper_mount,
)
from dexworld.sim.kitchen.allegro_body import FLANGE_BODY
from dexworld.sim.kitchen.kitchen_scene import Layout, build_scene
from dexworld.sim.render import Renderer, make_renderer

_TARGET_UPDATES = 4  # times per control step that the interpolated joint targets move on (60 Hz)
_OPTICAL = np.diag([1.0, -1.0, -1.0])  # MuJoCo's camera axes (y up, looking along -z) in optical ones


class GripperSimulation:
    """A kitchen in motion, 15 control steps a second. The renderer is made when the first picture is asked for."""

    def __init__(self, layout: Layout, height: int = 180, width: int = 320, backend: str = "auto") -> None:
        scene = build_scene(layout, gripper_mount(layout.seed, height, width))
        self.layout, self.model, self.object_names = layout, scene.model, scene.object_names
        self.height, self.width = height, width
        self.data, self.scratch = mujoco.MjData(self.model), mujoco.MjData(self.model)
        arm = [self.model.joint(joint.name).id for joint in ARM]
        fingers = [self.model.joint(name).id for name in FINGER_NAMES]
        self.arm_qpos, self.arm_dofs = self.model.jnt_qposadr[arm], self.model.jnt_dofadr[arm]
        self.arm_limits = self.model.jnt_range[arm].copy()
        self._finger_qpos = self.model.jnt_qposadr[fingers]
        self.gripper = self.model.body(GRIPPER_BODY).id
        self.fingers = np.array([self.model.body(name).id for name in FINGER_NAMES])
        self.objects = np.array([self.model.body(name).id for name in self.object_names])
        # The last link's shell covers the flange: a point on the flange is seen on it.
        last = {self.gripper, self.model.body(FLANGE_BODY).id, self.model.body("arm_link7").id, *self.fingers.tolist()}
        self.gripper_geoms = np.flatnonzero(np.isin(self.model.geom_bodyid, sorted(last)))
        self._backend = backend
        self._renderer: Renderer | None = None
        self.reset()

    def reset(self, arm: np.ndarray | None = None, opening: float = 1.0) -> None:
        """Objects to their places, the arm to joints (7,) radians at rest (home by default), fingers open or closed."""
        joints = np.array(HOME_ARM) if arm is None else np.asarray(arm)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.arm_qpos] = joints
        self.data.qpos[self._finger_qpos] = opening * MAX_OPENING
        self.data.ctrl[:] = [*joints, *[opening * MAX_OPENING] * 2]
        mujoco.mj_forward(self.model, self.data)

    # -- motion ------------------------------------------------------------------------------------------------------

    def step(self, arm: np.ndarray, opening: float) -> None:
        """One control step of 1/15 s towards arm joints (7,) radians and an opening of 0 (closed) to 1 (open)."""
        goal = np.array([*arm, *[min(max(opening, 0.0), 1.0) * MAX_OPENING] * 2])
        start = self.data.ctrl.copy()
        for update in range(1, _TARGET_UPDATES + 1):
            self.data.ctrl[:] = start + (goal - start) * update / _TARGET_UPDATES
            mujoco.mj_step(self.model, self.data, nstep=STEPS_PER_CONTROL // _TARGET_UPDATES)
        mujoco.mj_forward(self.model, self.data)  # contacts and poses of where it is now

    @property
    def arm_targets(self) -> np.ndarray:
        """Commanded arm joints (7,) radians."""
        return self.data.ctrl[: len(ARM)].copy()

    # -- what is where -----------------------------------------------------------------------------------------------

    @property
    def arm_joints(self) -> np.ndarray:
        """Measured arm joints (7,) radians."""
        return self.data.qpos[self.arm_qpos].copy()

    @property
    def arm_velocities(self) -> np.ndarray:
        """Measured arm joint velocities (7,) radians per second."""
        return self.data.qvel[self.arm_dofs].copy()

    @property
    def arm_torques(self) -> np.ndarray:
        """Torques (7,) of the arm's motors, newton metres, gravity compensation not included."""
        return self.data.actuator_force[: len(ARM)].copy()

    @property
    def opening(self) -> float:
        """How far the fingers are open: 0 closed, 1 open."""
        return float(np.clip(self.data.qpos[self._finger_qpos].mean() / MAX_OPENING, 0.0, 1.0))

    @property
    def gripper_pose(self) -> np.ndarray:
        """base_from_gripper (4, 4): origin on the flange, z towards the fingertips, y along the fingers' slide."""
        return self._pose(self.data, self.gripper)

    def forward(self, arm: np.ndarray) -> np.ndarray:
        """base_from_gripper (4, 4) for arm joints (7,), without touching the state."""
        self.scratch.qpos[self.arm_qpos] = arm
        mujoco.mj_kinematics(self.model, self.scratch)
        return self._pose(self.scratch, self.gripper)

    def jacobian(self, arm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """base_from_gripper (4, 4) and its Jacobian (6, 7) (metres, radians per radian) for arm joints (7,)."""
        pose = self.forward(arm)
        mujoco.mj_comPos(self.model, self.scratch)
        full = np.zeros((6, self.model.nv))
        mujoco.mj_jac(self.model, self.scratch, full[:3], full[3:], pose[:3, 3] + BASE_POSITION, self.gripper)
        return pose, full[:, self.arm_dofs]

    def pad_points(self) -> np.ndarray:
        """The middles of the two pads (2, 3)."""
        rows = zip(self.fingers, PAD_POINTS, strict=True)
        points = [self.data.xpos[body] + self.data.xmat[body].reshape(3, 3) @ point for body, point in rows]
        return np.stack(points) - BASE_POSITION

    def object_positions(self) -> np.ndarray:
        """Centres (n, 3) of the objects."""
        return self.data.xpos[self.objects] - BASE_POSITION

    def object_rotation(self, index: int) -> np.ndarray:
        """Rotation (3, 3) base_from_object."""
        return self.data.xmat[self.objects[index]].reshape(3, 3).copy()

    def touched(self) -> np.ndarray:
        """(n,) bool: which objects a part of the gripper touches."""
        found = np.zeros(len(self.objects), bool)
        for contact in self.data.contact[: self.data.ncon]:
            first, second = self.model.geom_bodyid[contact.geom]
            for part, other in ((first, second), (second, first)):
                if part == self.gripper or part in self.fingers:
                    found |= self.objects == other
        return found

    # -- pictures ----------------------------------------------------------------------------------------------------

    def base_from_camera(self, camera: str) -> np.ndarray:
        """Pose (4, 4) of a camera's optical frame (x right, y down, z forward)."""
        number = self.model.camera(camera).id
        pose = np.eye(4)
        pose[:3, :3] = self.data.cam_xmat[number].reshape(3, 3) @ _OPTICAL
        pose[:3, 3] = self.data.cam_xpos[number] - BASE_POSITION
        return pose

    def intrinsics(self, camera: str) -> np.ndarray:
        """Pinhole matrix (3, 3) of a camera's pictures, pixels."""
        fovy = math.radians(self.model.cam_fovy[self.model.camera(camera).id])
        focal = 0.5 * self.height / math.tan(fovy / 2)
        return np.array([[focal, 0, self.width / 2], [0, focal, self.height / 2], [0, 0, 1.0]])

    @property
    def renderer(self) -> Renderer:
        """The renderer of this scene, made when first needed."""
        if self._renderer is None:
            self._renderer = make_renderer(self.model, self.height, self.width, backend=self._backend)
        return self._renderer

    def image(self, camera: str) -> np.ndarray:
        """Picture (H, W, 3) uint8."""
        return self.renderer.rgb(self.data, camera)

    def gripper_mask(self, camera: str) -> np.ndarray:
        """(H, W) bool: where gripper, flange or the arm's last link are seen."""
        return np.isin(self.renderer.segmentation(self.data, camera), self.gripper_geoms)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __enter__(self) -> "GripperSimulation":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _pose(self, data: mujoco.MjData, body: int) -> np.ndarray:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = data.xmat[body].reshape(3, 3), data.xpos[body] - BASE_POSITION
        return pose
