"""Procedural textures: wood, marble, tile and plaster from layered value noise; no image files."""

import numpy as np

TEXTURE_KINDS = ("wood", "marble", "tile", "plaster")
TEXTURE_SIZE = 256


def make_texture(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A square texture (256, 256, 3) uint8 in two random, related colours."""
    if kind not in TEXTURE_KINDS:
        raise ValueError(f"texture kind {kind!r} is unknown; choose from {', '.join(TEXTURE_KINDS)}")
    y, x = np.mgrid[0:TEXTURE_SIZE, 0:TEXTURE_SIZE] / TEXTURE_SIZE
    if kind == "wood":
        blend = 0.5 + 0.5 * np.sin(2 * np.pi * (x * rng.integers(4, 12) + 1.5 * _noise(rng, 4, x, y)))
    elif kind == "marble":
        blend = np.abs(np.sin(2 * np.pi * (x + y + 2 * _noise(rng, 5, x, y)))) ** 0.4
    elif kind == "tile":
        count = rng.integers(3, 7)
        grout = ((x * count) % 1 > 0.05) & ((y * count) % 1 > 0.05)
        blend = grout * (0.85 + 0.15 * _noise(rng, 4, x, y))
    else:
        blend = _noise(rng, 5, x, y)
    # Muted colours: a kitchen, not a colour chart. Saturation is limited by mixing with grey of the same brightness.
    light = rng.uniform(0.3, 0.95, 3)
    light = 0.45 * light + 0.55 * light.mean()
    dark = np.clip(light * rng.uniform(0.55, 0.9), 0, 1)
    image = light * blend[..., None] + dark * (1 - blend[..., None])
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _noise(rng: np.random.Generator, octaves: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tileable value noise in [0, 1] at `x` and `y`."""
    total = np.zeros_like(x)
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
