"""The physics of one kitchen with the gripper robot: joint and finger commands in, poses, contacts and pictures out.

All positions and poses are in the arm's base frame, DROID's world: x away from the robot, y to its left, z up, the
counter at z = 0, metres.
"""

import mujoco
import numpy as np

from dexworld.robots.franka_allegro import ARM
from dexworld.sim.gripper.gripper_robot import (
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
from dexworld.sim.kitchen.scene_physics import ScenePhysics
from dexworld.sim.poses import pose

_TARGET_UPDATES = 4  # times per control step that the interpolated joint targets move on (60 Hz)


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
        # The last link's shell covers the flange: a point on the flange is seen on it.
        last = [self.gripper, model.body(FLANGE_BODY).id, model.body("arm_link7").id, *self.fingers]
        self._gripper_geoms = np.flatnonzero(np.isin(model.geom_bodyid, last))
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

    @property
    def gripper_pose(self) -> np.ndarray:
        """base_from_gripper (4, 4): origin on the flange, z towards the fingertips, y along the fingers' slide."""
        return self._pose(self.data)

    def measured(self) -> dict[str, np.ndarray]:
        """`cartesian_pose` (4, 4) of the gripper, `joint_positions`, `joint_velocities` and `joint_torques` (7,) of the
        arm (gravity compensation not included), `opening` (), and `pad_points` (2, 3).
        """
        return {
            "cartesian_pose": self.gripper_pose,
            "joint_positions": self.data.qpos[self.arm_qpos].copy(),
            "joint_velocities": self.data.qvel[self.arm_dofs].copy(),
            "joint_torques": self.data.actuator_force[: len(ARM)].copy(),
            "opening": np.array(self.opening),
            "pad_points": self.pad_points(),
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

    def gripper_mask(self, camera: str) -> np.ndarray:
        """(H, W) bool: where gripper, flange or the arm's last link are seen."""
        return np.isin(self.renderer.segmentation(self.data, camera), self._gripper_geoms)

    def _pose(self, data: mujoco.MjData) -> np.ndarray:
        return pose(data.xmat[self.gripper].reshape(3, 3), data.xpos[self.gripper] - BASE_POSITION)
