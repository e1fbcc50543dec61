"""DexJoCo's evaluator as a client: its observations become ours, and our joint targets its actions.

Its message holds `base`, a picture (224, 224, 3) of the camera `ego_right`; `state` (23,): position and quaternion
(w, x, y, z) of the flange in the world, and the hand's joints; `wrist` and `prompt`, which aren't used. It executes
chunks (T, 22), 30 a second: position, rotation vector, hand. Facts of DexJoCo 8d23b0f (MIT). Metres, radians.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dexworld.robots.hand_ik import hand_joints
from dexworld.robots.kinematics import quaternion_matrix
from dexworld.robots.robot import Robot
from dexworld.serving.policy_service import STEP_SECONDS, PolicyService, PolicySession
from dexworld.sim.dexjoco.dexjoco_worker import POSITION_LAG, ROTATION_LAG
from dexworld.sim.poses import OPTICAL, focal_length, pinhole, pose, quaternion, rotation_about, rotation_vector

ROBOT = "dexjoco"
STEPS_PER_SECOND = 30
_HOME = (0.0, -0.785, 0.0, -2.35, 0.0, 1.57, math.pi / 4)  # joints of the arm where an episode begins
_BASE = (-0.75, 0.0, 0.924)  # of the arm in the world, not turned
_CAMERA = ((-1.0, -0.8, 2.0), (0.85355332, 0.35355357, -0.14644619, -0.35355357))  # `ego_right`, MuJoCo's axes
_FIELD_OF_VIEW = 45.0  # degrees, of the picture's height
_PALM_ON_FLANGE = quaternion_matrix((0.0, 0.0, 0.0, 1.0)).T @ quaternion_matrix((0.7071, 0.0, -0.7071, 0.0))
_PHYSICS_S = 0.02  # simulated seconds of one of its steps


class DexJoCoClients:
    """A `Service` for DexJoCo's evaluator before one of ours; goal: the picture (H, W, 3) that all clients are led to.

    Raises ValueError for another robot than DexJoCo's, and for a goal of another height than the model's pictures.
    """

    def __init__(self, service: PolicyService, goal: Path) -> None:
        if service.config.robot != ROBOT:
            raise ValueError(f"--dexjoco-goal serves DexJoCo's robot: add --robot {ROBOT}")
        height, width = service.model.config.image_size
        self.service, self.goal = service, np.array(Image.open(goal).convert("RGB"))
        if self.goal.shape != (height, width, 3):
            raise ValueError(f"{goal} is {self.goal.shape[1]}x{self.goal.shape[0]}, the model takes {width}x{height}")

    def metadata(self) -> dict[str, Any]:
        """As the service's."""
        return self.service.metadata() | {"client": "dexjoco"}

    def session(self) -> "DexJoCoSession":
        """The state of a new connection."""
        return DexJoCoSession(self.service.session(), self.service.place.robot, self.goal)


class DexJoCoSession:
    """One evaluator's session."""

    def __init__(self, session: PolicySession, robot: Robot, goal: np.ndarray) -> None:
        self._session, self._robot, self._goal = session, robot, goal
        self._joints = np.array([*_HOME, *np.zeros(16)])

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """`actions` (T, 22); `time` for a `ping`. Raises ValueError for what is missing or has another shape."""
        if "ping" in message:
            return self._session.answer(message)
        state, picture = message.get("state"), message.get("base")
        if not isinstance(state, np.ndarray) or state.shape != (23,) or not np.isfinite(state).all():
            raise ValueError("DexJoCo's evaluator sends `state`, 23 finite numbers: one arm and one hand")
        side = self._goal.shape[0]
        if not isinstance(picture, np.ndarray) or picture.shape != (side, side, 3) or picture.dtype != np.uint8:
            raise ValueError(f"DexJoCo's evaluator sends `base`, a picture ({side}, {side}, 3) uint8")
        self._joints = self._measured(state.astype(float))
        seen = {"image": self._whole(picture), "joint_positions": self._joints, "joint_targets": self._joints}
        reply = self._session.answer({**seen, **_standing(self._goal.shape), "goal": {"image": self._goal}})
        path = _smooth(self._joints, reply["actions"], round(STEP_SECONDS * STEPS_PER_SECOND))
        return {"actions": self._commands(path), "interventions": reply["interventions"]}

    def close(self) -> None:
        """Let the policy's memory go."""
        self._session.close()

    def _whole(self, picture: np.ndarray) -> np.ndarray:
        """The model's picture: what lies beside the evaluator's square one is taken from the goal, so that it differs
        in nothing.
        """
        image, side = self._goal.copy(), picture.shape[1]
        left = (image.shape[1] - side) // 2
        image[:, left : left + side] = picture
        return image

    def _measured(self, state: np.ndarray) -> np.ndarray:
        """Joint positions (23,) of a state, by inverse kinematics from the last ones."""
        rotation = quaternion_matrix(tuple(state[3:7] / np.linalg.norm(state[3:7]))) @ _PALM_ON_FLANGE
        start = torch.tensor(np.concatenate([self._joints[: self._robot.arm.stop], state[7:]]))
        place = torch.tensor(state[:3] - _BASE)[None], torch.from_numpy(rotation)[None]
        found = hand_joints(self._robot, start[None], self._robot.limits.double(), *place, iterations=20)
        return found[0].numpy()

    def _commands(self, path: np.ndarray) -> np.ndarray:
        """Actions (T, 22) that lead the flange along joint positions (1 + T, 23)."""
        hand = self._robot.forward(torch.from_numpy(path))
        place, rotation = hand.wrist.numpy() + _BASE, hand.hand_rotation.numpy() @ _PALM_ON_FLANGE.T
        ahead = place[1:] + POSITION_LAG / _PHYSICS_S * np.diff(place, axis=0)
        turns = [_turned(before, now) for before, now in pairwise(rotation)]
        return np.concatenate([ahead, np.stack(turns), path[1:, self._robot.fingers]], axis=1)


def _turned(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) of a rotation (3, 3) that is led on by how it turned since the step before."""
    w, *xyz = quaternion(rotation_about(ROTATION_LAG / _PHYSICS_S * rotation_vector(now @ before.T)) @ now)
    length = float(np.linalg.norm(xyz))
    return np.array(xyz) * (2 * math.atan2(length, w) / max(length, 1e-12))


def _smooth(start: np.ndarray, waypoints: np.ndarray, steps: int) -> np.ndarray:
    """Joint positions (1 + T * steps, J) from rest to rest through waypoints (T, J)."""
    share = np.arange(1, steps + 1)[:, None] / steps
    share = share * share * (3 - 2 * share)
    ways = [one + share * (other - one) for one, other in pairwise([start, *waypoints])]
    return np.concatenate([start[None], *ways])


def _standing(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Where arm and camera stand, and the intrinsics of pictures of this shape."""
    camera = pose(quaternion_matrix(_CAMERA[1]) @ OPTICAL, _CAMERA[0])
    intrinsics = pinhole(focal_length(shape[0], _FIELD_OF_VIEW), *shape[:2])
    return {"world_from_camera": camera, "world_from_base": pose(np.eye(3), _BASE), "intrinsics": intrinsics}
