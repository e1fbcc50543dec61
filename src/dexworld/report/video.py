"""Frames as they stand inside a page: H.264 video and JPEG stills, base64 in the page itself."""

import base64
import io
from fractions import Fraction

import av
import numpy as np

from dexworld.report.html import Markup, tag, void

SHORT_SIDE = 224  # smaller frames are enlarged to this, so that a browser doesn't blur them
QUALITY = 23  # H.264 constant rate factor: smaller is better and larger
JPEG_QUALITY = 4  # mjpeg quantiser, 2 (best) to 31


def encode_mp4(frames: np.ndarray, fps: float, quality: int = QUALITY) -> bytes:
    """H.264 in MP4 (yuv420p, so that every browser plays it) of frames (F, H, W, 3) uint8.

    Small frames are enlarged by a whole factor; odd sizes repeat their last row or column. Raises ValueError on another
    shape or type, no frames, or an fps that isn't positive.
    """
    frames = checked(frames, dimensions=4)
    if not fps > 0:
        raise ValueError(f"a video needs a positive frame rate, not {fps}")
    frames = even(enlarged(frames))
    buffer = io.BytesIO()
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(quality), "preset": "veryfast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_jpeg(image: np.ndarray) -> bytes:
    """JPEG with full colour resolution of an image (H, W, 3) uint8. Raises ValueError on another shape or type."""
    image = checked(image, dimensions=3)
    codec = av.CodecContext.create("mjpeg", "w")
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt = "yuvj444p"
    codec.time_base = Fraction(1, 1)
    codec.options = {"qmin": str(JPEG_QUALITY), "qmax": str(JPEG_QUALITY)}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format="yuvj444p")
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def checked(array: np.ndarray, dimensions: int) -> np.ndarray:
    """The array, if it holds RGB frames."""
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


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that a page can hold."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def image_tag(image: np.ndarray, alternative: str) -> Markup:
    """A still (H, W, 3) uint8 inside the page; `alternative` is read out to those who can't see it."""
    height, width = image.shape[:2]
    source = data_uri(encode_jpeg(image), "image/jpeg")
    return void("img", src=source, alt=alternative, width=width, height=height)


def video_tag(frames: np.ndarray, fps: float, label: str) -> Markup:
    """A looping, silent video (F, H, W, 3) uint8 inside the page, with its last frame as the poster.

    The controls cover the picture, so they show only under the pointer or with the keyboard's focus.
    """
    height, width = frames.shape[1:3]
    return tag(
        "video",
        void("source", src=data_uri(encode_mp4(frames, fps), "video/mp4"), type="video/mp4"),
        poster=data_uri(encode_jpeg(enlarged(frames[-1])), "image/jpeg"),
        width=width,
        height=height,
        aria_label=label,
        autoplay=True,
        loop=True,
        muted=True,
        playsinline=True,
        tabindex=0,
        onpointerenter="this.controls=true",
        onpointerleave="this.controls=false",
        onfocus="this.controls=true",
        onblur="this.controls=false",
    )
