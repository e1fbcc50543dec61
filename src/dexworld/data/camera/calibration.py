"""Intrinsics and hand-eye poses from pictures of a board, by OpenCV (extra `camera`).

Of the hand-eye pose OpenCV finds the boards; the pose itself is the least-squares solution of AX = XB after Park and
Martin, "Robot sensor calibration: solving AX=XB on the Euclidean group" (1994), since OpenCV 5 has none for Python.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dexworld.data.camera.board import DICTIONARIES, BoardConfig
from dexworld.data.camera.camera import FIRST_PIXEL, Camera
from dexworld.data.camera.lens import Model
from dexworld.data.rigid_poses import poses_of

try:
    import cv2 as opencv
except ModuleNotFoundError as error:
    raise ImportError("calibrating a camera needs OpenCV; pip install 'dexworld[camera]'") from error

cv2: Any = opencv  # its stubs change from version to version
_LEAST_PICTURES, _LEAST_POSES, _LEAST_CORNERS = 6, 4, 8
_LEAST_TURN = np.radians(5.0)  # between two poses of the robot, to count


@dataclass(frozen=True)
class BoardView:
    """What a picture shows of a board: corners on it (N, 3), metres, and their pixels (N, 2), OpenCV's count."""

    name: str
    corners: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """A camera, where the board was before it by picture, camera_from_board (4, 4), and the misfit in pixels (RMS)."""

    camera: Camera
    boards: dict[str, np.ndarray]
    rms_px: float
    rms_by_picture: dict[str, float]


def built_board(config: BoardConfig) -> Any:
    """OpenCV's board. Raises ValueError for an unknown dictionary."""
    name = config.dictionary or DICTIONARIES[config.board]
    if not (name.startswith("DICT_") and hasattr(cv2.aruco, name)):
        raise ValueError(f"OpenCV has no dictionary {name!r}; one is {DICTIONARIES[config.board]}")
    dictionary, size = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name)), (config.columns, config.rows)
    if config.board == "charuco":
        return cv2.aruco.CharucoBoard(size, config.square_m, config.marker_m, dictionary)
    return cv2.aruco.GridBoard(size, config.marker_m, config.square_m - config.marker_m, dictionary)


def find_boards(paths: Sequence[Path], config: BoardConfig) -> tuple[list[BoardView], dict[str, str], tuple[int, int]]:
    """What pictures show of the board, why others were left out by name, and the pictures' (height, width).

    Raises ValueError for pictures of several sizes and for files that are none.
    """
    board, views, left_out, size = built_board(config), list[BoardView](), dict[str, str](), None
    for path in paths:
        grey = _grey(path)
        if size is not None and grey.shape != size:
            seen = f"{path.name} is {grey.shape[1]} x {grey.shape[0]} pixels, {paths[0].name} {size[1]} x {size[0]}"
            raise ValueError(f"{seen}: calibrate with pictures of one size")
        size = grey.shape
        corners, pixels = _found(board, grey, config.board)
        if len(corners) < _LEAST_CORNERS:
            left_out[path.name] = f"{len(corners)} corners of the board found, {_LEAST_CORNERS} are needed"
            continue
        views.append(BoardView(path.name, corners, pixels))
    if size is None:
        raise ValueError("no pictures; the folder should hold .png or .jpg files")
    return views, left_out, (size[0], size[1])


def calibrated(views: Sequence[BoardView], size: tuple[int, int], model: Model) -> Calibration:
    """The camera that took pictures of (height, width). Raises ValueError where they are too few or all alike."""
    if len(views) < _LEAST_PICTURES:
        found = f"the board was found in {len(views)} pictures, {_LEAST_PICTURES} are needed"
        raise ValueError(
            f"{found}: take 20, with the board tilted every way and in every corner; check --columns, --rows"
        )
    corners = [view.corners.astype(np.float32)[:, None] for view in views]
    pixels = [view.pixels.astype(np.float32)[:, None] for view in views]
    wide = (size[1], size[0])
    try:
        if model == "equidistant":
            flags = cv2.CALIB_RECOMPUTE_EXTRINSIC | cv2.CALIB_FIX_SKEW
            doubles = [[each.reshape(1, len(each), -1).astype(float) for each in parts] for parts in (corners, pixels)]
            rms, matrix, bent, turns, places = cv2.fisheye.calibrate(*doubles, wide, None, None, flags=flags)
        else:
            flags = cv2.CALIB_RATIONAL_MODEL if model == "rational_polynomial" else 0
            rms, matrix, bent, turns, places = cv2.calibrateCamera(corners, pixels, wide, None, None, flags=flags)
    except cv2.error as error:
        raise ValueError(f"OpenCV can't calibrate from these pictures ({error.err}): tilt the board more") from error
    count = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}[model]
    camera = Camera(matrix + FIRST_PIXEL, size, model, tuple(np.ravel(bent)[:count].tolist()))
    boards = {
        view.name: poses_of(cv2.Rodrigues(turn)[0], np.ravel(place))
        for view, turn, place in zip(views, turns, places, strict=True)
    }
    misfit = {view.name: _misfit(camera, view, boards[view.name]) for view in views}
    return Calibration(camera, boards, float(rms), misfit)


@dataclass(frozen=True)
class HandEyeFit:
    """parent_from_camera (4, 4), and how far the board seems to move between pictures, RMS: millimetres, degrees."""

    parent_from_camera: np.ndarray
    spread_mm: float
    spread_deg: float


def hand_eye(boards: Sequence[np.ndarray], base_from_flange: Sequence[np.ndarray], on_hand: bool) -> HandEyeFit:
    """Where the camera is mounted: on the flange, with a board that stands still, or still, with a board on the flange.

    boards: camera_from_board (4, 4) of each picture; base_from_flange: (4, 4) of the robot at the same time. Raises
    ValueError for poses that are too few or turned too little.
    """
    if len(boards) < _LEAST_POSES:
        raise ValueError(f"{len(boards)} pictures have a board and a pose of the robot, {_LEAST_POSES} are needed")
    # X takes the camera's frame to the parent's; the other side of the robot's chain then stands still.
    chain = [pose if on_hand else np.linalg.inv(pose) for pose in base_from_flange]
    moves = [
        (np.linalg.inv(chain[j]) @ chain[i], boards[j] @ np.linalg.inv(boards[i]))
        for i in range(len(boards))
        for j in range(i)
    ]
    turns = [(_rotation_vector(a[:3, :3]), _rotation_vector(b[:3, :3]), a, b) for a, b in moves]
    turns = [each for each in turns if np.linalg.norm(each[0]) > _LEAST_TURN]
    axes = np.array([each[0] for each in turns]).reshape(-1, 3)
    if len(turns) < 3 or np.linalg.svd(axes, compute_uv=False)[1] < 0.05 * np.linalg.norm(axes):
        raise ValueError(
            "the robot turned about one axis only, or hardly: where the camera sits can't be told. Turn the hand by 20 "
            "degrees and more about different axes between pictures"
        )
    u, _, vt = np.linalg.svd(sum(np.outer(a, b) for a, b, _, _ in turns))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    left = np.concatenate([a[:3, :3] - np.eye(3) for _, _, a, _ in turns])
    right = np.concatenate([rotation @ b[:3, 3] - a[:3, 3] for _, _, a, b in turns])
    found = poses_of(rotation, np.linalg.lstsq(left, right, rcond=None)[0])
    still = np.stack([pose @ found @ board for pose, board in zip(chain, boards, strict=True)])
    away = np.linalg.norm(still[:, :3, 3] - still[:, :3, 3].mean(axis=0), axis=-1)
    u, _, vt = np.linalg.svd(still[:, :3, :3].sum(axis=0))
    turned = [np.linalg.norm(_rotation_vector(each[:3, :3].T @ (u @ vt))) for each in still]
    return HandEyeFit(found, 1e3 * float(_rms(away)), float(np.degrees(_rms(turned))))


def _grey(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise ValueError(f"{path} can't be read as a picture ({error}); remove it or take it again") from error


def _found(board: Any, grey: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Corners (N, 3) on the board and their pixels (N, 2)."""
    nothing = np.zeros((0, 3)), np.zeros((0, 2))
    if kind == "charuco":
        pixels, numbers, _, _ = cv2.aruco.CharucoDetector(board).detectBoard(grey)
        if numbers is None:
            return nothing
        return board.getChessboardCorners()[numbers.ravel()], pixels.reshape(-1, 2)
    settings = cv2.aruco.DetectorParameters()
    settings.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    pixels, numbers, _ = cv2.aruco.ArucoDetector(board.getDictionary(), settings).detectMarkers(grey)
    if numbers is None:
        return nothing
    corners, matched = board.matchImagePoints(pixels, numbers)
    return nothing if corners is None else (corners.reshape(-1, 3), matched.reshape(-1, 2))


def _misfit(camera: Camera, view: BoardView, pose: np.ndarray) -> float:
    seen = view.corners @ pose[:3, :3].T + pose[:3, 3]
    return _rms(np.linalg.norm(camera.shown(seen[:, :2] / seen[:, 2:]) - 0.5 - view.pixels, axis=-1))


def _rotation_vector(rotation: np.ndarray) -> np.ndarray:
    return np.ravel(cv2.Rodrigues(rotation)[0])


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
