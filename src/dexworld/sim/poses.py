"""Rotations, rigid poses and pinhole cameras in NumPy. Metres, radians, pixels; quaternions are w, x, y, z."""

import math

import mujoco
import numpy as np

OPTICAL = np.diag([1.0, -1.0, -1.0])  # MuJoCo's camera axes (y up, looking along -z) from optical ones, and back


def pose(rotation: np.ndarray, position) -> np.ndarray:
    """Transform (4, 4) of a rotation (3, 3) and a position (3,)."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, position
    return matrix


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Quaternion (4,) of a rotation (3, 3)."""
    result = np.zeros(4)
    mujoco.mju_mat2Quat(result, np.ascontiguousarray(rotation).ravel())
    return result


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) of a unit quaternion (4,)."""
    result = np.zeros(9)
    mujoco.mju_quat2Mat(result, quaternion)
    return result.reshape(3, 3)


def turn_about_z(angle: float) -> np.ndarray:
    """Rotation (3, 3) by `angle` about the vertical."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])


def turn_about_x(angle: float) -> np.ndarray:
    """Rotation (3, 3) by `angle` about the x axis."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[1.0, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def orient(fingers, palm) -> np.ndarray:
    """world_from_hand (3, 3) with the fingers (z) along `fingers` and the palm (x) facing `palm` as far as possible."""
    z = np.asarray(fingers, float) / np.linalg.norm(fingers)
    x = np.asarray(palm, float) - z * (z @ np.asarray(palm, float))
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=1)


def rotation_about(vector: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) about the axis `vector` (3,) by its length."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle (3,) of a rotation (3, 3); the inverse of `rotation_about`, for angles below pi."""
    sine = 0.5 * (rotation[[2, 0, 1], [1, 2, 0]] - rotation[[1, 2, 0], [2, 0, 1]])
    length = float(np.linalg.norm(sine))
    angle = math.atan2(length, 0.5 * (np.trace(rotation) - 1.0))
    return sine * (angle / length if length > 1e-9 else 1.0)


def looking_at(place: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """world_from_camera (4, 4), optical axes, of a camera at `place` that looks at `target`."""
    forward = (target - place) / np.linalg.norm(target - place)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = math.cos(roll), math.sin(roll)
    axes = [cosine * right + sine * down, cosine * down - sine * right, forward]
    return pose(np.stack(axes, axis=1), place)


def focal_length(length_px: int, field_of_view_deg: float) -> float:
    """Focal length in pixels of a picture side of `length_px` that spans a field of view."""
    return 0.5 * length_px / math.tan(math.radians(field_of_view_deg) / 2)


def pinhole(focal: float, height: int, width: int) -> np.ndarray:
    """Intrinsics (3, 3) with the principal point in the picture's middle."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def heading(angle: float) -> np.ndarray:
    """The horizontal unit vector (3,) at `angle` radians from x towards y."""
    return np.array([math.cos(angle), math.sin(angle), 0.0])
