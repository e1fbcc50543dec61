"""Hands from outside: a neutral .npz of meshes or keypoints per frame, as HaMeR, MANO or a keypoint tracker give them.

    vertices      (F, 2, V, 3)  metres in the camera frame, left then right; or (F, V, 3) for the one hand `side`
    faces         (M, 3) or (2, M, 3) integers; needed with vertices
    keypoints     (F, 2, 21, 3) metres in the camera frame, left then right, order of `dexworld.hands` (OpenPose's)
    valid         (F, 2) bool, or (F, 2, 21) for keypoints; (F,) or (F, 21) for the one hand
    side          "left" or "right", with one hand only
    intrinsics    (3, 3) pixels of the image that the hands were found in
    image_size    (2,) height and width of that image, when it isn't the source video's
    world_from_camera  (F, 4, 4), when the camera moves

Vertices, keypoints or both are needed. With both, the meshes are drawn and the keypoints are stored as hand motion. The
camera frame is x right, y down, z forward. HaMeR predicts right hands: mirror the x of left ones before.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dexworld.data.files import read_arrays
from dexworld.data.hand_checks import SIDES, Hands
from dexworld.hands import KEYPOINTS_PER_HAND, NUM_KEYPOINTS
from dexworld.track import Track
from dexworld.video.clips.hand_mesh import MeshSequence, hand_mesh
from dexworld.video.clips.hand_video import render_hands
from dexworld.writing import written_atomically

ASPECT = 0.02  # by which image_size may differ from the video's aspect: resizing rounds to whole pixels
HAMER_FOCAL = 5000.0 / 256.0  # of the image's longer side: HaMeR's full-frame camera
_KEYS = {"vertices", "faces", "keypoints", "valid", "side", "intrinsics", "image_size", "world_from_camera"}
_PER_FRAME = ("vertices", "keypoints", "valid", "world_from_camera")


@dataclass(frozen=True)
class HandFile:
    """Hands of F frames, left then right. See the module for shapes; arrays that were not given are None.

    faces: (2, M, 3). valid: (F, 2, 21) bool; a hand's mesh is drawn where any of its keypoints is valid. intrinsics: in
    pixels of the source video.
    """

    vertices: np.ndarray | None
    faces: np.ndarray | None
    keypoints: np.ndarray | None
    valid: np.ndarray
    intrinsics: np.ndarray
    world_from_camera: np.ndarray

    def __len__(self) -> int:
        return len(self.valid)

    def at(self, frames: np.ndarray | slice) -> "HandFile":
        """The hands of these frames, in this order; a frame may come again."""
        given = {name: getattr(self, name) for name in _PER_FRAME}
        return replace(self, **{name: array[frames] for name, array in given.items() if array is not None})

    def render(self, target_from_source: np.ndarray, height: int, width: int) -> np.ndarray:
        """The hand video (F, H, W, 3) uint8. target_from_source: (3, 3) from the source's to the clip's pixels."""
        return render_hands(self._mesh(0), self._mesh(1), target_from_source @ self.intrinsics, height, width)

    def _mesh(self, side: int) -> MeshSequence:
        if self.vertices is not None and self.faces is not None:
            faces, shown = self.faces[side], np.asarray(self.valid[:, side].any(axis=1))
            vertices = np.where(shown[:, None, None], self.vertices[:, side], 0.0)
            return MeshSequence(vertices, faces, np.repeat(shown[:, None], len(faces), axis=1))
        assert self.keypoints is not None
        return hand_mesh(self.keypoints[:, side], self.valid[:, side])

    def track(self, target_from_source: np.ndarray) -> Track | None:
        """Keypoints and camera of every frame, None without keypoints."""
        if self.keypoints is None:
            return None
        frames, poses = len(self), self.world_from_camera
        valid = self.valid.reshape(frames, NUM_KEYPOINTS)
        points = np.where(valid[..., None], self.keypoints.reshape(frames, NUM_KEYPOINTS, 3), 0.0)
        points = points @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
        points = np.where(valid[..., None], points, 0.0).astype(np.float32)
        intrinsics = (target_from_source @ self.intrinsics).astype(np.float32)
        return Track(poses.astype(np.float32), intrinsics, {"keypoints_world": points, "keypoints_valid": valid})


def hamer_intrinsics(height: int, width: int) -> np.ndarray:
    """(3, 3) of HaMeR's full-frame camera, nearly orthographic: hands lie tens of metres away.

    Source: HaMeR's demo, as DWM's release uses it.
    """
    focal = HAMER_FOCAL * max(height, width)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def read_hands(path: Path, source_size: tuple[int, int], hamer_camera: bool = False) -> HandFile:
    """Read and check a hand file.

    source_size: (height, width) of the video. hamer_camera: a file without intrinsics comes from HaMeR; otherwise they
    are needed. Raises ValueError naming file, key, frame and hand, and the likely cause where hands can't be hands.
    """
    return checked_hands(read_arrays(path)[0], source_size, str(path), hamer_camera)


def write_hands(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a hand file atomically, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def checked_hands(
    arrays: dict[str, np.ndarray], source_size: tuple[int, int], where: str, hamer_camera: bool = False
) -> HandFile:
    """Check the arrays of a hand file, which `where` names in errors; as `read_hands`."""
    try:
        flags = arrays.get("valid", np.zeros(0))
        if flags.dtype.kind in "iu" and np.isin(flags, (0, 1)).all():
            arrays["valid"] = flags.astype(bool)
        if "side" in arrays:
            arrays = _both_hands(arrays)
        _check(arrays, hamer_camera)
        intrinsics = _intrinsics(arrays, source_size)
        valid = arrays["valid"] if arrays["valid"].ndim == 3 else arrays["valid"][..., None]
        poses = arrays.get("world_from_camera", np.broadcast_to(np.eye(4), (len(valid), 4, 4)))
        for name, shown in (("keypoints", valid), ("vertices", valid.any(axis=2, keepdims=True))):
            if name in arrays:
                shown = np.broadcast_to(shown, arrays[name].shape[:3])
                Hands(arrays[name], shown, intrinsics, source_size, poses, where, drawn=True).check()
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    faces = arrays["faces"].astype(np.int64) if "vertices" in arrays else None
    return HandFile(
        arrays.get("vertices"),
        None if faces is None else np.broadcast_to(faces, (2, *faces.shape[-2:])),
        arrays.get("keypoints"),
        np.broadcast_to(valid, (len(valid), 2, KEYPOINTS_PER_HAND)),
        intrinsics,
        poses,
    )


def _both_hands(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of the one hand `side` as arrays of two, the other one never valid."""
    side = str(np.ravel(arrays["side"].astype(str))[0]).strip().lower() if arrays["side"].size == 1 else ""
    if side not in SIDES:
        raise ValueError(f"side is {arrays['side']}; it must be left or right")
    both = {name: array for name, array in arrays.items() if name != "side"}
    for name, most in (("vertices", 3), ("keypoints", 3), ("valid", 2)):
        if name in arrays and arrays[name].ndim > most:
            raise ValueError(f"{name} is {arrays[name].shape}; with a side, leave out the axis of the two hands")
        if name in arrays:
            pair = [arrays[name], np.zeros_like(arrays[name])]
            both[name] = np.stack(pair if side == "left" else pair[::-1], axis=1)
    return both


def _intrinsics(arrays: dict[str, np.ndarray], source_size: tuple[int, int]) -> np.ndarray:
    """(3, 3) in pixels of the source video. Raises ValueError when `image_size` has another aspect than it."""
    (height, width), (rows, columns) = source_size, arrays.get("image_size", source_size)
    if not abs(rows * width / (columns * height or 1) - 1) < ASPECT:
        exchanged = abs(columns * width / (rows * height or 1) - 1) < ASPECT
        cause = "give the height first" if exchanged else "extract the hands from this video"
        raise ValueError(
            f"image_size is {rows:g} x {columns:g} (height x width), the video's {height} x {width}: {cause}"
        )
    if "intrinsics" not in arrays:
        return hamer_intrinsics(height, width)
    return np.diag([width / columns, height / rows, 1.0]) @ arrays["intrinsics"]


def _check(arrays: dict[str, np.ndarray], hamer_camera: bool) -> None:
    """Raise ValueError naming the key that is missing, unknown, of another shape, or not finite where it must be."""
    if unknown := sorted(set(arrays) - _KEYS):
        raise ValueError(f"unknown keys {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}")
    if not arrays.keys() & {"vertices", "keypoints"}:
        raise ValueError("holds neither vertices nor keypoints")
    if "valid" not in arrays:
        raise ValueError("holds no valid flags; say for every frame and hand whether it was found")
    valid, frames = arrays["valid"], len(np.atleast_1d(arrays["valid"]))
    if valid.dtype != bool or valid.shape not in ((frames, 2), (frames, 2, KEYPOINTS_PER_HAND)):
        one = "; a file of one hand names its `side`" if valid.shape == (frames,) else ""
        raise ValueError(f"valid must be (F, 2) or (F, 2, 21) bool, not {valid.shape} {valid.dtype}{one}")
    if not frames:
        raise ValueError("holds no frames")
    if "intrinsics" not in arrays and not hamer_camera:
        raise ValueError("holds no intrinsics; add them, or say that the file comes from HaMeR (hamer_camera)")
    corners = arrays["vertices"].shape[-2:-1] if "vertices" in arrays else ()
    shapes = {"keypoints": (frames, 2, KEYPOINTS_PER_HAND, 3), "vertices": (frames, 2, *corners, 3)}
    shapes |= {"intrinsics": (3, 3), "image_size": (2,), "world_from_camera": (frames, 4, 4)}
    for name, shape in shapes.items():
        if name in arrays and (arrays[name].shape != shape or not np.issubdtype(arrays[name].dtype, np.number)):
            raise ValueError(f"{name} must be {shape} numbers, not {arrays[name].shape} {arrays[name].dtype}")
    if "vertices" in arrays:
        _check_faces(arrays.get("faces"), corners[0])
    for name in {"intrinsics", "world_from_camera"} & arrays.keys():
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name} holds NaN or Inf")
    known = valid if valid.ndim == 3 else valid[..., None]
    for name, shown in (("keypoints", known), ("vertices", known.any(axis=2, keepdims=True))):
        bad = shown & ~np.isfinite(arrays[name]).all(axis=-1) if name in arrays else np.zeros(0)
        if bad.any():
            frame, side = np.argwhere(bad)[0][:2]
            hand = f"{name} of the {('left', 'right')[side]} hand in frame {frame}"
            raise ValueError(f"{hand} hold NaN or Inf though marked valid; mark the hand invalid there")


def _check_faces(faces: np.ndarray | None, vertices: int) -> None:
    if faces is None:
        raise ValueError("vertices come without faces")
    shaped = faces.shape[1:] == (3,) or faces.shape[:1] + faces.shape[2:] == (2, 3)
    if not (shaped and np.issubdtype(faces.dtype, np.integer)):
        raise ValueError(f"faces must be (M, 3) or (2, M, 3) integers, not {faces.shape} {faces.dtype}")
    if faces.size and not (faces.min() >= 0 and faces.max() < vertices):
        raise ValueError(f"faces name vertices {faces.min()} to {faces.max()}, there are {vertices}")
