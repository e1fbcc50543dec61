"""Recordings of validation scenes, made once a process, and where their keypoints lie in the pictures."""

import functools

import numpy as np
import torch

from dexworld import geometry
from dexworld.sim.gripper.gripper_recording import GripperConfig, GripperRecording, record_gripper
from dexworld.sim.gripper.gripper_simulation import CAMERAS

SEED = 900_103  # a push
CARRYING_SEED = 900_105  # a mug is picked up, carried and put down
SHORT = GripperConfig(min_frames=8, max_frames=8, height=90, width=160, cameras=CAMERAS)
TINY = GripperConfig(height=32, width=56)


@functools.cache
def short_recording() -> GripperRecording:
    """Eight frames of the gripper from all three cameras."""
    return record_gripper(SEED, SHORT)


@functools.cache
def whole_recording(seed: int = CARRYING_SEED) -> GripperRecording:
    """A whole episode of the gripper in tiny pictures."""
    return record_gripper(seed, TINY)


def project(points, world_from_camera, intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (..., N, 2) and depths (..., N) of world points (..., N, 3), by the library's own projection."""
    points, poses, matrix = (torch.tensor(a, dtype=torch.float64) for a in (points, world_from_camera, intrinsics))
    pixels, depths = geometry.project(geometry.transform_points(geometry.invert(poses), points), matrix)
    return pixels.numpy(), depths.numpy()


def pixels_of(recording) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (T, 42, 2) and depths (T, 42) of the keypoints of an episode or a clip."""
    return project(recording.keypoints_world, recording.world_from_camera, recording.intrinsics[None])


def bytes_of(folder) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
