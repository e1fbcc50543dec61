"""Writes tiny clips in exactly EgoDex's layout, from what its dataset page says and not from how the reader reads.

A clip shows two white blobs where the left wrist and the right little finger's tip are, so that a test can find in the
decoded pixels what the poses say.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from droid_fixtures import turned
from video_fixtures import write_mp4

SIDES = ("left", "right")
HAND = [
    "Hand",
    *("ThumbKnuckle", "ThumbIntermediateBase", "ThumbIntermediateTip", "ThumbTip"),
    *(
        f"{finger}Finger{part}"
        for finger in ("Index", "Middle", "Ring", "Little")
        for part in ("Metacarpal", "Knuckle", "IntermediateBase", "IntermediateTip", "Tip")
    ),
]
ARM = ["Shoulder", "Arm", "Forearm"]
TRUNK = ["hip", *(f"spine{number}" for number in range(1, 8)), *(f"neck{number}" for number in range(1, 5))]
JOINTS = [*(f"{side}{name}" for side in SIDES for name in HAND + ARM), *TRUNK]  # 68
MARKED = ("leftHand", "rightLittleFingerTip")


@dataclass(frozen=True)
class Clip:
    """The truth of one clip. poses: name -> (T, 4, 4) in the world, "camera" and the 68 joints."""

    poses: dict[str, np.ndarray]
    confidences: dict[str, np.ndarray]
    intrinsic: np.ndarray
    size: tuple[int, int]


def rotations(generator: np.random.Generator, count: int, angle: float) -> np.ndarray:
    """(count, 3, 3) rotations that turn smoothly by about `angle` radians around one random axis."""
    axis, start = generator.normal(size=3), generator.uniform(0, 2 * np.pi)
    return np.stack([turned(axis, start + angle * step) for step in np.linspace(0, 1, count)])


def make_clip(seed: int, length: int = 12, size: tuple[int, int] = (180, 320)) -> Clip:
    """A moving head in an arbitrary world, with hands 0.3 to 0.6 m in front of it and a body behind."""
    generator = np.random.default_rng(seed)
    scale = size[1] / 1920
    intrinsic = np.array([[736.6339 * scale, 0, 960 * scale], [0, 736.6339 * scale, 540 * scale], [0, 0, 1]])
    camera = np.tile(np.eye(4), (length, 1, 1))
    camera[:, :3, :3] = rotations(generator, length, 0.2)
    camera[:, :3, 3] = generator.normal(size=3) + np.linspace(0, 0.1, length)[:, None]
    poses = {"camera": camera}
    for number, name in enumerate(JOINTS):
        in_camera = np.tile(np.eye(4), (length, 1, 1))
        in_camera[:, :3, :3] = rotations(generator, length, 0.5)
        side = -1 if name.startswith("left") else 1
        depth = 0.3 + 0.004 * number if any(name.endswith(part) for part in HAND) else -0.2
        in_camera[:, :3, 3] = generator.normal(size=3) * 0.03 + (side * 0.15, 0.02, depth)
        in_camera[:, 0, 3] += np.linspace(0, 0.03, length)
        poses[name] = camera @ in_camera
    confidences = {name: generator.uniform(0.05, 1.0, size=length) for name in JOINTS}
    return Clip(
        poses={name: pose.astype(np.float32) for name, pose in poses.items()},
        confidences={name: value.astype(np.float32) for name, value in confidences.items()},
        intrinsic=intrinsic.astype(np.float32),
        size=size,
    )


def pixels_of(clip: Clip, name: str) -> np.ndarray:
    """(T, 2) pixels of a joint, by the pinhole model written out; the first pixel's centre is (0.5, 0.5)."""
    in_camera = np.linalg.inv(clip.poses["camera"].astype(np.float64)) @ clip.poses[name].astype(np.float64)
    x, y, z = in_camera[:, :3, 3].T
    matrix = clip.intrinsic.astype(np.float64)
    return np.stack([matrix[0, 0] * x / z + matrix[0, 2], matrix[1, 1] * y / z + matrix[1, 2]], axis=1)


def draw(clip: Clip) -> np.ndarray:
    """(T, H, W, 3) uint8: grey that brightens with time, and a white blob at each marked joint."""
    height, width = clip.size
    length = len(clip.poses["camera"])
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    frames = np.repeat((20.0 + 60.0 * np.arange(length) / length)[:, None, None], height, axis=1).repeat(width, axis=2)
    for name in MARKED:
        for frame, (u, v) in enumerate(pixels_of(clip, name)):
            frames[frame] += 150 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 2.5**2))
    return np.repeat(frames.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=3)


def write_hdf5(path: Path, clip: Clip, confidences: bool = True, **attributes: object) -> None:
    """The poses of a clip. attributes: replace or, as None, remove the usual ones."""
    texts: dict[str, object] = {
        "task": "add_remove_lid",
        "llm_type": "reversible",
        "llm_description": "Put the lid on the pot.",
        "llm_description2": "Take the lid off the pot.",
        "which_llm_description": "2",
        "llm_verbs": ["put", "take"],
        "llm_objects": ["lid", "pot"],
        "environment": "kitchen",
        "object": "steel pot",
        "session_name": "session 7",
    }
    with h5py.File(path, "w") as file:
        file["camera/intrinsic"] = clip.intrinsic
        for name, pose in clip.poses.items():
            file[f"transforms/{name}"] = pose
        if confidences:
            for name, value in clip.confidences.items():
                file[f"confidences/{name}"] = value
        for name, value in (texts | attributes).items():
            if value is not None:
                file.attrs[name] = value


def write_clip(folder: Path, number: int | str, clip: Clip, confidences: bool = True, **attributes: object) -> None:
    """`folder`/N.mp4 and `folder`/N.hdf5; folder is SPLIT/TASK of a dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    write_mp4(folder / f"{number}.mp4", draw(clip))
    write_hdf5(folder / f"{number}.hdf5", clip, confidences, **attributes)
