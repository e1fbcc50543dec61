"""What is drawn over an imagined frame: the hand, heatmaps, what changed."""

import base64
import html

import numpy as np
from PIL import Image

from dexworld.report.media import encode_jpeg
from dexworld.report.overlay import GLOW, hand_overlay
from dexworld.studio.imagination import ImaginedFrame

OVERLAYS = ("nothing", "hand as told", "hand as the model sees it", "where it sees the hand", "what changed")
HEAT = (255, 160, 40)
SURE = 0.3  # confidence from which on a keypoint is drawn
SCALE = 2
CROSS_PX = 14  # half of a cursor's size
UNKNOWN = 38  # grey where there is no picture


def painted(frame: ImaginedFrame, overlay: str) -> np.ndarray:
    """The picture, twice as large, with one of `OVERLAYS`."""
    if overlay == "hand as told":
        return enlarged(hand_overlay(frame.picture, frame.told_px, frame.in_view, scale=1), SCALE)
    if overlay == "hand as the model sees it" and frame.seen_px is not None and frame.confidence is not None:
        sure = frame.in_view & (frame.confidence > SURE)
        return enlarged(hand_overlay(frame.picture, frame.seen_px, sure, scale=1), SCALE)
    picture = enlarged(frame.picture, SCALE)
    if overlay == "where it sees the hand" and frame.heat is not None:
        return glowing(picture, frame.heat, HEAT)
    if overlay == "what changed":
        return glowing(picture, frame.change, GLOW)
    return picture


def glowing(picture: np.ndarray, shares: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The picture (H, W, 3) coloured by shares (h, w), 0 to 1, of a coarser grid."""
    size = (picture.shape[1], picture.shape[0])
    fine = np.asarray(Image.fromarray(shares.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    alpha = 0.75 * np.clip(fine, 0.0, 1.0)[..., None]
    return (picture * (1.0 - alpha) + np.array(colour) * alpha).astype(np.uint8)


def crossed(picture: np.ndarray, place: tuple[float, float]) -> np.ndarray:
    """The picture (H, W, 3) with a cursor at a pixel [u, v]: a light cross with a dark rim."""
    u, v = round(place[0]), round(place[1])
    drawn = picture.copy()
    for half, shade in ((2, 0), (1, 255)):
        drawn[max(0, v - half) : v + half + 1, max(0, u - CROSS_PX) : u + CROSS_PX + 1] = shade
        drawn[max(0, v - CROSS_PX) : v + CROSS_PX + 1, max(0, u - half) : u + half + 1] = shade
    return drawn


def enlarged(picture: np.ndarray, scale: int) -> np.ndarray:
    """A picture (H, W, 3) made smoothly larger by a whole factor."""
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def shown(*pictures: tuple[str, np.ndarray]) -> str:
    """Pictures, two in a row, with a line above each, as HTML that needs no file."""
    parts, flex = [], "1" if len(pictures) < 3 else "0 1 calc(50% - 0.2em)"
    for name, picture in pictures:
        content = base64.b64encode(encode_jpeg(picture)).decode()
        style = "width:100%;display:block;border-radius:4px"
        image = f'<img alt="{html.escape(name)}" style="{style}" src="data:image/jpeg;base64,{content}">'
        parts.append(f'<div style="flex:{flex}"><small>{html.escape(name)}</small>{image}</div>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:0.4em;padding:0 0.75em 0.5em">{"".join(parts)}</div>'
