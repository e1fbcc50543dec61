"""Pictures of a robot's own camera as the models take them: lens out, resized, with intrinsics and a pose."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.data.camera.camera import Camera, PinholeView
from dexworld.data.camera.camera_files import HandEye, read_camera, read_hand_eye
from dexworld.data.camera.camera_findings import camera_findings, hand_eye_findings
from dexworld.data.resize import Size
from dexworld.robots.described_robot import DescribedRobot
from dexworld.robots.franka_allegro import FrankaAllegro, base_from_flange
from dexworld.robots.franka_gripper import FrankaGripper
from dexworld.robots.robot import Robot

_LARGEST = 4096  # pixels of a side; a larger picture is no camera's that a model needs


@dataclass
class CameraInput:
    """Completes observations from `camera` and, where it is given, `mounted`, for models that take `target`."""

    camera: Camera
    mounted: HandEye | None
    target: Size
    robot: Robot
    _view: PinholeView | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        mounted = self.mounted
        self._base_from_hand = _hand_frame(self.robot, mounted.effector) if mounted and mounted.on_hand else None

    @classmethod
    def read(cls, camera: Path | None, hand_eye: Path | None, target: Size, robot: Robot) -> "CameraInput | None":
        """From files, or None without. Raises ValueError for files that are wrong or implausible."""
        if camera is None:
            if hand_eye is not None:
                raise ValueError("--hand-eye needs --camera, the intrinsics of the same camera")
            return None
        found, mounted = read_camera(camera), None if hand_eye is None else read_hand_eye(hand_eye)
        if found.size is not None:
            findings = camera_findings(found)
            described = isinstance(robot, DescribedRobot)  # where its hand points isn't known
            if mounted is not None and not (mounted.on_hand and described):
                findings += hand_eye_findings(mounted, found)
            for finding in findings:
                if finding.kind == "problem":
                    raise ValueError(f"{finding.text}; `dexworld camera check {camera}` says more")
        return cls(found, mounted, target, robot)

    @property
    def on_hand(self) -> bool:
        """Whether the camera moves with the arm."""
        return self.mounted is not None and self.mounted.on_hand

    @property
    def size(self) -> Size:
        """(height, width) of the pictures that clients should send: the file's, or else the model's."""
        return self.camera.size or self.target

    def filled(self, values: dict[str, Any], sent: set[str]) -> dict[str, Any]:
        """An observation's values with the model's picture, `intrinsics` and, with a mount, `world_from_camera`.

        sent: names that the client gave. Raises ValueError where they contradict the files or lack what is needed.
        """
        own = ["intrinsics", *(["world_from_camera"] if self.mounted else [])]
        if both := [name for name in own if name in sent]:
            without = " and no ".join(both)
            raise ValueError(f"this server knows its camera (--camera): send raw pictures, and no {without}")
        if "image" not in values:
            return values
        view = self._view_of(values["image"])
        values = values | {"image": view.image(values["image"]), "intrinsics": view.intrinsics}
        if self.mounted is None or not {"world_from_base", "joint_positions"} <= set(values):
            return values
        parent, joints = (np.asarray(values[name], float) for name in ("world_from_base", "joint_positions"))
        count = len(self.robot.joints)
        if parent.shape != (4, 4) or joints.shape != (count,):
            found = f"{parent.shape} and {joints.shape}"
            raise ValueError(f"world_from_base must be (4, 4) and joint_positions ({count},), not {found}")
        if self._base_from_hand is not None:
            parent = parent @ self._base_from_hand(torch.from_numpy(joints)).numpy()
        return values | {"world_from_camera": parent @ self.mounted.parent_from_camera}

    def goal(self, goal: dict[str, Any]) -> dict[str, Any]:
        """A goal whose pictures and clicks are of the camera's own pictures, as the model's."""
        moved = dict(goal)
        if "image" in goal:
            moved["image"] = self._view_of(goal["image"]).image(goal["image"])
        if goal.get("then"):
            moved["then"] = [self._view_of(image).image(image) for image in goal["then"]]
        if "clicks" in goal:
            if self._view is None:
                raise ValueError("clicks come with the picture that they are on")
            moved["clicks"] = self._view.pixels(goal["clicks"])
            if not np.isfinite(moved["clicks"]).all():
                raise ValueError("a click lies where the lens shows nothing")
        return moved

    def _view_of(self, image: Any) -> PinholeView:
        """The view for pictures of this one's size; that of the last size is kept."""
        if not isinstance(image, np.ndarray) or image.ndim != 3 or not 1 <= max(image.shape[:2]) <= _LARGEST:
            raise ValueError(f"pictures must be (H, W, 3) uint8, at most {_LARGEST} pixels a side")
        size = (image.shape[0], image.shape[1])
        if self._view is None or self._view.camera.size != size:
            self._view = PinholeView(self.camera.of_size(size), self.target)
        return self._view


def _hand_frame(robot: Robot, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """base_from_frame by joint positions, of the frame that a camera on the hand is fixed to. Raises ValueError."""
    if isinstance(robot, FrankaAllegro | FrankaGripper):
        return base_from_flange
    if isinstance(robot, DescribedRobot) and name:
        return robot.frame(name)
    why = "the camera is on the hand, and nobody says on which frame of this robot"
    raise ValueError(f"{why}: let robot_effector_frame of --hand-eye name a body or site of a described robot's model")
