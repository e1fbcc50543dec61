"""How lenses bend: OpenCV's distortion models, forward and inverse.

A place (..., 2) is x/z and y/z of a point in the optical frame; pixels are not known here.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Model = Literal["plumb_bob", "rational_polynomial", "equidistant"]
COEFFICIENTS: dict[str, tuple[int, ...]] = {
    "plumb_bob": (4, 5),  # k1 k2 p1 p2 [k3]
    "rational_polynomial": (8,),  # k1 k2 p1 p2 k3 k4 k5 k6
    "equidistant": (4,),  # k1 k2 k3 k4 of the angle: OpenCV's fisheye
}
_ROUNDS, _STEP = 12, 1e-6  # of Newton's method
_FOUND = 1e-6


def distorted(places: np.ndarray, model: Model, coefficients: Sequence[float]) -> np.ndarray:
    """Where a lens shows places (..., 2) of a pinhole camera."""
    k = [*coefficients, *[0.0] * (8 - len(coefficients))]
    x, y = np.moveaxis(places, -1, 0)
    if model == "equidistant":
        radius = np.hypot(x, y)
        angle = np.arctan(radius)
        return places * np.where(radius > 0, _bent(angle, k) / np.maximum(radius, 1e-12), 1.0)[..., None]
    square = x * x + y * y
    radial = (1 + square * (k[0] + square * (k[1] + square * k[4]))) / (
        1 + square * (k[5] + square * (k[6] + square * k[7]))
    )
    across = 2 * k[2] * x * y + k[3] * (square + 2 * x * x)
    down = k[2] * (square + 2 * y * y) + 2 * k[3] * x * y
    return np.stack([x * radial + across, y * radial + down], axis=-1)


def undistorted(places: np.ndarray, model: Model, coefficients: Sequence[float]) -> np.ndarray:
    """The places (..., 2) of a pinhole camera that a lens shows at `places`; NaN where it shows none there."""
    places = np.asarray(places, float)
    if model == "equidistant":
        bent = np.linalg.norm(places, axis=-1)
        angle = np.minimum(bent, 1.5)
        for _ in range(_ROUNDS):
            slope = (_bent(angle + _STEP, coefficients) - _bent(angle, coefficients)) / _STEP
            angle = np.clip(angle - (_bent(angle, coefficients) - bent) / slope, 0.0, 1.57)
        found = places * (np.tan(angle) / np.maximum(bent, 1e-12))[..., None]
        return np.where(np.abs(_bent(angle, coefficients) - bent)[..., None] < _FOUND, found, np.nan)
    found = places.copy()
    for _ in range(_ROUNDS):
        here = distorted(found, model, coefficients)
        columns = [(distorted(found + _STEP * axis, model, coefficients) - here) / _STEP for axis in np.eye(2)]
        (a, c), (b, d) = (np.moveaxis(column, -1, 0) for column in columns)
        left, scale = here - places, a * d - b * c
        scale = np.where(np.abs(scale) < 1e-9, 1e-9, scale)
        step = np.stack([d * left[..., 0] - b * left[..., 1], a * left[..., 1] - c * left[..., 0]], axis=-1)
        found = found - step / scale[..., None]
    off = np.abs(distorted(found, model, coefficients) - places).max(axis=-1, keepdims=True)
    return np.where(off < _FOUND, found, np.nan)


def folds_at(model: Model, coefficients: Sequence[float], radius: float) -> float | None:
    """The radius up to `radius` from which on a lens model turns back inwards, so that it shows two places at once."""
    radii = np.linspace(0.0, radius, 400)
    shown = distorted(np.stack([radii, 0 * radii], axis=-1), model, coefficients)[:, 0]
    back = np.flatnonzero(~(np.diff(shown) > 0))
    return float(radii[back[0]]) if len(back) else None


def _bent(angle: np.ndarray, k: Sequence[float]) -> np.ndarray:
    square = angle * angle
    return angle * (1 + square * (k[0] + square * (k[1] + square * (k[2] + square * k[3]))))
