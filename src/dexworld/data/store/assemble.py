"""Staged packs to the finished store: episodes numbered in the order of their ids, LeRobot's index and meta files.

An assembly that was killed is run again from its start and gives the same bytes. Videos are moved, labels are rewritten
with their global numbers. `meta/dexworld.json` is written last and makes the store complete; then staging is removed.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.files import size_and_checksum, with_checksum
from dexworld.data.lerobot.rows import column_arrays
from dexworld.data.locks import claimed, hidden
from dexworld.data.store import labels, lerobot_files
from dexworld.data.store.encode import RECIPES
from dexworld.data.store.packs import MARK, STAGING, EpisodeRecord, PackRecord, staged
from dexworld.data.store.policy_columns import PolicyColumns
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.writing import json_text, write_json, written_atomically

FORMAT = "dexworld-prepared"
FORMAT_VERSION = 2  # 1 named labels otherwise; both are read
VIDEO_KEY = "observation.images.main"
EPISODES_PER_FILE = 10_000  # rows of one file in meta/episodes
TYPES = {  # of columns of meta/episodes that their values alone don't tell
    "tasks": pa.list_(pa.string()),
    "dexworld/seed": pa.int64(),
    "dexworld/split": pa.string(),
    "dexworld/intrinsics": pa.list_(pa.float64()),
}
logger = logging.getLogger(__name__)


def assemble(
    folder: Path | str,
    records: Sequence[PackRecord],
    provenance: dict[str, Any],
    quarantined: Sequence[tuple[str, str]] = (),
) -> bool:
    """Make the finished store in `folder` from its staged packs; nothing is done when it is finished already.

    Returns whether the store is finished: another process may be at it.

    records: all packs, in any order (`read_records`). provenance: JSON values about the source, kept as they are.
    quarantined: (file or id, reason) of what the source had left out before any pack. Raises ValueError when a staged
    file is not the one recorded, or no episode is readable.
    """
    folder = Path(folder)
    if not (folder / MARK).exists():
        assembly = _Assembly(folder, sorted(records, key=lambda record: record.number))
        (folder / MARK).parent.mkdir(parents=True, exist_ok=True)
        with claimed(folder / MARK, wait=False) as part:
            if part is not None:
                part.write_text(json_text(with_checksum(assembly.run(provenance, quarantined))), encoding="utf-8")
        if not (folder / MARK).exists():
            return False
    shutil.rmtree(folder / STAGING, ignore_errors=True)  # another process may remove it too
    return True


class _Assembly:
    def __init__(self, folder: Path, records: list[PackRecord]) -> None:
        self.folder = folder
        self.settings = _settings_of(folder, records)
        self.fps = self.settings.fps or 0.0
        self.packs = [record for record in records if record.episodes]
        self.quarantined = [entry for record in records for entry in record.quarantined]
        self.episodes = [episode for record in self.packs for episode in record.episodes]
        layouts = sorted({each.layout for each in self.episodes})
        self.layout = labels.merged([labels.layout_from_text(text) for text in layouts])
        self.policy = PolicyColumns.of([labels.layout_from_text(text) for text in layouts])
        behind = dict.fromkeys((*labels.PACKETS, labels.SEED), "int64") | lerobot_files.INDEX_COLUMNS
        self.columns: labels.Layout = {**self.layout, **{name: (kind, ()) for name, kind in behind.items()}}
        widths = {labels.INTRINSICS: 9} | {name: len(each) for name, each in self.policy.names.items()}
        self.columns |= {name: ("float32", (width,) if width > 1 else ()) for name, width in widths.items()}
        self.tasks = {task: number for number, task in enumerate(dict.fromkeys(each.task for each in self.episodes))}
        self.files: dict[str, dict[str, int]] = {}
        self.frames = sum(episode.length for episode in self.episodes)
        self.totals = {name: lerobot_files.Aggregate() for name in (*self.columns, VIDEO_KEY)}

    def run(self, provenance: dict[str, Any], quarantined: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Write all files but the mark; returns the content of it."""
        rows = self._episode_rows()
        for number in count():  # a file at a time: hundreds of thousands of rows don't fit into memory
            if not (some := list(islice(rows, EPISODES_PER_FILE))):
                break
            self._write_rows(number, some)
        with self._noted("meta/tasks.parquet") as path:
            lerobot_files.write_tasks(path, list(self.tasks))
        for name, content in (("info", self._info()), ("stats", self._stats())):
            with self._noted(f"meta/{name}.json") as path:
                write_json(path, content)
        self._remove_strays()
        left_out = [list(entry) for entry in quarantined] + self.quarantined
        logger.info("%s: %d episodes, %d left out", self.folder, len(self.episodes), len(left_out))
        return self._mark(provenance, left_out)

    def _mark(self, provenance: dict[str, Any], quarantined: list[list[str]]) -> dict[str, Any]:
        settings = self.settings.to_json()
        pairs = ((pack, episode) for pack in self.packs for episode in pack.episodes)
        lines = [f"{episode.id} {episode.labels_crc32} {pack.video['crc32']}" for pack, episode in pairs]
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "dexworld_version": version("dexworld")}
        return head | {
            "fingerprint": hashlib.sha256("\n".join([json.dumps(settings), *lines]).encode()).hexdigest()[:32],
            "settings": settings,
            "counts": {"episodes": len(self.episodes), "frames": self.frames, "quarantined": len(quarantined)},
            "provenance": provenance,
            "video_key": VIDEO_KEY,
            "extradata": {str(record.number): record.extradata for record in self.packs},
            "quarantined": quarantined,
            "files": dict(sorted(self.files.items())),
        }

    def _episode_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of meta/episodes, pack by pack; each pack's video and labels are written before its first row."""
        episode_index = index = 0
        for record in self.packs:
            chunk, file = lerobot_files.place_of(record.number)
            self._move_video(record)
            video, start = f"videos/{VIDEO_KEY}", 0
            statistics = self._write_data(record, episode_index, index)
            for row_group, (episode, numbers) in enumerate(zip(record.episodes, statistics, strict=True)):
                end, length = start + episode.length, episode.length
                row = {"episode_index": episode_index, "tasks": [episode.task], "length": length}
                row |= {"data/chunk_index": chunk, "data/file_index": file}
                row |= {"dataset_from_index": index, "dataset_to_index": index + length}
                row |= {f"{video}/chunk_index": chunk, f"{video}/file_index": file}
                row |= {f"{video}/from_timestamp": start / self.fps, f"{video}/to_timestamp": end / self.fps}
                row |= _own_columns(record.number, row_group, episode)
                for name, values in numbers.items():
                    self.totals[name].add(values)
                    row |= {f"stats/{name}/{kind}": value for kind, value in values.items()}
                yield row
                start, index, episode_index = end, index + length, episode_index + 1

    def _move_video(self, record: PackRecord) -> None:
        source, place = staged(self.folder, record.number, ".mp4"), video_place(record.number)
        target, size = self.folder / place, record.video["bytes"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            os.replace(source, target)
        if not target.exists() or target.stat().st_size != size:
            raise ValueError(f"{source} is not the {size} bytes of its record; delete the record and prepare again")
        self.files[place] = record.video

    def _write_data(self, record: PackRecord, episode_index: int, index: int) -> list[dict[str, dict[str, np.ndarray]]]:
        """Write the pack's data file; returns each episode's statistics by column."""
        source = staged(self.folder, record.number, ".parquet")
        if not source.exists() or size_and_checksum(source) != record.labels:
            raise ValueError(f"{source} is not the file of its record; delete the record and prepare again")
        statistics = []
        with (
            self._noted(data_place(record.number)) as path,
            pq.ParquetFile(source) as packed,
            labels.LabelWriter(path, self.columns) as writer,
        ):
            for row_group, episode in enumerate(record.episodes):
                rows = column_arrays(packed.read_row_group(row_group, use_threads=False))
                own = labels.restored(rows, labels.layout_from_text(episode.layout))
                flat = labels.flat_columns(own, self.layout, episode.length)
                flat |= {name: rows[name] for name in labels.PACKETS}
                flat |= self._index_columns(episode, episode_index, index) | self.policy.arrays(own)
                writer.write(flat, episode.length)
                numeric = [name for name, (kind, _) in self.columns.items() if kind != "str"]
                numbers = {name: lerobot_files.statistics(flat[name], name in self.policy.names) for name in numeric}
                statistics.append(numbers | {VIDEO_KEY: {k: np.array(v) for k, v in episode.image_stats.items()}})
                episode_index, index = episode_index + 1, index + episode.length
        return statistics

    def _index_columns(self, episode: EpisodeRecord, episode_index: int, index: int) -> dict[str, np.ndarray]:
        frames = np.arange(episode.length, dtype=np.int64)
        return {
            "timestamp": (frames / self.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(episode.length, episode_index, dtype=np.int64),
            "index": index + frames,
            "task_index": np.full(episode.length, self.tasks[episode.task], dtype=np.int64),
            # once more in every row, for what tools that rewrite a dataset drop from meta/episodes
            labels.INTRINSICS: np.tile(np.array(episode.intrinsics, dtype=np.float32), (episode.length, 1)),
            labels.SEED: np.full(episode.length, -1 if episode.seed is None else episode.seed, dtype=np.int64),
        }

    def _write_rows(self, number: int, rows: list[dict[str, Any]]) -> None:
        columns = {name: pa.array([row[name] for row in rows], type=_type_of(name)) for name in rows[0]}
        for part, value in zip(("chunk", "file"), lerobot_files.place_of(number), strict=True):
            columns[f"meta/episodes/{part}_index"] = pa.array([value] * len(rows))
        with self._noted(lerobot_files.place_in(lerobot_files.EPISODES_PATH, number)) as path:
            pq.write_table(pa.table(columns), path, compression="zstd", write_page_checksum=True)

    def _info(self) -> dict[str, Any]:
        recipe = RECIPES[self.settings.codec]
        size = self.settings.stored_size
        features = {VIDEO_KEY: lerobot_files.video_feature(size, recipe.decoder, recipe.pixel_format, self.fps)}
        for name, (kind, shape) in self.columns.items():
            names = self.policy.names.get(name) or labels.feature_names(name, shape)
            features[name] = lerobot_files.feature(kind, shape, names, self.fps)
        return lerobot_files.info(features, self.fps, len(self.episodes), self.frames, len(self.tasks))

    def _stats(self) -> dict[str, Any]:
        """LeRobot keeps a video's statistics as (3, 1, 1)."""
        found = {name: total.result() for name, total in self.totals.items() if total.count}
        video = found[VIDEO_KEY]
        return found | {VIDEO_KEY: {k: v if k == "count" else [[[value]] for value in v] for k, v in video.items()}}

    @contextmanager
    def _noted(self, place: str) -> Iterator[Path]:
        """A temporary path for the file at `place`, whose size and checksum are noted once it is written."""
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as temporary:
            yield temporary
        self.files[place] = size_and_checksum(path)

    def _remove_strays(self) -> None:
        """Files of an earlier, killed assembly that this one did not write again."""
        for path in [path for top in ("data", "videos", "meta") for path in (self.folder / top).rglob("*")]:
            kept = path == hidden(self.folder / MARK) or path.relative_to(self.folder).as_posix() in self.files
            if path.is_file() and not kept:
                path.unlink()


def video_place(pack: int) -> str:
    """Where a pack's video lies below the store's folder."""
    return lerobot_files.place_in(lerobot_files.VIDEO_PATH, pack, VIDEO_KEY)


def data_place(pack: int) -> str:
    """Where a pack's labels lie below the store's folder."""
    return lerobot_files.place_in(lerobot_files.DATA_PATH, pack)


def _own_columns(pack: int, row_group: int, episode: EpisodeRecord) -> dict[str, Any]:
    """What meta/episodes holds beyond LeRobot's own columns: all that opening an episode needs but its rows."""
    names = ("fps", "source", "seed", "split", "intrinsics", "layout", "labels_crc32")
    height, width = episode.source_size
    own = {"id": episode.id, "pack": pack, "row_group": row_group} | {name: getattr(episode, name) for name in names}
    own |= {"source_height": height, "source_width": width}
    return {f"dexworld/{name}": value for name, value in own.items()}


def _type_of(name: str) -> pa.DataType | None:
    """The Arrow type of a column of meta/episodes; None where its values tell it."""
    if name.startswith("stats/"):
        return pa.list_(pa.int64() if name.endswith("/count") else pa.float32())
    return TYPES.get(name)


def _settings_of(folder: Path, records: list[PackRecord]) -> PrepareSettings:
    """The settings of all packs; every process agreed on them in the plan."""
    readable = [record for record in records if record.episodes]
    if not readable:
        reasons = [f"{name}: {reason}" for record in records for name, reason in record.quarantined]
        raise ValueError(f"{folder}: no episode is readable ({len(reasons)} left out); the first: {reasons[:1]}")
    return PrepareSettings.from_json(readable[0].settings)
