"""One episode's frames to packets: scaled in yuv while decoding, encoded by an encoder of its own.

Every episode starts at a key frame, and its bytes depend on nothing else in the file. An episode that breaks halfway
leaves no trace in the video. The recipes were measured: see docs/store.md. Colours are stored as limited-range
BT.709 (JPEG: full-range BT.601, its standard) and tagged so. A video that is tagged BT.709 is scaled from yuv to yuv;
anything else passes through RGB at the small size.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from dexworld.data.resize import Fit
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import RECIPE, VideoError
from dexworld.data.video_frames import VideoFrames
from dexworld.track import Frames

BLOCK = 32  # frames asked for at once from frames that only offer `read`
_BT709, _LIMITED, _FULL = 1, 1, 2  # ISO/IEC 23091-2 and FFmpeg numbers
_EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


@dataclass(frozen=True)
class Recipe:
    """An encoder and its options. crf: default rate factor. decoder: FFmpeg's name of what reads it."""

    encoder: str
    decoder: str
    pixel_format: str
    crf: int
    options: dict[str, str]


RECIPES = {
    "h264": Recipe("libx264", "h264", "yuv420p", 20, RECIPE),
    "h264-444": Recipe("libx264", "h264", "yuv444p", 18, RECIPE),
    "av1": Recipe("libsvtav1", "libdav1d", "yuv420p", 30, {"preset": "9"}),
    "jpeg": Recipe("mjpeg", "mjpeg", "yuvj420p", 2, {"huffman": "optimal"}),
}


@dataclass(frozen=True)
class EncodedEpisode:
    """packets: the bytes of each of T frames. keys: which are key frames. image_stats: of 8 frames, spread evenly."""

    packets: list[bytes]
    keys: list[bool]
    image_stats: dict[str, list[float]]


def add_video_stream(container: Any, settings: PrepareSettings) -> None:
    """Add a stream to an open output container, with a header that fits the packets of `encode_episode`."""
    stream = container.add_stream(RECIPES[settings.codec].encoder, rate=settings.rate)
    _configure(stream.codec_context, settings)
    container.start_encoding()


def _configure(context: Any, settings: PrepareSettings) -> None:
    """Set the recipe on an encoder context that is not open yet: one thread, byte-deterministic, no reordering."""
    recipe = RECIPES[settings.codec]
    crf, group = recipe.crf if settings.crf is None else settings.crf, settings.group
    context.height, context.width = settings.stored_size
    context.pix_fmt, context.thread_count = recipe.pixel_format, 1
    context.flags |= Flags.global_header.value
    options = dict(recipe.options)
    if settings.codec == "jpeg":
        options |= {"qmin": str(crf), "qmax": str(crf)}  # a fixed quality would have to stand in every frame
        context.color_range = _FULL
    else:
        options["crf"] = str(crf)
        context.color_range, context.colorspace = _LIMITED, _BT709
        context.color_primaries, context.color_trc = _BT709, _BT709
    if settings.codec.startswith("h264"):
        options |= {"g": str(group), "keyint_min": str(group)}
    elif settings.codec == "av1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only: the encoder has no other switch for its banner
        options |= {"g": str(group), "svtav1-params": "lp=1:pred-struct=1:scd=0:fast-decode=1"}
    context.options = options


def encode_episode(frames: Frames, settings: PrepareSettings, source: str) -> EncodedEpisode:
    """Scale, crop and encode all frames.

    Raises VideoError when a frame can't be read, or when the encoder gives other packets than one per frame with key
    frames where the group says.
    """
    context: Any = av.CodecContext.create(RECIPES[settings.codec].encoder, "w")
    _configure(context, settings)
    context.time_base, context.framerate = 1 / settings.rate, settings.rate
    sampled, pixels = {round(float(place)) for place in np.linspace(0, len(frames) - 1, min(8, len(frames)))}, []
    packets: list[Any] = []
    count = 0
    for picture in _stored_pictures(frames, settings.fit(frames.size), settings):
        if count in sampled:
            rgb = VideoReformatter().reformat(picture, format="rgb24", threads=1).to_ndarray()
            pixels.append(rgb[::4, ::4].reshape(-1, 3).astype(np.float64) / 255)
        picture.pts, picture.time_base = count, 1 / settings.rate
        picture.pict_type = PictureType.NONE  # a source's own key frames would be forced upon the encoder
        packets += context.encode(picture)
        count += 1
    packets += context.encode(None)
    group = settings.key_distance
    expected = [(number, number % group == 0) for number in range(len(frames))]
    if count != len(frames) or [(packet.pts, packet.is_keyframe) for packet in packets] != expected:
        raise VideoError(
            f"{source}: {count} of {len(frames)} frames became {len(packets)} packets, not in order or not in groups "
            f"of {group}; choose another codec"
        )
    return EncodedEpisode([bytes(packet) for packet in packets], [key for _, key in expected], _image_stats(pixels))


def _image_stats(pixels: list[np.ndarray]) -> dict[str, list[float]]:
    """min, max, mean, std (of 3 channels in [0, 1]) and count (of frames) of sampled pixels, as LeRobot has them."""
    together = np.concatenate(pixels)
    values = {name: getattr(together, name)(axis=0) for name in ("min", "max", "mean", "std")}
    rounded = {name: [round(float(v), 6) for v in value] for name, value in values.items()}
    return rounded | {"count": [float(len(pixels))]}


def _stored_pictures(frames: Frames, fit: Fit, settings: PrepareSettings) -> Iterator[av.VideoFrame]:
    """Pictures in the stored size, format and colours, without time stamps of their own."""
    convert, target, is_jpeg = VideoReformatter(), RECIPES[settings.codec].pixel_format, settings.codec == "jpeg"
    space, levels = (Colorspace.ITU601, ColorRange.JPEG) if is_jpeg else (Colorspace.ITU709, ColorRange.MPEG)
    exact: dict[str, Any] = {"interpolation": _EXACT, "threads": 1}
    for picture in _scaled_pictures(frames, fit, target):
        small = _cut(picture, fit)
        same = (small.colorspace, small.color_range) == (_BT709, _LIMITED) and not is_jpeg
        if small.format.name != target or not same:
            if small.format.name != "rgb24":
                small = convert.reformat(small, format="rgb24", **exact)
            small = convert.reformat(small, format=target, dst_colorspace=space, dst_color_range=levels, **exact)
        yield small


def _scaled_pictures(frames: Frames, fit: Fit, target: str) -> Iterator[av.VideoFrame]:
    if isinstance(frames, VideoFrames) and frames.uneven:  # scaled while decoding, each frame decoded once
        yield from frames.pictures(fit.scaled, "yuv444p" if target == "yuv444p" else "yuv420p")
        return
    for start in range(0, len(frames), BLOCK):
        for array in frames.read(list(range(start, min(start + BLOCK, len(frames))))):
            yield _scaled(array, fit)


def scaled_frame(frame: np.ndarray, fit: Fit) -> np.ndarray:
    """A source frame (h, w, 3) uint8 scaled and cut like a stored one, but not encoded."""
    return _cut(_scaled(frame, fit), fit).to_ndarray()


def _scaled(array: np.ndarray, fit: Fit) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
    if fit.scaled == fit.source:
        return picture
    height, width = fit.scaled
    return VideoReformatter().reformat(picture, width=width, height=height, interpolation=Interpolation.AREA, threads=1)


def _cut(picture: av.VideoFrame, fit: Fit) -> av.VideoFrame:
    """The stored part of a scaled picture."""
    if fit.scaled == fit.target:
        return picture
    if picture.format.name != "rgb24":
        picture = VideoReformatter().reformat(picture, format="rgb24", threads=1)
    (top, left), (height, width) = fit.corner, fit.target
    cut: Any = picture.to_ndarray()[top : top + height, left : left + width]
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(cut), format="rgb24")
