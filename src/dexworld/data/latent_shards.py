"""Latents of many frames in many files, each whole or absent, read as one array.

shards/00000.npy    rows 0 to R - 1: (R, P, D) float16; every shard but the last holds R rows
shards/00000.json   how many they are, and the CRC-32 of the .npy file
"""

import io
import json
import logging
import os
import tokenize
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dexworld.data.files import CHECKSUM, read_json, size_and_checksum
from dexworld.data.locks import hidden

logger = logging.getLogger(__name__)
OPEN_SHARDS = 128  # memory maps kept open by one array; each holds a file descriptor


def npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """The first bytes of an .npy file."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` of a cache folder lies."""
    return folder / "shards" / f"{number:05d}.npy"


def write_shard(path: Path, part: Path, rows: int, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> None:
    """Write a claimed shard: (rows, P, D) float16 from blocks (n, P, D), and the record of it beside `path`.

    Raises ValueError when the blocks don't add up to `rows`, OSError when the disk is full.
    """
    header = npy_header(LatentShards.dtype, (rows, *shape))
    written, checksum = 0, zlib.crc32(header)
    with open(part, "wb") as file:
        file.write(header)
        for block in blocks:
            content = np.ascontiguousarray(block, dtype="<f2").tobytes()
            file.write(content)
            written, checksum = written + len(block), zlib.crc32(content, checksum)
    if written != rows:
        raise ValueError(f"{path}: {written} rows came for a shard of {rows}")
    record = path.with_suffix(".json")
    with open(hidden(record), "w", encoding="utf-8") as file:  # the shard's lock keeps this name ours
        json.dump({"rows": rows, "crc32": checksum}, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(hidden(record), record)


class LatentShards:
    """(N, P, D) float16 rows of a cache folder, read-only, memory-mapped shard by shard; at most `OPEN_SHARDS` open."""

    dtype = np.dtype("<f2")

    def __init__(self, folder: Path, shape: tuple[int, int, int], rows_per_shard: int) -> None:
        self.folder, self.shape, self.rows_per_shard = folder, tuple(shape), rows_per_shard
        self.paths = [shard_path(folder, number) for number in range(-(-shape[0] // rows_per_shard))]
        self._maps: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def rows_of(self, number: int) -> tuple[int, int]:
        """First row of a shard, and the row behind its last."""
        return number * self.rows_per_shard, min((number + 1) * self.rows_per_shard, len(self))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(n, P, D) of rows (n,), in their order. Raises IndexError for rows that there are not."""
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"{self.folder}: rows {rows.min()} to {rows.max()} asked for, it holds {len(self)}")
        read = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        order = np.argsort(rows, kind="stable")
        numbers, starts = np.unique(rows[order] // self.rows_per_shard, return_index=True)
        for number, places in zip(numbers.tolist(), np.split(order, starts[1:]), strict=False):
            read[places] = self._map(number)[rows[places] - number * self.rows_per_shard]
        return read

    def missing(self) -> list[str]:
        """Files that are absent or of another size than they must be, as paths relative to the folder."""
        wrong = []
        for number, path in enumerate(self.paths):
            shape = self._shape_of(number)
            size = len(npy_header(self.dtype, shape)) + int(np.prod(shape)) * self.dtype.itemsize
            if not path.exists() or path.stat().st_size != size:
                wrong.append(path.relative_to(self.folder).as_posix())
        return wrong

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """Every shard's relative path, and whether its bytes differ from the recorded checksum; reads everything."""
        for path in self.paths:
            wrong = True
            try:
                wrong = size_and_checksum(path)[CHECKSUM] != read_json(path.with_suffix(".json")).get("crc32")
            except (OSError, ValueError) as error:
                logger.warning("%s can't be checked: %s", path, error)
            yield path.relative_to(self.folder).as_posix(), wrong

    def _shape_of(self, number: int) -> tuple[int, ...]:
        first, last = self.rows_of(number)
        return last - first, *self.shape[1:]

    def _map(self, number: int) -> np.ndarray:
        """A shard, mapped. Raises ValueError when its header is not the one that was written."""
        if number in self._maps:
            self._maps.move_to_end(number)
            return self._maps[number]
        path = self.paths[number]
        try:
            # A plain array over the map: its rows are gathered faster than those of `np.memmap`.
            found = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            if found.shape != self._shape_of(number) or found.dtype != self.dtype:
                raise ValueError(f"it holds {found.shape} {found.dtype}")
        except (ValueError, OSError, EOFError, TypeError, SyntaxError, tokenize.TokenError) as error:
            raise ValueError(f"{path} is not the shard that was written ({error}); delete it and cache.json") from error
        self._maps[number] = found
        if len(self._maps) > OPEN_SHARDS:
            self._maps.popitem(last=False)
        return found
