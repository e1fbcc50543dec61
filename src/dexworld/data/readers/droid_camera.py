"""Which of DROID's three cameras an episode is seen through, where that camera stands and how it projects.

The raw release has poses of every camera in `trajectory.h5` (per frame) and in the metadata (first frame), as x, y, z
and extrinsic x-y-z Euler angles of the optical frame in the robot's base (DROID dataset schema). It has no intrinsics.
Both intrinsics and better poses came later, as JSON files keyed by episode id (huggingface.co/KarlP/droid):
`intrinsics.json`, `cam2base_extrinsic_superset.json` and `cam2base_extrinsics.json`; a folder with these is
`DroidOptions.annotations`. Without it the focal length is the maker's nominal one, and is reported as an estimate.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import h5py
import numpy as np
import torch

from dexworld.data.files import read_json
from dexworld.data.readers.robot_arrays import numbers, rows_of
from dexworld.data.source import CorruptEpisodeError
from dexworld.geometry import rotation_from_euler_xyz

CameraChoice = Literal["left", "right", "ext1", "ext2", "wrist"]
CAMERAS = ("left", "right", "ext1", "ext2", "wrist")
NOMINAL_WIDTH = 1280  # pixels
# Focal lengths in pixels at 1280 x 720 (4 micrometre pixels): the outer cameras are ZED 2 with 2.12 mm lenses, the one
# on the wrist a ZED Mini with 2.8 mm. Source: Stereolabs, "camera focal length and field of view".
NOMINAL_FOCAL = {"ext1": 530.0, "ext2": 530.0, "wrist": 700.0}
MAX_DISTANCE = 10.0  # metres from the robot's base
MAX_ANGLE = 6.5  # radians
ANNOTATION_FILES = (
    "intrinsics.json",
    "cam2base_extrinsic_superset.json",
    "cam2base_extrinsics.json",
    "droid_language_annotations.json",
)


@dataclass(frozen=True)
class DroidCamera:
    """role: `ext1`, `ext2` or `wrist`. serial: as in file names. video: its mp4."""

    role: str
    serial: str
    video: Path


def choose_camera(folder: Path, metadata: dict[str, Any], choice: CameraChoice) -> DroidCamera:
    """The camera that `choice` means in this episode, found by its serial number in the episode's own folder.

    Paths in the metadata are relative to the recording lab's folder, or stem from the machine they were written on:
    only the file name counts. Raises CorruptEpisodeError when the metadata doesn't name the camera or its mp4 is
    missing.
    """
    serials = {role: _serial(metadata, role) for role in ("wrist", "ext1", "ext2")}
    if choice in ("left", "right"):
        serial = _stem(metadata.get(f"{choice}_mp4_path"))
        if not serial:
            raise CorruptEpisodeError(
                f"{folder}: the metadata has no {choice}_mp4_path; choose the camera ext1, ext2 or wrist instead"
            )
        roles = [role for role, found in serials.items() if found == serial]
        if not roles:
            raise CorruptEpisodeError(f"{folder}: {choice}_mp4_path names camera {serial}, which is none of {serials}")
        role = roles[0]
    else:
        role, serial = choice, serials[choice]
        if not serial:
            raise CorruptEpisodeError(f"{folder}: the metadata has neither {choice}_cam_serial nor {choice}_mp4_path")
    for place in (folder / "recordings" / "MP4", folder / "recordings"):
        video = place / f"{serial}.mp4"
        if video.is_file():
            return DroidCamera(role, serial, video)
    raise CorruptEpisodeError(
        f"{folder / 'recordings' / 'MP4' / f'{serial}.mp4'}: the video of camera {choice} is missing"
    )


def _serial(metadata: dict[str, Any], role: str) -> str:
    return str(metadata.get(f"{role}_cam_serial") or "") or _stem(metadata.get(f"{role}_mp4_path"))


def _stem(path: Any) -> str:
    return PurePosixPath(path.replace("\\", "/")).stem.removesuffix("-stereo") if isinstance(path, str) else ""


def poses_from_euler(vectors: np.ndarray) -> np.ndarray:
    """Transforms (..., 4, 4) from (..., 6): x, y, z in metres and extrinsic x-y-z Euler angles in radians."""
    vectors = np.asarray(vectors, dtype=np.float64)
    poses = np.zeros((*vectors.shape[:-1], 4, 4))
    poses[..., :3, :3] = rotation_from_euler_xyz(torch.from_numpy(vectors[..., 3:].copy())).numpy()
    poses[..., :3, 3] = vectors[..., :3]
    poses[..., 3, 3] = 1.0
    return poses


@functools.lru_cache(maxsize=8)
def load_annotations(folder: Path) -> dict[str, dict[str, Any]]:
    """The later annotation files found in `folder`, by file name; read once per process.

    Raises FileNotFoundError when the folder holds none of them, ValueError when one is damaged.
    """
    found = {name: read_json(folder / name) for name in ANNOTATION_FILES if (folder / name).is_file()}
    if not found:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(ANNOTATION_FILES)}")
    return found


def later_entry(later: dict[str, dict[str, Any]], name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """What the later annotation file `name` says about this episode, by its uuid; empty when it says nothing."""
    entry = later.get(name, {}).get(str(metadata.get("uuid")), {})
    if not isinstance(entry, dict):
        raise CorruptEpisodeError(
            f"{name}: the entry of {metadata.get('uuid')} is a {type(entry).__name__}, not an object"
        )
    return entry


def camera_poses(
    file: h5py.File,
    metadata: dict[str, Any],
    camera: DroidCamera,
    rows: int,
    later: dict[str, dict[str, Any]],
) -> tuple[np.ndarray, str]:
    """base_from_camera (rows, 4, 4) of the optical frame, and where it comes from.

    In this order: the later calibration (outer cameras only), `trajectory.h5` frame by frame, the metadata (outer
    cameras only: its pose is that of the first frame, and the wrist moves). Raises CorruptEpisodeError when there is no
    pose, or only zeros, which is no place for a camera.
    """
    where = f"{file.filename}: camera {camera.serial} ({camera.role})"
    if camera.role != "wrist":
        for name in ("cam2base_extrinsic_superset.json", "cam2base_extrinsics.json"):
            entry = later_entry(later, name, metadata)
            if camera.serial in entry:
                pose = pose_vector(entry[camera.serial], f"{where}: {name}")
                return np.tile(poses_from_euler(pose), (rows, 1, 1)), name
    name = f"observation/camera_extrinsics/{camera.serial}_left"
    if name in file:
        vectors = numbers(file, name, (rows, 6), max(MAX_DISTANCE, MAX_ANGLE))
        if not vectors.any():
            raise CorruptEpisodeError(f"{where}: {name} holds only zeros; this camera was not calibrated")
        return poses_from_euler(vectors), "trajectory.h5"
    first = metadata.get(f"{camera.role}_cam_extrinsics")
    if camera.role == "wrist" or first is None:
        raise CorruptEpisodeError(f"{where}: {name} is missing, and nothing else tells where this camera is")
    return np.tile(poses_from_euler(pose_vector(first, f"{where}: metadata")), (rows, 1, 1)), "metadata"


def pose_vector(entry: Any, where: str) -> np.ndarray:
    """A camera's pose (6,), metres and radians, once it may be one; else CorruptEpisodeError starting with `where`."""
    try:
        vector = np.asarray(entry, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CorruptEpisodeError(f"{where}: the camera's pose is {entry!r}, expected six numbers") from error
    if vector.shape != (6,) or not np.isfinite(vector).all() or np.abs(vector).max() > max(MAX_DISTANCE, MAX_ANGLE):
        raise CorruptEpisodeError(f"{where}: the camera's pose is {entry!r}, expected six numbers (metres, radians)")
    if not vector.any():
        raise CorruptEpisodeError(f"{where}: the camera's pose is all zeros; this camera was not calibrated")
    return vector


def camera_intrinsics(
    file: h5py.File,
    metadata: dict[str, Any],
    camera: DroidCamera,
    size: tuple[int, int],
    given: tuple[float, float, float, float] | None,
    later: dict[str, dict[str, Any]],
) -> tuple[np.ndarray, str]:
    """The pinhole matrix (3, 3) for frames of `size` (height, width), and where it comes from.

    In this order: `given` (fx, fy, cx, cy for this size); `observation/camera_intrinsics/SERIAL_left` of trajectory.h5,
    (3, 3) or one (3, 3) per row, all alike, for this size; the later calibration; the nominal focal length of the
    camera's make with the centre of the image, named `estimate`. Raises CorruptEpisodeError for a matrix that no camera
    of this frame size has.
    """
    where = f"{file.filename}: camera {camera.serial} ({camera.role})"
    name = f"observation/camera_intrinsics/{camera.serial}_left"
    entry = _calibrated(later_entry(later, "intrinsics.json", metadata), camera)
    if given is not None:
        fx, fy, cx, cy = given
        matrix, source = pinhole(fx, fy, cx, cy), "options"
    elif name in file:
        single = rows_of(file, name) == 3 and file[name].ndim == 2
        matrices = numbers(file, name, (3, 3) if single else (None, 3, 3), 1e5).reshape(-1, 3, 3)
        if len(matrices) == 0 or np.abs(matrices - matrices[0]).max() > 0.5:
            raise CorruptEpisodeError(f"{where}: {name} is empty or changes over time; one camera has one matrix")
        matrix, source = matrices[0], "trajectory.h5"
    elif entry is not None:
        matrix, source = _scaled(entry, size, where), "intrinsics.json"
    else:
        matrix, source = nominal_intrinsics(NOMINAL_FOCAL[camera.role], size), "estimate"
    check_intrinsics(matrix, size, f"{where}: intrinsics from {source}")
    return matrix, source


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """The (3, 3) pinhole matrix of focal lengths and principal point in pixels."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def nominal_intrinsics(focal_at_1280: float, size: tuple[int, int]) -> np.ndarray:
    """The matrix of a camera of nominal focal length (pixels at a width of 1280) for frames of (height, width)."""
    focal = focal_at_1280 * size[1] / NOMINAL_WIDTH
    return pinhole(focal, focal, size[1] / 2, size[0] / 2)


def check_intrinsics(matrix: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Raise CorruptEpisodeError unless (3, 3) `matrix` may belong to frames of (height, width) pixels.

    Asked for: a pinhole without skew, a field of view of 5 to 170 degrees, square pixels to 10 %, and a principal point
    in the middle half of the frame; a matrix for a very different frame size fails the last.
    """
    height, width = size
    fx, fy, (cx, cy) = matrix[0, 0], matrix[1, 1], matrix[:2, 2]
    rest = matrix - pinhole(fx, fy, cx, cy)
    fine = (
        np.isfinite(matrix).all()
        and np.abs(rest).max() < 1e-3 * width
        and math.tan(math.radians(2.5)) * 2 * fx < width < math.tan(math.radians(85)) * 2 * fx
        and 0.9 * fy < fx < 1.1 * fy
        and width / 4 < cx < 3 * width / 4
        and height / 4 < cy < 3 * height / 4
    )
    if not fine:
        raise CorruptEpisodeError(f"{where}: {matrix.tolist()} is no pinhole matrix for frames of {height} x {width}")


def _calibrated(entries: dict[str, Any], camera: DroidCamera) -> Any:
    """This camera's entry of intrinsics.json; None when it is missing or filled with zeros, as about 2 % are."""
    entry = entries.get(camera.serial)
    empty = isinstance(entry, dict) and not (entry.get("width") and any(entry.get("cameraMatrix") or ()))
    return None if empty else entry


def _scaled(entry: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """An entry of intrinsics.json, `{"cameraMatrix": [fx, cx, fy, cy], "width": ..., "height": ...}`, for `size`."""
    try:
        fx, cx, fy, cy = (float(value) for value in entry["cameraMatrix"])
        across, down = size[1] / float(entry["width"]), size[0] / float(entry["height"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptEpisodeError(f"{where}: intrinsics.json holds {entry!r} for this camera") from error
    return pinhole(fx * across, fy * down, cx * across, cy * down)
