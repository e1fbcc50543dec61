"""The rows of one episode of a LeRobot v3 dataset as arrays, and the frames of a dataset that keeps images in them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dexworld.data.lerobot.layout import UNREADABLE, LeRobotLayout
from dexworld.data.packets import DECODE_ERRORS, Decoder, PerThread, identity
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError
from dexworld.track import frame_numbers

MAX_OPEN_FILES = 64
_files: PerThread[pq.ParquetFile] = PerThread(MAX_OPEN_FILES, lambda file: file.close())


def open_parquet(path: Path) -> pq.ParquetFile:
    """A parquet file that stays open, among the most recently used of this thread."""
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
        return column_arrays(table.select(wanted))
    except UNREADABLE as error:
        raise CorruptEpisodeError(f"{path}: episode {index}: {error}") from error


def _first_row(layout: LeRobotLayout, index: int) -> int:
    """The episode's first row in its file: its global number less that of the file's first episode."""
    names = ("dataset_from_index", "data/chunk_index", "data/file_index")
    starts, chunks, files = (layout.column(name) for name in names)
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


def column_arrays(table: pa.Table) -> dict[str, Any]:
    """Every column of a table by name, as `column_values` gives it."""
    return {name: column_values(table.column(name), name) for name in table.column_names}


def column_values(column: pa.ChunkedArray, name: str) -> Any:
    """A column as an array (T, *shape), nested lists becoming axes; images (structs of bytes) as a list of bytes."""
    array = _plain(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    if pa.types.is_struct(array.type):
        return [None if row is None else row.get("bytes") for row in array.to_pylist()]
    shape = [len(array)]
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        inner, fixed = array.flatten(), pa.types.is_fixed_size_list(array.type)
        lengths = () if fixed else array.value_lengths().unique()
        if array.null_count or len(lengths) > 1 or len(inner) % max(len(array), 1):
            raise ValueError(f"column {name} holds lists of changing length")
        shape.append(len(inner) // max(len(array), 1))
        array = _plain(inner)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return np.array([text or "" for text in array.to_pylist()], dtype="U").reshape(shape)
    if array.null_count and not pa.types.is_floating(array.type):
        raise ValueError(f"column {name} lacks {array.null_count} values")
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _plain(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


@dataclass(frozen=True)
class RowImages:
    """Frames stored as PNG or JPEG files inside the rows of an episode. Holds no open file."""

    layout: LeRobotLayout = field(repr=False)
    row: int
    key: str

    def __len__(self) -> int:
        return self.layout.lengths[self.row]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.layout.video_size(self.key)

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be decoded.
        """
        wanted = frame_numbers(indices, len(self), f"{self.layout.folder}: {self.key}")
        where = f"{self.layout.data_file(self.row)}: {self.key}, frame"
        try:
            images = episode_rows(self.layout, self.row, [self.key])[self.key]
        except CorruptEpisodeError as error:
            raise VideoError(str(error)) from error
        frames = np.empty((len(wanted), *self.size, 3), dtype=np.uint8)
        for place, index in enumerate(wanted.tolist()):
            frames[place] = _decoded(images[index], self.size, f"{where} {index} of its episode")
        return frames


def _decoded(content: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """An image file's bytes as (H, W, 3) uint8 RGB."""
    if not isinstance(content, bytes) or not content.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        raise VideoError(f"{where} holds no PNG or JPEG")
    try:
        decoder = Decoder("png" if content.startswith(b"\x89PNG") else "mjpeg", b"")
        pictures = decoder.context.decode(av.Packet(content)) + decoder.context.decode(None)
        if len(pictures) != 1:
            raise VideoError(f"{len(pictures)} pictures")
        return decoder.rgb(pictures[0], size)
    except DECODE_ERRORS as error:
        raise VideoError(f"{where} can't be decoded ({error})") from error
