"""The labels of every frame of a dataset, by row, in files that are read when a frame is asked for.

    frame_labels.npy      (N,) records, memory-mapped: the camera's pose, and every column that all episodes have
    episode_labels.npz    what there is per episode, and a checksum of every 1,024 records; written last

What stays in memory is 52 bytes an episode and 9 bytes per 1,024 frames, whatever the episodes' lengths.
"""

import logging
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from dexworld.data.files import read_arrays
from dexworld.data.latent_shards import npy_header
from dexworld.data.locks import claimed, hidden
from dexworld.data.source import Dataset
from dexworld.track import COLUMNS, Track

logger = logging.getLogger(__name__)
BLOCK = 1024  # frames under one checksum: what the first look at a frame reads, about 1 MB
FRAMES_FILE, EPISODES_FILE = "frame_labels.npy", "episode_labels.npz"
_ADVICE = f"delete {EPISODES_FILE} and cache.json, and only the labels are read anew"
POSE, _MOTION, _SHOWN, _TASK = "world_from_camera", "object_motion", "keypoints_shown", "task_utf8"
_ALWAYS = {POSE: ("<f4", (4, 4)), _MOTION: ("<f4", ())}  # motion in metres since the frame before; 0 if not recorded


@dataclass(frozen=True)
class FrameLabels:
    """Labels of N frames of E episodes, in memory or mapped from the files of a folder.

    records: (N,) structured, a field for each column (see `record_type`). starts: (E + 1,) int64; episode e owns rows
    starts[e] to starts[e + 1] (exclusive). intrinsics: (E, 3, 3) float32, pixels of the stored frame size. fps: (E,)
    float64. block_crc32, block_motion: (ceil(N / BLOCK),) checksums, compared when a block is first read, and the
    largest motion of an object; None for records in memory. Raises ValueError when they don't fit each other.
    """

    records: np.ndarray
    starts: np.ndarray
    intrinsics: np.ndarray
    fps: np.ndarray
    block_crc32: np.ndarray | None = None
    block_motion: np.ndarray | None = None
    folder: Path | None = None
    _checked: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        frames, episodes = int(self.starts[-1]), len(self.starts) - 1
        blocks = -(-frames // BLOCK)
        expected: dict[str, tuple[int, ...]] = {"records": (frames,), "intrinsics": (episodes, 3, 3)}
        expected |= {"fps": (episodes,), "block_crc32": (blocks,), "block_motion": (blocks,)}
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(f"frame labels: {name} has shape {value.shape}, expected {shape}")
        object.__setattr__(self, "_checked", np.full(blocks, self.block_crc32 is None))

    @classmethod
    def open(cls, folder: Path, crc32: int | None) -> "FrameLabels":
        """The labels of a folder. crc32: of `episode_labels.npz`. Raises ValueError saying what to delete."""
        path = folder / FRAMES_FILE
        try:
            arrays, found = read_arrays(folder / EPISODES_FILE)
            if found != crc32:
                raise ValueError(f"{EPISODES_FILE} is not the file that was written")
            header = arrays.pop("header").tobytes()
            # A plain array over the map: its records are gathered faster than those of `np.memmap`.
            records = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            with open(path, "rb") as file:
                if file.read(len(header)) != header or len(records) != arrays["starts"][-1]:
                    raise ValueError(f"{FRAMES_FILE} is not as it was written")
            return cls(records, **arrays, folder=folder)
        except (OSError, ValueError, KeyError, IndexError, TypeError, SyntaxError, EOFError, TokenError) as error:
            raise ValueError(f"{folder}: the labels can't be read ({error}); {_ADVICE}") from error

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what `take` gives."""
        return self.records.dtype.names or ()

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Records of the given rows, in their shape. Raises ValueError where the file is damaged."""
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self.records)):
            raise IndexError(f"{self.folder}: rows {rows.min()} to {rows.max()} asked for of {len(self.records)}")
        blocks = np.unique(rows // BLOCK)
        for block in blocks[~self._checked[blocks]].tolist():
            if self._differs(block):
                last = min((block + 1) * BLOCK, len(self.records)) - 1
                where = f"{self.folder}/{FRAMES_FILE} is damaged between rows {block * BLOCK} and {last}"
                raise ValueError(f"{where}; {_ADVICE}")
            self._checked[block] = True
        return self.records[rows]

    def moved(self, metres: float) -> np.ndarray:
        """(N,) bool: an object moved by more than so many metres since the frame before. Reads only blocks of these."""
        blocks = np.arange(len(self._checked)) if self.block_motion is None else self.block_motion > metres
        moved = np.zeros(len(self.records), dtype=bool)
        for block in np.arange(len(self._checked))[blocks].tolist():
            part = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self.records)))
            moved[part] = self.take(part)[_MOTION] > metres
        return moved

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """The name of each file that opening didn't check, and whether its bytes differ; reads everything."""
        if self.block_crc32 is not None:
            yield FRAMES_FILE, any(self._differs(block) for block in range(len(self.block_crc32)))

    def _differs(self, block: int) -> bool:
        assert self.block_crc32 is not None
        rows = self.records[block * BLOCK : (block + 1) * BLOCK]
        return zlib.crc32(rows.view(np.uint8).data) != int(self.block_crc32[block])


def label_column(track: Track, name: str, rows: Any = slice(None)) -> np.ndarray:
    """Rows of a track's column as windows hold it: floats as float32, known columns zero where they are not valid.

    Raises KeyError naming the column when the track lacks it.
    """
    if name == POSE:
        return track.world_from_camera[rows].astype(np.float32)
    value = np.asarray(getattr(track, name) if name in (_SHOWN, _TASK) else track[name])[rows]
    if name in COLUMNS and COLUMNS[name].valid:
        value = np.where(track[COLUMNS[name].valid][rows][..., None], value, 0)
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def record_type(track: Track) -> np.dtype:
    """One frame's labels: camera pose, motion of objects, every numeric column, and the task if there is one."""
    return _record(_fields(track))


def label_rows(track: Track, record: np.dtype) -> np.ndarray:
    """(T,) records of a track; no frame is decoded."""
    rows = np.empty(len(track), dtype=record)
    for name in record.names or ():
        rows[name] = 0 if name == _MOTION and name not in track.columns else label_column(track, name)
    return rows


def _fields(track: Track) -> dict[str, tuple[str, tuple[int, ...]]]:
    arrays = {name: np.asarray(value) for name, value in track.columns.items()}
    if track.task:
        arrays[_TASK] = track.task_utf8
    if "keypoints_valid" in arrays:
        arrays[_SHOWN] = arrays["keypoints_valid"]
    fields = {}
    for name, array in arrays.items():
        if array.dtype.kind in "fiub":
            kind = "<f4" if array.dtype.kind == "f" else array.dtype.newbyteorder("<").str
            fields[name] = (kind, array.shape[1:])
    return fields | _ALWAYS


def _record(fields: dict[str, tuple[str, tuple[int, ...]]]) -> np.dtype:
    """Wide numbers first, so that they are aligned."""
    order = sorted(fields, key=lambda name: (-np.dtype(fields[name][0]).itemsize, name))
    return np.dtype([(name, *fields[name]) for name in order])


def write_labels(dataset: Dataset, folder: Path) -> int:
    """Write the label files of `folder` unless they are there, in memory for one episode; CRC-32 of the smaller one.

    A column that an episode lacks, or has in another shape, is left out with a warning. Waits for another process that
    writes them. Raises ValueError when episodes are not as long as they were.
    """
    with claimed(folder / EPISODES_FILE) as part:
        if part is not None:
            rows = hidden(folder / FRAMES_FILE)  # ours while we hold the claim
            fields, left_out = _fields(dataset[0]), set[str]()
            while (arrays := _write_frames(dataset, rows, fields, left_out)) is None:
                fields = {name: each for name, each in fields.items() if name not in left_out}
            if left_out:
                names = ", ".join(sorted(left_out))
                logger.warning("%s: columns that not all episodes have alike are left out: %s", dataset.folder, names)
            os.replace(rows, folder / FRAMES_FILE)
            with open(part, "wb") as file:
                np.savez(file, **arrays)
    return zlib.crc32((folder / EPISODES_FILE).read_bytes())


def _write_frames(dataset: Dataset, path: Path, fields: dict[str, Any], left_out: set[str]) -> dict[str, Any] | None:
    """Write all records; arrays of `episode_labels.npz`, or None and names in `left_out` when `fields` don't fit."""
    record = _record(fields)
    header = npy_header(record, (sum(dataset.lengths),))
    intrinsics, rates, checksums, motion = [], [], [], []
    waiting = np.empty(0, dtype=record)
    with open(path, "wb") as file:
        file.write(header)
        for index, length in enumerate(dataset.lengths):
            episode = dataset[index]
            if len(episode) != length:
                raise ValueError(f"{dataset.folder}, episode {dataset.ids[index]}: {len(episode)} frames, not {length}")
            found = _fields(episode)
            left_out |= {name for name in {*found, *fields} if found.get(name) != fields.get(name)}
            if left_out & fields.keys():
                return None
            intrinsics.append(episode.intrinsics.astype(np.float32))
            rates.append(float(episode.fps))
            waiting = np.concatenate([waiting, label_rows(episode, record)])
            whole = len(waiting) if index == len(dataset) - 1 else len(waiting) // BLOCK * BLOCK
            for first in range(0, whole, BLOCK):
                block = waiting[first : min(first + BLOCK, whole)]
                content = block.tobytes()
                file.write(content)
                checksums.append(zlib.crc32(content))
                motion.append(np.fmax.reduce(block[_MOTION]))
            waiting = waiting[whole:]
        file.flush()
        os.fsync(file.fileno())
    starts = np.concatenate([[0], np.cumsum(dataset.lengths)]).astype(np.int64)
    blocks = {"block_crc32": np.array(checksums, dtype=np.uint32), "block_motion": np.array(motion, dtype=np.float32)}
    arrays = {"header": np.frombuffer(header, dtype=np.uint8), "starts": starts, "intrinsics": np.stack(intrinsics)}
    return arrays | {"fps": np.array(rates)} | blocks
