"""H.264 video of an episode: written once so that single frames are cheap to read in any order.

The recipe (short groups of pictures, no B-frames, no in-loop deblocking) was measured against other codecs and stores:
about 120 times the samples per CPU-second of the original 1080p video, at 5.5 kB a frame of 398 x 224.
"""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

MAX_SIDE = 16_384  # pixels; a larger frame is a damaged header
GROUP = 6  # frames from one key frame to the next
# Without `cpu-independent`, x264's bytes depend on the processor and on what lay in memory before (11 of 120 encodings
# of one clip differed), so that a resumed collection would not be the same. Time and size are equal.
RECIPE = {"preset": "veryfast", "tune": "fastdecode", "crf": "18", "g": str(GROUP), "keyint_min": str(GROUP), "bf": "0"}
RECIPE |= {"sc_threshold": "0", "x264-params": "cpu-independent=1"}


class VideoError(ValueError):
    """A video that can't be read; the message names the file and, where it is known, the frame."""


def write_video(path: Path, frames: np.ndarray, fps: float, crf: int = 18, chroma: str = "420") -> None:
    """Write frames (T, H, W, 3) uint8 RGB as H.264 in an mp4 container, frame i at i / fps seconds.

    crf: H.264's constant rate factor, 0 (best) to 51. chroma: "420" halves the colour resolution, "444" keeps it. The
    container's index comes at its end, so a truncated file can't be opened. Raises ValueError on another shape or
    dtype, on no frames, on odd sizes, on an fps that is not positive and on a crf or chroma outside these.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"{path}: frames must be (T > 0, H, W, 3) uint8, not {frames.shape} {frames.dtype}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"{path}: H.264 needs an even frame size, not {height} x {width}; crop or pad by a pixel")
    if not fps > 0:
        raise ValueError(f"{path}: fps is {fps}; it must be positive")
    if chroma not in ("420", "444") or not 0 <= crf <= 51:
        raise ValueError(f"{path}: chroma {chroma!r} must be '420' or '444', crf {crf} must be 0 to 51")
    encode_h264(str(path), frames, Fraction(fps).limit_denominator(1001), RECIPE | {"crf": str(crf)}, chroma)


def encode_h264(
    target: str | BinaryIO, frames: np.ndarray, rate: Fraction, options: dict[str, str], chroma: str = "420"
) -> None:
    """Frames (T, H, W, 3) uint8 as H.264 in MP4, by x264 with these options, in a file or a buffer."""
    with av.open(target, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = f"yuv{chroma}p"
        stream.codec_context.thread_count = 1  # the same bytes on every machine; collection has one process per core
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")))
        container.mux(stream.encode())
