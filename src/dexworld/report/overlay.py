"""Drawing on frames with NumPy alone: discs, lines, hands, captions and grids."""

from collections.abc import Sequence

import numpy as np

from dexworld.hands import BONES, KEYPOINTS_PER_HAND, NUM_KEYPOINTS, NUM_TRACKED
from dexworld.report.font import GLYPH_HEIGHT, text_mask

Colour = tuple[int, int, int]

WRIST_COLOUR: Colour = (255, 255, 255)
FINGER_COLOURS: tuple[Colour, ...] = (  # thumb, index, middle, ring, little
    (255, 122, 89),
    (255, 200, 61),
    (92, 214, 133),
    (70, 178, 255),
    (197, 134, 255),
)
OUTLINE: Colour = (20, 22, 26)


def draw_line(image: np.ndarray, start: Sequence[float], end: Sequence[float], width: float, colour: Colour) -> None:
    """Draw a line with round ends between two points (x, y) in pixels into `image` (H, W, 3) uint8, smoothed, in place.

    What lies outside the image is cut off. A line from a point to itself is a disc.
    """
    a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"a line from {start} to {end} has no place in an image; draw visible points only")
    reach = width / 2 + 1
    height, columns = image.shape[:2]
    left, top = np.floor(np.minimum(a, b) - reach).astype(int).clip(0, [columns, height])
    right, bottom = np.ceil(np.maximum(a, b) + reach).astype(int).clip(0, [columns, height])
    if left >= right or top >= bottom:
        return
    x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    points = np.stack([x, y], axis=-1)
    along = b - a
    share = ((points - a) @ along / max(along @ along, 1e-9)).clip(0.0, 1.0)
    distance = np.linalg.norm(points - a - share[..., None] * along, axis=-1)
    coverage = (width / 2 + 0.5 - distance).clip(0.0, 1.0)[..., None]
    part = image[top:bottom, left:right]
    part[:] = np.round(part * (1 - coverage) + np.asarray(colour) * coverage).astype(np.uint8)


def draw_disc(image: np.ndarray, centre: Sequence[float], radius: float, colour: Colour) -> None:
    """Draw a smoothed disc around (x, y) in pixels into `image` (H, W, 3) uint8, in place."""
    draw_line(image, centre, centre, 2 * radius, colour)


def hand_overlay(image: np.ndarray, pixels: np.ndarray, shown: np.ndarray, scale: int = 2) -> np.ndarray:
    """A copy of `image` (H, W, 3), `scale` times larger, with the hands drawn on it.

    pixels: (12, 2) tracked keypoints (a line from the wrist to every tip) or (42, 2) all of them (every bone), in
    pixels of `image`. shown: (12,) or (42,) bool; keypoints that are not shown may hold anything. Raises ValueError
    on other shapes.
    """
    if pixels.shape not in ((NUM_TRACKED, 2), (NUM_KEYPOINTS, 2)) or shown.shape != pixels.shape[:1]:
        raise ValueError(
            f"hands are (12, 2) or (42, 2) pixels with as many flags, not {pixels.shape} and {shown.shape}"
        )
    canvas = image.repeat(scale, axis=0).repeat(scale, axis=1)
    per_hand = KEYPOINTS_PER_HAND if len(pixels) == NUM_KEYPOINTS else NUM_TRACKED // 2
    for start in (0, per_hand):
        hand, visible = pixels[start : start + per_hand] * scale, shown[start : start + per_hand]
        lines = BONES if per_hand == KEYPOINTS_PER_HAND else tuple((0, tip) for tip in range(1, per_hand))
        joints_per_finger = (per_hand - 1) // 5
        for thickness, fixed in ((2.2 * scale, OUTLINE), (1.2 * scale, None)):
            for a, b in lines:
                if visible[a] and visible[b]:
                    draw_line(
                        canvas, hand[a], hand[b], thickness, fixed or FINGER_COLOURS[(b - 1) // joints_per_finger]
                    )
        for index in np.flatnonzero(visible):
            colour = WRIST_COLOUR if index == 0 else FINGER_COLOURS[(index - 1) // joints_per_finger]
            draw_disc(canvas, hand[index], 2.6 * scale, OUTLINE)
            draw_disc(canvas, hand[index], 1.8 * scale, colour)
    return canvas


def side_by_side(images: Sequence[np.ndarray], gap: int = 4, colour: Colour = (255, 255, 255)) -> np.ndarray:
    """Images (..., H, W, 3) of one size in a row, with a gap between them."""
    spacer = np.empty_like(images[0][..., :gap, :])
    spacer[...] = colour
    parts = [part for image in images for part in (image, spacer)]
    return np.concatenate(parts[:-1], axis=-2)


def captioned(frames: np.ndarray, text: str, scale: int = 2, paper: Colour = (24, 26, 31)) -> np.ndarray:
    """Frames (..., H, W, 3) with a bar on top that holds `text`, cut off where the bar ends."""
    mask = text_mask(text).repeat(scale, axis=0).repeat(scale, axis=1)
    bar = np.empty((*frames.shape[:-3], (GLYPH_HEIGHT + 5) * scale, *frames.shape[-2:]), dtype=np.uint8)
    bar[...] = paper
    width = min(mask.shape[1], bar.shape[-2] - 4 * scale)
    inside = bar[..., 3 * scale : (3 + GLYPH_HEIGHT) * scale, 4 * scale : 4 * scale + width, :]
    inside[..., mask[:, :width], :] = 255
    return np.concatenate([bar, frames], axis=-3)


def grid(cells: Sequence[np.ndarray], columns: int, gap: int = 4, colour: Colour = (255, 255, 255)) -> np.ndarray:
    """Pictures or videos (..., H, W, 3) of one size in rows of `columns`; blank cells fill an incomplete row."""
    if not cells or columns < 1:
        raise ValueError(f"a grid needs cells and columns, not {len(cells)} cells in {columns} columns")
    blank = np.empty_like(cells[0])
    blank[...] = colour
    filled = [*cells, *[blank] * (-len(cells) % columns)]
    rows = [side_by_side(filled[start : start + columns], gap, colour) for start in range(0, len(filled), columns)]
    spacer = np.empty_like(rows[0][..., :gap, :, :])
    spacer[...] = colour
    parts = [part for row in rows for part in (row, spacer)]
    return np.concatenate(parts[:-1], axis=-3)
