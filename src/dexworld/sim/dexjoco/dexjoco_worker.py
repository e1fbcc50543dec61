"""Plays one of DexJoCo's tasks for a parent process. Runs in DexJoCo's own environment, where dexworld isn't installed.

Reads calls from standard input and answers on standard output: msgpack with numpy arrays (`dexworld_client.packing`),
eight bytes of length before each message. A call is a map with `call`, a method of `ServedTask`, and its arguments; the
answer holds `result` or `error`. Ends when its input does.

Metres, radians; quaternions are w, x, y, z. Time is counted in the environment's steps, 30 to a second as DexJoCo
records them.
"""

import math
import random
import signal
import sys
from collections.abc import Sequence
from copy import copy
from typing import Any

import mujoco
import numpy as np

from dexworld_client.packing import packed, unpacked

ARM = tuple(f"joint{number}" for number in range(1, 8))
HAND = tuple(f"{finger}j{number}" for finger in ("ff", "mf", "rf", "th") for number in range(4))
FLANGE, PALM, BASE, CAMERA = "attachment_site", "allegro_palm", "link0", "right"
GRASP_CENTRE = (0.05, 0.0, 0.05)  # metres along the palm's axes: out of it, and towards the fingertips
# How far DexJoCo's controller follows behind a moving pose, seconds: damping over stiffness, 2 x 4 / sqrt(gain) with
# the gains 400 of positions and 200 of rotations. Commands lead by it, so that the flange goes where it is told.
POSITION_LAG, ROTATION_LAG = 8.0 / math.sqrt(400.0), 8.0 / math.sqrt(200.0)
_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION
_CHANGED = ("body_pos", "body_quat", "geom_size", "geom_rgba", "mat_rgba")  # of the model, by resets and by steps
_NO_PICTURE = np.zeros((1, 1, 3), np.uint8)


class ServedTask:
    """A task of DexJoCo, controlled by joint targets (23,): seven of the arm, sixteen of the hand.

    The environment's own pictures, four of 640 x 640 a step, are not drawn; `ego_right` is, in the size asked for,
    without shadows, reflections and multisampling.
    """

    def __init__(self, task: str, height: int, width: int) -> None:
        from dexjoco.sim import rendering
        from dexjoco.tasks import CONFIG_MAPPING

        rendering.MujocoRenderer.render = lambda *_, **__: _NO_PICTURE
        options = {"policy_mode": True, "render_mode": "rgb_array", "randomize": False, "randomize_dynamics": False}
        self.env = CONFIG_MAPPING[task]().get_environment(seed=0, **options)
        self.raw = self.env.unwrapped
        self.raw.hz = math.inf  # it would sleep to keep to the clock
        self.model, self.data = self.raw.model, self.raw.data
        self._scratch = mujoco.MjData(self.model)
        joints = [self.model.joint(name).id for name in (*ARM, *HAND)]
        self._qpos, self._dofs = self.model.jnt_qposadr[joints], self.model.jnt_dofadr[joints[: len(ARM)]]
        self._limits = self.model.jnt_range[joints]
        self._targets = np.zeros(len(joints))
        self.model.light_castshadow[:] = False
        self.model.vis.quality.offsamples = 0
        self._size = height, width
        self._renderer: Any = None
        self._new = self.get_state()
        self.reset(0)
        self._home_palm = self.data.xquat[self.model.body(PALM).id].copy()

    def facts(self) -> dict[str, Any]:
        """Where the robot's model file is, its base, and the camera: (4, 4) poses, MuJoCo's axes; fovy in degrees."""
        import dexjoco

        mujoco.mj_forward(self.model, self.data)
        camera, base = self.model.camera(CAMERA).id, self.model.body(BASE).id
        return {
            "package": next(iter(dexjoco.__path__)),
            "world_from_base": _pose(self.data.xmat[base], self.data.xpos[base]),
            "world_from_camera": _pose(self.data.cam_xmat[camera], self.data.cam_xpos[camera]),
            "fovy": float(self.model.cam_fovy[camera]),
        }

    def reset(self, seed: int) -> None:
        """The scene that a new environment with this seed begins with."""
        self.set_state(self._new)
        random.seed(seed)
        np.random.seed(seed)
        self.env.reset()
        self._targets = self.joints()

    def joints(self) -> np.ndarray:
        """Measured joint positions (23,)."""
        return self.data.qpos[self._qpos].copy()

    def observe(self, things: Sequence[str] = ()) -> dict[str, Any]:
        """The picture and the joints now, and `places` of things."""
        seen = {"joint_positions": self.joints(), "joint_targets": self._targets.copy()}
        return {"image": self._image(), **seen, "places": self.places(things)}

    def places(self, things: Sequence[str]) -> np.ndarray:
        """Where things are (n, 3), world; named KIND:NAME, kind one of body, geom, site."""
        found = [getattr(self.data, kind)(name).xpos for kind, name in (each.split(":", 1) for each in things)]
        return np.array(found, float).reshape(-1, 3)

    def qpos(self, joint: str) -> np.ndarray:
        """Position of a joint of the scene."""
        return np.array(self.data.joint(joint).qpos, float)

    def move(
        self, targets: np.ndarray, steps: int, every: int = 0, things: Sequence[str] = (), stop: bool = False
    ) -> dict[str, Any]:
        """Interpolate smoothly from the present targets to others (23,) over so many steps of the environment.

        Gives `observe` after every so many steps, and whether DexJoCo says that the task succeeded, and that the
        episode is over; stop: no step after that. The arm's targets name the pose of the flange: DexJoCo's actions are
        poses, and its controller keeps the elbow near where it is at home.
        """
        start, change = self._targets, np.asarray(targets, float) - self._targets
        seen, succeeded, over = [], False, False
        before = self._flange(start)
        for step in range(1, steps + 1):
            share = step / steps
            joints = start + change * (share * share * (3 - 2 * share))
            now = self._flange(joints)
            *_, terminated, _, info = self.env.step(self._action(before, now, joints))
            self._targets, before = joints, now
            succeeded, over = succeeded or bool(info["succeed"]), over or bool(terminated)
            if every and step % every == 0:
                seen.append(self.observe(things))
            if stop and over:
                break
        self._targets = start + change
        return {"seen": seen, "succeeded": succeeded, "over": over}

    def reach(self, place: np.ndarray, turn: np.ndarray) -> dict[str, Any]:
        """Joint targets that bring the grasp centre to a place (3,), the hand turned by a rotation vector (3,) from how
        a scene begins, and how far `off` it stays, metres. Damped least squares within the limits.
        """
        data, body = self._scratch, self.model.body(PALM).id
        joints, jacobian = self._targets.copy(), np.zeros((6, self.model.nv))
        wanted = self._home_palm.copy()
        turn, local = np.asarray(turn, float), np.empty(3)
        mujoco.mju_rotVecQuat(local, turn, _inverse(wanted))
        mujoco.mju_quatIntegrate(wanted, local, 1.0)
        for _ in range(60):
            self._pose_scratch(joints)
            mujoco.mj_comPos(self.model, data)
            at = data.xpos[body] + data.xmat[body].reshape(3, 3) @ GRASP_CENTRE
            mujoco.mj_jac(self.model, data, jacobian[:3], jacobian[3:], at, body)
            mujoco.mju_subQuat(local, wanted, data.xquat[body])
            error = np.concatenate([place - at, data.xmat[body].reshape(3, 3) @ local])
            columns = jacobian[:, self._dofs]
            step = columns.T @ np.linalg.solve(columns @ columns.T + 1e-3 * np.eye(6), error)
            arm = joints[: len(ARM)] + np.clip(step, -0.1, 0.1)
            joints[: len(ARM)] = np.clip(arm, *self._limits[: len(ARM)].T)
        return {"targets": joints, "off": float(np.linalg.norm(error[:3]))}

    def hold(self, put: dict[str, Any], numbers: dict[str, float], robot: np.ndarray, steps: int) -> bool:
        """Put the robot (23,), parts of the scene and numbers of the environment somewhere, and keep them there at rest
        until DexJoCo says that the task succeeded, at most so many steps: whether it does.

        put: positions of joints by name, and of bodies that physics doesn't move as mocap:NAME.
        """
        self._targets, succeeded = np.asarray(robot, float).copy(), False
        flange = self._flange(self._targets)
        while steps > 0 and not succeeded:
            self._put(put, numbers)
            *_, info = self.env.step(self._action(flange, flange, self._targets))
            steps, succeeded = steps - 1, bool(info["succeed"])
        self._put(put, numbers)
        return succeeded

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what comes next: physics, what is changed in the model, the environment's numbers."""
        physics = np.empty(mujoco.mj_stateSize(self.model, _PHYSICS))
        mujoco.mj_getState(self.model, self.data, physics, _PHYSICS)
        model = {name: getattr(self.model, name).copy() for name in _CHANGED}
        numbers = {name: copy(value) for name, value in vars(self.raw).items() if _is_numeric(value)}
        return {"physics": physics, "targets": self._targets.copy(), "model": model, "numbers": numbers}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state of this task."""
        for name, value in state["model"].items():
            getattr(self.model, name)[:] = value
        for name in [name for name, value in vars(self.raw).items() if _is_numeric(value)]:
            delattr(self.raw, name)
        for name, value in state["numbers"].items():
            setattr(self.raw, name, copy(value))
        self._targets = np.array(state["targets"])
        mujoco.mj_setState(self.model, self.data, np.array(state["physics"]), _PHYSICS)
        mujoco.mj_forward(self.model, self.data)

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()

    def _image(self) -> np.ndarray:
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self.model, *self._size)
        self._renderer.update_scene(self.data, CAMERA)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        return self._renderer.render()

    def _pose_scratch(self, joints: np.ndarray) -> None:
        self._scratch.qpos[:] = self.data.qpos
        self._scratch.qpos[self._qpos] = joints
        mujoco.mj_kinematics(self.model, self._scratch)

    def _flange(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and quaternion (4,) of the flange at joint positions (23,)."""
        self._pose_scratch(joints)
        site, quaternion = self._scratch.site(FLANGE), np.empty(4)
        mujoco.mju_mat2Quat(quaternion, site.xmat)
        return site.xpos.copy(), quaternion

    def _action(self, before: tuple, now: tuple, joints: np.ndarray) -> np.ndarray:
        """DexJoCo's action (23,) for the flange on its way from one pose to the next within a step."""
        seconds, velocity, quaternion = self.raw.control_dt, np.empty(3), now[1].copy()
        mujoco.mju_subQuat(velocity, now[1], before[1])
        mujoco.mju_quatIntegrate(quaternion, velocity, ROTATION_LAG / seconds)
        position = now[0] + (now[0] - before[0]) * (POSITION_LAG / seconds)
        return np.concatenate([position, quaternion, joints[len(ARM) :]])

    def _put(self, put: dict[str, Any], numbers: dict[str, float]) -> None:
        for name, value in put.items():
            if name.startswith("mocap:"):
                self.data.mocap_pos[self.model.body(name.split(":")[1]).mocapid[0]] = value
            else:
                self.data.joint(name).qpos[:] = value
        for name, number in numbers.items():
            setattr(self.raw, name, number)
        self.data.qpos[self._qpos] = self._targets
        self.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, self.data)


def _pose(rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.reshape(rotation, (3, 3)), position
    return pose


def _inverse(quaternion: np.ndarray) -> np.ndarray:
    return quaternion * [1, -1, -1, -1]


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, float) for each in value)
    return isinstance(value, (bool, int, float, np.generic, np.ndarray)) and np.asarray(value).dtype.kind in "bif"


def serve(source: Any, sink: Any) -> None:
    """Answer calls until there are no more; the first one is `open`, with the arguments of `ServedTask`."""
    served: Any = None
    while header := source.read(8):
        message = unpacked(source.read(int.from_bytes(header, "little")))
        name = message.pop("call")
        try:
            if name == "open":
                served = ServedTask(**message)
                answer = {"result": served.facts()}
            else:
                answer = {"result": getattr(served, name)(**message)}
        except Exception as error:  # the parent says it
            answer = {"error": f"{type(error).__name__}: {error}"}
        data = packed(answer)
        sink.write(len(data).to_bytes(8, "little") + data)
        sink.flush()
    if served is not None:
        served.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent closes the pipe when it stops
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # what DexJoCo prints is no answer
    serve(sys.stdin.buffer, answers)
