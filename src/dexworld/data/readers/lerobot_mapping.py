"""What columns of anybody's LeRobot dataset mean: hand keypoints and camera poses, told by small mappings."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from dexworld.data.readers.robot_arrays import check_rigid, rotations_of
from dexworld.geometry import invert, rigid, rotation_from_euler_xyz
from dexworld.hands import KEYPOINT_NAMES, NUM_KEYPOINTS

_AXIS = re.compile(r"(.*)[._ ]([xyz])")


@dataclass(frozen=True)
class KeypointMapping:
    """Hand keypoints in one feature of N points: shape (N, 3) or (3 N,).

    points: the keypoint of `hands.KEYPOINT_NAMES` that each of the N points is, "" for one that the convention lacks.
        Empty: the names that info.json gives, as NAME_x, NAME_y, NAME_z; without such names, the 42 in their order.
    rename: (their name, ours) for names in info.json.
    unit: metres per unit. frame: whether the points are in the world or in the (optical) camera frame.
    valid: a feature of N truth values, or None: then a point is valid where its numbers are finite.
    """

    feature: str
    points: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    unit: float = 1.0
    frame: Literal["world", "camera"] = "world"
    valid: str | None = None

    def __post_init__(self) -> None:
        unknown = sorted({*self.points, *(ours for _, ours in self.rename)} - {"", *KEYPOINT_NAMES})
        if unknown:
            raise ValueError(f"{self.feature}: {', '.join(unknown)} are no keypoints; see hands.KEYPOINT_NAMES")
        if not self.unit > 0:
            raise ValueError(f"{self.feature}: unit is {self.unit}; it must be positive metres per unit")


@dataclass(frozen=True)
class PoseMapping:
    """Camera poses in one feature.

    form: `matrix` (16 numbers or 4 x 4), `xyz-euler` (6; metres, then the angles of Rz Ry Rx) or `xyz-quaternion` (7;
    metres, then x, y, z, w). inverse: whether the numbers are camera_from_world. The camera frame is optical: x right,
    y down, z forward.
    """

    feature: str
    form: Literal["matrix", "xyz-euler", "xyz-quaternion"] = "matrix"
    inverse: bool = False


def camera_poses(columns: dict[str, Any], mapping: PoseMapping | None, length: int) -> np.ndarray:
    """world_from_camera (T, 4, 4) float64 by a mapping. Raises ValueError when the numbers are no poses."""
    if mapping is None:
        return np.tile(np.eye(4), (length, 1, 1))
    numbers = np.asarray(columns[mapping.feature], dtype=np.float64).reshape(length, -1)
    expected = {"matrix": 16, "xyz-euler": 6, "xyz-quaternion": 7}[mapping.form]
    if numbers.shape[1] != expected or not np.isfinite(numbers).all():
        raise ValueError(
            f"{mapping.feature} has {numbers.shape[1]} numbers a frame, or NaN; {mapping.form} is {expected} numbers"
        )
    if mapping.form == "matrix":
        poses = torch.from_numpy(numbers.reshape(-1, 4, 4).copy())
    elif mapping.form == "xyz-euler":
        angles = torch.from_numpy(numbers[:, 3:].copy())
        poses = rigid(rotation_from_euler_xyz(angles), torch.from_numpy(numbers[:, :3].copy()))
    else:
        lengths = np.linalg.norm(numbers[:, 3:], axis=1)
        if (lengths < 1e-6).any():
            raise ValueError(f"{mapping.feature}: the quaternion of frame {int(np.argmin(lengths))} is 0")
        poses = rigid(torch.from_numpy(rotations_of(numbers[:, 3:])), torch.from_numpy(numbers[:, :3].copy()))
    check_rigid(poses.numpy(), f"{mapping.feature}, read as {mapping.form},")
    return (invert(poses) if mapping.inverse else poses).numpy()


def place_keypoints(
    mapping: KeypointMapping,
    columns: dict[str, Any],
    names: Any,
    cameras: np.ndarray,
    keypoints: np.ndarray,
    valid: np.ndarray,
) -> None:
    """Write a feature's points into (T, 42, 3) `keypoints` and (T, 42) `valid`."""
    length = len(keypoints)
    points = np.asarray(columns[mapping.feature], dtype=np.float64).reshape(length, -1) * mapping.unit
    if points.shape[1] % 3:
        raise ValueError(f"{mapping.feature} has {points.shape[1]} numbers a frame, which are no points of 3")
    count = points.shape[1] // 3
    rows, places = _rows_of(mapping, names, count)
    points = points[:, places.reshape(-1)].reshape(length, len(rows), 3)
    known = np.isfinite(points).all(axis=-1)
    if mapping.valid is not None:
        told = np.asarray(columns[mapping.valid]).reshape(length, -1).astype(bool)
        if told.shape[1] not in (1, count):
            raise ValueError(f"{mapping.valid} has {told.shape[1]} values a frame for {count} points")
        known &= told if told.shape[1] == 1 else told[:, places[:, 0] // 3]
    if mapping.frame == "camera":
        points = np.einsum("tij,tkj->tki", cameras[:, :3, :3], points) + cameras[:, None, :3, 3]
    keypoints[:, rows] = points
    valid[:, rows] = known


def _rows_of(mapping: KeypointMapping, names: Any, count: int) -> tuple[list[int], np.ndarray]:
    """Rows of the 42 that the feature gives, and the places (rows, 3) of their x, y and z among its numbers."""
    if mapping.points:
        if len(mapping.points) != count:
            raise ValueError(f"{mapping.feature} has {count} points, the mapping names {len(mapping.points)}")
        chosen = [(KEYPOINT_NAMES.index(name), place) for place, name in enumerate(mapping.points) if name]
        return [row for row, _ in chosen], np.array([[3 * place + axis for axis in range(3)] for _, place in chosen])
    renamed = dict(mapping.rename)
    found: dict[str, dict[str, int]] = {}
    for place, name in enumerate(names if isinstance(names, list) and len(names) == 3 * count else []):
        match = _AXIS.fullmatch(str(name))
        if match:
            found.setdefault(renamed.get(match[1], match[1]), {})[match[2]] = place
    whole = [name for name, axes in found.items() if name in KEYPOINT_NAMES and len(axes) == 3]
    if whole:
        return [KEYPOINT_NAMES.index(name) for name in whole], np.array(
            [[found[name][axis] for axis in "xyz"] for name in whole]
        )
    if count == NUM_KEYPOINTS:
        return list(range(count)), np.arange(3 * count).reshape(count, 3)
    raise ValueError(
        f"{mapping.feature} has {count} points and no names of keypoints; say which they are with `points` or `rename`"
    )
