"""One recorded stretch of hands at work: what every reader returns and every window is cut from."""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dexworld.hands import NUM_KEYPOINTS, ROBOT_JOINTS

FAR = 1e5  # metres, radians, pixels; whatever is larger is damage, and no network should meet it


@runtime_checkable
class Frames(Protocol):
    """Frames that are decoded when they are asked for."""

    def __len__(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        ...

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3), uint8 RGB, in the order asked for."""
        ...


def frame_numbers(indices: list[int], length: int, where: str) -> np.ndarray:
    """The frames asked for, (N,) integers. Raises IndexError, starting with `where`, for one outside [0, length)."""
    wanted = np.asarray(indices, dtype=int)
    if wanted.size and not (wanted.min() >= 0 and wanted.max() < length):
        raise IndexError(f"{where}: frames {wanted.min()} to {wanted.max()} asked for, it holds 0 to {length - 1}")
    return wanted


@dataclass(frozen=True)
class ArrayFrames:
    """Frames that lie in memory: (T, H, W, 3) uint8 RGB."""

    array: np.ndarray

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[-1] != 3 or self.array.dtype != np.uint8:
            raise ValueError(f"frames must be (T, H, W, 3) uint8, not {self.array.shape} {self.array.dtype}")

    def __len__(self) -> int:
        return len(self.array)

    @property
    def size(self) -> tuple[int, int]:
        return self.array.shape[1], self.array.shape[2]

    def read(self, indices: list[int]) -> np.ndarray:
        return self.array[np.asarray(indices, dtype=int)]


@dataclass(frozen=True)
class Episode:
    """T frames with the hands and the camera of each. The fields are checked once, here.

    frames: T frames of H x W x 3, uint8 RGB, lazy.
    fps: frames per second.
    keypoints_world: (T, 42, 3) float, metres, in the order of `dexworld.hands`; rows that are not valid may
        hold anything.
    keypoints_valid: (T, 42) bool.
    world_from_camera: (T, 4, 4) pose of the optical camera frame (x right, y down, z forward) in the world.
    intrinsics: (3, 3) pinhole matrix for the stored H x W, pixels.
    source: where it comes from (dataset and file, or simulator and seed), for error messages and provenance.
    task: a name or sentence; may be empty.
    joint_positions: (T, 23) radians, arm then fingers, when a robot was recorded.
    joint_targets: (T, 23) radians commanded at each frame, when known.
    seed: the simulator seed of the scene, when simulated: evaluation refuses scenes that a model was trained on.
    extras: further arrays whose first axis is T (object poses, contacts ...).

    Raises ValueError naming the field, its shape and the source; also for NaN, Inf and numbers beyond 10^5.
    """

    frames: Frames
    fps: float
    keypoints_world: np.ndarray
    keypoints_valid: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    source: str
    task: str = ""
    joint_positions: np.ndarray | None = None
    joint_targets: np.ndarray | None = None
    seed: int | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        length = len(self.frames)
        expected = {
            "keypoints_world": (length, NUM_KEYPOINTS, 3),
            "keypoints_valid": (length, NUM_KEYPOINTS),
            "world_from_camera": (length, 4, 4),
            "intrinsics": (3, 3),
        }
        if self.joint_positions is not None:
            expected["joint_positions"] = (length, ROBOT_JOINTS)
        if self.joint_targets is not None:
            expected["joint_targets"] = (length, ROBOT_JOINTS)
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(
                    f"{self.source}: {name} has shape {tuple(getattr(self, name).shape)}, expected {shape}"
                )
        if self.keypoints_valid.dtype != bool:
            raise ValueError(f"{self.source}: keypoints_valid must be bool, not {self.keypoints_valid.dtype}")
        for name in expected:
            value = getattr(self, name)
            checked = value[self.keypoints_valid] if name == "keypoints_world" else value
            if not np.isfinite(checked).all():
                frame = (
                    "" if name == "intrinsics" else f" (first at frame {first_bad_frame(value, self.keypoints_valid)})"
                )
                raise ValueError(f"{self.source}: {name} holds NaN or Inf{frame}")
            if checked.size and np.abs(checked).max() > FAR:
                raise ValueError(f"{self.source}: {name} holds numbers beyond {FAR:g}; they are damaged, or no metres")
        if length == 0:
            raise ValueError(f"{self.source}: the episode has no frames")
        if not self.fps > 0:
            raise ValueError(f"{self.source}: fps is {self.fps}; it must be positive")

    def __len__(self) -> int:
        return len(self.frames)


def first_bad_frame(value: np.ndarray, keypoints_valid: np.ndarray) -> int:
    """Index of the first frame of (T, ...) `value` with a NaN or Inf; invalid keypoints don't count."""
    if value.shape[:2] == keypoints_valid.shape and value.ndim == 3:
        value = np.where(keypoints_valid[..., None], value, 0.0)
    bad = ~np.isfinite(value.reshape(len(value), -1)).all(axis=1)
    return int(np.argmax(bad))
