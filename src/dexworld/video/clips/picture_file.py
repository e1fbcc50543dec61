"""Pictures as users bring them: a goal, a reference."""

from pathlib import Path

import av
import numpy as np

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"


def read_picture(path: Path) -> np.ndarray:
    """A PNG or JPEG (H, W, 3) uint8 RGB, upright. Raises ValueError for one that is no picture or ends early."""
    try:
        content = path.read_bytes()
        if content.startswith(JPEG_START) and content.rfind(JPEG_END) < content.rfind(JPEG_SCAN):
            raise ValueError("it ends early")
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.options = {"err_detect": "explode"}
            frame = next(container.decode(video=0))
    except (av.FFmpegError, OSError, ValueError, StopIteration, IndexError) as error:
        raise ValueError(f"{path}: can't be read as a picture ({error})") from error
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4))
