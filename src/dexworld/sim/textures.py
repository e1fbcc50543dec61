"""Procedural textures: wood, marble, tile and plaster from layered value noise; no image files."""

import numpy as np

TEXTURE_KINDS = ("wood", "marble", "tile", "plaster")
TEXTURE_SIZE = 256


def make_texture(kind: str, rng: np.random.Generator, size: int = TEXTURE_SIZE) -> np.ndarray:
    """A square texture (size, size, 3) uint8 in two random, related colours."""
    if kind not in TEXTURE_KINDS:
        raise ValueError(f"texture kind {kind!r} is unknown; choose from {', '.join(TEXTURE_KINDS)}")
    y, x = np.mgrid[0:size, 0:size] / size
    if kind == "wood":
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * (x * rng.integers(4, 12) + 1.5 * _noise(rng, 4, size)))
    elif kind == "marble":
        blend = np.abs(np.sin(2 * np.pi * (x + y + 2 * _noise(rng, 5, size)))) ** 0.4
    elif kind == "tile":
        count = rng.integers(3, 7)
        grout = ((x * count) % 1 > 0.05) & ((y * count) % 1 > 0.05)
        blend = grout * (0.85 + 0.15 * _noise(rng, 4, size))
    else:
        blend = _noise(rng, 5, size)
    # Muted colours: a kitchen, not a colour chart. Saturation is limited by mixing with grey of the same brightness.
    light = rng.uniform(0.3, 0.95, 3)
    light = 0.45 * light + 0.55 * light.mean()
    dark = np.clip(light * rng.uniform(0.55, 0.9), 0, 1)
    image = light * blend[..., None] + dark * (1 - blend[..., None])
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _noise(rng: np.random.Generator, octaves: int, size: int) -> np.ndarray:
    """Tileable value noise in [0, 1], (size, size)."""
    y, x = np.mgrid[0:size, 0:size] / size
    total = np.zeros((size, size))
    for octave in range(octaves):
        cells = 2 ** (octave + 2)
        grid = rng.random((cells + 1, cells + 1))
        grid[-1], grid[:, -1] = grid[0], grid[:, 0]
        column, row = x * cells, y * cells
        left, top = column.astype(int), row.astype(int)
        fx, fy = column - left, row - top
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        upper = grid[top, left] * (1 - fx) + grid[top, left + 1] * fx
        lower = grid[top + 1, left] * (1 - fx) + grid[top + 1, left + 1] * fx
        total += (upper * (1 - fy) + lower * fy) / 2**octave
    return total / (2 - 2 ** (1 - octaves))
