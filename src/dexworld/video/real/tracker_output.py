"""Hands of trackers in the camera's frame: whatever each tracker gives, as keypoints in metres and a camera."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dexworld.data.hand_checks import ORDERS
from dexworld.data.readers.arrays import pinhole
from dexworld.hands import KEYPOINTS_PER_HAND
from dexworld.video.real.hand_file import hamer_intrinsics
from dexworld.video.real.mano import JOINTS, MIRROR, Mano, rotation_matrices
from dexworld.video.real.placement import place_hands
from dexworld.video.real.tracker_files import FOCAL, Hand, hands_in, hawor_camera, hawor_hands

JointOrder = Literal["openpose", "mano", "interhand"]

_JOINTS, _VERTICES = "pred_keypoints_3d", "pred_vertices"
_PLACE = ("pred_cam_t_full", "cam_t_full", "cam_t", "transl")  # of the hand in the camera's frame, metres
_MANO = ("global_orient", "hand_pose", "betas")


@dataclass(frozen=True)
class Conventions:
    """What the files of a tracker don't say of themselves."""

    focal: float | None = None
    """Focal length of the videos in pixels: puts hands at their true distance. MediaPipe's results need it."""
    joint_order: JointOrder = "openpose"
    """Order of the joints in the file."""
    mirror_left: bool = False
    """Left hands are given as right ones (HaMeR's network): mirror them."""
    swap_sides: bool = False
    """What the file calls left is right (MediaPipe's older interface, which takes pictures for mirrored)."""
    first_frame: int = 0
    """Number that the file gives the first frame; 1 where ffmpeg extracted the pictures."""
    metres_per_unit: float = 1.0
    """Unit of the file in metres; 0.001 for millimetres."""


@dataclass(frozen=True)
class Detections:
    """n detected hands in the camera's frame, metres; of one frame, the surest come first.

    frames: (n,) int. right: (n,) bool. keypoints: (n, 21, 3). vertices: (n, V, 3), or None. intrinsics: (3, 3).
    world_from_camera: (F, 4, 4), or None.
    """

    frames: np.ndarray
    right: np.ndarray
    keypoints: np.ndarray
    vertices: np.ndarray | None
    intrinsics: np.ndarray
    world_from_camera: np.ndarray | None = None


def read_detections(
    path: Path, frames: int, size: tuple[int, int], conventions: Conventions, mano: Mano | None = None
) -> Detections:
    """Read what a tracker found in a video of F frames of size (height, width).

    path: a `.json` or `.npz`, a folder of one such file for each frame, or HaWoR's folder of the video. mano: needed
    for parameters without joints, and to keep meshes. Raises ValueError naming file and frame, and what to change.
    """
    try:
        hawor = (path / "cam_space").is_dir()
        found = hawor_hands(path) if hawor else list(hands_in(path, frames))
        poses = hawor_camera(path, frames) if hawor else None
        _check_frames([number - conventions.first_frame for number, _ in found], frames)
        if not found:
            raise ValueError("holds no hands")
        hands = [{**hand, "where": f"frame {number}"} for number, hand in found]
        right = np.array([_is_right(hand) for hand in hands]) != conventions.swap_sides
        keypoints, vertices, intrinsics = _shapes(hands, right, size, conventions, mano)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (TypeError, KeyError, IndexError, AttributeError) as error:  # nested in another way
        raise ValueError(f"{path}: is laid out in another way than docs/video_data.md shows ({error!r})") from error
    numbers = np.array([number for number, _ in found]) - conventions.first_frame
    return Detections(numbers, right, keypoints, vertices, intrinsics, poses)


def _check_frames(numbers: Sequence[int], frames: int) -> None:
    """Raise ValueError when hands are of frames that the video doesn't have."""
    if numbers and not 0 <= min(numbers) <= max(numbers) < frames:
        counted = "the frames are counted from 1: give --first-frame 1" if max(numbers) == frames else ""
        cause = counted or "track every frame of this video, and give --first-frame the number of the first"
        raise ValueError(f"has hands in frames {min(numbers)} to {max(numbers)}, the video has {frames}: {cause}")


def _is_right(hand: Hand) -> bool:
    value = str(np.ravel(hand["is_right" if "is_right" in hand else "side"])[0]).strip().lower()
    if value not in ("left", "right", "true", "false", "0", "1", "0.0", "1.0"):
        raise ValueError(f"{hand['where']}: the side is {value!r}; give is_right 0 or 1, or left and right")
    return value in ("right", "true", "1", "1.0")


def _shapes(
    hands: list[Hand], right: np.ndarray, size: tuple[int, int], conventions: Conventions, mano: Mano | None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Keypoints (n, 21, 3) and vertices (n, V, 3) in the camera's frame, and its intrinsics (3, 3)."""
    if all("world_landmarks" in hand for hand in hands):
        return _of_landmarks(hands, size, conventions)
    intrinsics = _camera(hands, size)
    place = _numbers(hands, next((name for name in _PLACE if name in hands[0]), _PLACE[0]), (3,))
    unit, vertices = conventions.metres_per_unit, None
    if _JOINTS in hands[0]:
        points = unit * _numbers(hands, _JOINTS, (KEYPOINTS_PER_HAND, 3))
        if conventions.joint_order != "openpose":
            points = points[:, ORDERS[conventions.joint_order]]
        if _VERTICES in hands[0] and mano is not None:
            vertices = unit * _numbers(hands, _VERTICES, mano.template.shape)
        signs = np.where((conventions.mirror_left & ~right)[:, None, None], MIRROR, 1.0)
        points, vertices = points * signs, None if vertices is None else vertices * signs
    elif all(name in hands[0] for name in _MANO):
        if mano is None:
            raise ValueError("holds MANO's parameters and no joints; give your MANO file with --mano")
        pose = np.concatenate([_rotations(hands, name) for name in _MANO[:2]], axis=1)
        if conventions.mirror_left:
            pose = np.where(right[:, None, None, None], pose, pose * np.outer(MIRROR, MIRROR))
        vertices, points = mano.hands(pose, _numbers(hands, "betas", (10,)), right)
    else:
        raise ValueError(
            f"{hands[0]['where']}: holds neither {_JOINTS}, nor MANO's parameters, nor MediaPipe's landmarks"
        )
    place = unit * place[:, None]
    if conventions.focal is not None:
        place[..., 2] *= conventions.focal / intrinsics[0, 0]
        intrinsics = pinhole(conventions.focal, conventions.focal, *intrinsics[:2, 2])
    return points + place, None if vertices is None else vertices + place, intrinsics


def _of_landmarks(
    hands: list[Hand], size: tuple[int, int], conventions: Conventions
) -> tuple[np.ndarray, None, np.ndarray]:
    """MediaPipe's metric landmarks, put where the camera sees the landmarks of the picture."""
    if conventions.focal is None:
        raise ValueError("MediaPipe knows no camera: give the video's focal length in pixels with --focal")
    (height, width), shape = size, (KEYPOINTS_PER_HAND, 3)
    seen = _numbers(hands, "landmarks", shape)[..., :2]
    if np.median(np.abs(seen)) > 2:
        raise ValueError("MediaPipe's landmarks are in pixels; save them as it gives them, from 0 to 1")
    intrinsics = pinhole(conventions.focal, conventions.focal, width / 2, height / 2)
    metric = _numbers(hands, "world_landmarks", shape) * conventions.metres_per_unit
    return place_hands(metric, seen * [width, height], intrinsics)[0], None, intrinsics


def _camera(hands: list[Hand], size: tuple[int, int]) -> np.ndarray:
    """The camera in which the hands were found: of their focal length, by default HaMeR's."""
    height, width = size
    if FOCAL not in hands[0]:
        return hamer_intrinsics(height, width)
    focal = _numbers(hands, FOCAL, ())
    if np.ptp(focal) > 1e-3 * focal[0]:
        raise ValueError(f"{FOCAL} goes from {focal.min():g} to {focal.max():g}: track pictures of one size")
    return pinhole(focal[0], focal[0], width / 2, height / 2)


def _rotations(hands: list[Hand], name: str) -> np.ndarray:
    """(n, 1 or 15, 3, 3) of rotations that are matrices or axis-angle vectors."""
    joints = 1 if name == "global_orient" else JOINTS - 1
    if np.size(hands[0][name]) == 9 * joints:
        return _numbers(hands, name, (joints, 3, 3))
    if np.size(hands[0][name]) not in (0, 3 * joints):
        found = np.shape(hands[0][name])
        raise ValueError(f"{hands[0]['where']}: {name} is {found}; give {joints} rotations, no principal components")
    return rotation_matrices(_numbers(hands, name, (joints, 3)))


def _numbers(hands: list[Hand], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """(n, *shape) of one entry of all hands. Raises ValueError naming the first that lacks it."""
    rows = []
    for hand in hands:
        row = np.asarray(hand.get(name, []))
        if row.size != int(np.prod(shape)) or not np.issubdtype(row.dtype, np.number):
            cause = (
                "; pred_cam_t is the crop's camera, save pred_cam_t_full"
                if name == _PLACE[0] and "pred_cam_t" in hand
                else ""
            )
            found = f"is {row.shape} {row.dtype}" if name in hand else "is missing"
            raise ValueError(f"{hand['where']}: {name} {found}, must be {shape} numbers{cause}")
        if not np.isfinite(row).all():
            raise ValueError(f"{hand['where']}: {name} holds NaN or Inf; leave this hand out")
        rows.append(row.reshape(shape).astype(float))
    return np.array(rows)
