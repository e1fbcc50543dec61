"""Pictures of a calibration board, drawn through a lens: every pixel's ray meets the board's plane."""

import cv2
import numpy as np

from dexworld.data.camera.calibration import built_board
from dexworld.data.rigid_poses import poses_of, rotations_of

SCALE = 1250  # pixels a metre of the drawn board, about as many as the pictures have


def turned(axis, degrees):
    """A rotation (3, 3)."""
    half = np.radians(degrees) / 2
    return rotations_of(np.array([[*(np.sin(half) * np.asarray(axis, float) / np.linalg.norm(axis)), np.cos(half)]]))[0]


def before_camera(rng, board):
    """camera_from_board of a board that is tilted up to 35 degrees, its middle near the camera's axis."""
    rotation = turned([*rng.normal(size=2), 0.3 * rng.normal()], rng.uniform(15, 35))
    middle = np.array([board.columns, board.rows, 0]) * board.square_m / 2
    place = np.array([*rng.uniform(-0.07, 0.07, 2), rng.uniform(0.32, 0.45)])
    return poses_of(rotation, place - rotation @ middle)


def drawn(camera, board, camera_from_board, rays=None):
    """A grey picture (H, W) of the board."""
    gap = board.square_m - board.marker_m if board.board == "apriltag" else 0.0
    sheet = built_board(board).generateImage(
        [round((count * board.square_m - gap) * SCALE) for count in (board.columns, board.rows)]
    )
    rays = rays_of(camera) if rays is None else rays
    rotation, place = camera_from_board[:3, :3], camera_from_board[:3, 3]
    far = (rotation[:, 2] @ place) / (rays @ rotation[:, 2])
    on_board = ((rays * far[..., None] - place) @ rotation[:, :2] * SCALE - 0.5).astype(np.float32)
    return cv2.remap(sheet, on_board, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=255)


def rays_of(camera):
    """Rays (H, W, 3) with z = 1 through the pixels' centres."""
    height, width = camera.size
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    return np.concatenate([camera.places(pixels), np.ones((height, width, 1))], axis=-1)
