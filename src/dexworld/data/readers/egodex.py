"""EgoDex as Apple publishes it: egocentric video beside the poses of both hands and the upper body.

    SPLIT/TASK/N.mp4    1920 x 1080, 30 Hz; frame i belongs to pose i
    SPLIT/TASK/N.hdf5   camera/intrinsic (3, 3); transforms/NAME (T, 4, 4), NAME's pose in a gravity-aligned world, for
                        "camera" and 68 joints; confidences/NAME (T,), not in every file; language as attributes

The camera frame is optical already (x right, y down, z forward). Source: EgoDex dataset page; DexWM paper, section 4.1.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import ClassVar

import h5py
import numpy as np

from dexworld.data.readers.arrays import check_pinhole, is_rigid, simulator_seed
from dexworld.data.readers.foreign_source import ForeignSource
from dexworld.data.readers.hdf5 import attribute, opened_hdf5, read_array
from dexworld.data.source import CorruptEpisodeError, evenly_spread
from dexworld.data.video_frames import VideoFrames, check_unturned
from dexworld.hands import BODY_KEYPOINTS, KEYPOINT_NAMES, KEYPOINTS_PER_HAND, LEFT, RIGHT
from dexworld.track import Track

VIDEO, POSES = ".mp4", ".hdf5"
TRAIN_FOLDERS = ("part1", "part2", "part3", "part4", "part5")
SPLIT_FOLDERS = (*TRAIN_FOLDERS, "extra", "test")
DEPTH = 2  # folders between the one opened and the clips: SPLIT/TASK
PROBED_FOLDERS = 64  # how many `recognises` looks into before it gives up
FPS_RANGE = (1.0, 240.0)  # outside is a damaged header
RATE = 30.0  # poses a second
RATE_SLACK = 0.01  # of containers whose mean rate is not quite that: 29.97, or a frame shown for longer
OFFICIAL_SIZE = (1080, 1920)
SIDES = ("left", "right")
WRISTS = tuple(f"{side}Hand" for side in SIDES)
FINGERS = ("Index", "Middle", "Ring", "Little")
METACARPALS = tuple(f"{side}{finger}FingerMetacarpal" for side in SIDES for finger in FINGERS)
JOINT_NAMES = (*KEYPOINT_NAMES, *METACARPALS, *BODY_KEYPOINTS)
MAX_REACH = 3.0  # metres from the camera to its wearer's joints; beyond is a tracking failure
MAX_HAND = 0.4  # metres from the middle of a hand to any of its joints
MAX_CAMERA_STEP = 1.0  # metres from one frame to the next; a head makes a tenth of it


@dataclass(frozen=True)
class EgoDexOptions:
    """What is read of an EgoDex folder.

    split: "train" (folders part1 to part5), "test" or "extra" as published, or a folder, e.g. "part2"; None reads all.
    max_episodes: at most so many, evenly spread over the ids.
    min_confidence: a keypoint is valid where its tracking confidence (0 to 1) is at least this; files without
    confidences keep every keypoint. 0 ignores confidences, as DexWM does.
    """

    split: str | None = None
    min_confidence: float = 0.0
    max_episodes: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_confidence <= 1.0:
            raise ValueError(f"min_confidence is {self.min_confidence}; confidences lie between 0 and 1")
        if self.max_episodes is not None and self.max_episodes < 1:
            raise ValueError(f"max_episodes is {self.max_episodes}; it must be at least 1, or None for all")


@dataclass(frozen=True)
class EgoDexSource(ForeignSource):
    """The clips of an EgoDex folder; see `data.source.Source`. Ids are places: "part1.add_remove_lid.0".

    quarantined: videos without poses and poses without video. Further columns of an episode: `keypoint_confidence`
    where the file has confidences; `body_world` with `body_valid`; `hand_poses_world` and `hand_metacarpals_world`, NaN
    where not tracked; of our simulator `object_positions` and `object_motion`. clips: each clip's files below the
    folder, without suffix.
    """

    kind: ClassVar[str] = "egodex"
    options: EgoDexOptions
    clips: tuple[PurePosixPath, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The folder of the official split that each clip lies in."""
        above = self.folder.resolve().parts
        return tuple(_split_of(above, clip.parent) for clip in self.clips)

    def read(self, index: int) -> Track:
        """The clip. Complaints name file, key and frame."""
        video, poses = self.files(index)
        clip = self.clips[index]
        frames, task = VideoFrames(video, uneven=True), clip.parent.name or self.folder.resolve().name
        with opened_hdf5(poses) as file:
            return _episode(file, frames, clip.as_posix(), task, self.options.min_confidence)

    def files(self, index: int) -> tuple[Path, ...]:
        """The video and the poses of clip `index`."""
        return tuple(self.folder / f"{self.clips[index]}{suffix}" for suffix in (VIDEO, POSES))


def recognises(folder: Path) -> bool:
    """Whether `folder`, or a folder up to two levels below, holds a video N.mp4 beside its poses N.hdf5."""
    probed = islice(_listed(folder, PurePosixPath(), DEPTH), PROBED_FOLDERS) if folder.is_dir() else ()
    return any(len(suffixes) == 2 for _, stems in probed for suffixes in stems.values())


def open_egodex(folder: Path | str, options: EgoDexOptions = EgoDexOptions()) -> EgoDexSource:
    """The clips of a whole dataset, of one split's folder or of one task's folder. Lists folders, opens no file.

    Raises FileNotFoundError when the folder holds no clip at all, ValueError when `split` selects none. Files without
    their partner are quarantined.
    """
    folder, split = Path(folder), options.split
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    above = folder.resolve().parts
    found = [(place, _split_of(above, place), stems) for place, stems in _listed(folder, PurePosixPath(), DEPTH)]
    if not found:
        raise FileNotFoundError(f"{folder} holds no clips of EgoDex: a clip is N{VIDEO} beside N{POSES}, in SPLIT/TASK")
    splits = TRAIN_FOLDERS if split == "train" else (split,)
    chosen = [(place, stems) for place, own, stems in found if split is None or own in splits]
    if not chosen:
        names = sorted({own or "no split" for _, own, _ in found})
        raise ValueError(f"{folder}: nothing is of split {split!r}; found {names}")
    clips, quarantined = [], []
    for place, stem, suffixes in ((place, *each) for place, stems in chosen for each in stems.items()):
        if len(suffixes) == 2:
            clips.append((".".join(_safe(part) for part in (*place.parts, stem)), place / stem))
        else:
            have, lack = (VIDEO, POSES) if VIDEO in suffixes else (POSES, VIDEO)
            quarantined.append((str(place / f"{stem}{have}"), f"there is no {stem}{lack} beside it"))
    ids, places = zip(*evenly_spread(sorted(clips), options.max_episodes), strict=True) if clips else ((), ())
    return EgoDexSource(folder, ids, tuple(sorted(quarantined)), options, places)


def _listed(root: Path, place: PurePosixPath, depth: int) -> Iterator[tuple[PurePosixPath, dict[str, set[str]]]]:
    """Yield (place, {stem: suffixes}) of every folder with videos or poses, parents first, sorted."""
    stems: dict[str, set[str]] = {}
    folders = []
    with os.scandir(root / place) as entries:
        for entry in entries:
            if entry.name.startswith("."):  # what file systems and copy programs leave
                continue
            stem, suffix = os.path.splitext(entry.name)
            if suffix in (VIDEO, POSES):
                stems.setdefault(stem, set()).add(suffix)
            elif depth and entry.is_dir():
                folders.append(entry.name)
    if stems:
        yield place, stems
    for name in sorted(folders):
        yield from _listed(root, place / name, depth - 1)


def _split_of(above: tuple[str, ...], place: PurePosixPath) -> str:
    """The split of clips in `place` below the folders `above`: the name two levels above them, if it is one."""
    name = ("", *above, *place.parts)[-2]
    return name if len(place.parts) == DEPTH or name in SPLIT_FOLDERS else ""


def _safe(name: str) -> str:
    """A name of letters, digits, '_' and '-' only, so that '.' can join them into an id; others by their code."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"-x{ord(match[0]):x}", name)


def _episode(file: h5py.File, frames: VideoFrames, clip: str, task: str, min_confidence: float) -> Track:
    cameras = _cameras(file)
    if len(frames) != len(cameras):
        raise CorruptEpisodeError(f"{frames.path}: {len(frames)} frames, but {len(cameras)} poses in {file.filename}")
    if not FPS_RANGE[0] <= frames.fps <= FPS_RANGE[1]:
        raise CorruptEpisodeError(f"{frames.path}: {frames.fps:g} frames per second; EgoDex has 30")
    check_unturned(frames, "camera and hands")
    poses, tracked = _joints(file, cameras)
    keypoints, valid = _selected(KEYPOINT_NAMES, poses, tracked, missing=0.0)
    body, body_valid = _selected(BODY_KEYPOINTS, poses, tracked, missing=0.0)
    columns = {
        "keypoints_world": keypoints[..., :3, 3].copy(),
        "keypoints_valid": valid,
        "body_world": body[..., :3, 3].copy(),
        "body_valid": body_valid,
        "hand_poses_world": _selected(WRISTS, poses, tracked, missing=np.nan)[0],
        "hand_metacarpals_world": _selected(METACARPALS, poses, tracked, missing=np.nan)[0][..., :3, 3].copy(),
    }
    confidence = _confidences(file, len(cameras))
    if confidence is not None:
        valid &= confidence >= min_confidence
        columns["keypoint_confidence"] = confidence
    if "dexworld" in file:  # only a simulator knows
        columns["object_positions"] = read_array(file, "dexworld/object_positions", (len(cameras), None, 3))
        columns["object_motion"] = read_array(file, "dexworld/object_motion", (len(cameras),))
    return Track(
        frames=frames,
        fps=RATE if abs(frames.fps / RATE - 1) < RATE_SLACK else frames.fps,  # a store takes one rate alone
        world_from_camera=cameras,
        intrinsics=_intrinsics(file, frames.size),
        source=f"egodex {clip}",
        task=_language(file, task),
        seed=simulator_seed(attribute(file, "dexworld_seed")),
        columns=columns,
    )


def _selected(
    names: tuple[str, ...], poses_KT: np.ndarray, tracked_KT: np.ndarray, missing: float
) -> tuple[np.ndarray, np.ndarray]:
    """Poses (T, len(names), 4, 4), filled with `missing` where not tracked, and where they are (T, len(names))."""
    rows = [JOINT_NAMES.index(name) for name in names]
    poses = np.where(tracked_KT[rows][..., None, None], poses_KT[rows], np.float32(missing))
    return np.ascontiguousarray(poses.swapaxes(0, 1)), tracked_KT[rows].T


def _poses(file: h5py.File, name: str, length: int | None) -> np.ndarray:
    return read_array(file, f"transforms/{name}", (length, 4, 4)).astype(np.float32)


def _cameras(file: h5py.File) -> np.ndarray:
    """World from camera (T, 4, 4) float32. Raises CorruptEpisodeError naming a frame that is not rigid, or a jump."""
    poses, where = _poses(file, "camera", None), f"{file.filename}: transforms/camera"
    if len(poses) == 0:
        raise CorruptEpisodeError(f"{where} holds no frames")
    bad = ~is_rigid(poses)
    if bad.any():
        raise CorruptEpisodeError(f"{where} is no rigid transform at frame {int(np.argmax(bad))}")
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    if (steps > MAX_CAMERA_STEP).any():
        frame = int(np.argmax(steps > MAX_CAMERA_STEP)) + 1
        jump = f"{where} jumps by {steps[frame - 1]:.3g} m to frame {frame}"
        raise CorruptEpisodeError(f"{jump}; tracking was lost, or the poses aren't in metres")
    return poses


def _joints(file: h5py.File, world_from_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses (K, T, 4, 4) in the world of `JOINT_NAMES`, and where they are tracked (K, T).

    A joint is tracked where its pose is rigid, within the wearer's reach and, of a hand, near the hand's other joints.
    A hand, the body and metacarpals may be absent. CorruptEpisodeError when a hand lacks some points, or both all.
    """
    present, length = set(file["transforms"]), len(world_from_camera)
    absent = [[name for name in KEYPOINT_NAMES[hand] if name not in present] for hand in (LEFT, RIGHT)]
    for names in absent:
        if names and (len(names) < KEYPOINTS_PER_HAND or all(len(other) == KEYPOINTS_PER_HAND for other in absent)):
            raise CorruptEpisodeError(f"{file.filename}: transforms/{names[0]} is missing")
    nowhere = np.zeros((length, 4, 4), np.float32)
    poses_KT = np.stack([_poses(file, name, length) if name in present else nowhere for name in JOINT_NAMES])
    rigid_KT = is_rigid(poses_KT)
    offset = np.where(rigid_KT[..., None], poses_KT[..., :3, 3] - world_from_camera[:, :3, 3], 0.0)
    reach_KT = np.linalg.norm(offset, axis=-1)
    tracked_KT = rigid_KT & (reach_KT <= MAX_REACH)
    if not tracked_KT.any():
        nearest = f"is nearer to the camera than {reach_KT[rigid_KT].min():.3g} m" if rigid_KT.any() else "is rigid"
        raise CorruptEpisodeError(f"{file.filename}: no joint {nearest}; transforms are world-from-joint, in metres")
    for side in SIDES:
        hand = [row for row, name in enumerate(JOINT_NAMES) if name.startswith(side) and name not in BODY_KEYPOINTS]
        points, seen = poses_KT[hand, :, :3, 3], tracked_KT[hand]
        shown = np.where(seen[..., None], points, np.nan)
        shown[:, ~seen.any(axis=0)] = 0.0  # no median of nothing
        tracked_KT[hand] &= np.linalg.norm(points - np.nanmedian(shown, axis=0), axis=-1) <= MAX_HAND
    return poses_KT, tracked_KT


def _confidences(file: h5py.File, length: int) -> np.ndarray | None:
    """(T, 42) float32 between 0 and 1, 0 for NaN and for a hand that is absent; None when the file has none."""
    if "confidences" not in file:
        return None
    sure = np.zeros((length, len(KEYPOINT_NAMES)))
    for column, name in enumerate(KEYPOINT_NAMES):
        if name in file["transforms"]:
            sure[:, column] = read_array(file, f"confidences/{name}", (length,))
    return np.nan_to_num(sure, nan=0.0, posinf=0.0, neginf=0.0).clip(0.0, 1.0).astype(np.float32)


def _intrinsics(file: h5py.File, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) float64 in pixels of a video of `size` (height, width).

    A principal point near the middle of 1920 x 1080 instead of the video's says that the video was made smaller: the
    matrix is scaled likewise. Raises CorruptEpisodeError when it fits neither, or is no pinhole matrix.
    """
    matrix = read_array(file, "camera/intrinsic", (3, 3)).astype(np.float64)
    for height, width in dict.fromkeys((size, OFFICIAL_SIZE)):
        scale = (size[1] / width, size[0] / height)
        if np.abs(matrix[:2, 2] / (width, height) - 0.5).max() < 0.1 and math.isclose(*scale, rel_tol=0.02):
            matrix = np.diag([*scale, 1.0]) @ matrix
            break
    check_pinhole(matrix, size, f"{file.filename}: camera/intrinsic")
    return matrix


def _language(file: h5py.File, task: str) -> str:
    """The sentence that was acted; the task's name when the file has none. Reversible tasks have two sentences, and
    `which_llm_description` ("1" or "2") says which; older files have `description` only."""
    second = str(attribute(file, "which_llm_description")) == "2"
    names = ("llm_description2" if second else "llm_description", "llm_description", "description")
    sentences = (attribute(file, name) for name in names)
    return next((text.strip() for text in sentences if isinstance(text, str) and text.strip()), task.replace("_", " "))
