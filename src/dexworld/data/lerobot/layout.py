"""What a LeRobot v3 folder holds: features, episodes, tasks, and the file that each episode lies in.

Fields as in LeRobot's documentation of dataset v3. Files are found by the numbers in their names, not by the templates
of info.json: some published datasets name files `file_000` under a template that says `file-000`.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.files import read_json
from dexworld.data.packets import PerThread, identity
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video_frames import PackedFrames, VideoFrames

UNREADABLE = (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, pa.ArrowException)
NAMED = 20  # missing episodes that a message names
INDEX_FEATURES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_LOG = logging.getLogger(__name__)
_sizes: PerThread[tuple[int, int]] = PerThread(1024, lambda size: None)


@dataclass(frozen=True)
class LeRobotLayout:
    """A LeRobot v3 dataset without its rows.

    info: meta/info.json. episodes: meta/episodes without statistics, sorted by
    `episode_index`, one row per episode.
    """

    folder: Path
    info: dict[str, Any]
    episodes: pa.Table = field(repr=False)

    def __len__(self) -> int:
        return self.episodes.num_rows

    @property
    def fps(self) -> float:
        """Frames per second of every episode."""
        return float(self.info["fps"])

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Columns and videos by name, as info.json describes them."""
        return self.info["features"]

    def keys(self, dtype: str) -> tuple[str, ...]:
        """Names of the features that are of a `dtype`, in the order of info.json: "video", or "image" inside rows."""
        return tuple(name for name, feature in self.features.items() if feature.get("dtype") == dtype)

    def column(self, name: str) -> np.ndarray:
        """A column of meta/episodes over all episodes. Raises ValueError naming a missing one."""
        if name not in self.episodes.column_names:
            raise ValueError(f"{self.folder / 'meta' / 'episodes'} has no column {name!r}; the dataset is incomplete")
        return self.episodes.column(name).to_numpy()

    def faults_of_camera(self, key: str) -> str:
        """Why a picture feature isn't taken for the camera unasked: depth, grey, not in meta/episodes; else ""."""
        feature = self.features[key]
        parts = [each for each in (feature, feature.get("video_info"), feature.get("info")) if isinstance(each, dict)]
        about = {name: value for each in parts for name, value in each.items()}
        if about.get("is_depth_map") or about.get("video.is_depth_map"):
            return "flagged is_depth_map"
        if 1 in _sides(feature) or len(_sides(feature)) == 2 or "gray" in str(about.get("video.pix_fmt")):
            return "of one channel"
        if "depth" in key.lower():
            return "depth by its name"
        known = key in self.keys("image") or f"videos/{key}/from_timestamp" in self.episodes.column_names
        return "" if known else "without places in meta/episodes"

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each episode."""
        return tuple(int(length) for length in self.column("length"))

    @property
    def unlisted(self) -> tuple[tuple[str, str], ...]:
        """(file, reason) when meta/episodes lists fewer episodes than info.json counts; empty when it does not."""
        total, where = self.info.get("total_episodes"), self.folder / "meta" / "episodes"
        if not isinstance(total, int) or total <= len(self):
            return ()
        there = set(self.column("episode_index").tolist())
        gone = [f"{number:06d}" for number in range(min(total, len(self) + NAMED)) if number not in there]
        names = ", ".join(gone[:NAMED]) + (" ..." if total - len(self) > NAMED else "")
        reason = f"{where} lists {len(self)} of the {total} episodes that info.json counts; missing: {names}"
        return (("meta/episodes", reason),)

    def task(self, index: int, rows: dict[str, Any]) -> str:
        """The first task of episode `index`: by meta/episodes, else by its rows and tasks.parquet; "" without one."""
        texts = self.episodes.column("tasks")[index].as_py() if "tasks" in self.episodes.column_names else None
        if texts:
            return texts if isinstance(texts, str) else str(texts[0])
        numbers = np.asarray(rows.get("task_index", ())).reshape(-1)
        return self._tasks.get(int(numbers[0]), "") if len(numbers) else ""

    @cached_property
    def _tasks(self) -> dict[int, str]:
        """Texts of meta/tasks.parquet by number; the text's column is a data frame's index, whatever its name."""
        path = self.folder / "meta" / "tasks.parquet"
        if not path.exists():
            return {}
        with _readable(path):
            columns = pq.read_table(path, use_threads=False).to_pydict()
            numbers = columns.pop("task_index")
            texts: Any = next((each for each in columns.values() if all(isinstance(text, str) for text in each)), None)
            return dict(zip(map(int, numbers), texts, strict=True))

    def data_file(self, index: int) -> Path:
        """The parquet file that meta/episodes names for the rows of episode `index`; it may be missing."""
        return self._file("data", index)

    def video_file(self, index: int, key: str) -> Path:
        """The video file that holds episode `index` of camera `key`; it may be missing."""
        return self._file(f"videos/{key}", index, key)

    def frames(self, index: int, key: str) -> PackedFrames:
        """The frames of episode `index` of camera `key`, lazy. Raises ValueError when its times are impossible."""
        start = float(self.column(f"videos/{key}/from_timestamp")[index])
        end = float(self.column(f"videos/{key}/to_timestamp")[index])
        length = self.lengths[index]
        if not 0 <= start < end < 1e7 or abs((end - start) * self.fps - length) > 1:
            raise ValueError(f"{key} runs from {start} to {end} s; its rows are {length} frames at {self.fps:g} fps")
        self._check_only(index, key, start, end)
        path = self.video_file(index, key)
        size = _sizes.get(identity(path), lambda: VideoFrames(path, uneven=True).size)
        self.compare_size(key, size, path)
        return PackedFrames(path, round(start * self.fps), length, size, self.fps, start)

    def _check_only(self, index: int, key: str, start: float, end: float) -> None:
        """Refuse pictures that another episode has, too, unless the lengths before say that they are this one's."""
        names = (f"videos/{key}/{part}" for part in ("chunk_index", "file_index", "from_timestamp", "to_timestamp"))
        chunks, files, starts, ends = (self.column(name) for name in names)
        same = (chunks == chunks[index]) & (files == files[index])
        slack = 0.5 / self.fps
        shared = same & (starts < end - slack) & (ends > start + slack) & (np.arange(len(self)) != index)
        before = np.array(self.lengths)[:index][same[:index]].sum() / self.fps
        if shared.any() and abs(start - before) > slack:
            other = int(self.column("episode_index")[np.argmax(shared)])
            where = f"{key}: meta/episodes gives {start:g} to {end:g} s of the video to episode {other}, too"
            raise ValueError(f"{where}; by the lengths of the episodes before, this one starts at {before:g} s")

    def compare_size(self, key: str, size: tuple[int, int], path: Path) -> bool:
        """Whether pictures of `size` have the sides of info.json, in any order, but for channels; a warning if not."""
        sides = _sides(self.features[key])
        channels = next((place for place in (-1, 0, 1) if len(sides) == 3 and sides[place] in (1, 3)), None)
        if channels is not None:
            del sides[channels]
        if sorted(sides) == sorted(size):
            return True
        told, shown = (" x ".join(map(str, each)) or "nothing" for each in (sides, size))
        self.warn_once(f"{path}: {key} shows {shown} pixels, info.json says {told}; the true size is taken")
        return False

    def warn_once(self, message: str) -> None:
        """Log a warning that this dataset has not logged before."""
        if message not in self._said:
            self._said.add(message)
            _LOG.warning(message)

    @cached_property
    def _said(self) -> set[str]:
        return set()

    def check_times(self, index: int, rows: dict[str, Any]) -> None:
        """Refuse rows of episode `index` whose times are not those of the rate: their frames would be others."""
        if "timestamp" in rows:
            times = np.asarray(rows["timestamp"], dtype=np.float64).reshape(-1)
            fine = np.abs((times - times[0]) * self.fps - np.arange(len(times))) < 0.5
            if not fine.all():
                frame = int(np.argmin(fine))
                where, late = f"{self.data_file(index)}: the time of frame {frame}", times[frame] - times[0]
                raise CorruptEpisodeError(f"{where} is not that of {self.fps} fps: {late:g} s after the first")

    def _file(self, columns: str, index: int, key: str = "") -> Path:
        chunk, number = (int(self.column(f"{columns}/{part}_index")[index]) for part in ("chunk", "file"))
        usual = f"{columns}/chunk-{chunk:03d}/file-{number:03d}.{'mp4' if key else 'parquet'}"
        return self.files.get((key, chunk, number)) or self.folder / usual

    @cached_property
    def files(self) -> dict[tuple[str, int, int], Path]:
        """Files by camera ("" for rows), chunk and number, whatever stands between the words and the numbers."""
        found = {}
        for path in sorted([*(self.folder / "data").rglob("*.parquet"), *(self.folder / "videos").rglob("*.mp4")]):
            chunks, numbers = (re.findall(r"\d+", part) for part in (path.parent.name, path.stem))
            if chunks and numbers and not path.name.startswith("."):
                key = "" if path.suffix == ".parquet" else path.parent.parent.name
                found[key, int(chunks[-1]), int(numbers[-1])] = path
        return found


def is_lerobot(folder: Path) -> bool:
    """Whether `folder` has LeRobot's info file, of any version."""
    return (folder / "meta" / "info.json").is_file()


def open_layout(folder: Path | str) -> LeRobotLayout:
    """Read the meta files of a LeRobot v3 dataset.

    Raises FileNotFoundError when there is none, ValueError when it is of another version (and how to convert it)
    or when a meta file is damaged.
    """
    folder = Path(folder)
    path = folder / "meta" / "info.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} is no LeRobot dataset: it holds no meta/info.json")
    info = read_json(path)
    version = str(info.get("codebase_version"))
    if not re.match(r"v?3\.", version):
        raise ValueError(
            f"{path} is of LeRobot version {version}; version 3 is read here. Convert it with LeRobot's own script "
            "`convert_dataset_v21_to_v30`, or download the v3.0 revision"
        )
    features, fps = info.get("features"), info.get("fps")
    if not isinstance(features, dict) or not all(isinstance(entry, dict) for entry in features.values()):
        raise ValueError(f"{path} describes no features; it is damaged")
    if not isinstance(fps, (int, float)) or not 0 < fps < 1e4:
        raise ValueError(f"{path} gives {fps!r} frames per second; it is damaged")
    return LeRobotLayout(folder, info, _read_episodes(folder))


def _read_episodes(folder: Path) -> pa.Table:
    where = folder / "meta" / "episodes"
    paths = sorted(path for path in where.rglob("*.parquet") if not path.name.startswith("."))
    if not paths:
        raise FileNotFoundError(f"{where} holds no parquet file; download the dataset's meta/")
    tables = []
    for path in paths:
        with _readable(path), pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            tables.append(file.read(columns=names, use_threads=False))
    with _readable(where):
        table = pa.concat_tables(tables, promote_options="permissive").sort_by("episode_index").combine_chunks()
    numbers = table.column("episode_index").to_numpy()
    if numbers.dtype.kind != "i":
        raise ValueError(f"{where}: episode_index is {numbers.dtype}, or lacks values")
    if "length" not in table.column_names or len(np.unique(numbers)) != len(numbers):
        raise ValueError(f"{where} has no lengths, or episodes that come twice")
    return table


def _sides(feature: dict[str, Any]) -> list[int]:
    """The shape that info.json gives a feature; [] where it is none."""
    shape = feature.get("shape")
    return [side for side in shape if isinstance(side, int)] if isinstance(shape, (list, tuple)) else []


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise ValueError(f"{path} can't be read ({error}); download it again") from error
