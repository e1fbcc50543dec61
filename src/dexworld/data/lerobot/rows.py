"""The rows of one episode of a LeRobot v3 dataset as arrays, and the frames of a dataset that keeps images in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
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

MAX_OPEN_FILES, MAX_PLACES, MAX_IMAGES = 64, 1024, 2
Places = dict[int, list[tuple[int, int]]]  # episode number -> (first row, rows) of each run of its rows
_files: PerThread[pq.ParquetFile] = PerThread(MAX_OPEN_FILES, lambda file: file.close())
_places: PerThread[Places] = PerThread(MAX_PLACES, lambda places: None)
_images: PerThread[list[Any]] = PerThread(MAX_IMAGES, lambda images: None)


def open_parquet(path: Path) -> pq.ParquetFile:
    """A parquet file that stays open, among the most recently used of this thread."""
    return _files.get(identity(path), lambda: pq.ParquetFile(path, memory_map=False))


def episode_rows(layout: LeRobotLayout, index: int, names: Sequence[str], others: Sequence[str] = ()) -> dict[str, Any]:
    """Columns of episode `index`: arrays (T, *shape), or lists of bytes for images stored in the rows.

    names: columns that must be there. others: columns that are read where they can be; one warning says which can't.
    Raises CorruptEpisodeError naming the file and the column when rows or values of `names` are missing.
    """
    path, first = find_rows(layout, index)
    others = [name for name in others if name not in names]
    try:
        file = open_parquet(path)
        kinds = {each.name: each.type for each in file.schema_arrow}
        if missing := [name for name in names if name not in kinds]:
            raise ValueError(f"it has no column {', '.join(missing)}")
        left_out = {name: str(kinds.get(name, "not there")) for name in others}
        wanted = [*names, *(name for name in others if name in kinds and _is_plain(kinds[name]))]
        table, rows = _rows(file, first, layout.lengths[index], wanted), {}
        for name in wanted:
            try:
                rows[name] = column_values(table.column(name), name)
                if isinstance(rows[name], np.ndarray) and rows[name].size == 0:
                    raise ValueError(f"column {name} holds no numbers")
                left_out.pop(name, None)
            except UNREADABLE as error:
                if name in names:
                    raise
                rows.pop(name, None)
                left_out[name] = str(error).removeprefix(f"column {name} ")
        if left_out:
            told = ", ".join(f"{name} ({why})" for name, why in left_out.items())
            layout.warn_once(f"{layout.folder}: columns left out: {told}")
        return rows
    except UNREADABLE as error:
        raise CorruptEpisodeError(f"{path}: episode {index}: {error}") from error


def find_rows(layout: LeRobotLayout, index: int) -> tuple[Path, int]:
    """The data file that holds the rows of episode `index`, and the first of them, by the column `episode_index`.

    meta/episodes only says which file to look into first: a wrong pointer there costs a search and a warning. Raises
    CorruptEpisodeError when no file has the rows, or not as many as meta/episodes says.
    """
    number, length = int(layout.column("episode_index")[index]), layout.lengths[index]
    if length < 1:
        raise CorruptEpisodeError(f"{layout.folder}: episode {number} has no frames")
    named, why = layout.data_file(index), ""
    for path in dict.fromkeys((named, *(path for (key, *_), path in layout.files.items() if not key))):
        try:
            runs = _places.get(identity(path), partial(_read_places, path)).get(number, [])
        except UNREADABLE as error:
            why = why or f" ({error})"
            continue
        if runs:
            break
    else:
        raise CorruptEpisodeError(f"{named}: no row of episode {number} is there, nor in any other data file{why}")
    if path != named:
        layout.warn_once(f"{path}: holds the rows of episode {number}; meta/episodes names {named}")
    if len(runs) > 1 or runs[0][1] != length:
        found = " and ".join(str(count) for _, count in runs)
        raise CorruptEpisodeError(f"{path}: episode {number} has {found} rows, meta/episodes says {length}")
    return path, runs[0][0]


def _read_places(path: Path) -> Places:
    """Where the rows of every episode of a data file lie."""
    column = open_parquet(path).read(columns=["episode_index"], use_threads=False).column(0)
    numbers = column.fill_null(-1).to_numpy()
    starts = np.flatnonzero(np.diff(numbers, prepend=np.nan))
    places: Places = {}
    for start, count in zip(starts.tolist(), np.diff(starts, append=len(numbers)).tolist(), strict=True):
        places.setdefault(int(numbers[start]), []).append((start, count))
    return places


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type become an array of numbers or truth values."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _rows(file: pq.ParquetFile, first: int, length: int, names: list[str]) -> pa.Table:
    """`length` rows from row `first`, from the row groups that hold them."""
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    groups = np.arange(np.searchsorted(ends, first, side="right"), np.searchsorted(ends, first + length) + 1)
    groups = groups[groups < len(ends)]
    before = int(ends[groups[0] - 1]) if groups[0] else 0
    return file.read_row_groups(groups.tolist(), columns=names, use_threads=False).slice(first - before, length)


def column_arrays(table: pa.Table) -> dict[str, Any]:
    """Every column of a table by name, as `column_values` gives it."""
    return {name: column_values(table.column(name), name) for name in table.column_names}


def column_values(column: pa.ChunkedArray, name: str) -> Any:
    """A column as an array (T, *shape), nested lists becoming axes; images (structs of bytes) as a list of bytes."""
    array = _plain(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    if pa.types.is_struct(array.type) and array.type.get_field_index("bytes") >= 0:
        return [None if row is None else row.get("bytes") for row in array.to_pylist()]
    shape = [len(array)]
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        inner, fixed = array.flatten(), pa.types.is_fixed_size_list(array.type)
        lengths = () if fixed else array.value_lengths().unique()
        if array.null_count:
            raise ValueError(f"column {name} lacks rows")
        if len(lengths) > 1 or len(inner) % max(len(array), 1):
            raise ValueError(f"column {name} holds lists of changing length")
        shape.append(len(inner) // max(len(array), 1))
        array = _plain(inner)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return np.array([text or "" for text in array.to_pylist()], dtype="U").reshape(shape)
    if not _is_plain(array.type):
        raise ValueError(f"column {name} is {array.type}, not numbers")
    if array.null_count and not pa.types.is_floating(array.type):
        raise ValueError(f"column {name} lacks values")
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

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the first image."""
        path = self.layout.data_file(self.row)
        height, width = _decoded(self._stored()[0], None, f"{path}: {self.key}, frame 0 of its episode").shape[:2]
        self.layout.compare_size(self.key, (height, width), path)
        return height, width

    def _stored(self) -> list[Any]:
        """The image files of all rows; those of the last episodes are kept."""
        path, first = find_rows(self.layout, self.row)
        name = identity(path), first, self.key
        return _images.get(name, lambda: episode_rows(self.layout, self.row, [self.key])[self.key])

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3) uint8 RGB in the order asked for; an index may occur more than once.

        Raises IndexError for an index outside [0, T), VideoError naming file and frame for one that can't be decoded.
        """
        wanted = frame_numbers(indices, len(self), f"{self.layout.folder}: {self.key}")
        where = f"{self.layout.data_file(self.row)}: {self.key}, frame"
        try:
            images = self._stored()
        except CorruptEpisodeError as error:
            raise VideoError(str(error)) from error
        frames = np.empty((len(wanted), *self.size, 3), dtype=np.uint8)
        for place, index in enumerate(wanted.tolist()):
            frames[place] = _decoded(images[index], self.size, f"{where} {index} of its episode")
        return frames


def _decoded(content: Any, size: tuple[int, int] | None, where: str) -> np.ndarray:
    """An image file's bytes as (H, W, 3) uint8 RGB; `size` is asked for, None takes the image's own."""
    if not isinstance(content, bytes) or not content.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        raise VideoError(f"{where} holds no PNG or JPEG; pictures in files beside the rows are not read")
    try:
        decoder = Decoder("png" if content.startswith(b"\x89PNG") else "mjpeg", b"")
        pictures = decoder.context.decode(av.Packet(content)) + decoder.context.decode(None)
        if len(pictures) != 1:
            raise VideoError(f"{len(pictures)} pictures")
        return decoder.rgb(pictures[0], size or (pictures[0].height, pictures[0].width))
    except DECODE_ERRORS as error:
        raise VideoError(f"{where} can't be decoded ({error})") from error
