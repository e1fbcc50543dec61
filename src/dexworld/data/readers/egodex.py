"""EgoDex as Apple publishes it: egocentric video beside the poses of both hands and the upper body.

    SPLIT/TASK/N.mp4    1920 x 1080, 30 Hz; frame i belongs to pose i
    SPLIT/TASK/N.hdf5   camera/intrinsic (3, 3); transforms/NAME (T, 4, 4), NAME's pose in a gravity-aligned world, for
                        "camera" and 68 joints; confidences/NAME (T,), not in every file; language as attributes

The camera frame is optical already (x right, y down, z forward). Source: EgoDex dataset page; DexWM paper, section 4.1.
"""

import logging
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dexworld.data.episode import Episode
from dexworld.data.hdf5 import attributes, opened_hdf5, read_array, read_everything
from dexworld.data.readers.egodex_files import Clip, find_clips, has_clip_pair
from dexworld.data.readers.foreign_video import ForeignFrames
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError
from dexworld.hands import BODY_KEYPOINTS, HAND_KEYPOINTS, KEYPOINT_NAMES, KEYPOINTS_PER_HAND

SIDES = ("left", "right")
METACARPALS = tuple(
    f"{side}{finger}FingerMetacarpal" for side in SIDES for finger in ("Index", "Middle", "Ring", "Little")
)
OFFICIAL_SIZE = (1080, 1920)
MAX_REACH = 3.0  # metres from the camera to its wearer's joints; beyond is a tracking failure
MAX_CAMERA_STEP = 1.0  # metres from one frame to the next; a head makes a tenth of it
WORLD = 1e4  # metres from the world's origin; beyond is damage
RIGID = 1e-3  # largest deviation of R^T R from the identity
FPS_RANGE = (1.0, 240.0)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EgoDexOptions:
    """What is read of an EgoDex folder.

    split: None reads all; "train" the official training set, folders part1 to part5; "test" the official test set;
    "extra" the additional data, which is in neither; or the name of one folder, e.g. "part2".
    tasks: names of task folders; empty reads all. max_episodes: at most so many, evenly spread over the ids.
    min_confidence: a keypoint is valid where its tracking confidence (0 to 1) is at least this; files without
    confidences keep every keypoint. 0 ignores confidences, as DexWM does.
    """

    split: str | None = None
    tasks: tuple[str, ...] = ()
    min_confidence: float = 0.0
    max_episodes: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_confidence <= 1.0:
            raise ValueError(f"min_confidence is {self.min_confidence}; confidences lie between 0 and 1")
        if self.max_episodes is not None and self.max_episodes < 1:
            raise ValueError(f"max_episodes is {self.max_episodes}; it must be at least 1, or None for all")


@dataclass(frozen=True)
class EgoDexSource:
    """The clips of an EgoDex folder, in the order of their ids ("part1.add_remove_lid.0").

    quarantined: videos without poses and poses without video. Extras of an episode: `keypoint_confidence` where the
    file has confidences; `body_world` with `body_valid`; `hand_poses_world` and `hand_metacarpals_world`, NaN where not
    tracked.
    """

    folder: Path
    clips: tuple[Clip, ...]
    quarantined: tuple[tuple[str, str], ...]
    options: EgoDexOptions = EgoDexOptions()
    kind: str = "egodex"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """One id per clip, sorted."""
        return tuple(clip.id for clip in self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Episode:
        """Clip `index`, its frames lazy. Raises CorruptEpisodeError naming file, key and frame when it is unusable."""
        clip = self.clips[index]
        poses = self.folder / clip.path.with_suffix(".hdf5")
        try:
            frames = ForeignFrames(self.folder / clip.path)
            with opened_hdf5(poses) as file:
                return _episode(file, frames, clip, self.options)
        except VideoError as error:
            raise CorruptEpisodeError(str(error)) from error

    def files(self, index: int) -> tuple[Path, ...]:
        """The video and the poses of clip `index`."""
        video = self.folder / self.clips[index].path
        return video, video.with_suffix(".hdf5")

    def annotations(self, index: int) -> dict[str, Any]:
        """Everything the clip's HDF5 holds: each array by its path, e.g. "transforms/hip"; "attributes" as a dict."""
        with opened_hdf5(self.files(index)[1]) as file:
            return read_everything(file)


def recognises(folder: Path) -> bool:
    """Whether `folder`, or a folder up to two levels below, holds a video N.mp4 beside its poses N.hdf5."""
    return has_clip_pair(folder)


def open_egodex(folder: Path | str, options: EgoDexOptions = EgoDexOptions()) -> EgoDexSource:
    """The clips of a whole dataset, of one split's folder or of one task's folder. Lists folders, opens no file.

    Raises FileNotFoundError when the folder holds no clip at all, ValueError when the options select none of them.
    """
    folder = Path(folder)
    clips, quarantined = find_clips(folder, options.split, options.tasks)
    if options.max_episodes is not None and len(clips) > options.max_episodes:
        _LOG.info("%s: %d of %d clips, by max_episodes", folder, options.max_episodes, len(clips))
        clips = [clips[place * len(clips) // options.max_episodes] for place in range(options.max_episodes)]
    return EgoDexSource(folder, tuple(clips), tuple(quarantined), options)


def _episode(file: h5py.File, frames: ForeignFrames, clip: Clip, options: EgoDexOptions) -> Episode:
    world_from_camera = _camera_poses(file)
    length = len(world_from_camera)
    if len(frames) != length:
        raise CorruptEpisodeError(f"{frames.path}: {len(frames)} frames, but {length} poses in {file.filename}")
    if not FPS_RANGE[0] <= frames.fps <= FPS_RANGE[1]:
        raise CorruptEpisodeError(f"{frames.path}: {frames.fps:g} frames per second; EgoDex has 30")
    joints = _joint_poses(file, length)
    tracked = {name: _tracked(pose, world_from_camera) for name, pose in joints.items()}
    confidence = _confidences(file, joints, length)

    def stacked(names: tuple[str, ...], missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Poses (T, len(names), 4, 4) with `missing` where not tracked, and whether they are (T, len(names))."""
        valid = np.stack([tracked.get(name, np.zeros(length, dtype=bool)) for name in names], axis=1)
        poses = np.stack([joints.get(name, np.broadcast_to(missing, (length, 4, 4))) for name in names], axis=1)
        return np.where(valid[..., None, None], poses, missing), valid

    unknown = np.full((4, 4), np.nan, dtype=np.float32)
    keypoints, valid = stacked(KEYPOINT_NAMES, np.zeros((4, 4), dtype=np.float32))
    body, body_valid = stacked(BODY_KEYPOINTS, np.zeros((4, 4), dtype=np.float32))
    metacarpals, _ = stacked(METACARPALS, unknown)
    hands, _ = stacked(tuple(f"{side}{HAND_KEYPOINTS[0]}" for side in SIDES), unknown)
    extras = {
        "body_world": body[..., :3, 3],
        "body_valid": body_valid,
        "hand_poses_world": hands,
        "hand_metacarpals_world": metacarpals[..., :3, 3],
    }
    if confidence is not None:
        valid &= confidence >= options.min_confidence
        extras["keypoint_confidence"] = confidence
    return Episode(
        frames=frames,
        fps=frames.fps,
        keypoints_world=keypoints[..., :3, 3],
        keypoints_valid=valid,
        world_from_camera=world_from_camera,
        intrinsics=_intrinsics(file, frames.size),
        source=f"egodex {clip.path.with_suffix('').as_posix()}",
        task=_language(file, clip.task),
        extras=extras,
    )


def _camera_poses(file: h5py.File) -> np.ndarray:
    """(T, 4, 4) float32, every one finite and rigid, with no jump in between."""
    poses = read_array(file, "transforms/camera", (None, 4, 4)).astype(np.float32)
    where = f"{file.filename}: transforms/camera"
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


def _joint_poses(file: h5py.File, length: int) -> dict[str, np.ndarray]:
    """Pose (T, 4, 4) of every joint that the file has, each in one read, by name: HDF5 lists names alphabetically.

    A hand may be absent as a whole; a hand with some of its 21 keypoints missing is a damaged file.
    """
    present = {name for name in file["transforms"] if name != "camera"}
    wanted = {*KEYPOINT_NAMES, *BODY_KEYPOINTS, *METACARPALS}
    hands = [KEYPOINT_NAMES[:KEYPOINTS_PER_HAND], KEYPOINT_NAMES[KEYPOINTS_PER_HAND:]]
    absent = [[name for name in names if name not in present] for names in hands]
    for names in absent:
        if names and (len(names) < KEYPOINTS_PER_HAND or all(len(other) == KEYPOINTS_PER_HAND for other in absent)):
            raise CorruptEpisodeError(f"{file.filename}: transforms/{names[0]} is missing")
    return {
        name: read_array(file, f"transforms/{name}", (length, 4, 4)).astype(np.float32)
        for name in sorted(wanted & present)
    }


def _rigid(poses: np.ndarray) -> np.ndarray:
    """Which of (T, 4, 4) are finite rigid transforms: (T,) bool."""
    finite = np.isfinite(poses).all(axis=(1, 2))
    safe = np.where(finite[:, None, None], poses, 0.0).clip(-2 * WORLD, 2 * WORLD).astype(np.float64)
    inside = np.abs(safe[:, :3, 3]).max(axis=1) <= WORLD
    rotation = safe[:, :3, :3]
    orthonormal = np.abs(rotation.transpose(0, 2, 1) @ rotation - np.eye(3)).max(axis=(1, 2)) < RIGID
    bottom = np.abs(safe[:, 3] - (0.0, 0.0, 0.0, 1.0)).max(axis=1) < RIGID
    return finite & inside & orthonormal & bottom & (np.linalg.det(rotation) > 0)


def _tracked(poses: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """At which frames (T,) the joint has a rigid pose within reach of the camera's wearer."""
    rigid = _rigid(poses)
    offset = np.where(rigid[:, None], poses[:, :3, 3] - world_from_camera[:, :3, 3], 0.0)
    return rigid & (np.linalg.norm(offset, axis=1) <= MAX_REACH)


def _confidences(file: h5py.File, joints: dict[str, np.ndarray], length: int) -> np.ndarray | None:
    """(T, 42) float32 between 0 and 1, 0 for NaN and for a hand that is absent; None when the file has none."""
    if "confidences" not in file:
        return None
    columns = []
    for name in KEYPOINT_NAMES:
        if name not in joints:
            columns.append(np.zeros(length))
            continue
        columns.append(read_array(file, f"confidences/{name}", (length,)))
    return np.nan_to_num(np.stack(columns, axis=1), nan=0.0, posinf=0.0, neginf=0.0).clip(0.0, 1.0).astype(np.float32)


def _intrinsics(file: h5py.File, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) float64 in pixels of the video.

    The matrix of the file is taken as it is when its principal point lies near the middle of the video; when it lies
    near the middle of 1920 x 1080 instead, the video was made smaller without it, and the matrix is scaled alike.
    """
    matrix = read_array(file, "camera/intrinsic", (3, 3)).astype(np.float64)
    where = f"{file.filename}: camera/intrinsic"
    if not np.isfinite(matrix).all() or not np.allclose(matrix[[1, 2, 2, 2], [0, 0, 1, 2]], (0, 0, 0, 1)):
        raise CorruptEpisodeError(f"{where} is no pinhole matrix: {matrix.tolist()}")
    for height, width in dict.fromkeys((size, OFFICIAL_SIZE)):
        scale = np.array([size[1] / width, size[0] / height])
        middle = np.abs(matrix[:2, 2] / (width, height) - 0.5).max() < 0.1
        focal = (matrix[[0, 1], [0, 1]] / max(height, width) > 0.1) & (matrix[[0, 1], [0, 1]] / max(height, width) < 10)
        if middle and focal.all() and math.isclose(*scale, rel_tol=0.02):
            return np.diag([*scale, 1.0]) @ matrix
    raise CorruptEpisodeError(
        f"{where} has focal lengths {matrix[0, 0]:g}, {matrix[1, 1]:g} and principal point {matrix[0, 2]:g}, "
        f"{matrix[1, 2]:g}; that fits neither {size[1]} x {size[0]} video nor 1920 x 1080"
    )


def _language(file: h5py.File, task: str) -> str:
    """The sentence that is true of this clip; the task's name when the file has none.

    Reversible tasks have two sentences, and `which_llm_description` ("1" or "2") says which was acted; older files have
    `description` only.
    """
    found = attributes(file)
    second = str(found.get("which_llm_description", "1")) == "2"
    names = ("llm_description2" if second else "llm_description", "llm_description", "description", "task")
    sentences = (found.get(name) for name in names)
    return next((text.strip() for text in sentences if isinstance(text, str) and text.strip()), task.replace("_", " "))
