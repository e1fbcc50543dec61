"""The rows of one episode of a LeRobot v3 dataset as arrays, read without the rows around them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.lerobot.layout import UNREADABLE, LeRobotLayout
from dexworld.data.lerobot.packets import PerThread, identity
from dexworld.data.source import CorruptEpisodeError

MAX_OPEN_FILES = 64
_files: PerThread[pq.ParquetFile] = PerThread(MAX_OPEN_FILES, lambda file: file.close())


def open_parquet(path: Path) -> pq.ParquetFile:
    """A parquet file that stays open with its footer parsed, among the most recently used of this thread."""
    return _files.get(identity(path), lambda: pq.ParquetFile(path, memory_map=False))


def episode_rows(layout: LeRobotLayout, index: int, names: list[str] | None = None) -> dict[str, Any]:
    """Columns of episode `index`: arrays (T, *shape), or lists of bytes for images stored in the rows.

    names: which columns; None for all. Raises CorruptEpisodeError naming the file and the column when rows are missing,
    belong to another episode, or hold lists of changing length.
    """
    path = layout.data_file(index)
    try:
        file = open_parquet(path)
        present = file.schema_arrow.names
        wanted = present if names is None else list(dict.fromkeys([*names, "episode_index"]))
        missing = [name for name in wanted if name not in present]
        if missing:
            raise ValueError(f"it has no column {', '.join(missing)}")
        first, length = _first_row(layout, index), layout.lengths[index]
        table = _rows(file, first, length, wanted)
        number = int(layout.column("episode_index")[index])
        if table.num_rows != length or (table.column("episode_index").to_numpy() != number).any():
            raise ValueError(f"rows {first} to {first + length} are not the {length} rows of episode {number}")
        return {name: column_values(table.column(name), name) for name in wanted}
    except UNREADABLE as error:
        raise CorruptEpisodeError(f"{path}: episode {index}: {error}") from error


def _first_row(layout: LeRobotLayout, index: int) -> int:
    """The episode's first row in its file: its global number less that of the file's first episode."""
    starts, chunks, files = (
        layout.column(name) for name in ("dataset_from_index", "data/chunk_index", "data/file_index")
    )
    together = (chunks == chunks[index]) & (files == files[index])
    return int(starts[index] - starts[together].min())


def _rows(file: pq.ParquetFile, first: int, length: int, names: list[str]) -> pa.Table:
    """`length` rows from row `first`, from the row groups that hold them."""
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    groups = np.arange(np.searchsorted(ends, first, side="right"), np.searchsorted(ends, first + length) + 1)
    groups = groups[groups < len(ends)]
    if len(groups) == 0:
        raise ValueError(f"row {first} is missing: the file holds {ends[-1] if len(ends) else 0} rows")
    before = int(ends[groups[0] - 1]) if groups[0] else 0
    return file.read_row_groups(groups.tolist(), columns=names, use_threads=False).slice(first - before, length)


def column_values(column: pa.ChunkedArray, name: str) -> Any:
    """A column as an array (T, *shape), nested lists becoming axes; images (structs of bytes) as a list of bytes."""
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_struct(array.type):
        return [None if row is None else row.get("bytes") for row in array.to_pylist()]
    shape = [len(array)]
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        inner = array.flatten()
        if array.null_count or len(inner) % max(len(array), 1):
            raise ValueError(f"column {name} holds lists of changing length")
        if not pa.types.is_fixed_size_list(array.type) and len(set(array.value_lengths().unique().to_pylist())) > 1:
            raise ValueError(f"column {name} holds lists of changing length")
        shape.append(len(inner) // max(len(array), 1))
        array = inner.storage if isinstance(inner, pa.ExtensionArray) else inner
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return np.array([text or "" for text in array.to_pylist()], dtype="U").reshape(shape)
    if array.null_count and not pa.types.is_floating(array.type):
        raise ValueError(f"column {name} lacks {array.null_count} values")
    return array.to_numpy(zero_copy_only=False).reshape(shape)
