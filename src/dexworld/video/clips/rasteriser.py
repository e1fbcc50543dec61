"""A small z-buffer rasteriser for triangle meshes, in NumPy: enough for two hands on black, with no graphics driver."""

import numpy as np

NEAR = 0.01  # metres; a triangle that reaches nearer to the camera plane is not drawn
_BUDGET = 2_000_000  # pixels filled at once, so that large triangles can't exhaust the memory
_MIN_AREA = 1e-4  # square pixels, doubled; thinner triangles are seen edge-on


def rasterise(
    vertices: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Project triangles through a pinhole camera and keep the nearest at every pixel centre.

    vertices: (V, 3) metres in the camera frame (x right, y down, z forward). faces: (M, 3) int, either winding.
    intrinsics: (3, 3) pixels; the first pixel's centre is (0.5, 0.5). Triangles nearer than 1 cm are left out whole.
    Returns the index of the nearest face (H, W), -1 where nothing is seen, and the perspective-correct barycentric
    weights (H, W, 3) of its corners.
    """
    corners = vertices[faces].astype(np.float64)  # (M, 3 corners, 3)
    kept = np.flatnonzero((corners[..., 2] > NEAR).all(axis=1))
    inverse = 1.0 / corners[kept, :, 2]  # (m, 3); linear over the image, unlike the depth
    x, y = (corners[kept] @ intrinsics[0]) * inverse, (corners[kept] @ intrinsics[1]) * inverse
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    solid = np.abs(area) > _MIN_AREA
    kept, inverse, x, y, area = kept[solid], inverse[solid], x[solid], y[solid], area[solid]
    slope_x = (inverse * (np.roll(y, -1, axis=1) - np.roll(y, 1, axis=1))).sum(axis=1) / area
    slope_y = (inverse * (np.roll(x, 1, axis=1) - np.roll(x, -1, axis=1))).sum(axis=1) / area

    nearest = np.zeros(height * width)  # largest inverse depth so far
    face = np.full(height * width, -1)
    for triangle, row, first, count in _spans(x, y, height, width):
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        closeness = inverse[triangle, 0] + slope_y[triangle] * (row + 0.5 - y[triangle, 0])
        closeness += slope_x[triangle] * (first + 0.5 - x[triangle, 0])
        value = np.repeat(closeness, count) + np.repeat(slope_x[triangle], count) * step
        pixel = np.repeat(row * width + first, count) + step
        np.maximum.at(nearest, pixel, value)
        seen = value == nearest[pixel]
        face[pixel[seen]] = np.repeat(triangle, count)[seen]

    weights = np.zeros((height * width, 3))
    covered = np.flatnonzero(face >= 0)
    triangle = face[covered]
    at_x, at_y = covered % width + 0.5, covered // width + 0.5
    weight = _barycentric(x[triangle], y[triangle], at_x, at_y) * inverse[triangle]
    weights[covered] = weight / weight.sum(axis=1, keepdims=True)
    face[covered] = kept[triangle]
    return face.reshape(height, width), weights.reshape(height, width, 3)


def _spans(x: np.ndarray, y: np.ndarray, height: int, width: int):
    """Runs of pixels whose centres a triangle covers, row by row: (triangle, row, first column, columns) in batches.

    Intervals are half open and an edge's crossing is computed alike for both triangles that share it, so neighbours
    neither overlap nor leave a gap.
    """
    low, high = (np.clip(edge - 0.5, -1.0, height) for edge in (y.min(axis=1), y.max(axis=1)))
    first_row = np.maximum(np.ceil(low), 0).astype(int)
    rows = np.maximum(np.minimum(np.ceil(high), height).astype(int) - first_row, 0)
    triangle = np.repeat(np.arange(len(x)), rows)
    row = np.arange(len(triangle)) - np.repeat(np.cumsum(rows) - rows, rows) + first_row[triangle]
    centre = row + 0.5
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        swap = (y[:, i] > y[:, j]) | ((y[:, i] == y[:, j]) & (x[:, i] > x[:, j]))
        top, bottom = np.where(swap, j, i), np.where(swap, i, j)
        index = np.arange(len(x))
        x0, y0, x1, y1 = x[index, top], y[index, top], x[index, bottom], y[index, bottom]
        slope = np.divide(x1 - x0, y1 - y0, out=np.zeros_like(x0), where=y1 > y0)
        crosses = (y0[triangle] <= centre) & (centre < y1[triangle])
        crossing = x0[triangle] + slope[triangle] * (centre - y0[triangle])
        left = np.where(crosses, np.minimum(left, crossing), left)
        right = np.where(crosses, np.maximum(right, crossing), right)
    first = np.ceil(np.clip(left - 0.5, 0, width)).astype(int)
    columns = np.ceil(np.clip(right - 0.5, 0, width)).astype(int) - first
    filled = np.flatnonzero(columns > 0)
    batch = np.cumsum(columns[filled]) // _BUDGET
    for part in np.split(filled, np.flatnonzero(np.diff(batch)) + 1):
        yield triangle[part], row[part], first[part], columns[part]


def _barycentric(x: np.ndarray, y: np.ndarray, at_x: np.ndarray, at_y: np.ndarray) -> np.ndarray:
    """Screen-space barycentric weights (P, 3) of points inside triangles with corners x, y (P, 3)."""
    dx, dy = x - at_x[:, None], y - at_y[:, None]
    weights = [np.abs(dx[:, i] * dy[:, j] - dx[:, j] * dy[:, i]) for i, j in ((1, 2), (2, 0), (0, 1))]
    return np.stack(weights, axis=1) / np.sum(weights, axis=0)[:, None]
