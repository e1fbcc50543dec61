"""What LeRobot's dataset v3 wants in a store: info.json, tasks.parquet, statistics, and where files go.

Layout and field names as in LeRobot's documentation of dataset v3 and in a dataset that its own tools wrote.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.lerobot.layout import INDEX_FEATURES

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
CHUNK_FILES = 1000  # files in one folder
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{FILE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{FILE}.mp4"
EPISODES_PATH = f"meta/episodes/{FILE}.parquet"
INDEX_COLUMNS = {name: "float32" if name == "timestamp" else "int64" for name in INDEX_FEATURES}


def place_of(number: int) -> tuple[int, int]:
    """Chunk and file index of file `number`."""
    return divmod(number, CHUNK_FILES)


def place_in(template: str, number: int, key: str = "") -> str:
    """Where file `number` lies below the dataset's folder. key: of a video."""
    chunk, file = place_of(number)
    return template.format(video_key=key, chunk_index=chunk, file_index=file)


def feature(kind: str, shape: tuple[int, ...], names: list[str] | None, fps: float) -> dict[str, Any]:
    """A column's entry in info.json; one value a frame has shape [1]."""
    dtype = "string" if kind == "str" else kind
    return {"dtype": dtype, "shape": list(shape) or [1], "names": names, "fps": _whole(fps)}


def video_feature(size: tuple[int, int], codec: str, pixel_format: str, fps: float) -> dict[str, Any]:
    """A video's entry in info.json."""
    about = {"height": size[0], "width": size[1], "codec": codec, "pix_fmt": pixel_format, "is_depth_map": False}
    about |= {"fps": _whole(fps), "channels": 3}
    described = {f"video.{name}": value for name, value in about.items()} | {"has_audio": False}
    return {"dtype": "video", "shape": [*size, 3], "names": ["height", "width", "channels"], "info": described}


def info(features: dict[str, Any], fps: float, episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    """The content of meta/info.json."""
    head = {"codebase_version": "v3.0", "robot_type": None}
    totals = {"total_episodes": episodes, "total_frames": frames, "total_tasks": tasks}
    sizes = {"chunks_size": CHUNK_FILES, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200}
    rest = {"fps": _whole(fps), "splits": {"train": f"0:{episodes}"}, "data_path": DATA_PATH, "video_path": VIDEO_PATH}
    return head | totals | sizes | rest | {"features": features}


def _whole(value: float) -> float | int:
    """An integer where the value is one, as LeRobot writes rates."""
    return int(value) if float(value).is_integer() else float(value)


def write_tasks(path: Path, tasks: list[str]) -> None:
    """meta/tasks.parquet: a data frame whose index is the task's text and whose column is `task_index`."""
    text = "__index_level_0__"
    described: list[dict[str, Any]] = [
        {"name": None, "field_name": text, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
    ]
    columns = [described[1] | {"metadata": None}, described[0]]
    creator = {"library": "pyarrow", "version": pa.__version__}
    pandas = {"index_columns": [text], "column_indexes": [], "columns": columns, "creator": creator}
    pandas["pandas_version"] = "2.2.0"
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), text: pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({b"pandas": json.dumps(pandas).encode()}), path)


def statistics(array: np.ndarray, quantiles: bool = False) -> dict[str, np.ndarray]:
    """min, max, mean, std and count (of frames) of a (T,) or (T, n) column, over the values that are numbers.

    Where none is one, all are 0: JSON has no NaN. quantiles: also `QUANTILES`, of a column of numbers alone, which some
    policies are normalised by.
    """
    values = array.reshape(len(array), -1).astype(np.float64)
    known = np.isfinite(values)
    number = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / number
    spread = np.where(known, values - mean, 0.0)
    low, high = np.where(known, values, np.inf).min(axis=0), np.where(known, values, -np.inf).max(axis=0)
    further = {name: np.quantile(values, at, axis=0) for name, at in QUANTILES.items()} if quantiles else {}
    return further | {
        "min": np.where(np.isfinite(low), low, 0.0),
        "max": np.where(np.isfinite(high), high, 0.0),
        "mean": mean,
        "std": np.sqrt((spread**2).sum(axis=0) / number),
        "count": np.array([len(array)], dtype=np.int64),
    }


class Aggregate:
    """Statistics over many episodes from the statistics of each, weighted by their counts."""

    def __init__(self) -> None:
        self._low, self._high = np.array(np.inf), np.array(-np.inf)
        self._sum = self._squares = np.array(0.0)
        self._quantiles: dict[str, np.ndarray] = {}
        self.count = 0

    def add(self, episode: dict[str, np.ndarray]) -> None:
        """Take one episode's statistics in."""
        count, mean, std = int(episode["count"][0]), episode["mean"], episode["std"]
        self._low, self._high = np.minimum(self._low, episode["min"]), np.maximum(self._high, episode["max"])
        self._sum = self._sum + count * mean
        self._squares = self._squares + count * (std**2 + mean**2)
        for name in QUANTILES.keys() & episode.keys():  # their mean, as LeRobot aggregates them
            self._quantiles[name] = self._quantiles.get(name, 0.0) + count * episode[name]
        self.count += count

    def result(self) -> dict[str, Any]:
        """min, max, mean, std and count as lists."""
        mean = self._sum / self.count
        std = np.sqrt(np.maximum(self._squares / self.count - mean**2, 0.0))
        lists = {"min": self._low, "max": self._high, "mean": mean, "std": std}
        lists |= {name: self._quantiles[name] / self.count for name in QUANTILES if name in self._quantiles}
        return {name: value.tolist() for name, value in lists.items()} | {"count": [self.count]}
