"""Hands at work over time: named columns, one row a frame, with the camera and the frames themselves.

Readers return one track an episode. Windows and batches are slices and stacks of tracks. A new column needs no code
between the reader that writes it and the loss that reads it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from dexworld.hands import NUM_KEYPOINTS

Array = Any  # np.ndarray or torch.Tensor; all arrays of one track are of the same kind
TASK_BYTES = 384  # of a sentence, in UTF-8
FAR = 1e5  # metres, radians or pixels; larger numbers are damage


@runtime_checkable
class Frames(Protocol):
    """Frames that are decoded when they are asked for."""

    def __len__(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3), uint8 RGB, in the order asked for."""


def frame_numbers(indices: list[int], length: int, where: str) -> np.ndarray:
    """The frames asked for, (N,) integers. Raises IndexError, starting with `where`, for one outside [0, length)."""
    wanted = np.asarray(indices, dtype=int)
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < length):
        raise IndexError(f"{where}: frames {wanted.min()} to {wanted.max()} asked for, it holds 0 to {length - 1}")
    return wanted


@dataclass(frozen=True)
class ArrayFrames:
    """Frames in memory: (T, H, W, 3) uint8 RGB."""

    array: np.ndarray

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[-1] != 3 or self.array.dtype != np.uint8:
            raise ValueError(f"frames must be (T, H, W, 3) uint8, not {self.array.shape} {self.array.dtype}")

    def __len__(self) -> int:
        return len(self.array)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.array.shape[1], self.array.shape[2]

    def read(self, indices: list[int]) -> np.ndarray:
        """See `Frames.read`."""
        return self.array[np.asarray(indices, dtype=int)]


@dataclass(frozen=True)
class NoFrames:
    """Stands where a track has no pictures, as in a window of latents."""

    size: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return 0

    def read(self, indices: list[int]) -> np.ndarray:
        """Raises ValueError: there is nothing to read."""
        raise ValueError("this track holds labels only, and no frames")


@dataclass(frozen=True)
class Column:
    """What a known column holds.

    shape: of one row; None is any length. valid: the column that says which entries count; the others may hold
    anything. boolean: truth values instead of numbers.
    """

    shape: tuple[int | None, ...]
    valid: str = ""
    boolean: bool = False


COLUMNS: dict[str, Column] = {
    "keypoints_world": Column((NUM_KEYPOINTS, 3), "keypoints_valid"),  # metres, in the order of `dexworld.hands`
    "keypoints_valid": Column((NUM_KEYPOINTS,), boolean=True),
    "joint_positions": Column((None,)),  # radians, in the robot's own order
    "joint_targets": Column((None,)),  # radians commanded at each frame
}
# Columns that are checked where they are used. A fault in one of them can't stop a read.
#   keypoint_confidence (T, 42), body_world (T, 18, 3) metres with body_valid (T, 18), object_positions (T, n, 3)
#   metres in the world with NaN where an object is absent, object_motion (T,) metres since the frame
#   before, object_kinds (T, n) places in OBJECT_KINDS, -1 where absent, object_colours (T, n, 3) RGB in [0, 1],
#   points (T, n, 2) tracked pixels with points_visible (T, n), action (T, n) as the source recorded it.
OBJECT_KINDS = ("box", "can", "ball", "bottle", "mug", "bowl")


@dataclass(frozen=True)
class Track:
    """T frames of hands at work, with any leading batch dimensions. Checked once, here.

    world_from_camera: (..., T, 4, 4) poses of the optical camera frame (x right, y down, z forward) in the world.
    intrinsics: (..., 3, 3) pinhole matrix in pixels of the stored frames.
    columns: (..., T, *row) arrays by name; `COLUMNS` says what the known ones hold. None drops a column.
    fps: frames per second; 0 where rows are not evenly spaced.
    frames: T frames of H x W x 3 uint8 RGB, decoded on demand; `NoFrames` without pictures.
    source: dataset and file, or simulator and seed, for error messages and provenance.
    task: a name or sentence; may be empty.
    seed: the simulator's seed of the scene. Evaluation refuses scenes that a model was trained on.

    Raises ValueError naming the column, its shape and the source; for recordings (no batch dimension, NumPy) also on
    NaN, Inf and numbers beyond 10^5 in known columns.
    """

    world_from_camera: Array
    intrinsics: Array
    columns: Mapping[str, Array] = field(default_factory=dict)
    fps: float = 0.0
    frames: Frames = NoFrames()
    source: str = ""
    task: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", {name: each for name, each in self.columns.items() if each is not None})
        poses = tuple(self.world_from_camera.shape)
        if len(poses) < 3 or poses[-2:] != (4, 4):
            raise ValueError(f"{self.source}: world_from_camera has shape {poses}, expected (T, 4, 4)")
        length = len(self)
        pictures = not isinstance(self.frames, NoFrames)
        if pictures and len(self.frames) != length:
            raise ValueError(f"{self.source}: world_from_camera has {length} rows for {len(self.frames)} frames")
        if length == 0:
            raise ValueError(f"{self.source}: the episode has no frames")
        if pictures and not self.fps > 0:
            raise ValueError(f"{self.source}: fps is {self.fps}; it must be positive")
        shape, expected = tuple(self.intrinsics.shape), (*self.batch, 3, 3)
        if shape != expected:
            raise ValueError(f"{self.source}: intrinsics has shape {shape}, expected {expected}")
        for name, value in self.columns.items():
            self._check_column(name, value)
        if not self.batch and isinstance(self.world_from_camera, np.ndarray):
            check_numbers(self)

    def _check_column(self, name: str, value: Array) -> None:
        known, rows, shape = COLUMNS.get(name), (*self.batch, len(self)), tuple(np.shape(value))
        if known is None:
            if shape[: len(rows)] != rows:
                raise ValueError(f"{self.source}: column {name!r} has shape {shape}; its first axis must be {rows}")
            return
        expected = (*rows, *known.shape)
        fits = len(shape) == len(expected) and all(
            want in (None, got) for got, want in zip(shape, expected, strict=True)
        )
        if not fits:
            raise ValueError(f"{self.source}: {name} has shape {shape}, expected {expected}")
        if known.boolean and value.dtype not in (bool, torch.bool):
            raise ValueError(f"{self.source}: {name} must be bool, not {value.dtype}")
        if known.valid and known.valid not in self.columns:
            raise ValueError(f"{self.source}: {name} needs {known.valid} beside it")

    def __len__(self) -> int:
        return self.world_from_camera.shape[-3]

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading batch dimensions; () for one recording."""
        return tuple(self.world_from_camera.shape[:-3])

    def __getitem__(self, name: str) -> Array:
        """The column of that name. Raises KeyError naming the source and what it holds."""
        if name not in self.columns:
            raise KeyError(f"{self.source or 'this track'} has no column {name!r}; it holds {', '.join(self.columns)}")
        return self.columns[name]

    def get(self, name: str) -> Array | None:
        """The column of that name, or None."""
        return self.columns.get(name)

    @property
    def keypoints_world(self) -> Array:
        """(..., T, 42, 3) metres."""
        return self["keypoints_world"]

    @property
    def keypoints_valid(self) -> Array:
        """(..., T, 42) bool."""
        return self["keypoints_valid"]

    @property
    def keypoints_shown(self) -> Array:
        """(..., T, 42) bool: keypoints that a picture can show, so that keypoint losses and scores count them.

        The valid ones, except those of no confidence where confidences are recorded: a gripper's dummy hand moves as
        its actions say and is in no picture (DexWM gives DROID no keypoint loss).
        """
        if "keypoints_shown" in self.columns:
            return self.columns["keypoints_shown"]
        confidence = self.columns.get("keypoint_confidence")
        if confidence is None:
            return self.keypoints_valid
        return self.keypoints_valid & (np.nan_to_num(np.asarray(confidence)) > 0)

    @property
    def task_utf8(self) -> Array:
        """(..., T, 384) uint8: the task in every row, for models that read it; zeros behind its last byte.

        A longer sentence loses its end. Raises KeyError for a batch without this column.
        """
        if self.batch or "task_utf8" in self.columns:
            return self["task_utf8"]
        text = self.task.encode()[:TASK_BYTES].ljust(TASK_BYTES, b"\0")
        return np.broadcast_to(np.frombuffer(text, np.uint8), (len(self), TASK_BYTES))

    def with_columns(self, **columns: Array | None) -> "Track":
        """The same track with these columns added or replaced; None drops one."""
        return replace(self, columns={**self.columns, **columns})

    def _each(self, change: Callable[[Array], Array], intrinsics: bool = True) -> "Track":
        """Every per-frame array changed, and the intrinsics where they are to be; without frames."""
        columns = {name: change(value) for name, value in self.columns.items()}
        cameras, matrix = change(self.world_from_camera), change(self.intrinsics) if intrinsics else self.intrinsics
        return replace(self, world_from_camera=cameras, intrinsics=matrix, columns=columns, frames=NoFrames())

    def at(self, rows: Any) -> "Track":
        """The given rows along time (a slice or indices), without frames."""
        places = (slice(None),) * len(self.batch) + (rows,)
        return self._each(lambda value: value[places], intrinsics=False)

    def index(self, selection: Any) -> "Track":
        """A selection along the leading batch dimensions, as `array[selection]` does."""
        return self._each(lambda value: value[selection])

    def expand(self, *batch: int) -> "Track":
        """A view of a track of tensors with these leading batch dimensions."""
        kept = len(self.batch)
        return self._each(lambda value: value.expand(*batch, *value.shape[kept:]))

    def to(self, device: torch.device | str) -> "Track":
        """The same tensors on another device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def pin_memory(self) -> "Track":
        """The same tensors in page-locked memory."""
        return self._each(torch.Tensor.pin_memory)

    def tensors(self, dtype: torch.dtype | None = None) -> "Track":
        """The same track with tensors for arrays; floats as `dtype` where it is given. Texts are left out."""

        def converted(value: Array) -> torch.Tensor:
            tensor = torch.as_tensor(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value)
            return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

        numeric = {name: each for name, each in self.columns.items() if np.asarray(each).dtype.kind in "fiub"}
        return replace(self, columns=numeric)._each(converted)

    @classmethod
    def stack(cls, tracks: Sequence["Track"]) -> "Track":
        """Tracks of tensors of one length as a batch; columns that not all of them have are left out."""
        names = [name for name in tracks[0].columns if all(name in track.columns for track in tracks)]
        return cls(
            torch.stack([track.world_from_camera for track in tracks]),
            torch.stack([track.intrinsics for track in tracks]),
            {name: torch.stack([track.columns[name] for track in tracks]) for name in names},
            tracks[0].fps,
        )


def check_numbers(track: Track) -> None:
    """Raises ValueError naming the first known column of a recording with NaN, Inf or numbers beyond `FAR`."""
    known = {"world_from_camera": track.world_from_camera, "intrinsics": track.intrinsics}
    known = {name: track.columns[name] for name in COLUMNS if name in track.columns} | known
    for name, value in known.items():
        valid = COLUMNS[name].valid if name in COLUMNS else ""
        mask = track.columns[valid] if valid else None
        counted = value if mask is None else value[mask]
        if not np.isfinite(counted).all():
            bad = ~np.isfinite(value if mask is None else np.where(mask[..., None], value, 0.0))
            where = f" (first at frame {int(np.argwhere(bad)[0, 0])})" if name != "intrinsics" else ""
            raise ValueError(f"{track.source}: {name} holds NaN or Inf{where}")
        if counted.size and np.abs(counted).max() > FAR:
            raise ValueError(f"{track.source}: {name} holds numbers beyond {FAR:g}; they are damaged, or no metres")
