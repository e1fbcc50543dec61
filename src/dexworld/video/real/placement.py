"""Puts hands of known shape where a camera sees them."""

import numpy as np


def place_hands(shapes: np.ndarray, pixels: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move n shapes (n, 21, 3), metres with the camera's axes, so that they project to pixels (n, 21, 2).

    Returns the points in the camera's frame and how far their pixels lie from the given ones (n,), as the root of the
    mean square. The shift solves the projection's equations, linear in it, by least squares.
    """
    (fx, fy), (cx, cy) = np.diag(intrinsics)[:2], intrinsics[:2, 2]
    rays = (pixels - [cx, cy]) / [fx, fy]  # (n, 21, 2)
    system = np.zeros((*rays.shape, 3))
    system[..., 0, 0] = system[..., 1, 1] = 1.0
    system[..., 2] = -rays
    wanted = rays * shapes[..., 2:] - shapes[..., :2]
    rows, values = system.reshape(len(rays), -1, 3), wanted.reshape(len(rays), -1, 1)
    moved = np.linalg.solve(rows.swapaxes(1, 2) @ rows, rows.swapaxes(1, 2) @ values)
    points = shapes + moved[:, None, :, 0]
    seen = points[..., :2] / np.where(points[..., 2:] > 1e-6, points[..., 2:], np.nan) * [fx, fy] + [cx, cy]
    error = np.sqrt(((seen - pixels) ** 2).sum(axis=-1).mean(axis=-1))
    return points, np.nan_to_num(error, nan=np.inf)
