"""LeRobot v3 datasets written with pyarrow and PyAV alone, in the layout of LeRobot's tools: none of our code."""

import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from video_fixtures import write_mp4

BITS = 12
FPS = 30
OPEN_GROUPS = "keyint=12:bframes=3:open-gop=1:log-level=none"
CODECS = {
    "h264": ("libx264", {"crf": "18", "g": "12", "bf": "0", "preset": "ultrafast"}),
    "h264-bframes": ("libx264", {"crf": "18", "g": "15", "bf": "3", "preset": "veryfast"}),
    "hevc-open": ("libx265", {"crf": "18", "preset": "ultrafast", "x265-params": OPEN_GROUPS}),
    "av1": ("libsvtav1", {"crf": "30", "g": "2", "preset": "12"}),
    "mjpeg": ("mjpeg", {}),
}  # fmt: skip


def numbered_frame(number: int, size=(64, 96), colour=0) -> np.ndarray:
    """(H, W, 3) uint8: `number` as black and white bars over the width, tinted in channel `colour` below."""
    height, width = size
    bars = np.array([255 * (number >> bit & 1) for bit in range(BITS)], dtype=np.uint8)
    frame = np.repeat(np.repeat(bars, width // BITS)[None, :, None], height, axis=0).repeat(3, axis=2)
    frame[height // 2 :] = 0
    frame[height // 2 :, :, colour] = 200
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that `numbered_frame` drew, whatever compression did to it."""
    height, width = frame.shape[:2]
    step = width // BITS
    bars = frame[: height // 2].astype(float).mean(axis=(0, 2))
    middles = (bars[step * bit + step // 4 : step * (bit + 1) - step // 4] for bit in range(BITS))
    return sum(int(middle.mean() > 127) << bit for bit, middle in enumerate(middles))


def write_video(path: Path, frames, fps=FPS, codec="h264"):
    """All frames as one mp4 of LeRobot's kind; frame i at i / fps seconds."""
    os.environ.setdefault("SVT_LOG", "1")
    encoder, options = CODECS[codec]
    write_mp4(path, frames, fps, encoder, "yuvj420p" if codec == "mjpeg" else "yuv420p", **options)


def write_dataset(
    folder: Path,
    lengths=(20, 13, 27, 18),
    cameras=("observation.images.top", "observation.images.wrist"),
    codec="h264",
    episodes_per_file=3,
    size=(64, 96),
    columns=None,
    file_word="file-",
    version="v3.0",
    row_groups=True,
    image_key=None,
):
    """A dataset whose frame with global number n of camera c shows the number n + 1000 c.

    columns: name -> (total frames, ...) float32 arrays besides `observation.state` (7) and `action` (3), which are made
    here. Returns the columns by name.
    """
    total = sum(lengths)
    generator = np.random.default_rng(5)
    columns = {
        "observation.state": generator.normal(size=(total, 7)).astype(np.float32),
        "action": generator.normal(size=(total, 3)).astype(np.float32),
        **(columns or {}),
    }
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for file in range(-(-len(lengths) // episodes_per_file)):
        members = range(file * episodes_per_file, min((file + 1) * episodes_per_file, len(lengths)))
        first, last = starts[members[0]], starts[members[-1] + 1]
        for number, camera in enumerate(cameras):
            path = folder / "videos" / camera / "chunk-000" / f"{file_word}{file:03d}.mp4"
            frames = [numbered_frame(1000 * number + n, size, number) for n in range(first, last)]
            write_video(path, frames, FPS, codec)
        path = folder / "data" / "chunk-000" / f"{file_word}{file:03d}.parquet"
        _write_rows(path, members, starts, columns, row_groups, image_key, size)
    shapes = {name: list(array.shape[1:]) for name, array in columns.items()} | {"timestamp": [1]}
    features = {name: {"dtype": "float32", "shape": shapes[name], "names": None} for name in shapes}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    if image_key:
        features[image_key] = {"dtype": "image", "shape": [3, *size], "names": ["channels", "height", "width"]}
    files = [episode // episodes_per_file for episode in range(len(lengths))]
    tasks = ["pick the cup", "place the cup"]
    write_meta(folder, lengths, cameras, features, tasks, FPS, size, files, version)
    return columns


def write_meta(folder, lengths, cameras, features, tasks, fps, size, files=None, version="v3.0"):
    """The meta folder. files: the number of the file that each episode lies in; task i % len(tasks) is episode i's."""
    starts, files, rows = np.concatenate([[0], np.cumsum(lengths)]), files or [0] * len(lengths), []
    for episode, (length, file) in enumerate(zip(lengths, files, strict=True)):
        before = (starts[episode] - starts[files.index(file)]) / fps
        row = {"episode_index": episode, "tasks": [tasks[episode % len(tasks)]], "length": int(length)}
        row |= {"data/chunk_index": 0, "data/file_index": file, "stats/action/mean": [0.0, 0.0, 0.0]}
        row |= {"dataset_from_index": int(starts[episode]), "dataset_to_index": int(starts[episode + 1])}
        for camera in cameras:
            row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": file}
            row[f"videos/{camera}/from_timestamp"] = float(before)
            row[f"videos/{camera}/to_timestamp"] = float(before + length / fps)
        rows.append(row)
    (folder / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    texts = pa.table({"task_index": list(range(len(tasks))), "__index_level_0__": tasks})
    pq.write_table(texts, folder / "meta" / "tasks.parquet")
    video = {"dtype": "video", "shape": [*size, 3], "names": ["height", "width", "channels"]}
    video["info"] = {"video.fps": fps, "has_audio": False}
    place = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    description = {"codebase_version": version, "robot_type": "so100", "fps": fps}
    description |= {"total_episodes": len(lengths), "total_frames": int(starts[-1])}
    description |= {"data_path": f"data/{place}.parquet", "video_path": f"videos/{{video_key}}/{place}.mp4"}
    description |= {"features": dict.fromkeys(cameras, video) | features}
    (folder / "meta" / "info.json").write_text(json.dumps(description))


def change_info(folder: Path, change) -> None:
    """Rewrite meta/info.json: `change` takes its content and alters it."""
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def change_tables(folder: Path, place: str, change) -> None:
    """Rewrite the parquet files below `place` of the dataset: `change` takes a table and gives another."""
    for path in sorted((folder / place).rglob("*.parquet")):
        pq.write_table(change(pq.read_table(path)), path)


def set_column(table: pa.Table, name: str, values) -> pa.Table:
    """The table with a column added or replaced; values: an array, or a list of plain numbers."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, pa.array(values))
    return table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))


def _write_rows(path, members, starts, columns, row_groups, image_key, size):
    tables = []
    for episode in members:
        span = range(starts[episode], starts[episode + 1])
        table = {name: _lists(array[span.start : span.stop]) for name, array in columns.items()}
        table |= {
            "timestamp": pa.array(np.arange(len(span)) / FPS, pa.float32()),
            "frame_index": pa.array(np.arange(len(span))),
            "episode_index": pa.array(np.full(len(span), episode)),
            "index": pa.array(np.array(span)),
            "task_index": pa.array(np.full(len(span), episode % 2)),
        }
        if image_key:
            images = [{"bytes": _png(numbered_frame(n, size)), "path": f"frame-{n:06d}.png"} for n in span]
            table[image_key] = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        tables.append(pa.table(table))
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, tables[0].schema) as writer:
        for table in tables if row_groups else [pa.concat_tables(tables)]:
            writer.write_table(table)


def _lists(array: np.ndarray) -> pa.Array:
    values = pa.array(array.reshape(-1))
    for side in reversed(array.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, side)
    return values


def _png(frame: np.ndarray) -> bytes:
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.shape[1], frame.shape[0], "rgb24"
    encoder.time_base = Fraction(1, 30)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
