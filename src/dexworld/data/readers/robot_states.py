"""Hands from joint states: which numbers of a recording are a robot's joints, and where its base is."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch

from dexworld.data.readers.arrays import check_rigid, poses_from_euler
from dexworld.data.rigid_poses import poses_of, rotations_of
from dexworld.geometry import invert, transform_points
from dexworld.robots.robot import Robot

_UNLIKELY = 0.5  # radians or metres beyond a limit, at which numbers are something else
_SHARE = 0.5  # of an episode's frames in which that isn't a glitch
_SIZES = {"matrix": 16, "xyz-euler": 6, "xyz-quaternion": 7, "xyz-wxyz": 7}


@dataclass(frozen=True)
class PoseMapping:
    """Poses in one feature.

    form: `matrix` (16 numbers or 4 x 4), `xyz-euler` (6; metres, then the angles of Rz Ry Rx), `xyz-quaternion` (7;
    metres, then x, y, z, w) or `xyz-wxyz` (7). inverse: whether the numbers are the inverse. columns: which of the
    feature's numbers they are; empty for all. A camera's frame is optical: x right, y down, z forward.
    """

    feature: str
    form: Literal["matrix", "xyz-euler", "xyz-quaternion", "xyz-wxyz"] = "matrix"
    inverse: bool = False
    columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class RobotStates:
    """A robot in the rows of a recording; its kinematics give the hands' keypoints.

    robot: one that dexworld describes (`allegro-right`), or a model file (MJCF, URDF) with its `description`.
    joints: feature of joint positions. targets: of commanded ones, or None. columns: which of the feature's numbers are
    the robot's joints, in the robot's order; empty: those with their names in info.json, else all.
    unit: radians a unit (metres for slides); 0.017453 for degrees.
    base: pose of what the robot stands on or hangs from, in the world; None for the world's origin. mount: where the
    robot's own base is in that frame: x, y, z in metres, then a quaternion x, y, z, w.
    """

    robot: str
    joints: str
    description: str | None = None
    targets: str | None = None
    columns: tuple[int, ...] = ()
    unit: float = 1.0
    base: PoseMapping | None = None
    mount: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if not self.unit > 0:
            raise ValueError(f"{self.joints}: unit is {self.unit}; it must be positive radians per unit")
        if len(self.mount) != 7 or np.linalg.norm(self.mount[3:]) < 1e-6:
            raise ValueError(f"mount is {self.mount}; it must be x, y, z, and a quaternion x, y, z, w that is not 0")

    @property
    def used(self) -> set[str]:
        """The features that it names."""
        return {name for name in (self.joints, self.targets, self.base and self.base.feature) if name}

    def load(self) -> Robot:
        """The robot. Raises as `Robot.named` and `Robot.from_file`."""
        return _loaded(self.robot, self.description)

    def hands(self, stored: dict[str, Any], names: Any) -> dict[str, np.ndarray]:
        """`keypoints_world` (T, 42, 3), `keypoints_valid` (T, 42), `joint_positions` (T, J) and maybe `joint_targets`.

        stored: features (T, ...) by name. names: of the numbers of the feature `joints`, a list or None.
        Raises ValueError where the numbers can't be this robot's.
        """
        robot = self.load()
        positions = self._chosen(stored[self.joints], robot, self.joints, names)
        self._check_limits(positions, robot)
        base = mapped_poses(stored, self.base, len(positions))
        mount = poses_of(rotations_of(np.array([self.mount[3:]])), np.array([self.mount[:3]]))
        pose = robot.forward(torch.from_numpy(positions))
        points = transform_points(torch.from_numpy(base @ mount), pose.keypoints).numpy().astype(np.float32)
        found = {"keypoints_world": points, "keypoints_valid": np.tile(pose.valid.numpy(), (len(points), 1))}
        found["joint_positions"] = positions.astype(np.float32)
        if self.targets is not None:
            found["joint_targets"] = self._chosen(stored[self.targets], robot, self.targets, names).astype(np.float32)
        return found

    def _chosen(self, values: Any, robot: Robot, feature: str, names: Any) -> np.ndarray:
        """The robot's joints (T, J) float64, radians or metres."""
        numbers = np.asarray(values, np.float64)
        numbers = numbers.reshape(len(numbers), -1)
        columns: list[int] = list(self.columns)
        if not columns and isinstance(names, list) and set(robot.joints) <= set(names):
            columns = [names.index(joint) for joint in robot.joints]
        if not columns:
            columns = list(range(numbers.shape[1]))
        if len(columns) != len(robot.joints) or max(columns) >= numbers.shape[1]:
            raise ValueError(
                f"{feature} has {numbers.shape[1]} numbers a frame, of which {len(columns)} are taken; {self.robot} "
                f"has {len(robot.joints)} joints ({', '.join(robot.joints[:3])}, ...); give their places in `columns`"
            )
        chosen = numbers[:, columns] * self.unit
        if not np.isfinite(chosen).all():
            frame = int(np.argmin(np.isfinite(chosen).all(axis=1)))
            raise ValueError(f"{feature} holds NaN or Inf in frame {frame}")
        return chosen

    def _check_limits(self, positions: np.ndarray, robot: Robot) -> None:
        limits = robot.limits.numpy()
        outside = np.maximum(limits[:, 0] - positions, positions - limits[:, 1])  # (T, J)
        wrong = (outside > _UNLIKELY).mean(axis=0) > _SHARE
        if wrong.any():
            joint = int(np.argmax(wrong))
            worst, span = positions[np.argmax(outside[:, joint]), joint], "{:.2f} to {:.2f}".format(*limits[joint])
            raise ValueError(
                f"{self.joints}: {robot.joints[joint]} is at {worst:.2f}, and {self.robot} allows {span}. Give `unit` "
                "for degrees (0.017453) or millimetres (0.001), or `columns` if the joints stand in another order"
            )


@lru_cache(maxsize=8)
def _loaded(robot: str, description: str | None) -> Robot:
    return Robot.named(robot) if description is None else Robot.from_file(robot, description)


def mapped_poses(columns: dict[str, Any], mapping: PoseMapping | None, length: int) -> np.ndarray:
    """World from what is mapped (T, 4, 4) float64; the identity without a mapping.

    Raises ValueError when the numbers are no poses.
    """
    if mapping is None:
        return np.tile(np.eye(4), (length, 1, 1))
    values = np.asarray(columns[mapping.feature], dtype=np.float64).reshape(length, -1)
    if mapping.columns:
        if max(mapping.columns) >= values.shape[1]:
            raise ValueError(
                f"{mapping.feature} has {values.shape[1]} numbers a frame, no number {max(mapping.columns)}"
            )
        values = values[:, list(mapping.columns)]
    expected, found = _SIZES[mapping.form], values.shape[1]
    if found != expected or not np.isfinite(values).all():
        raise ValueError(f"{mapping.feature} has {found} numbers a frame, or NaN; {mapping.form} has {expected}")
    if mapping.form == "matrix":
        poses = values.reshape(-1, 4, 4)
    elif mapping.form == "xyz-euler":
        poses = poses_from_euler(values)
    else:
        quaternions = values[:, [4, 5, 6, 3]] if mapping.form == "xyz-wxyz" else values[:, 3:]
        lengths = np.linalg.norm(quaternions, axis=1)
        if (lengths < 1e-6).any():
            raise ValueError(f"{mapping.feature}: the quaternion of frame {int(np.argmin(lengths))} is 0")
        poses = poses_of(rotations_of(quaternions), values[:, :3])
    check_rigid(poses, f"{mapping.feature}, read as {mapping.form},")
    return invert(torch.from_numpy(poses.copy())).numpy() if mapping.inverse else poses
