"""Two hands with curled fingers before a camera: anatomy tells left from right, and metres from other units."""

import numpy as np

from dexworld.hands import BONE_LENGTHS
from dexworld.track import Track

ANGLES_DEG = (-50, -12, 0, 10, 22)  # of the fingers over the back of a right hand, fingers up, seen from behind
BENDS = (0.0, 0.35, 0.9, 1.3)  # radians by which the bones of a finger point into the palm


def curled_hands(frames: int = 9, depth: float = 0.5) -> np.ndarray:
    """Left and right hand (F, 2, 21, 3), metres in the camera frame: backs to the camera, moving apart."""
    points = [np.zeros(3)]
    for angle, lengths in zip(np.radians(ANGLES_DEG), BONE_LENGTHS, strict=True):
        place = np.zeros(3)
        for length, bend in zip(lengths, BENDS, strict=True):
            along, into = np.cos(bend), np.sin(bend)
            place = place + length * np.array([along * np.sin(angle), -along * np.cos(angle), into])
            points.append(place)
    right = np.array(points)
    hands = np.stack([right * [-1, 1, 1], right]) + np.array([[[-0.1, 0.06, depth]], [[0.1, 0.06, depth]]])
    moved = np.linspace(0, 0.04, frames)[:, None, None, None] * np.array([-1.0, 1.0])[:, None, None]
    return hands + moved * [1.0, 0.0, 0.0]


def pinhole_of(height: int, width: int) -> np.ndarray:
    """(3, 3) of a camera with a focal length of 0.8 image widths."""
    return np.array([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])


def hand_track(points: np.ndarray, height: int, width: int, poses: np.ndarray | None = None) -> Track:
    """A track without pictures of hands (F, 2, 21, 3) in the camera frame; poses: world_from_camera (F, 4, 4)."""
    frames = len(points)
    poses = np.tile(np.eye(4), (frames, 1, 1)) if poses is None else poses
    world = points.reshape(frames, 42, 3) @ poses[:, :3, :3].swapaxes(1, 2) + poses[:, None, :3, 3]
    columns = {"keypoints_world": world, "keypoints_valid": np.ones((frames, 42), dtype=bool)}
    return Track(poses, pinhole_of(height, width), columns, source="hands")
