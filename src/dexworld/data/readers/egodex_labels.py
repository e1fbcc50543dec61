"""What one HDF5 file of EgoDex says: camera, joints, confidences, intrinsics and language, checked."""

import math
from dataclasses import dataclass

import h5py
import numpy as np

from dexworld.data.hdf5 import attributes, read_array
from dexworld.data.source import CorruptEpisodeError
from dexworld.hands import BODY_KEYPOINTS, KEYPOINT_NAMES, KEYPOINTS_PER_HAND

SIDES = ("left", "right")
WRISTS = tuple(f"{side}Hand" for side in SIDES)
METACARPALS = tuple(
    f"{side}{finger}FingerMetacarpal" for side in SIDES for finger in ("Index", "Middle", "Ring", "Little")
)
OFFICIAL_SIZE = (1080, 1920)
WORLD = 1e4  # metres from the world's origin; beyond is damage
MAX_REACH = 3.0  # metres from the camera to its wearer's joints; beyond is a tracking failure
MAX_HAND = 0.4  # metres from the middle of a hand to any of its joints
MAX_CAMERA_STEP = 1.0  # metres from one frame to the next; a head makes a tenth of it
RIGID = 1e-3  # largest deviation from a rotation's unit columns and right angles


@dataclass(frozen=True)
class Joints:
    """Poses of the joints that a file has. places: row of each name. poses: (K, T, 4, 4). tracked: (K, T) bool."""

    places: dict[str, int]
    poses: np.ndarray
    tracked: np.ndarray

    def select(self, names: tuple[str, ...], missing: float) -> tuple[np.ndarray, np.ndarray]:
        """Poses (T, len(names), 4, 4), filled with `missing` where not tracked, and where they are (T, len(names))."""
        length = self.poses.shape[1]
        valid = np.zeros((length, len(names)), dtype=bool)
        poses = np.full((length, len(names), 4, 4), missing, dtype=np.float32)
        for column, name in enumerate(names):
            if name in self.places:
                place = self.places[name]
                valid[:, column] = self.tracked[place]
                poses[self.tracked[place], column] = self.poses[place, self.tracked[place]]
        return poses, valid


def read_camera(file: h5py.File) -> np.ndarray:
    """World from camera (T, 4, 4) float32: every pose finite and rigid, with no jump in between.

    Raises CorruptEpisodeError naming the frame where that is not so.
    """
    poses, where = _read_poses(file, "camera", None), f"{file.filename}: transforms/camera"
    if len(poses) == 0:
        raise CorruptEpisodeError(f"{where} holds no frames")
    bad = ~_rigid(poses)
    if bad.any():
        raise CorruptEpisodeError(f"{where} is no rigid transform at frame {int(np.argmax(bad))}")
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    if (steps > MAX_CAMERA_STEP).any():
        frame = int(np.argmax(steps > MAX_CAMERA_STEP)) + 1
        raise CorruptEpisodeError(f"{where} jumps by {steps[frame - 1]:.3g} m to frame {frame}; tracking was lost")
    return poses


def read_joints(file: h5py.File, world_from_camera: np.ndarray) -> Joints:
    """The joints that have a place in a Track, each read at once and by name: HDF5 lists names alphabetically.

    A joint is tracked where its pose is rigid, within reach of the camera's wearer and, of a hand, near the hand's
    other joints. A hand, the body and metacarpals may be absent; a hand that lacks some of its 21 keypoints, or both
    hands absent, is a CorruptEpisodeError.
    """
    present = {name for name in file["transforms"] if name != "camera"}
    hands = (KEYPOINT_NAMES[:KEYPOINTS_PER_HAND], KEYPOINT_NAMES[KEYPOINTS_PER_HAND:])
    absent = [[name for name in names if name not in present] for names in hands]
    for names in absent:
        if names and (len(names) < KEYPOINTS_PER_HAND or all(len(other) == KEYPOINTS_PER_HAND for other in absent)):
            raise CorruptEpisodeError(f"{file.filename}: transforms/{names[0]} is missing")
    names = [name for name in (*KEYPOINT_NAMES, *METACARPALS, *BODY_KEYPOINTS) if name in present]
    poses_KT = np.stack([_read_poses(file, name, len(world_from_camera)) for name in names])
    rigid_KT = _rigid(poses_KT)
    offset = np.where(rigid_KT[..., None], poses_KT[..., :3, 3] - world_from_camera[:, :3, 3], 0.0)
    tracked_KT = rigid_KT & (np.linalg.norm(offset, axis=-1) <= MAX_REACH)
    for side in SIDES:
        hand = [place for place, name in enumerate(names) if name.startswith(side) and name not in BODY_KEYPOINTS]
        tracked_KT[hand] &= _together(poses_KT[hand, :, :3, 3], tracked_KT[hand])
    return Joints({name: place for place, name in enumerate(names)}, poses_KT, tracked_KT)


def read_confidences(file: h5py.File, joints: Joints) -> np.ndarray | None:
    """(T, 42) float32 between 0 and 1, 0 for NaN and for a hand that is absent; None when the file has none."""
    if "confidences" not in file:
        return None
    length = joints.poses.shape[1]
    columns = [
        read_array(file, f"confidences/{name}", (length,)) if name in joints.places else np.zeros(length)
        for name in KEYPOINT_NAMES
    ]
    return np.nan_to_num(np.stack(columns, axis=1), nan=0.0, posinf=0.0, neginf=0.0).clip(0.0, 1.0).astype(np.float32)


def read_intrinsics(file: h5py.File, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) float64 in pixels of a video of `size` (height, width).

    The matrix of the file is taken as it is when its principal point lies near the middle of the video. When it lies
    near the middle of 1920 x 1080 instead, the video was made smaller without it, and the matrix is scaled by the same
    factors. Raises CorruptEpisodeError when it fits neither, or is no pinhole matrix.
    """
    matrix = read_array(file, "camera/intrinsic", (3, 3)).astype(np.float64)
    where = f"{file.filename}: camera/intrinsic"
    if not np.isfinite(matrix).all() or not np.allclose(matrix[[0, 1, 2, 2, 2], [1, 0, 0, 1, 2]], (0, 0, 0, 0, 1)):
        raise CorruptEpisodeError(f"{where} is no pinhole matrix: {matrix.tolist()}")
    focal, centre = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    for height, width in dict.fromkeys((size, OFFICIAL_SIZE)):
        centred = np.abs(centre / (width, height) - 0.5).max() < 0.1
        plausible = (np.abs(np.log10(np.maximum(focal, 1e-9) / max(height, width))) < 1).all()
        scale = (size[1] / width, size[0] / height)
        if centred and plausible and math.isclose(*scale, rel_tol=0.02):
            return np.diag([*scale, 1.0]) @ matrix
    raise CorruptEpisodeError(
        f"{where} has focal lengths {focal[0]:g}, {focal[1]:g} and principal point {centre[0]:g}, {centre[1]:g}; "
        f"that fits neither {size[1]} x {size[0]} video nor 1920 x 1080"
    )


def read_language(file: h5py.File, task: str) -> str:
    """The sentence that is true of this clip; the task's name when the file has none.

    Reversible tasks have two sentences, and `which_llm_description` ("1" or "2") says which was acted; older files have
    `description` only.
    """
    found = attributes(file)
    second = str(found.get("which_llm_description", "1")) == "2"
    names = ("llm_description2" if second else "llm_description", "llm_description", "description")
    sentences = (found.get(name) for name in names)
    return next((text.strip() for text in sentences if isinstance(text, str) and text.strip()), task.replace("_", " "))


def _read_poses(file: h5py.File, name: str, length: int | None) -> np.ndarray:
    return read_array(file, f"transforms/{name}", (length, 4, 4)).astype(np.float32)


def _together(points: np.ndarray, tracked: np.ndarray) -> np.ndarray:
    """Which of (K, T, 3) joints of one hand lie near the median of those that are tracked (K, T): (K, T) bool."""
    if not len(points):
        return tracked
    seen = np.where(tracked[..., None], points, np.nan)
    seen[:, ~tracked.any(axis=0)] = 0.0  # no median of nothing
    return np.linalg.norm(points - np.nanmedian(seen, axis=0), axis=-1) <= MAX_HAND


def _rigid(poses: np.ndarray) -> np.ndarray:
    """Which of (..., 4, 4) are finite rigid transforms inside the world: (...,) bool; NaN fails every comparison."""
    entries = np.ascontiguousarray(poses.reshape(-1, 16).T)
    x, y, z = (entries[[column, column + 4, column + 8]] for column in range(3))
    third = np.stack([x[row - 2] * y[row - 1] - x[row - 1] * y[row - 2] for row in range(3)])  # x cross y
    skew = np.abs((x * x).sum(axis=0) - 1) + np.abs((y * y).sum(axis=0) - 1) + np.abs((x * y).sum(axis=0))
    good = (skew < RIGID) & (np.abs(third - z).max(axis=0) < RIGID)
    good &= np.abs(entries[12:15]).max(axis=0) + np.abs(entries[15] - 1) < RIGID
    good &= np.abs(entries[[3, 7, 11]]).max(axis=0) <= WORLD
    return good.reshape(poses.shape[:-2])
