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


def refilm(path: Path, rotation: int = 0, offsets: tuple[int, ...] = (0,), lead: int = 0, mark: int = 0) -> None:
    """The same film, stored turned under a rotation flag, at uneven times (tenths), or after a hidden lead-in.

    mark: rows at the top that are made bright, to tell which way up it is.
    """
    with av.open(str(path)) as source:
        rate = source.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    for picture in frames:
        picture[:mark] = 250
    frames = [np.rot90(picture, rotation // 90) for picture in frames]
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=rate, options={"crf": "6", "g": "50", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv444p"
        stream.codec_context.time_base, stream.codec_context.thread_count = 1 / (10 * rate), 1
        stream.set_display_rotation(rotation)
        for number, picture in enumerate([255 - frames[0]] * lead + frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = 10 * number + offsets[number % len(offsets)], 1 / (10 * rate)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    if lead:  # what `ffmpeg -ss ... -c copy` leaves
        whole = path.rename(path.with_suffix(".whole"))
        with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as film:
            stream, packets = film.add_stream_from_template(source.streams.video[0]), [*source.demux(video=0)][:-1]
            shift = packets[lead].pts
            for packet in packets:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                film.mux(packet)
        whole.unlink()
