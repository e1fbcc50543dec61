"""Detected hands in the files that users of hand trackers save: HaMeR, WiLoR, HaWoR, MediaPipe, MANO parameters.

Read without pickles. Files are recognised by the trackers' own names, which were read in public: HaMeR's and WiLoR's
`demo.py`, WiLoR-mini's pipeline, HaWoR's `hawor_video.py` and `hawor_slam.py`, MediaPipe's HandLandmarkerResult.
docs/video_data.md shows the layouts.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.files import read_arrays
from dexworld.data.rigid_poses import poses_of, rotations_of

Hand = dict[str, Any]  # one detected hand, under its tracker's names
FOCAL = "scaled_focal_length"
_RESULTS = {  # MediaPipe's names in Python, JavaScript and its older interface: sides, landmarks, world landmarks
    "hand_world_landmarks": ("handedness", "hand_landmarks"),
    "worldLandmarks": ("handedness", "landmarks"),
    "multi_hand_world_landmarks": ("multi_handedness", "multi_hand_landmarks"),
}
_HAWOR = {
    "global_orient": "init_root_orient",
    "hand_pose": "init_hand_pose",
    "betas": "init_betas",
    "transl": "init_trans",
}


def hands_in(path: Path, frames: int) -> Iterable[tuple[int, Hand]]:
    """(frame, hand) of every detection in a file, or in a folder of files."""
    if not path.exists():
        raise ValueError("isn't there; results are named as their video (.json, .npz or a folder)")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".npz"))
        numbers = [int(digits[-1]) for file in files if (digits := re.findall(r"\d+", file.stem))]
        if not files or len(set(numbers)) < len(files):
            raise ValueError("a folder holds one .json or .npz for each frame, whose name ends in the frame's number")
        for file, number in zip(files, numbers, strict=True):
            content = _json(file) if file.suffix == ".json" else dict(read_arrays(file)[0])
            yield from ((number, hand) for hand in _hands(content))
    elif path.suffix == ".json":
        content = _json(path)
        if isinstance(content, dict) and all(key.isdigit() for key in content):
            rows = [(int(key), row) for key, row in content.items()]
        elif isinstance(content, list):
            if len(content) != frames:
                raise ValueError(
                    f"lists {len(content)} frames, the video has {frames}: track every frame of this video"
                )
            rows = list(enumerate(content))
        else:
            raise ValueError("must be a list with one entry for each frame, or an object whose keys are frame numbers")
        yield from ((number, hand) for number, row in rows for hand in _hands(row))
    elif path.suffix == ".npz":
        arrays, _ = read_arrays(path)
        rows_of = np.ravel(arrays.pop("frame", np.zeros(0)))
        hands = _hands(arrays)
        if len(rows_of) != len(hands) or not np.issubdtype(rows_of.dtype, np.integer):
            wanted = f"the frame of each of {len(hands)} hands as integers"
            raise ValueError(f"`frame` must hold {wanted}, not {rows_of.shape} {rows_of.dtype}")
        yield from zip(rows_of.tolist(), hands, strict=True)
    else:
        raise ValueError("can't be read: save the results as .json or .npz; pickles (.pkl, .pth, .pt) aren't opened")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path.name} is not readable JSON ({error})") from error


def _hands(content: Any) -> list[Hand]:
    """The hands of one frame, or of one file's arrays."""
    if content is None:
        return []
    if isinstance(content, list):
        return [hand for each in content for hand in _hands(each)]
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__} where the hands of a frame should be")
    content = {**content, **content.get("wilor_preds", {})}
    for world, (sides, image) in _RESULTS.items():
        if world in content:
            rows = [content.get(name) or content.get(f"{name}es") or [] for name in (sides, image, world)]
            if len({len(row) for row in rows}) > 1:
                raise ValueError(f"{sides}, {image} and {world} are of {[len(row) for row in rows]} hands")
            return [
                {"side": _category(side), "landmarks": _xyz(points), "world_landmarks": _xyz(metric)}
                for side, points, metric in zip(*rows, strict=True)
            ]
    right = np.ravel(content.get("is_right", content.get("side", [])))
    if content and not len(right):
        raise ValueError("names no side of a hand; give is_right (0 or 1) for each")
    if len(right) < 2:
        return [content] if content else []
    split = {name: np.asarray(value) for name, value in content.items()}
    return [
        {name: value[row] if value.shape[:1] == right.shape else value for name, value in split.items()}
        for row in range(len(right))
    ]


def _category(side: Any) -> str:
    """`left` or `right` of MediaPipe's handedness of one hand, in whatever it was wrapped."""
    while isinstance(side, (list, dict)):
        if isinstance(side, list):
            side = side[0] if side else ""
        else:
            names = ("category_name", "categoryName", "label", "classification")
            side = next((side[name] for name in names if name in side), "")
    return str(side).lower()


def _xyz(points: Any) -> np.ndarray:
    """(21, 3) of MediaPipe's landmarks of one hand: objects with x, y, z, or rows of numbers."""
    points = points["landmark"] if isinstance(points, dict) and "landmark" in points else points
    return np.array([[point[axis] for axis in "xyz"] if isinstance(point, dict) else point for point in points], float)


def hawor_hands(folder: Path) -> list[tuple[int, Hand]]:
    """HaWoR's hands in the camera's frame: `cam_space/SIDE/FIRST_LAST.json`, side 0 is left."""
    focal_file = folder / "est_focal.txt"
    focal = {FOCAL: float(focal_file.read_text())} if focal_file.exists() else {}
    found: list[tuple[int, Hand]] = []
    for file in sorted(folder.glob("cam_space/[01]/*_*.json")):
        content, (first, last) = _json(file), map(int, file.stem.split("_"))
        rows = {ours: np.array(content[theirs])[0] for ours, theirs in _HAWOR.items() if theirs in content}
        if len(rows) < len(_HAWOR) or {len(row) for row in rows.values()} != {last - first + 1}:
            raise ValueError(f"{file.name} must hold {', '.join(_HAWOR.values())} of {last - first + 1} frames")
        for row in range(last - first + 1):
            hand = {name: values[row] for name, values in rows.items()}
            found.append((first + row, {"is_right": int(file.parent.name), **focal, **hand}))
    return found


def hawor_camera(folder: Path, frames: int) -> np.ndarray | None:
    """world_from_camera (F, 4, 4) of HaWoR's SLAM: position, then quaternion x, y, z, w; None when it isn't there."""
    for file in sorted(folder.glob("SLAM/hawor_slam_w_scale_*.npz"))[:1]:
        arrays, _ = read_arrays(file)
        path = np.asarray(arrays["traj"], float)
        if path.shape != (frames, 7):
            cause = "HaWoR takes 30 frames a second; give it a video of 30 frames a second"
            raise ValueError(f"{file.name} holds a path {path.shape}, the video has {frames} frames: {cause}")
        return poses_of(rotations_of(path[:, 3:]), path[:, :3] * float(arrays["scale"]))
    return None
