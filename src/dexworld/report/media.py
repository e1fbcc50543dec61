"""Frames inside a page: H.264 video and JPEG stills, base64 in the page itself, and films that play in step."""

import base64
import io
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from PIL import Image

from dexworld.data.video import encode_h264
from dexworld.report.html import Markup, box, figure, tag

SHORT_SIDE = 224  # smaller frames are enlarged to this, so that a browser doesn't blur them
# crf: smaller is better and larger. cpu-independent: the same bytes on every processor.
X264 = {"crf": "23", "preset": "veryfast", "x264-params": "cpu-independent=1"}
JPEG_QUALITY = 75  # 1 to 95 (best)


def encode_mp4(frames: np.ndarray, fps: float) -> bytes:
    """H.264 in MP4 (yuv420p, so that every browser plays it) of frames (F, H, W, 3) uint8.

    Small frames are enlarged by a whole factor; odd sizes repeat their last row or column. Raises ValueError on another
    shape or type, no frames, or an fps that isn't positive.
    """
    frames = rgb(frames, dimensions=4)
    if not fps > 0:
        raise ValueError(f"a video needs a positive frame rate, not {fps}")
    frames = even(enlarged(frames))
    buffer = io.BytesIO()
    encode_h264(buffer, frames, Fraction(fps).limit_denominator(1000), X264)
    return buffer.getvalue()


def encode_jpeg(image: np.ndarray) -> bytes:
    """JPEG with full colour resolution of an image (H, W, 3) uint8. Raises ValueError on another shape or type."""
    buffer = io.BytesIO()
    Image.fromarray(rgb(image, dimensions=3)).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def rgb(array: np.ndarray, dimensions: int) -> np.ndarray:
    """The array, if it holds RGB frames; else ValueError."""
    array = np.asarray(array)
    if array.ndim != dimensions or array.shape[-1] != 3 or array.dtype != np.uint8 or array.size == 0:
        shape = "(F, H, W, 3)" if dimensions == 4 else "(H, W, 3)"
        raise ValueError(f"pictures must be {shape} uint8 and not empty, not {array.shape} {array.dtype}")
    return array


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames (..., H, W, 3) by the whole factor that takes the short side to about `SHORT_SIDE`, pixel by pixel."""
    factor = max(1, round(SHORT_SIDE / min(frames.shape[-3:-1])))
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def even(frames: np.ndarray) -> np.ndarray:
    """Frames (..., H, W, 3) with even sides, as yuv420p asks for."""
    padding = [(0, 0)] * (frames.ndim - 3) + [(0, frames.shape[-3] % 2), (0, frames.shape[-2] % 2), (0, 0)]
    return np.pad(frames, padding, mode="edge")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def image_tag(image: np.ndarray, alternative: str, **attributes: object) -> Markup:
    """A still (H, W, 3) uint8 inside the page; `alternative` is read out to those who can't see it."""
    source = _data_uri(encode_jpeg(image), "image/jpeg")
    height, width = image.shape[:2]
    return tag("img", src=source, alt=alternative, width=width, height=height, **attributes)


def picture(image: np.ndarray, alternative: str, caption: str | Markup) -> Markup:
    """A still with its caption."""
    return figure(image_tag(image, alternative), caption)


def video_tag(frames: np.ndarray, fps: float, label: str) -> Markup:
    """A looping, silent video (F, H, W, 3) uint8 inside the page, with its last frame as the poster.

    The controls cover the picture, so they show only under the pointer or with the keyboard's focus.
    """
    flags: dict[str, object] = dict.fromkeys(("autoplay", "loop", "muted", "playsinline"), True)
    flags |= dict.fromkeys(("onpointerenter", "onfocus"), "this.controls=true")
    flags |= dict.fromkeys(("onpointerleave", "onblur"), "this.controls=false")
    return tag(
        "video",
        tag("source", src=_data_uri(encode_mp4(frames, fps), "video/mp4"), type="video/mp4"),
        poster=_data_uri(encode_jpeg(enlarged(frames[-1])), "image/jpeg"),
        width=frames.shape[2],
        height=frames.shape[1],
        aria_label=label,
        tabindex=0,
        **flags,
    )


def film(
    frames: np.ndarray, fps: float, name: str, note: str = "", *, kind: str | None = None, mark: Markup | None = None
) -> Markup:
    """A video (F, H, W, 3) uint8 with its name, a badge and a note below.

    kind: "own" marks the model's video, "right" the right answer.
    """
    caption = tag("span", tag("b", name), mark, tag("br") if note else None, note)
    return tag("div", figure(video_tag(frames, fps, name), caption), class_=kind)


def film_grid(videos: Iterable[Markup], columns: int = 4) -> Markup:
    """Videos or pictures in rows of `columns`, two on a phone."""
    return box("films", *videos, style=f"--columns:{columns}")


def films(videos: Iterable[Markup], *below: Markup | None) -> Markup:
    """Videos that play in step, with a slider, and what else keeps step with them."""
    slider = tag("input", type="range", min=0, max=1, step=0.001, value=0, aria_label="Position in the videos")
    control = box("scrub", tag("button", "Pause", type="button"), slider)
    return tag("div", film_grid(videos), control, *below, data_films=True)
