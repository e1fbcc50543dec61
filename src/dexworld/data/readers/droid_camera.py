"""What DROID's cameras and gripper say: which camera an episode is seen through, where it stands, how it projects.

The raw release has poses of every camera in `trajectory.h5` (per frame) and in the metadata (first frame), as x, y, z
and extrinsic x-y-z Euler angles of the optical frame in the robot's base (DROID dataset schema). It has no intrinsics.
Both intrinsics and better poses came later, as JSON files keyed by episode id (huggingface.co/KarlP/droid); a folder
with these is `DroidOptions.annotations`. Without it the focal length is the maker's nominal one, called an estimate.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import h5py
import numpy as np

from dexworld.data.files import read_json
from dexworld.data.readers.arrays import check_numbers, pinhole, poses_from_euler
from dexworld.data.readers.hdf5 import numbers, rows_of
from dexworld.data.source import CorruptEpisodeError

CameraChoice = Literal["left", "right", "ext1", "ext2", "wrist"]
CAMERAS: tuple[str, ...] = get_args(CameraChoice)
# Focal lengths in pixels at 1280 x 720 (4 micrometre pixels): the outer cameras are ZED 2 with 2.12 mm lenses, the one
# on the wrist a ZED Mini with 2.8 mm. Source: Stereolabs, "camera focal length and field of view".
NOMINAL_FOCAL, NOMINAL_WIDTH = {"ext1": 530.0, "ext2": 530.0, "wrist": 700.0}, 1280
MAX_DISTANCE = 10.0  # metres from the robot's base to a camera
MAX_REACH = 2.0  # metres from the base to the gripper; the arm reaches 0.86
MAX_ANGLE = 6.5  # radians
SLACK = 0.1  # how far a gripper's position may lie outside 0 to 1
EXTRINSICS_FILES = ("cam2base_extrinsic_superset.json", "cam2base_extrinsics.json")  # the first counts most
INTRINSICS_FILE, LANGUAGE_FILE = "intrinsics.json", "droid_language_annotations.json"
ANNOTATION_FILES = (INTRINSICS_FILE, *EXTRINSICS_FILES, LANGUAGE_FILE)


@dataclass(frozen=True)
class DroidCamera:
    """role: `ext1`, `ext2` or `wrist`. serial: as in file names. video: its mp4."""

    role: str
    serial: str
    video: Path


@functools.lru_cache(maxsize=8)
def load_annotations(folder: Path) -> dict[str, dict[str, Any]]:
    """The later annotation files found in `folder`, by file name; read once per process.

    Raises FileNotFoundError when the folder holds none of them, ValueError when one is damaged.
    """
    found = {name: read_json(folder / name) for name in ANNOTATION_FILES if (folder / name).is_file()}
    if not found:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(ANNOTATION_FILES)}")
    return found


def choose_camera(folder: Path, metadata: dict[str, Any], choice: CameraChoice) -> DroidCamera:
    """The camera that `choice` means in this episode, found by its serial number in the episode's own folder.

    Of paths in the metadata only the file name counts: they stem from other machines. Raises CorruptEpisodeError when
    the metadata doesn't name the camera or its mp4 is missing.
    """
    stems = {name: _stem(metadata.get(f"{name}_mp4_path")) for name in CAMERAS}
    serials = {role: str(metadata.get(f"{role}_cam_serial") or "") or stems[role] for role in ("wrist", "ext1", "ext2")}
    is_side = choice in ("left", "right")
    serial, role = (stems if is_side else serials)[choice], str(choice)
    if not serial:
        raise CorruptEpisodeError(f"{folder}: no {choice}_mp4_path or serial in the metadata; choose another camera")
    if is_side:
        role = next((role for role, found in serials.items() if found == serial), "")
        if not role:
            raise CorruptEpisodeError(f"{folder}: {choice}_mp4_path names camera {serial}, which is none of {serials}")
    usual = folder / "recordings" / "MP4" / f"{serial}.mp4"
    for video in (usual, folder / "recordings" / f"{serial}.mp4"):
        if video.is_file():
            return DroidCamera(role, serial, video)
    raise CorruptEpisodeError(f"{usual}: the video of camera {choice} is missing")


def _stem(path: Any) -> str:
    return PurePosixPath(path.replace("\\", "/")).stem.removesuffix("-stereo") if isinstance(path, str) else ""


@dataclass(frozen=True)
class Recording:
    """An open episode of the raw release. later: the annotation files that were published later, by name."""

    file: h5py.File
    metadata: dict[str, Any]
    camera: DroidCamera
    later: dict[str, dict[str, Any]]

    @property
    def _where(self) -> str:
        return f"{self.file.filename}: camera {self.camera.serial} ({self.camera.role})"

    def annotation(self, name: str) -> dict[str, Any]:
        """What the later annotation file `name` says about this episode, by its uuid; empty when it says nothing."""
        uuid = self.metadata.get("uuid")
        entry = self.later.get(name, {}).get(str(uuid), {})
        if not isinstance(entry, dict):
            raise CorruptEpisodeError(f"{name}: the entry of {uuid} is a {type(entry).__name__}, not an object")
        return entry

    def language(self) -> list[str]:
        """The instructions that were published later."""
        entry = self.annotation(LANGUAGE_FILE)
        return [text for text in (entry.get(f"language_instruction{number}") for number in (1, 2, 3)) if text]

    def camera_poses(self, rows: int) -> tuple[np.ndarray, str]:
        """base_from_camera (rows, 4, 4) of the optical frame, and where it comes from.

        In this order: the later calibration, `trajectory.h5` frame by frame, the metadata's pose of the first frame; of
        the wrist's camera, which moves, only the second. Raises CorruptEpisodeError when there is none, or only zeros.
        """
        camera, source, entry = self.camera, "metadata", None
        for name in EXTRINSICS_FILES[::-1] if camera.role != "wrist" else ():
            found = self.annotation(name)
            if camera.serial in found:
                source, entry = name, found[camera.serial]
        key = f"observation/camera_extrinsics/{camera.serial}_left"
        if source == "metadata" and key in self.file:
            vectors = numbers(self.file, key, (rows, 6), max(MAX_DISTANCE, MAX_ANGLE))
            if not vectors.any():
                raise CorruptEpisodeError(f"{self._where}: {key} holds only zeros; this camera was not calibrated")
            return poses_from_euler(vectors), "trajectory.h5"
        if source == "metadata":
            entry = self.metadata.get(f"{camera.role}_cam_extrinsics")
            if camera.role == "wrist" or entry is None:
                raise CorruptEpisodeError(f"{self._where}: no {key}, and nothing else tells where this camera is")
        return np.tile(poses_from_euler(pose_vector(entry, f"{self._where}: {source}")), (rows, 1, 1)), source

    def intrinsics(
        self, size: tuple[int, int], given: tuple[float, float, float, float] | None, estimate: bool
    ) -> tuple[np.ndarray, str]:
        """The pinhole matrix (3, 3) for frames of `size` (height, width), and where it comes from.

        In this order: `given` (fx, fy, cx, cy); trajectory.h5, (3, 3) or one per row, all alike; the later calibration;
        if `estimate`, the nominal one. Raises CorruptEpisodeError without any, and for one that can't be of this size.
        """
        key = f"observation/camera_intrinsics/{self.camera.serial}_left"
        entry = self.annotation(INTRINSICS_FILE).get(self.camera.serial)
        if isinstance(entry, dict) and not (entry.get("width") and any(entry.get("cameraMatrix") or ())):
            entry = None  # filled with zeros, as about 2 % are
        if given is not None:
            matrix, source = pinhole(*given), "options"
        elif key in self.file:
            single = rows_of(self.file, key) == 3 and self.file[key].ndim == 2
            matrices = numbers(self.file, key, (3, 3) if single else (None, 3, 3), 1e5).reshape(-1, 3, 3)
            if len(matrices) == 0 or np.abs(matrices - matrices[0]).max() > 0.5:
                raise CorruptEpisodeError(f"{self._where}: {key} is empty or changes; one camera has one matrix")
            matrix, source = matrices[0], "trajectory.h5"
        elif entry is not None:
            matrix, source = _scaled(entry, size, self._where), INTRINSICS_FILE
        elif estimate:
            matrix, source = nominal_intrinsics(self.camera.role, size), "estimate"
        else:
            raise CorruptEpisodeError(
                f"{self.file.filename}: no intrinsics of camera {self.camera.serial}; give `intrinsics` or "
                "`annotations`, or allow `estimate_intrinsics`"
            )
        check_intrinsics(matrix, size, f"{self._where}: intrinsics from {source}")
        return matrix, source


def _scaled(entry: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """An entry of intrinsics.json, `{"cameraMatrix": [fx, cx, fy, cy], "width": ..., "height": ...}`, for `size`."""
    try:
        fx, cx, fy, cy = (float(value) for value in entry["cameraMatrix"])
        across, down = size[1] / float(entry["width"]), size[0] / float(entry["height"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptEpisodeError(f"{where}: intrinsics.json holds {entry!r} for this camera") from error
    return pinhole(fx * across, fy * down, cx * across, cy * down)


def nominal_intrinsics(role: str, size: tuple[int, int]) -> np.ndarray:
    """The matrix of a camera of its make's nominal focal length for frames of (height, width)."""
    focal = NOMINAL_FOCAL[role] * size[1] / NOMINAL_WIDTH
    return pinhole(focal, focal, size[1] / 2, size[0] / 2)


def check_intrinsics(matrix: np.ndarray, size: tuple[int, int], where: str) -> None:
    """Raise CorruptEpisodeError unless (3, 3) `matrix` may belong to frames of (height, width) pixels.

    Asked for: no skew, a field of view of 5 to 170 degrees, pixels square to 10 %, a centred principal point.
    """
    height, width = size
    fx, fy, (cx, cy) = matrix[0, 0], matrix[1, 1], matrix[:2, 2]
    if not (
        np.isfinite(matrix).all()
        and np.abs(matrix - pinhole(fx, fy, cx, cy)).max() < 1e-3 * width
        and math.tan(math.radians(2.5)) * 2 * fx < width < math.tan(math.radians(85)) * 2 * fx
        and 0.9 * fy < fx < 1.1 * fy
        and width / 4 < cx < 3 * width / 4
        and height / 4 < cy < 3 * height / 4
    ):
        raise CorruptEpisodeError(f"{where}: {matrix.tolist()} is no pinhole matrix for frames of {height} x {width}")


def pose_vector(entry: Any, where: str) -> np.ndarray:
    """A camera's pose (6,), metres and radians, once it may be one; else CorruptEpisodeError starting with `where`."""
    try:
        vector = np.asarray(entry, dtype=np.float64)
    except (TypeError, ValueError):
        vector = np.zeros(0)
    if vector.shape != (6,) or not np.isfinite(vector).all() or np.abs(vector).max() > max(MAX_DISTANCE, MAX_ANGLE):
        raise CorruptEpisodeError(f"{where}: the camera's pose is {entry!r}, expected six numbers (metres, radians)")
    if not vector.any():
        raise CorruptEpisodeError(f"{where}: the camera's pose is all zeros; this camera was not calibrated")
    return vector


def gripper_poses(cartesian_position: np.ndarray, where: str) -> np.ndarray:
    """base_from_gripper (T, 4, 4) of (T, 6) positions and Euler angles, see `poses_from_euler`.

    Raises CorruptEpisodeError starting with `where` on NaN, and on positions that the arm can't reach.
    """
    check_numbers(cartesian_position, MAX_ANGLE, where)
    far = np.linalg.norm(cartesian_position[:, :3], axis=1) > MAX_REACH
    if far.any():
        raise CorruptEpisodeError(
            f"{where} is {cartesian_position[far][0, :3].tolist()} m from the base at row {int(np.argmax(far))}, "
            "further than the arm reaches"
        )
    return poses_from_euler(cartesian_position)


def gripper_opening(gripper_position: np.ndarray, where: str) -> np.ndarray:
    """Opening (T,) from 0 (closed) to 1 (open) of DROID's (T,) `gripper_position`, which is 0 open and 1 closed.

    Raises CorruptEpisodeError starting with `where` on NaN and on values far outside that.
    """
    check_numbers(gripper_position, 1.0 + SLACK, where)
    if gripper_position.min() < -SLACK:
        raise CorruptEpisodeError(f"{where} goes down to {gripper_position.min():g}; it runs from 0 to 1")
    return np.clip(1.0 - gripper_position, 0.0, 1.0)
