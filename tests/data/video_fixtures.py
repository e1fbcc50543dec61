"""Writes videos with PyAV alone, as cameras and other tools do."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_mp4(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: int | Fraction = 30,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[int] = range(10**6),
    container_options: dict[str, str] | None = None,
    **options: str,
) -> None:
    """(H, W, 3) uint8 frames, frame i at times[i] / rate seconds. options: the encoder's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # with mbtree, x264's bytes vary from run to run
    defaults = {"crf": "10", "g": "250", "bf": "2", "preset": "veryfast", "mbtree": "0"} if codec == "libx264" else {}
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options=defaults | options)
        stream.pix_fmt, stream.codec_context.thread_count = pixels, 1
        for number, array in enumerate(frames):
            if number == 0:
                stream.height, stream.width = array.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame.pts, frame.time_base = times[number], 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def shades(values: Iterable[int], green: int = 90, blue: int = 160, size: tuple[int, int] = (72, 128)) -> np.ndarray:
    """(T, H, W, 3) uint8 frames of one colour each, which differ in red: a picture says which frame it is."""
    colours = np.array([(red, green, blue) for red in values], dtype=np.uint8)
    return np.tile(colours[:, None, None], (1, *size, 1))
