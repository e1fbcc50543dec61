"""Adroit's environments (package gymnasium-robotics) as scenes: joint targets in, states, keypoints and pictures out.

A Shadow hand on a forearm that slides and turns; Rajeswaran et al. 2018, "Learning complex dexterous manipulation with
deep reinforcement learning and demonstrations". Physics, scenes of a seed and success are the package's own; the view
is ours, from over the forearm, since the package's camera shows the hand a few pixels wide. Metres, radians.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import mujoco
import numpy as np
import torch

from dexworld.robots.robot import Robot
from dexworld.sim.poses import OPTICAL, looking_at, quaternion
from dexworld.sim.scene_view import SceneView

FRAMES_PER_SECOND = 5.0
IMAGE_SIZE = (224, 392)
STEPS_PER_SECOND = 100  # of the package's environments
STEPS_PER_FRAME = round(STEPS_PER_SECOND / FRAMES_PER_SECOND)
PALM_SITE = "S_grasp"
_CAMERA = "vil_camera"
_MODULE = "gymnasium_robotics.envs.adroit_hand"

Tick = Callable[["AdroitSimulation"], None]


@dataclass(frozen=True)
class Scene:
    """One of the package's environments.

    module, environment: where it is. thing: site or body that the hand works on. arm: joints that move the hand about.
    view: where our camera is and what it looks at, metres.
    """

    module: str
    environment: str
    thing: tuple[str, str]
    arm: tuple[str, ...]
    view: tuple[tuple[float, float, float], tuple[float, float, float]]


_ARM, _WRIST, _EYE = ("ARRx", "ARRy", "ARRz"), ("WRJ1", "WRJ0"), ((0.0, -0.75, 0.8),)
SCENES = {
    "relocate": Scene("adroit_relocate", "AdroitHandRelocateEnv", ("body", "Object"),
                      ("ARTx", "ARTy", "ARTz", *_ARM, *_WRIST), (*_EYE, (0.0, 0.02, 0.14))),
    "door": Scene("adroit_door", "AdroitHandDoorEnv", ("site", "S_handle"),
                  ("ARTz", *_ARM, *_WRIST), (*_EYE, (-0.05, 0.1, 0.24))),
    "hammer": Scene("adroit_hammer", "AdroitHandHammerEnv", ("body", "Object"),
                    ("ARRx", "ARRy", *_WRIST), (*_EYE, (0.0, 0.0, 0.16))),
    "pen": Scene("adroit_pen", "AdroitHandPenEnv", ("body", "Object"), _WRIST, (*_EYE, (0.0, 0.0, 0.2))),
}  # fmt: skip
_FIELD_OF_VIEW = 42.0  # degrees, of the picture's height


@dataclass(frozen=True)
class AdroitState:
    """Everything that a scene needs to go on from here: the physics, and where the package put things for a seed."""

    physics: np.ndarray
    joint_targets: np.ndarray
    body_pos: np.ndarray
    body_quat: np.ndarray
    site_pos: np.ndarray


class AdroitSimulation(SceneView):
    """A scene of `SCENES` in motion, controlled by joint targets in the robot's order."""

    def __init__(self, kind: str, robot: Robot, backend: str = "auto") -> None:
        self.scene, self.robot = SCENES[kind], robot
        self.inner = _environment(self.scene)
        super().__init__(self.inner.model, self.inner.data, IMAGE_SIZE, backend)
        self._look(*self.scene.view)
        self.model.light_castshadow[:] = False  # which takes most of the time of a picture
        joints = [self.model.joint(name).id for name in robot.joints]
        self._qpos, self._dofs = self.model.jnt_qposadr[joints], self.model.jnt_dofadr[joints]
        actuators = {self.model.actuator_trnid[index, 0]: index for index in range(self.model.nu)}
        self._controls = [actuators[joint] for joint in joints]
        self._gain = self.model.actuator_gainprm[self._controls, 0]
        self._bias = self.model.actuator_biasprm[self._controls, 1]
        self._scratch = mujoco.MjData(self.model)
        self.achieved = False

    def reset(self, seed: int) -> None:
        """The package's scene of a seed, with the hand at rest in it."""
        self.inner.reset(seed=seed)
        self._hold(self.joint_positions)
        self.achieved = False

    @property
    def joint_positions(self) -> np.ndarray:
        """Measured (J,), metres for slides and radians for hinges."""
        return self.data.qpos[self._qpos].copy()

    @property
    def joint_targets(self) -> np.ndarray:
        """Commanded (J,)."""
        return self._targets.copy()

    @property
    def thing(self) -> np.ndarray:
        """Centre (3,) of what the hand works on: the ball, the door's handle, the hammer or the pen."""
        return self.place(*self.scene.thing)

    @property
    def palm(self) -> np.ndarray:
        """Where the hand would hold something (3,), world."""
        return self.place("site", PALM_SITE)

    def keypoints_world(self) -> tuple[np.ndarray, np.ndarray]:
        """The 42 keypoints (42, 3) in metres and which of them exist (42,): Adroit has a right hand only."""
        pose = self.robot.forward(torch.from_numpy(self.joint_positions))  # its base is the world
        return pose.keypoints.numpy(), pose.valid.numpy()

    def place(self, kind: str, name: str) -> np.ndarray:
        """Where a "site" or a "body" is (3,), world."""
        return (self.data.site(name).xpos if kind == "site" else self.data.xpos[self.model.body(name).id]).copy()

    def move(self, targets: np.ndarray, seconds: float, on_frame: Tick | None = None) -> None:
        """Interpolate smoothly from the present targets to `targets` (J,); `on_frame` is called at 5 Hz."""
        start = self.data.ctrl[self._controls].copy()
        self._targets = np.array(targets, float)
        change = self._control(self._targets) - start
        steps = max(1, round(seconds * STEPS_PER_SECOND))
        action = np.zeros(self.model.nu)
        for step in range(1, steps + 1):
            share = step / steps
            action[self._controls] = start + change * (share * share * (3 - 2 * share))
            *_, info = self.inner.step((action - self.inner.act_mean) / self.inner.act_rng)
            self.achieved = bool(info["success"])
            if on_frame is not None and step % STEPS_PER_FRAME == 0:
                on_frame(self)

    def get_state(self) -> AdroitState:
        """The state to come back to with `set_state`."""
        model = self.model
        places = (model.body_pos.copy(), model.body_quat.copy(), model.site_pos.copy())
        return AdroitState(self.physics(), self.joint_targets, *places)

    def set_state(self, state: AdroitState) -> None:
        """Go back to a state of this kind of scene."""
        self.model.body_pos[:], self.model.body_quat[:] = state.body_pos, state.body_quat
        self.model.site_pos[:], self._targets = state.site_pos, state.joint_targets.copy()
        self.restore(state.physics)
        self.achieved = False

    def posed(self, **joints: float) -> None:
        """Put joints of the scene, by name, and what they carry somewhere else, at rest."""
        for name, value in joints.items():
            self.data.joint(name).qpos = value
        self.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, self.data)

    def put_hand(self, joint_positions: np.ndarray) -> None:
        """Put the hand somewhere (J,) and hold it there, at rest."""
        self.data.qpos[self._qpos] = joint_positions
        self._hold(joint_positions)
        self.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, self.data)

    def arm_to(self, place: np.ndarray) -> tuple[np.ndarray, float]:
        """Joint positions (J,) with which the arm brings the palm to `place` (3,), and how far off it stays, metres.

        Damped least squares within the limits, from the present positions.
        """
        model, data, limits = self.model, self._scratch, self.robot.limits.numpy()
        data.qpos[:] = self.data.qpos
        positions = self.joint_positions
        arm = [self.robot.joints.index(name) for name in self.scene.arm]
        dofs = self._dofs[arm]
        site, jacobian = model.site(PALM_SITE).id, np.zeros((3, model.nv))
        for _ in range(100):
            data.qpos[self._qpos] = positions
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            error = place - data.site_xpos[site]
            mujoco.mj_jacSite(model, data, jacobian, None, site)
            columns = jacobian[:, dofs]
            step = columns.T @ np.linalg.solve(columns @ columns.T + 1e-4 * np.eye(3), error)
            positions[arm] = np.clip(positions[arm] + np.clip(step, -0.1, 0.1), *limits[arm].T)
        return positions, float(np.linalg.norm(error))

    def image(self) -> np.ndarray:
        """The picture (224, 392, 3) uint8 from over the forearm."""
        return self.renderer.rgb(self.data, _CAMERA)

    def observation(self) -> dict[str, np.ndarray]:
        """The fields of `Observation`."""
        return {
            "image": self.image(),
            "joint_positions": self.joint_positions,
            "joint_targets": self.joint_targets,
            "world_from_camera": self.camera_pose(_CAMERA),
            "world_from_base": np.eye(4),
            "intrinsics": self.camera_intrinsics(_CAMERA),
        }

    def _hold(self, joint_positions: np.ndarray) -> None:
        self._targets = np.array(joint_positions, float)
        self.data.ctrl[self._controls] = self._control(self._targets)

    def _control(self, targets: np.ndarray) -> np.ndarray:
        """Controls (J,) under which the hand rests at `targets`: gain * control + bias * position carries it."""
        scratch = self._scratch
        scratch.qpos[:], scratch.qvel[:] = self.data.qpos, 0.0
        scratch.qpos[self._qpos] = targets
        mujoco.mj_kinematics(self.model, scratch)
        mujoco.mj_comPos(self.model, scratch)
        mujoco.mj_comVel(self.model, scratch)
        weight = np.zeros(self.model.nv)
        mujoco.mj_rne(self.model, scratch, 0, weight)
        return (weight[self._dofs] - self._bias * targets) / self._gain

    def _look(self, place: tuple[float, ...], target: tuple[float, ...]) -> None:
        camera, wanted = self.model.camera(_CAMERA).id, looking_at(np.array(place), np.array(target))
        self.model.cam_mode[camera], self.model.cam_bodyid[camera] = mujoco.mjtCamLight.mjCAMLIGHT_FIXED, 0
        self.model.cam_pos[camera], self.model.cam_fovy[camera] = wanted[:3, 3], _FIELD_OF_VIEW
        self.model.cam_quat[camera] = quaternion(wanted[:3, :3] @ OPTICAL)


def _environment(scene: Scene) -> Any:
    try:
        module = import_module(f"{_MODULE}.{scene.module}")
    except ModuleNotFoundError as error:
        raise ImportError(f"Adroit needs gymnasium-robotics ({error}): pip install 'dexworld[adroit]'") from error
    return getattr(module, scene.environment)()
