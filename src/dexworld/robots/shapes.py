"""Spheres that cover the shapes a robot file gives its bodies."""

from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Literal

import numpy as np

Kind = Literal["sphere", "capsule", "cylinder", "box", "ellipsoid", "mesh"]
Sphere = tuple[np.ndarray, float]  # centre (3) and radius, metres
_MOST_IN_CAPSULE, _MOST_IN_BOX, _MOST_IN_MESH = 16, 3, 5  # spheres along one side
_REACH = 1.15  # of a sphere's radius over half the length and width of its slice of a mesh: corners stick out


@dataclass(frozen=True)
class Shape:
    """A solid of a body: its kind, half-sizes as MuJoCo gives them, and (4, 4) body_from_shape.

    vertices: of a mesh, (V, 3) in its own frame, else empty. collides: False for what is only drawn. faces: (N, 3) rows
    of the vertices. rgba: its colour, None where the file gives none.
    """

    body: int
    kind: Kind
    size: np.ndarray
    body_from_shape: np.ndarray
    vertices: np.ndarray
    collides: bool
    faces: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int32))
    rgba: tuple[float, ...] | None = None

    def spheres(self) -> list[Sphere]:
        """Spheres in the body's frame. Those of a sphere and a capsule are exact or a little inside."""
        rotation, origin = self.body_from_shape[:3, :3], self.body_from_shape[:3, 3]
        return [(rotation @ centre + origin, radius) for centre, radius in self._own()]

    def _own(self) -> list[Sphere]:
        if self.kind == "sphere":
            return [(np.zeros(3), float(self.size[0]))]
        if self.kind == "capsule":
            return _in_row(float(self.size[0]), float(self.size[1]), np.eye(3)[2])
        if self.kind == "ellipsoid":  # as the capsule around it
            _, middle, longest = np.sort(self.size[:3])
            return _in_row(float(middle), float(longest - middle), np.eye(3)[int(np.argmax(self.size[:3]))])
        if self.kind == "mesh":
            return _around(self.vertices)
        half = self.size[[0, 0, 1]] if self.kind == "cylinder" else self.size[:3]
        return _in_box(np.asarray(half, float))


def _in_row(radius: float, end: float, axis: np.ndarray) -> list[Sphere]:
    """Spheres from -end to end along an axis, at most a radius apart."""
    count = min(1 + int(np.ceil(2 * end / radius)), _MOST_IN_CAPSULE)
    return [(place * axis, radius) for place in np.linspace(-end, end, count)]


def _in_box(half: np.ndarray) -> list[Sphere]:
    """Spheres on a grid whose cells are about as long as the thinnest side; very flat boxes get fewer."""
    thin = max(float(half.min()), float(half.max()) / _MOST_IN_BOX)
    counts = np.clip(np.round(half / thin), 1, _MOST_IN_BOX).astype(int)
    cell = half / counts
    along = [
        np.linspace(-side + step, side - step, count) for side, step, count in zip(half, cell, counts, strict=True)
    ]
    radius = float(np.linalg.norm(np.sort(cell)[1:]))  # all but the corners
    return [(np.array(centre), radius) for centre in product(*along)]


def _around(vertices: np.ndarray) -> list[Sphere]:
    """Spheres in a row along the longest principal axis, each around the vertices of its slice."""
    middle = vertices.mean(axis=0)
    axes = np.linalg.svd(vertices - middle, full_matrices=False).Vh
    own = (vertices - middle) @ axes.T
    low, high = own.min(axis=0), own.max(axis=0)
    length, width = (high - low)[0], max(float((high - low)[1]), 1e-4)
    edges = np.linspace(low[0], high[0], 1 + int(np.clip(round(length / width), 1, _MOST_IN_MESH)))
    found = []
    for start, stop in pairwise(edges):
        # a slice reaches into its neighbours: long triangles have no vertices in the middle
        share = own[(own[:, 0] >= start - width) & (own[:, 0] <= stop + width), 1:]
        across = (share.min(axis=0) + share.max(axis=0)) / 2 if len(share) else np.zeros(2)
        thick = (share.max(axis=0) - share.min(axis=0)).max() / 2 if len(share) else width / 2
        radius = _REACH * max((stop - start) / 2, float(thick))
        found.append((middle + np.array([(start + stop) / 2, *across]) @ axes, radius))
    return found
