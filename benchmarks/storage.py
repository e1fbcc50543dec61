"""Size, quality and reading cost of a prepared store, for every codec that `dexworld prepare` offers.

    python benchmarks/storage.py --output outputs/bench/storage

Two synthetic clips are prepared: a textured one and a smooth one; real video lies between. results.json holds for each
clip and codec the size, `psnr_db` and `psnr_luma_db` (medians against the source scaled without encoding),
`encode_ms_per_frame` and `window_ms`, the CPU time of nine random frames of four seconds, on one thread.
`bytes_at_equal_quality` is the size at the luma quality of the default H.264 store, from a second, finer encoding.
`knee` is the codec that is cheapest at that quality, see `knee_of`.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import cpu_seconds, parser, write_results
from dexworld.data.store.assemble import assemble
from dexworld.data.store.encode import RECIPES, encode_episode, scaled_frame
from dexworld.data.store.packs import read_records, write_pack
from dexworld.data.store.prepared_dataset import open_prepared
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import write_video
from dexworld.pictures import psnr_of_mse
from dexworld.track import ArrayFrames, Track

CODECS = ("h264", "h264-444", "av1", "jpeg")
FPS = 30.0
WINDOW = 9  # frames of a training window, within four seconds
SPAN = 120
LUMA = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709
FINER = {"jpeg": 1}  # steps of the rate factor between the two encodings of a codec; 4 for video


def clip(kind: str, frames: int, height: int, width: int) -> np.ndarray:
    """(T, height, width, 3) uint8: a canvas under a camera that pans, a disc that moves by itself, and grain."""
    generator = np.random.default_rng(0)
    canvas = np.zeros((height + 2 * frames, width + 3 * frames, 3), dtype=np.float32)
    for cells in (4, 16, 64) if kind == "textured" else (4, 8):
        coarse = generator.normal(size=(cells, cells * 2, 3)).astype(np.float32)
        rows = np.linspace(0, cells - 1, canvas.shape[0])
        columns = np.linspace(0, 2 * cells - 1, canvas.shape[1])
        low_rows, low_columns = np.floor(rows).astype(int), np.floor(columns).astype(int)
        if kind == "textured" and cells == 64:  # patches with edges
            canvas += 0.5 * coarse[low_rows][:, low_columns]
            continue
        a, b = (rows - low_rows)[:, None, None], (columns - low_columns)[None, :, None]
        high_rows, high_columns = np.minimum(low_rows + 1, cells - 1), np.minimum(low_columns + 1, 2 * cells - 1)
        top = coarse[low_rows][:, low_columns] * (1 - b) + coarse[low_rows][:, high_columns] * b
        bottom = coarse[high_rows][:, low_columns] * (1 - b) + coarse[high_rows][:, high_columns] * b
        canvas += 4 / cells**0.5 * 0.4 * (top * (1 - a) + bottom * a)
    picture = 128 + 40 * canvas
    v, u = np.mgrid[:height, :width]
    made = np.empty((frames, height, width, 3), dtype=np.uint8)
    for time_ in range(frames):
        shown = picture[2 * time_ : 2 * time_ + height, 3 * time_ : 3 * time_ + width].copy()
        centre = (height * (0.5 + 0.3 * np.sin(time_ / 12)), width * (0.5 + 0.3 * np.cos(time_ / 17)))
        disc = (v - centre[0]) ** 2 + (u - centre[1]) ** 2 < (height / 8) ** 2
        shown[disc] = (200, 150, 120)
        if kind == "textured":
            shown += generator.normal(scale=3, size=(height, width, 1))  # a sensor's grain
        made[time_] = shown.clip(0, 255)
    return made


def episode_of(frames: np.ndarray) -> Track:
    """The clip with hands that don't move."""
    length, height, width = frames.shape[:3]
    return Track(
        frames=ArrayFrames(frames),
        fps=FPS,
        world_from_camera=np.tile(np.eye(4), (length, 1, 1)),
        intrinsics=np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]]),
        source="benchmark",
        columns={"keypoints_world": np.ones((length, 42, 3)), "keypoints_valid": np.ones((length, 42), dtype=bool)},
    )


def psnr(expected: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of values on an 8-bit scale (see `pictures.psnr_of_mse`)."""
    difference = (expected.astype(np.float64) - found.astype(np.float64)) / 255
    return psnr_of_mse(float(np.mean(difference**2)))


def measure(
    episode: Track, small: Track, references: np.ndarray, codec: str, windows: int, crf: int
) -> dict[str, float]:
    """The figures of one codec. small: the episode in the stored size, to time the encoder alone."""
    settings = PrepareSettings(codec=codec, crf=crf).resolved(episode)  # type: ignore[arg-type]
    encoding = cpu_seconds(lambda: encode_episode(small.frames, settings, "benchmark"))
    with tempfile.TemporaryDirectory() as folder:
        write_pack(folder, 0, [("clip", lambda: episode)], settings)
        assemble(folder, read_records(folder), {"benchmark": "storage"})
        store = open_prepared(folder)
        size = sum(file.stat().st_size for file in store.files(0)[:1])
        stored = store[0].frames.read(list(range(len(episode))))
        generator = np.random.default_rng(1)
        starts = generator.integers(0, max(1, len(episode) - SPAN) + 1, windows)
        span = min(SPAN, len(episode))
        wanted = [
            np.sort(start + generator.choice(span, WINDOW, replace=False)).clip(max=len(episode) - 1)
            for start in starts
        ]
        reading = cpu_seconds(lambda: [store[0].frames.read(window.tolist()) for window in wanted])
    pairs = list(zip(references, stored, strict=True))
    return {
        "bytes_per_frame": size / len(episode),
        "gigabytes_per_hour": size / len(episode) * FPS * 3600 / 1e9,
        "psnr_db": float(np.median([psnr(a, b) for a, b in pairs])),
        "psnr_luma_db": float(np.median([psnr(a @ LUMA, b @ LUMA) for a, b in pairs])),
        "encode_ms_per_frame": 1000 * encoding / len(episode),
        "window_ms": 1000 * reading / windows,
    }


def with_equal_quality(
    row: dict[str, float], finer: dict[str, float], luma_db: float, quality: str = "psnr_luma_db"
) -> float:
    """Bytes a frame of a codec at a luma quality, from two encodings: the logarithm of the bytes is linear in dB."""
    steps, gained = np.log(finer["bytes_per_frame"] / row["bytes_per_frame"]), finer[quality] - row[quality]
    return float(row["bytes_per_frame"] * np.exp((luma_db - row[quality]) * steps / max(gained, 1e-3)))


def knee_of(rows: dict[str, dict[str, float]]) -> tuple[str, str]:
    """The codec with the least product of bytes at equal quality and reading time.

    Bytes and reading time are what a store costs for ever. On the curve of one over the other, from the fastest codec
    to the smallest, it is the last at which twice the time still buys half the bytes. Returns it and the reason.
    """
    costs = {codec: row["bytes_at_equal_quality"] * row["window_ms"] for codec, row in rows.items()}
    knee = min(costs, key=lambda codec: costs[codec])
    told = ", ".join(f"{codec} {costs[codec] / costs[knee]:.2f}" for codec in sorted(costs, key=lambda c: costs[c]))
    return knee, f"bytes at equal luma quality times reading time, over the least: {told}"


def main() -> None:
    """Measure every codec on both clips and write results.json."""
    arguments = parser(__doc__, "outputs/bench/storage")
    arguments.add_argument("--frames", type=int, default=180, help="frames of each clip")
    arguments.add_argument("--height", type=int, default=1080, help="of the source; the width is 16/9 of it")
    arguments.add_argument("--windows", type=int, default=40, help="random windows that are read")
    arguments.add_argument("--codecs", nargs="+", default=list(CODECS), choices=CODECS, help="what to measure")
    options = arguments.parse_args()
    height, width = options.height, 2 * round(options.height * 8 / 9)
    started = time.monotonic()
    figures: dict[str, object] = {"frames": options.frames, "source": f"{height} x {width}"}
    for kind in ("textured", "smooth"):
        frames = clip(kind, options.frames, height, width)
        episode = episode_of(frames)
        settings = PrepareSettings().resolved(episode)
        fit = settings.fit((height, width))
        references = np.stack([scaled_frame(frame, fit) for frame in frames])
        with tempfile.TemporaryDirectory() as folder:
            write_video(Path(folder) / "source.mp4", frames, FPS, crf=23)
            source_bytes = (Path(folder) / "source.mp4").stat().st_size / options.frames
        small = replace(episode, frames=ArrayFrames(references))
        rows, finer = {}, {}
        for codec in options.codecs:
            crf = RECIPES[codec].crf
            rows[codec] = measure(episode, small, references, codec, options.windows, crf)
            finer[codec] = measure(episode, small, references, codec, 1, crf - FINER.get(codec, 4))
        level = rows.get("h264", rows[options.codecs[0]])["psnr_luma_db"]
        for codec, row in rows.items():
            row["share_of_source"] = row["bytes_per_frame"] / source_bytes
            row["bytes_at_equal_quality"] = with_equal_quality(row, finer[codec], level)
        knee, reason = knee_of(rows)
        figures[kind] = {
            codec: {key: float(np.round(value, 4)) for key, value in row.items()} for codec, row in rows.items()
        }
        figures |= {f"{kind}_source_bytes_per_frame": source_bytes, f"{kind}_knee": knee, f"{kind}_reason": reason}
    write_results(options.output, figures | {"wall_s": time.monotonic() - started}, seed=0)


if __name__ == "__main__":
    main()
