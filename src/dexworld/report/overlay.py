"""Drawing on frames: hands and regions."""

import numpy as np
from PIL import Image, ImageDraw

from dexworld.hands import BONES, KEYPOINTS_PER_HAND

Colour = tuple[int, int, int]

WRIST_COLOUR: Colour = (255, 255, 255)
# Thumb, index, middle, ring, little finger.
FINGER_COLOURS: tuple[Colour, ...] = ((255, 122, 89), (255, 200, 61), (92, 214, 133), (70, 178, 255), (197, 134, 255))
OUTLINE: Colour = (20, 22, 26)
REGION_OUTLINE: Colour = (255, 196, 0)
GLOW: Colour = (70, 178, 255)
DIMMED = 0.3  # brightness outside a region
SMOOTHING = 3  # times as fine


def hand_overlay(image: np.ndarray, pixels: np.ndarray, shown: np.ndarray, scale: int = 2) -> np.ndarray:
    """A copy of `image` (H, W, 3), `scale` times larger, with the hands drawn on it.

    pixels: (12, 2) tracked keypoints (a line from the wrist to every tip) or (42, 2) all of them (every bone), in
    pixels of `image`. shown: (12,) or (42,) bool; keypoints that are not shown may hold anything. Raises ValueError
    on shown keypoints that are NaN or Inf.
    """
    if not np.isfinite(pixels[shown]).all():
        raise ValueError("a keypoint at NaN or Inf has no place in an image; draw visible points only")
    fine = scale * SMOOTHING  # drawn so much larger, and averaged afterwards
    canvas = Image.fromarray(image.repeat(fine, axis=0).repeat(fine, axis=1))
    draw = ImageDraw.Draw(canvas)
    per_hand = len(pixels) // 2
    lines = BONES if per_hand == KEYPOINTS_PER_HAND else tuple((0, tip) for tip in range(1, per_hand))
    joints_per_finger = (per_hand - 1) // 5
    colours = [WRIST_COLOUR, *(FINGER_COLOURS[joint // joints_per_finger] for joint in range(per_hand - 1))]
    for start in (0, per_hand):
        hand, visible = pixels[start : start + per_hand] * fine, shown[start : start + per_hand]
        for width, outline in ((2.2, OUTLINE), (1.2, None)):
            for a, b in lines:
                if visible[a] and visible[b]:
                    draw.line([*hand[a], *hand[b]], outline or colours[b], round(width * fine))
        for index in np.flatnonzero(visible):
            for radius, outline in ((2.6, OUTLINE), (1.8, None)):
                draw.circle(tuple(hand[index]), radius * fine, outline or colours[index])
    return np.asarray(canvas.reduce(SMOOTHING))


def points_overlay(
    image: np.ndarray, path: np.ndarray, wanted: np.ndarray, spread: np.ndarray, scale: int = 2
) -> np.ndarray:
    """A copy of `image` (H, W, 3), `scale` times larger, with where points are, are expected to go and should be.

    path: (T + 1, Q, 2) pixels, from where they are now. wanted: (Q, 2), drawn as crosses. spread: (Q,) pixels, of the
    last step: how far from the end of its path a point may be, drawn as a glow.
    """
    glow = np.zeros(image.shape[:2])
    row, column = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    for (u, v), size in zip(path[-1], np.maximum(spread, 1.0), strict=True):
        glow = np.maximum(glow, np.exp(-np.hypot(column - u, row - v) / size))
    shown = (image * (1 - 0.6 * glow[..., None]) + np.array(GLOW) * 0.6 * glow[..., None]).astype(np.uint8)
    fine = scale * SMOOTHING
    canvas = Image.fromarray(shown.repeat(fine, axis=0).repeat(fine, axis=1))
    draw = ImageDraw.Draw(canvas)
    for way, (u, v) in zip(path.swapaxes(0, 1) * fine, wanted * fine, strict=True):
        draw.line([tuple(place) for place in way], WRIST_COLOUR, round(0.8 * fine))
        draw.circle(tuple(way[0]), 1.6 * fine, FINGER_COLOURS[0], OUTLINE)
        arm = 2.2 * fine
        for line in ((u - arm, v - arm, u + arm, v + arm), (u - arm, v + arm, u + arm, v - arm)):
            draw.line(line, REGION_OUTLINE, round(0.9 * fine))
    return np.asarray(canvas.reduce(SMOOTHING))


def region_overlay(video: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A video (F, H, W, 3) uint8 that is dark outside a region (F, H, W) bool, with a line around it."""
    shown = np.where(region[..., None], video, (video * DIMMED).astype(np.uint8))
    padded = np.pad(region, ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    shown[region & ~inner] = REGION_OUTLINE
    return shown
