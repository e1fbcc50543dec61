"""Hands from outside: a neutral .npz of meshes or keypoints per frame, as HaMeR, MANO or a keypoint tracker give them.

    vertices      (F, 2, V, 3)  metres in the camera frame, left then right; or (F, V, 3) for the one hand `side`
    faces         (M, 3) or (2, M, 3) integers; needed with vertices
    keypoints     (F, 2, 21, 3) metres in the camera frame, left then right, order of `dexworld.hands` (OpenPose's)
    valid         (F, 2) bool, or (F, 2, 21) for keypoints; (F,) for the one hand
    side          "left" or "right"; only with one hand
    intrinsics    (3, 3) pixels of the image that the hands were found in
    image_size    (2,) height and width of that image, when it isn't the source video's
    world_from_camera  (F, 4, 4), when the camera moves

Vertices or keypoints are needed, and may both be given: then the meshes are drawn and the keypoints are stored as hand
motion. The camera frame is x right, y down, z forward. HaMeR predicts right hands: mirror the x of left ones before.
"""

import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dexworld.hands import KEYPOINTS_PER_HAND, NUM_KEYPOINTS
from dexworld.video.clips.clip import HandTrack
from dexworld.video.clips.hand_mesh import MeshSequence, hand_mesh
from dexworld.video.clips.hand_video import render_hands

HAMER_FOCAL = 5000.0 / 256.0  # of the image's longer side: HaMeR's full-frame camera
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
_KEYS = {"vertices", "faces", "keypoints", "valid", "side", "intrinsics", "image_size", "world_from_camera"}


class HandFileError(ValueError):
    """A hand file that can't be used; the message names the file, the key, its shape and what is expected."""


@dataclass(frozen=True)
class HandFile:
    """Hands of F frames, left then right. See the module for shapes; arrays that were not given are None.

    valid: (F, 2, 21) bool for keypoints, hand_valid: (F, 2) bool for meshes. faces: (2, M, 3).
    """

    vertices: np.ndarray | None
    faces: np.ndarray | None
    keypoints: np.ndarray | None
    valid: np.ndarray
    hand_valid: np.ndarray
    intrinsics: np.ndarray
    image_size: tuple[int, int] | None
    world_from_camera: np.ndarray | None

    def __len__(self) -> int:
        return len(self.hand_valid)

    def at(self, frames: np.ndarray) -> "HandFile":
        """The hands of these frames, in this order; a frame may come again."""

        def picked(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[frames]

        return replace(
            self,
            vertices=picked(self.vertices),
            keypoints=picked(self.keypoints),
            valid=self.valid[frames],
            hand_valid=self.hand_valid[frames],
            world_from_camera=picked(self.world_from_camera),
        )

    def render(self, target_from_source: np.ndarray, height: int, width: int) -> np.ndarray:
        """The hand video (F, H, W, 3) uint8. target_from_source: (3, 3) from the hands' image to the clip's pixels."""
        hands: list[MeshSequence] = []
        for side in range(2):
            if self.vertices is not None and self.faces is not None:
                vertices = np.where(self.hand_valid[:, side, None, None], self.vertices[:, side], 0.0)
                hands.append(MeshSequence(vertices, self.faces[side], self.hand_valid[:, side]))
            else:
                assert self.keypoints is not None
                hands.append(hand_mesh(self.keypoints[:, side], self.valid[:, side]))
        return render_hands(hands[0], hands[1], target_from_source @ self.intrinsics, height, width)

    def track(self, target_from_source: np.ndarray) -> HandTrack | None:
        """Keypoints and camera of every frame, None without keypoints. Without poses, the camera stands still."""
        if self.keypoints is None:
            return None
        frames = len(self)
        poses = np.broadcast_to(np.eye(4), (frames, 4, 4)) if self.world_from_camera is None else self.world_from_camera
        valid = self.valid.reshape(frames, NUM_KEYPOINTS)
        points = np.where(valid[..., None], self.keypoints.reshape(frames, NUM_KEYPOINTS, 3), 0.0)
        points = points @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
        return HandTrack(
            keypoints_world=np.where(valid[..., None], points, 0.0).astype(np.float32),
            keypoints_valid=valid,
            world_from_camera=poses.astype(np.float32),
            intrinsics=(target_from_source @ self.intrinsics).astype(np.float32),
        )


def hamer_intrinsics(height: int, width: int) -> np.ndarray:
    """(3, 3) of HaMeR's full-frame camera: focal length 5000 / 256 times the longer side, in the image's centre.

    Source: HaMeR's demo, as DWM's release uses it. It is nearly orthographic: hands lie tens of metres away.
    """
    focal = HAMER_FOCAL * max(height, width)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def read_hands(path: Path, source_size: tuple[int, int], hamer_camera: bool = False) -> HandFile:
    """Read and check a hand file.

    source_size: (height, width) of the video, for HaMeR's camera. hamer_camera: a file without intrinsics was made by
    HaMeR; otherwise they are needed. Raises HandFileError naming file, key, frame and hand.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise HandFileError(f"{path}: can't be read as npz ({type(error).__name__}: {error})") from error
    try:
        return _checked(arrays, source_size, hamer_camera)
    except ValueError as error:
        raise HandFileError(f"{path}: {error}") from error


def _checked(arrays: dict[str, np.ndarray], source_size: tuple[int, int], hamer_camera: bool) -> HandFile:
    if unknown := sorted(set(arrays) - _KEYS):
        raise ValueError(f"unknown keys {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}")
    vertices, keypoints = arrays.get("vertices"), arrays.get("keypoints")
    if vertices is None and keypoints is None:
        raise ValueError("holds neither vertices nor keypoints")
    if "valid" not in arrays:
        raise ValueError("holds no valid flags; say for every frame and hand whether it was found")
    valid = arrays["valid"]
    if "side" in arrays:
        vertices, keypoints, valid = _both_hands(str(arrays["side"]), vertices, keypoints, valid)
    frames = len(valid)
    if valid.dtype != bool or valid.shape not in ((frames, 2), (frames, 2, KEYPOINTS_PER_HAND)):
        raise ValueError(f"valid must be (F, 2) or (F, 2, 21) bool, not {valid.shape} {valid.dtype}")
    point_valid = np.broadcast_to(valid if valid.ndim == 3 else valid[..., None], (frames, 2, KEYPOINTS_PER_HAND))
    hand_valid = np.asarray(point_valid.any(axis=2))
    if keypoints is not None:
        _require("keypoints", keypoints, (frames, 2, KEYPOINTS_PER_HAND, 3))
        _finite("keypoints", keypoints, point_valid)
    faces = None
    if vertices is not None:
        if vertices.ndim != 4:
            raise ValueError(f"vertices must be (F, 2, V, 3), or (F, V, 3) with a side, not {vertices.shape}")
        _require("vertices", vertices, (frames, 2, vertices.shape[2], 3))
        _finite("vertices", vertices, np.broadcast_to(hand_valid[..., None], vertices.shape[:3]))
        faces = _faces(arrays.get("faces"), vertices.shape[2])
    if "intrinsics" not in arrays and not hamer_camera:
        raise ValueError("holds no intrinsics; add them, or say that the file comes from HaMeR (hamer_camera)")
    size = tuple(int(value) for value in arrays["image_size"].ravel()) if "image_size" in arrays else None
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"image_size must be (height, width), not {size}")
    image_size = (size[0], size[1]) if size else None
    intrinsics = arrays["intrinsics"] if "intrinsics" in arrays else hamer_intrinsics(*(image_size or source_size))
    _require("intrinsics", intrinsics, (3, 3))
    poses = arrays.get("world_from_camera")
    if poses is not None:
        _require("world_from_camera", poses, (frames, 4, 4))
    for name, array in (("intrinsics", intrinsics), ("world_from_camera", poses)):
        if array is not None and not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or Inf")
    return HandFile(vertices, faces, keypoints, point_valid, hand_valid, intrinsics, image_size, poses)


def _both_hands(side: str, vertices: np.ndarray | None, keypoints: np.ndarray | None, valid: np.ndarray):
    """Arrays of one hand as arrays of two, the other one never valid."""
    if side not in ("left", "right"):
        raise ValueError(f"side is {side!r}; it must be left or right")
    if vertices is not None and vertices.ndim != 3:
        raise ValueError(f"with a side, vertices must be (F, V, 3), not {vertices.shape}")
    if keypoints is not None and keypoints.ndim != 3:
        raise ValueError(f"with a side, keypoints must be (F, 21, 3), not {keypoints.shape}")
    if valid.ndim not in (1, 2):
        raise ValueError(f"with a side, valid must be (F,) or (F, 21), not {valid.shape}")

    def paired(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        pair = [array, np.zeros_like(array)]
        return np.stack(pair if side == "left" else pair[::-1], axis=1)

    return paired(vertices), paired(keypoints), paired(valid)


def _faces(faces: np.ndarray | None, vertices: int) -> np.ndarray:
    if faces is None:
        raise ValueError("vertices come without faces")
    if faces.ndim == 2:
        faces = np.stack([faces, faces])
    if faces.ndim != 3 or faces.shape[::2] != (2, 3) or not np.issubdtype(faces.dtype, np.integer):
        raise ValueError(f"faces must be (M, 3) or (2, M, 3) integers, not {faces.shape} {faces.dtype}")
    if faces.size and not (faces.min() >= 0 and faces.max() < vertices):
        raise ValueError(f"faces name vertices {faces.min()} to {faces.max()}, there are 0 to {vertices - 1}")
    return faces.astype(np.int64)


def _require(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name} must be {shape} numbers, not {array.shape} {array.dtype}")


def _finite(name: str, points: np.ndarray, valid: np.ndarray) -> None:
    bad = np.asarray(valid & ~np.isfinite(points).all(axis=-1))
    if bad.any():
        frame, side = np.argwhere(bad)[0][:2]
        raise ValueError(
            f"{name} of the {('left', 'right')[side]} hand in frame {frame} hold NaN or Inf though marked valid; "
            "mark the hand invalid there"
        )
