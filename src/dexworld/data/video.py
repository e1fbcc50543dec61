"""H.264 video of an episode: written once so that single frames are cheap to read in any order.

The recipe (short groups of pictures, no B-frames, no in-loop deblocking) was measured against other codecs and stores:
about 120 times the samples per CPU-second of the original 1080p video, at 5.5 kB a frame of 398 x 224.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from dexworld.track import frame_numbers

MAX_SIDE = 16_384  # pixels; a larger frame is a damaged header
GROUP = 6  # frames from one key frame to the next
# Without `cpu-independent`, x264's bytes depend on the processor, and on one processor now and then on what lay in
# memory before (11 of 120 encodings of one clip differed): a resumed collection would not be the same. Time and size
# are equal.
RECIPE = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "crf": "18",
    "g": str(GROUP),
    "keyint_min": str(GROUP),
    "bf": "0",
    "sc_threshold": "0",
    "x264-params": "cpu-independent=1",
}


class VideoError(ValueError):
    """A video that can't be read; the message names the file and, where it is known, the frame."""


def write_video(path: Path, frames: np.ndarray, fps: float, crf: int = 18, chroma: str = "420") -> None:
    """Write frames (T, H, W, 3) uint8 RGB as H.264 in an mp4 container, frame i at i / fps seconds.

    crf: H.264's constant rate factor, 0 (best) to 51. chroma: "420" halves the colour resolution, "444" keeps it (for
    synthetic colours with hard edges). The index of the container is written at its end, so a truncated file can't be
    opened. Raises ValueError on another shape or dtype, on no frames, on odd sizes, on an fps that is not positive and
    on a crf or chroma outside these.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise ValueError(f"{path}: frames must be (T > 0, H, W, 3) uint8, not {frames.shape} {frames.dtype}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(
            f"{path}: H.264 4:2:0 needs an even frame size, not {height} x {width}; crop or pad by a pixel"
        )
    if not fps > 0:
        raise ValueError(f"{path}: fps is {fps}; it must be positive")
    if chroma not in ("420", "444") or not 0 <= crf <= 51:
        raise ValueError(f"{path}: chroma {chroma!r} must be '420' or '444', crf {crf} must be 0 to 51")
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=RECIPE | {"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, f"yuv{chroma}p"
        stream.codec_context.thread_count = 1  # collection runs one process per core
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")))
        container.mux(stream.encode())


@dataclass(frozen=True)
class VideoFrames:
    """Frames of a constant-rate video file, decoded when they are asked for. Holds no open file, so it can be pickled.

    Length and size come from the container's header. Raises VideoError when the file can't be opened, and on reading
    when a frame can't be decoded.
    """

    path: Path

    @cached_property
    def _header(self) -> tuple[int, int, int, Fraction]:
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate
            if not stream.frames or not rate:
                raise VideoError(f"{self.path}: the container names no frame count or rate; transcode it first")
            return stream.frames, stream.codec_context.height, stream.codec_context.width, Fraction(rate)

    def __len__(self) -> int:
        return self._header[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._header[1], self._header[2]

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self._header[3])

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be decoded.
        """
        length, height, width, rate = self._header
        wanted = frame_numbers(indices, length, str(self.path))
        unique, places = np.unique(wanted, return_inverse=True)
        decoded = np.empty((len(unique), height, width, 3), dtype=np.uint8)
        with _opened(self.path) as container:
            _decode(container, unique.tolist(), rate, decoded, self.path)
        return decoded[places]


def _opened(path: Path):
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: can't be opened as a video ({error})") from error
    if not container.streams.video:
        container.close()
        raise VideoError(f"{path}: holds no video stream")
    container.streams.video[0].codec_context.thread_count = 1
    return container


def _decode(container, wanted: list[int], rate: Fraction, decoded: np.ndarray, path: Path) -> None:
    """Fill `decoded` with the frames of the sorted, distinct indices `wanted`."""
    stream = container.streams.video[0]
    per_frame = 1 / (rate * stream.time_base)  # presentation-time ticks of one frame
    origin = stream.start_time or 0
    stream_frames, position, converter = None, -1, VideoReformatter()
    for place, index in enumerate(wanted):
        try:
            if (
                stream_frames is None or index >= position + 2 * GROUP
            ):  # nearer frames are reached faster by decoding on
                container.seek(origin + int(index * per_frame), stream=stream, backward=True)
                stream_frames = container.decode(stream)
            while True:
                frame = next(stream_frames, None)
                position = -1 if frame is None else round((frame.pts - origin) / per_frame)
                if frame is None or position >= index:
                    break
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{path}: frame {index} can't be decoded ({error})") from error
        if frame is None or position != index:
            found = "the video ends before it" if frame is None else f"frame {position} comes in its place"
            raise VideoError(f"{path}: frame {index} is missing: {found}")
        # one thread: starting a pool of them for every small frame takes ten times as long as the conversion
        decoded[place] = converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
