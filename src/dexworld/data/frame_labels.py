"""The labels of every frame of a dataset, by row: in memory, or in files that are read when a frame is asked for.

    frame_labels.npy      (N,) records of `FRAME`, 656 bytes each, memory-mapped
    episode_labels.npz    what there is per episode, and a checksum of every 1,024 records; written last

What stays in memory is 52 bytes an episode and 9 bytes per 1,024 frames, whatever the episodes' lengths.
"""

import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dexworld.data.files import read_arrays
from dexworld.data.latent_shards import claimed
from dexworld.data.source import Dataset
from dexworld.hands import NUM_KEYPOINTS
from dexworld.track import Track

BLOCK = 1024  # frames under one checksum: what the first look at a frame reads, 0.7 MB
FRAME = np.dtype(
    [
        ("keypoints_world", "<f4", (NUM_KEYPOINTS, 3)),  # metres, zero where not valid
        ("world_from_camera", "<f4", (4, 4)),
        ("object_motion", "<f4"),  # metres that objects moved since the frame before; 0 where not recorded
        ("keypoints_valid", "?", (NUM_KEYPOINTS,)),
        ("keypoints_shown", "?", (NUM_KEYPOINTS,)),  # see `Track.keypoints_shown`
    ]
)
_FRAMES, _EPISODES = "frame_labels.npy", "episode_labels.npz"
_ADVICE = f"delete {_EPISODES} and cache.json, and only the labels are read anew"


class Labels(Protocol):
    """Labels of N frames of E episodes.

    starts: (E + 1,) int64; episode e owns rows starts[e] to starts[e + 1] (exclusive). intrinsics: (E, 3, 3) float32,
    pixels of the stored frame size. fps: (E,) float64.
    """

    @property
    def starts(self) -> np.ndarray: ...

    @property
    def intrinsics(self) -> np.ndarray: ...

    @property
    def fps(self) -> np.ndarray: ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Records of `FRAME` of the given rows, in their shape. Raises ValueError where the file is damaged."""
        ...

    def moved(self, metres: float) -> np.ndarray | None:
        """(N,) bool: an object moved by more than so many metres since the frame before; None where none ever did."""
        ...

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """The name of every file, and whether its bytes differ from the recorded checksum; reads everything."""
        ...


@dataclass(frozen=True)
class FrameLabels:
    """Labels that are held in memory, as dense arrays (see `Labels`).

    keypoints_world: (N, 42, 3) float32. keypoints_valid: (N, 42) bool. world_from_camera: (N, 4, 4) float32.
    object_motion: (N,) float32. keypoints_shown: (N, 42) bool, the valid ones when not given.
    """

    keypoints_world: np.ndarray
    keypoints_valid: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    starts: np.ndarray
    object_motion: np.ndarray
    fps: np.ndarray
    keypoints_shown: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.keypoints_shown is None:
            object.__setattr__(self, "keypoints_shown", self.keypoints_valid)
        frames, episodes = int(self.starts[-1]), len(self.starts) - 1
        expected = {"intrinsics": (episodes, 3, 3), "fps": (episodes,)}
        expected |= {name: (frames, *FRAME[name].shape) for name in FRAME.names or ()}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"frame labels: {name} has shape {getattr(self, name).shape}, expected {shape}")

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See `Labels`."""
        taken = np.empty(rows.shape, dtype=FRAME)
        for name in FRAME.names or ():
            taken[name] = getattr(self, name)[rows]
        return taken

    def moved(self, metres: float) -> np.ndarray | None:
        """See `Labels`."""
        moved = self.object_motion > metres
        return moved if moved.any() else None

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """Nothing: they were checked when they were read."""
        return iter(())


class MappedLabels:
    """Labels in the files of a folder (see `Labels`). A block's checksum is compared when it is first looked at.

    arrays: what `episode_labels.npz` holds. Raises ValueError when the files don't fit each other.
    """

    def __init__(self, folder: Path, arrays: dict[str, np.ndarray]) -> None:
        self.folder, self._arrays = folder, arrays
        try:
            self.starts, self.intrinsics, self.fps = arrays["starts"], arrays["intrinsics"], arrays["fps"]
            self._checksums, self._most_motion = arrays["block_crc32"], arrays["block_motion"]
            frames, episodes = int(self.starts[-1]), len(self.starts) - 1
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{folder / _EPISODES} lacks something ({error}); {_ADVICE}") from error
        blocks = -(-frames // BLOCK)
        expected = ((episodes, 3, 3), (episodes,), (blocks,), (blocks,))
        found = tuple(each.shape for each in (self.intrinsics, self.fps, self._checksums, self._most_motion))
        if found != expected:
            raise ValueError(f"{folder / _EPISODES} holds arrays of {found}, expected {expected}; {_ADVICE}")
        path = folder / _FRAMES
        head = _head(frames)
        try:
            with open(path, "rb") as file:
                if (
                    file.read(len(head)) != head
                    or os.fstat(file.fileno()).st_size != len(head) + frames * FRAME.itemsize
                ):
                    raise ValueError("it is not as it was written")
            # A plain array over the map: one of records is gathered faster than the subclass that NumPy maps to.
            self._rows = np.asarray(np.memmap(path, dtype=FRAME, mode="r", offset=len(head), shape=(frames,)))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is missing or truncated ({error}); {_ADVICE}") from error
        self._checked = np.zeros(blocks, dtype=bool)

    @classmethod
    def opened(cls, folder: Path, crc32: int | None) -> "MappedLabels":
        """The labels of a folder. crc32: of `episode_labels.npz`. Raises ValueError saying what to delete."""
        try:
            arrays, found = read_arrays(folder / _EPISODES)
        except ValueError as error:
            raise ValueError(f"{error}; {_ADVICE}") from error
        if found != crc32:
            raise ValueError(f"{folder / _EPISODES} is not the file that was written; {_ADVICE}")
        return cls(folder, arrays)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """See `Labels`."""
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self._rows)):
            raise IndexError(f"{self.folder}: rows {rows.min()} to {rows.max()} asked for of {len(self._rows)}")
        blocks = np.unique(rows // BLOCK)
        for block in blocks[~self._checked[blocks]].tolist():
            if self._differs(block):
                last = min((block + 1) * BLOCK, len(self._rows)) - 1
                raise ValueError(
                    f"{self.folder / _FRAMES} is damaged between rows {block * BLOCK} and {last}; {_ADVICE}"
                )
            self._checked[block] = True
        return self._rows[rows]

    def moved(self, metres: float) -> np.ndarray | None:
        """See `Labels`; reads only blocks in which something moved."""
        moving = np.flatnonzero(self._most_motion > metres)
        if not len(moving):
            return None
        moved = np.zeros(len(self._rows), dtype=bool)
        for block in moving.tolist():
            part = np.arange(block * BLOCK, min((block + 1) * BLOCK, len(self._rows)))
            moved[part] = self.take(part)["object_motion"] > metres
        return moved

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """See `Labels`; `episode_labels.npz` was compared when it was opened."""
        yield _FRAMES, any(self._differs(block) for block in range(len(self._checksums)))

    def _differs(self, block: int) -> bool:
        rows = self._rows[block * BLOCK : (block + 1) * BLOCK]
        return zlib.crc32(rows.view(np.uint8).data) != int(self._checksums[block])

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "arrays": self._arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def label_rows(episode: Track) -> np.ndarray:
    """(T,) records of `FRAME` of an episode; no frame is decoded."""
    valid = episode.keypoints_valid
    rows = np.empty(len(episode), dtype=FRAME)
    rows["keypoints_world"] = np.where(valid[..., None], episode.keypoints_world, 0)
    rows["keypoints_valid"], rows["keypoints_shown"] = valid, episode.keypoints_shown
    rows["world_from_camera"] = episode.world_from_camera
    rows["object_motion"] = episode.columns.get("object_motion", 0)
    return rows


def write_labels(dataset: Dataset, folder: Path) -> int:
    """Write the label files of `folder` unless they are there, in memory for one episode; CRC-32 of the smaller one.

    Another process that writes them is waited for. Raises ValueError when episodes are not as long as they were.
    """
    with claimed(folder / _EPISODES) as part:
        if part is not None:
            # Under the same claim, so the hidden name is nobody else's; what a killed writer left is overwritten.
            rows = folder / f".{_FRAMES}.part"
            arrays = _write_frames(dataset, rows)
            os.replace(rows, folder / _FRAMES)
            with open(part, "wb") as file:
                np.savez(file, **arrays)
    return zlib.crc32((folder / _EPISODES).read_bytes())


def _write_frames(dataset: Dataset, path: Path) -> dict[str, Any]:
    """Write the records of every frame; what `episode_labels.npz` holds about them."""
    intrinsics, rates, checksums, motion = [], [], [], []
    waiting = np.empty(0, dtype=FRAME)
    with open(path, "wb") as file:
        file.write(_head(sum(dataset.lengths)))
        for index, length in enumerate(dataset.lengths):
            episode = dataset[index]
            if len(episode) != length:
                raise ValueError(f"{dataset.folder}, episode {dataset.ids[index]}: {len(episode)} frames, not {length}")
            intrinsics.append(episode.intrinsics.astype(np.float32))
            rates.append(float(episode.fps))
            waiting = np.concatenate([waiting, label_rows(episode)])
            whole = len(waiting) if index == len(dataset) - 1 else len(waiting) // BLOCK * BLOCK
            for first in range(0, whole, BLOCK):
                block = waiting[first : min(first + BLOCK, whole)]
                content = block.tobytes()
                file.write(content)
                checksums.append(zlib.crc32(content))
                motion.append(np.fmax.reduce(block["object_motion"]))
            waiting = waiting[whole:]
        file.flush()
        os.fsync(file.fileno())
    return {
        "starts": np.concatenate([[0], np.cumsum(dataset.lengths)]).astype(np.int64),
        "intrinsics": np.stack(intrinsics),
        "fps": np.array(rates),
        "block_crc32": np.array(checksums, dtype=np.uint32),
        "block_motion": np.array(motion, dtype=np.float32),
    }


def _head(frames: int) -> bytes:
    """The head of an .npy file of so many records."""
    head = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(FRAME), "fortran_order": False, "shape": (frames,)}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue()
