"""Staged packs to the finished store: episodes numbered in the order of their ids, LeRobot's index and meta files.

Everything is computed from the records and the staged files, so an assembly that was killed is run again from its start
and gives the same bytes. Videos are moved, labels rewritten with their global numbers. `meta/dexworld.json` is written
last and makes the store complete; only then is the staging folder removed.
"""

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.files import write_json, written_atomically
from dexworld.data.lerobot import writing
from dexworld.data.prepared.encode import RECIPES
from dexworld.data.prepared.labels import (
    PACKETS,
    Layout,
    arrow_column,
    feature_names,
    flat_column,
    layout_from_text,
    merged,
    numpy_column,
    restored,
    schema_of,
)
from dexworld.data.prepared.pack import MARK, STAGING, EpisodeRecord, PackRecord, crc32_of, label_writer, staged
from dexworld.data.prepared.settings import PrepareSettings

FORMAT = "dexworld-prepared"
FORMAT_VERSION = 1
VIDEO_KEY = "observation.images.main"
EPISODES_PER_FILE = 10_000  # rows of one file in meta/episodes
_logger = logging.getLogger(__name__)


def assemble(
    folder: Path | str,
    records: Sequence[PackRecord],
    provenance: dict[str, Any],
    quarantined: Sequence[tuple[str, str]] = (),
) -> None:
    """Make the finished store in `folder` from its staged packs; nothing is done when it is finished already.

    records: all packs, in any order (`read_records`). provenance: JSON values about the source, kept as they are.
    quarantined: (file or id, reason) of what the source had left out before any pack; the packs' own come behind.
    Raises ValueError when packs disagree in their settings, ids come twice, a staged file is not the one recorded, or
    no episode is readable.
    """
    folder = Path(folder)
    if not (folder / MARK).exists():
        _Assembly(folder, sorted(records, key=lambda record: record.number)).run(provenance, quarantined)
    if (folder / STAGING).exists():
        shutil.rmtree(folder / STAGING)


class _Assembly:
    def __init__(self, folder: Path, records: list[PackRecord]) -> None:
        self.folder = folder
        self.records = records
        self.settings = _common_settings(folder, records)
        episodes = [episode for record in records for episode in record.episodes]
        self.layout = merged([layout_from_text(text) for text in sorted({episode.layout for episode in episodes})])
        self.tasks = {task: number for number, task in enumerate(dict.fromkeys(episode.task for episode in episodes))}
        self.files: dict[str, dict[str, int]] = {}
        self.totals = {name: writing.Aggregate() for name in (*self._columns(), VIDEO_KEY)}
        self.counts = {"episodes": len(episodes), "frames": sum(episode.length for episode in episodes)}

    def run(self, provenance: dict[str, Any], quarantined: Sequence[tuple[str, str]]) -> None:
        (self.folder / "meta").mkdir(exist_ok=True)
        self._write_episodes()
        path = self.folder / "meta" / "tasks.parquet"
        writing.write_tasks(path, list(self.tasks))
        self._note(path)
        for name, content in (("info.json", self._info()), ("stats.json", self._stats())):
            write_json(self.folder / "meta" / name, content)
            self._note(self.folder / "meta" / name)
        self._remove_strays()
        left_out = [list(entry) for entry in quarantined]
        left_out += [entry for record in self.records for entry in record.quarantined]
        mark = self._mark(provenance, left_out)
        write_json(self.folder / MARK, mark | {"crc32": mark_checksum(mark)})
        _logger.info("%s: %d episodes, %d left out", self.folder, self.counts["episodes"], len(left_out))

    def _mark(self, provenance: dict[str, Any], quarantined: list[list[str]]) -> dict[str, Any]:
        lines = [
            f"{episode.id} {episode.labels_crc32} {(record.video or {})['crc32']}"
            for record in self.records
            for episode in record.episodes
        ]
        content = json.dumps(self.settings.to_json()) + "\n" + "\n".join(lines)
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dexworld_version": version("dexworld"),
            "fingerprint": hashlib.sha256(content.encode()).hexdigest()[:32],
            "settings": self.settings.to_json(),
            "counts": self.counts | {"quarantined": len(quarantined)},
            "provenance": provenance,
            "video_key": VIDEO_KEY,
            "extradata": {str(record.number): record.extradata for record in self.records if record.episodes},
            "quarantined": quarantined,
            "files": dict(sorted(self.files.items())),
        }

    def _columns(self) -> Layout:
        """Every column of the data files, in order."""
        index: Layout = {name: (kind, ()) for name, kind in writing.INDEX_COLUMNS.items()}
        return {**self.layout, **dict.fromkeys(PACKETS, ("int64", ())), **index}

    def _write_episodes(self) -> None:
        """Videos, data files and meta/episodes, pack by pack."""
        rows: list[dict[str, Any]] = []
        written = 0
        for row in self._episode_rows():
            chunk, file = writing.place_of(written)
            rows.append(row | {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file})
            if len(rows) == EPISODES_PER_FILE:
                self._write_rows(rows, chunk, file)
                rows, written = [], written + 1
        if rows:
            self._write_rows(rows, *writing.place_of(written))

    def _episode_rows(self) -> Iterator[dict[str, Any]]:
        episode_index = index = 0
        for record in self.records:
            if not record.episodes:
                continue
            chunk, file = writing.place_of(record.number)
            self._move_video(record, chunk, file)
            fps, start = self.settings.fps or 0.0, 0
            statistics = self._write_data(record, chunk, file, episode_index, index)
            for row_group, (episode, numbers) in enumerate(zip(record.episodes, statistics, strict=True)):
                row = {
                    "episode_index": episode_index,
                    "tasks": [episode.task],
                    "length": episode.length,
                    "data/chunk_index": chunk,
                    "data/file_index": file,
                    "dataset_from_index": index,
                    "dataset_to_index": index + episode.length,
                    f"videos/{VIDEO_KEY}/chunk_index": chunk,
                    f"videos/{VIDEO_KEY}/file_index": file,
                    f"videos/{VIDEO_KEY}/from_timestamp": start / fps,
                    f"videos/{VIDEO_KEY}/to_timestamp": (start + episode.length) / fps,
                    **own_columns(record.number, row_group, episode),
                }
                for name, values in numbers.items():
                    self.totals[name].add(values)
                    row |= {f"stats/{name}/{kind}": value for kind, value in values.items()}
                yield row
                start, index, episode_index = start + episode.length, index + episode.length, episode_index + 1

    def _move_video(self, record: PackRecord, chunk: int, file: int) -> None:
        source = staged(self.folder, record.number, ".mp4")
        place = writing.VIDEO_PATH.format(video_key=VIDEO_KEY, chunk_index=chunk, file_index=file)
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            os.replace(source, target)
        expected = record.video or {}
        if not target.exists() or target.stat().st_size != expected.get("bytes"):
            raise ValueError(
                f"{source} is not the {expected.get('bytes')} bytes of its record; delete the record beside it and "
                "prepare again"
            )
        self.files[place] = dict(expected)

    def _write_data(
        self, record: PackRecord, chunk: int, file: int, episode_index: int, index: int
    ) -> list[dict[str, dict[str, np.ndarray]]]:
        """Write the pack's data file; returns each episode's statistics by column."""
        source = staged(self.folder, record.number, ".parquet")
        if not source.exists() or crc32_of(source) != (record.labels or {}).get("crc32"):
            raise ValueError(f"{source} is not the file of its record; delete the record beside it and prepare again")
        place = writing.DATA_PATH.format(chunk_index=chunk, file_index=file)
        target = self.folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        columns, statistics = self._columns(), []
        schema = schema_of(columns)
        with (
            pq.ParquetFile(source) as packed,
            written_atomically(target) as temporary,
            label_writer(temporary, schema) as writer,
        ):
            for row_group, episode in enumerate(record.episodes):
                table = packed.read_row_group(row_group, use_threads=False)
                flat = self._flat(table, episode) | self._index_columns(episode, episode_index, index)
                arrays = [arrow_column(flat[name], schema.field(name).type) for name in columns]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=episode.length)
                numbers = {name: writing.statistics(flat[name]) for name, (kind, _) in columns.items() if kind != "str"}
                statistics.append(numbers | {VIDEO_KEY: {k: np.array(v) for k, v in episode.image_stats.items()}})
                episode_index, index = episode_index + 1, index + episode.length
        self._note(target)
        return statistics

    def _flat(self, table: pa.Table, episode: EpisodeRecord) -> dict[str, np.ndarray]:
        """The store's columns of one episode from its pack's."""
        own = layout_from_text(episode.layout)
        flat = {name: numpy_column(table.column(name)) for name in PACKETS}
        for name, (kind, shape) in self.layout.items():
            array = restored(numpy_column(table.column(name)), *own[name]) if name in own else None
            flat[name] = flat_column(array, kind, shape, episode.length)
        return flat

    def _index_columns(self, episode: EpisodeRecord, episode_index: int, index: int) -> dict[str, np.ndarray]:
        frames = np.arange(episode.length, dtype=np.int64)
        return {
            "timestamp": (frames / (self.settings.fps or 0.0)).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(episode.length, episode_index, dtype=np.int64),
            "index": index + frames,
            "task_index": np.full(episode.length, self.tasks[episode.task], dtype=np.int64),
        }

    def _write_rows(self, rows: list[dict[str, Any]], chunk: int, file: int) -> None:
        place = writing.EPISODES_PATH.format(chunk_index=chunk, file_index=file)
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        typed = {
            "tasks": pa.list_(pa.string()),
            "dexworld/seed": pa.int64(),
            "dexworld/split": pa.string(),
            "dexworld/intrinsics": pa.list_(pa.float64()),
        }
        columns = {
            name: pa.array([row[name] for row in rows], type=typed.get(name))
            if not name.startswith("stats/")
            else pa.array([row[name] for row in rows], type=_statistics_type(name))
            for name in rows[0]
        }
        with written_atomically(path) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd", write_page_checksum=True)
        self._note(path)

    def _info(self) -> dict[str, Any]:
        fps, recipe = self.settings.fps or 0.0, RECIPES[self.settings.codec]
        features: dict[str, Any] = {
            VIDEO_KEY: writing.video_feature(self.settings.stored_size, recipe.decoder, recipe.pixel_format, fps)
        }
        for name, (kind, shape) in self._columns().items():
            features[name] = writing.feature(
                "string" if kind == "str" else kind, shape, feature_names(name, shape), fps
            )
        return writing.info(features, fps, self.counts["episodes"], self.counts["frames"], len(self.tasks))

    def _stats(self) -> dict[str, Any]:
        """LeRobot keeps a video's statistics as (3, 1, 1)."""
        found = {name: total.result() for name, total in self.totals.items() if total.known}
        found[VIDEO_KEY] = {
            kind: values if kind == "count" else [[[value]] for value in values]
            for kind, values in found[VIDEO_KEY].items()
        }
        return found

    def _note(self, path: Path) -> None:
        place = path.relative_to(self.folder).as_posix()
        self.files[place] = {"bytes": path.stat().st_size, "crc32": crc32_of(path)}

    def _remove_strays(self) -> None:
        """Files of an earlier, killed assembly that this one did not write again."""
        for top in ("data", "videos", "meta"):
            for path in sorted((self.folder / top).rglob("*")):
                if path.is_file() and path.relative_to(self.folder).as_posix() not in self.files:
                    path.unlink()


def mark_checksum(mark: dict[str, Any]) -> int:
    """CRC-32 of what meta/dexworld.json says, its own entry `crc32` left aside."""
    content = {name: value for name, value in mark.items() if name != "crc32"}
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def own_columns(pack: int, row_group: int, episode: EpisodeRecord) -> dict[str, Any]:
    """What meta/episodes holds beyond LeRobot's own columns: all that opening an episode needs but its rows."""
    return {
        "dexworld/id": episode.id,
        "dexworld/pack": pack,
        "dexworld/row_group": row_group,
        "dexworld/fps": episode.fps,
        "dexworld/source": episode.source,
        "dexworld/seed": episode.seed,
        "dexworld/split": episode.split,
        "dexworld/intrinsics": episode.intrinsics,
        "dexworld/layout": episode.layout,
        "dexworld/labels_crc32": episode.labels_crc32,
        "dexworld/source_height": episode.source_size[0],
        "dexworld/source_width": episode.source_size[1],
    }


def _statistics_type(name: str) -> pa.DataType:
    return pa.list_(pa.int64() if name.endswith("/count") else pa.float32())


def _common_settings(folder: Path, records: list[PackRecord]) -> PrepareSettings:
    """The settings of all packs, once it is sure that they make one store."""
    readable = [record for record in records if record.episodes]
    if not readable:
        reasons = [f"{name}: {reason}" for record in records for name, reason in record.quarantined]
        raise ValueError(f"{folder}: no episode is readable ({len(reasons)} left out); the first: {reasons[:1]}")
    numbers = [record.number for record in records]
    ids = [episode.id for record in records for episode in record.episodes]
    if len(set(numbers)) != len(numbers) or len(set(ids)) != len(ids):
        raise ValueError(f"{folder}: packs or ids come twice among the records; plan packs of distinct ids")
    for record in readable[1:]:
        if record.settings != readable[0].settings:
            other, own = record.settings, readable[0].settings
            names = ", ".join(f"{name} {own[name]} and {other[name]}" for name in own if own[name] != other.get(name))
            raise ValueError(
                f"{folder}: packs {readable[0].number} and {record.number} have different settings ({names}); resolve "
                "the settings once, from the source's first readable episode, before any pack is written"
            )
    return PrepareSettings.from_json(readable[0].settings)
