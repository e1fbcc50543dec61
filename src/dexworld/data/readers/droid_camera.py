"""The camera that a raw DROID episode is seen through: which one, where it stands, how it projects.

The raw release has poses of every camera in `trajectory.h5` (per frame) and in the metadata (first frame), as x, y, z
and extrinsic x-y-z Euler angles of the optical frame in the robot's base (DROID dataset schema). It has no intrinsics.
Both intrinsics and better poses came later, as JSON files keyed by episode id (huggingface.co/KarlP/droid); a folder
with these is `DroidOptions.annotations`.
"""

import functools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from dexworld.data.files import read_json
from dexworld.data.readers.arrays import pinhole, poses_from_euler
from dexworld.data.readers.droid_episode import MAX_POSE, CameraChoice, camera_vector
from dexworld.data.readers.hdf5 import numbers
from dexworld.data.source import CorruptEpisodeError

EXTRINSICS_FILES = ("cam2base_extrinsic_superset.json", "cam2base_extrinsics.json")  # the first counts most
INTRINSICS_FILE, LANGUAGE_FILE = "intrinsics.json", "droid_language_annotations.json"
ANNOTATION_FILES = (INTRINSICS_FILE, *EXTRINSICS_FILES, LANGUAGE_FILE)


@functools.lru_cache(maxsize=8)
def load_annotations(folder: Path | None) -> dict[str, dict[str, Any]]:
    """The later annotation files found in `folder`, by file name; read once per process. None gives none.

    Raises FileNotFoundError when the folder holds none of them, ValueError when one is damaged.
    """
    if folder is None:
        return {}
    found = {name: read_json(folder / name) for name in ANNOTATION_FILES if (folder / name).is_file()}
    if not found:
        raise FileNotFoundError(f"{folder} holds none of {', '.join(ANNOTATION_FILES)}")
    return found


@dataclass(frozen=True)
class DroidCamera:
    """A camera of one episode. role: `ext1`, `ext2` or `wrist`. serial: as in file names. video: its mp4.

    metadata: of the episode. later: what was published about the episode later, by `ANNOTATION_FILES`.
    """

    role: str
    serial: str
    video: Path
    metadata: dict[str, Any]
    later: dict[str, dict[str, Any]]

    def poses(self, file: h5py.File, rows: int) -> np.ndarray:
        """base_from_camera (rows, 4, 4) of the optical frame.

        In this order: the later calibration, `trajectory.h5` frame by frame, the metadata's pose of the first frame; of
        the wrist's camera, which moves, only the second. Raises CorruptEpisodeError when there is none, or only zeros.
        """
        key, where = f"observation/camera_extrinsics/{self.serial}_left", f"{file.filename}: camera {self.serial}"
        entries = [self.later[name].get(self.serial) for name in EXTRINSICS_FILES] if self.role != "wrist" else []
        entry = next((entry for entry in entries if entry is not None), None)
        if entry is None and key in file:
            vectors = numbers(file, key, (rows, 6), MAX_POSE)
            if not vectors.any():
                raise CorruptEpisodeError(f"{where}: {key} holds only zeros; this camera was not calibrated")
            return poses_from_euler(vectors)
        if entry is None and self.role != "wrist":
            entry = self.metadata.get(f"{self.role}_cam_extrinsics")
        if entry is None:
            raise CorruptEpisodeError(f"{where}: no {key}, and nothing else tells where this camera is")
        return np.tile(poses_from_euler(camera_vector(entry, where)), (rows, 1, 1))

    def intrinsics(self, file: h5py.File, size: tuple[int, int]) -> np.ndarray | None:
        """The matrix (3, 3) for frames of `size` (height, width); None where no file has one.

        From trajectory.h5, (3, 3) or one per row, all alike; else `{"cameraMatrix": [fx, cx, fy, cy], "width": ...,
        "height": ...}` of the later calibration, scaled.
        """
        key, where = f"observation/camera_intrinsics/{self.serial}_left", f"{file.filename}: camera {self.serial}"
        entry = self.later[INTRINSICS_FILE].get(self.serial)
        if key in file:
            shape = (3, 3) if getattr(file[key], "ndim", 3) == 2 else (None, 3, 3)
            matrices = numbers(file, key, shape, 1e5).reshape(-1, 3, 3)
            if len(matrices) == 0 or np.abs(matrices - matrices[0]).max() > 0.5:
                raise CorruptEpisodeError(f"{where}: {key} is empty or changes; one camera has one matrix")
            return matrices[0]
        if entry is None:
            return None
        try:
            if not entry["width"] or not any(entry["cameraMatrix"]):
                return None  # filled with zeros, as about 2 % are
            fx, cx, fy, cy = (float(value) for value in entry["cameraMatrix"])
            across, down = size[1] / float(entry["width"]), size[0] / float(entry["height"])
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise CorruptEpisodeError(f"{where}: {INTRINSICS_FILE} holds {entry!r} for this camera") from error
        return pinhole(fx * across, fy * down, cx * across, cy * down)


def choose_camera(
    folder: Path, metadata: dict[str, Any], choice: CameraChoice, annotations: Path | None = None
) -> DroidCamera:
    """The camera that `choice` means in this episode, found by its serial number in the episode's own folder.

    Of paths in the metadata only the file name counts: they stem from other machines. Raises CorruptEpisodeError when
    the metadata doesn't name the camera or its mp4 is missing.
    """
    roles = ("wrist", "ext1", "ext2")
    stems = {name: _stem(metadata.get(f"{name}_mp4_path")) for name in ("left", "right", *roles)}
    serials = {role: str(metadata.get(f"{role}_cam_serial") or "") or stems[role] for role in roles}
    serial, role = (stems | serials)[choice], str(choice)
    if not serial:
        raise CorruptEpisodeError(f"{folder}: no {choice}_mp4_path or serial in the metadata; choose another camera")
    if role not in roles:
        role = next((role for role, found in serials.items() if found == serial), "")
        if not role:
            raise CorruptEpisodeError(f"{folder}: {choice}_mp4_path names camera {serial}, which is none of {serials}")
    later, uuid = load_annotations(annotations), str(metadata.get("uuid"))
    entries = {name: later.get(name, {}).get(uuid, {}) for name in ANNOTATION_FILES}
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise CorruptEpisodeError(f"{name}: the entry of {uuid} is a {type(entry).__name__}, not an object")
    usual = folder / "recordings" / "MP4" / f"{serial}.mp4"
    for video in (usual, folder / "recordings" / f"{serial}.mp4"):
        if video.is_file():
            return DroidCamera(role, serial, video, metadata, entries)
    raise CorruptEpisodeError(f"{usual}: the video of camera {choice} is missing")


def _stem(path: Any) -> str:
    return PurePosixPath(path.replace("\\", "/")).stem.removesuffix("-stereo") if isinstance(path, str) else ""
