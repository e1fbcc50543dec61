"""Bring images to a model's size, with intrinsics and pixels that stay true.

Scale to cover, then crop the centre, as the DexWM release does: 1920 x 1080 becomes 398 x 224, of which 392 x 224 is
kept. Pixels are continuous: an image spans [0, w] x [0, h] and the centre of its first pixel is (0.5, 0.5).
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.data.source import Dataset
from dexworld.track import Frames, Track

Array = TypeVar("Array", np.ndarray, Tensor)
IMAGES_PER_CALL = 64  # bounds the float copy that interpolation needs


@dataclass(frozen=True)
class Fit:
    """How images of `source` (height, width) become images of `target` (height, width), in pixels.

    Both sides are scaled by about the same factor, so that the scaled image covers the target; what stands out is cut
    off evenly. Raises ValueError when a size is not positive.
    """

    source: tuple[int, int]
    target: tuple[int, int]

    def __post_init__(self) -> None:
        if len(self.source) != 2 or len(self.target) != 2 or min(*self.source, *self.target) < 1:
            raise ValueError(f"sizes must be positive (height, width) pairs, not {self.source} and {self.target}")

    @cached_property
    def scaled(self) -> tuple[int, int]:
        """Height and width before cropping."""
        factor = max(self.target[0] / self.source[0], self.target[1] / self.source[1])
        height, width = (round(side * factor) for side in self.source)
        return max(height, self.target[0]), max(width, self.target[1])

    @cached_property
    def corner(self) -> tuple[int, int]:
        """Row and column of the scaled image that become the target's first ones."""
        return (self.scaled[0] - self.target[0]) // 2, (self.scaled[1] - self.target[1]) // 2

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return tuple(self.source) == tuple(self.target)

    def images(self, images: Tensor) -> Tensor:
        """Images (..., h, w, 3) of uint8 or float on any device to (..., H, W, 3) of the same kind and device.

        Bilinear with antialiasing; uint8 is rounded. Raises ValueError for images of another size.
        """
        if tuple(images.shape[-3:]) != (*self.source, 3):
            height, width = self.source
            raise ValueError(f"images have shape {tuple(images.shape)}, expected (..., {height}, {width}, 3)")
        top, left = self.corner
        rows, columns = slice(top, top + self.target[0]), slice(left, left + self.target[1])
        if self.scaled == tuple(self.source):
            return images[..., rows, columns, :]
        flat = images.reshape(-1, *images.shape[-3:])
        result = flat.new_empty(len(flat), *self.target, 3)
        for part, place in zip(flat.split(IMAGES_PER_CALL), result.split(IMAGES_PER_CALL), strict=True):
            place[:] = self._scaled(part)[:, rows, columns]
        return result.reshape(*images.shape[:-3], *self.target, 3)

    def _scaled(self, images: Tensor) -> Tensor:
        floats = images.is_floating_point()
        working = images.permute(0, 3, 1, 2).to(images.dtype if floats else torch.float32)
        working = functional.interpolate(working, self.scaled, mode="bilinear", align_corners=False, antialias=True)
        return (working if floats else working.round().clamp(0, 255)).permute(0, 2, 3, 1).to(images.dtype)

    def pixels(self, pixels: Array) -> Array:
        """Pixels (..., 2) [u, v] of the source to those of the target; they may lie outside the image."""
        scale = [self.scaled[1] / self.source[1], self.scaled[0] / self.source[0]]
        return pixels * _like(pixels, scale) - _like(pixels, [self.corner[1], self.corner[0]])

    def intrinsics(self, intrinsics: Array) -> Array:
        """Pinhole matrices (..., 3, 3) of source images to those of target images."""
        top, left = self.corner
        across, down = self.scaled[1] / self.source[1], self.scaled[0] / self.source[0]
        return _like(intrinsics, [[across, 0.0, -left], [0.0, down, -top], [0.0, 0.0, 1.0]]) @ intrinsics


def _like(array: Array, values: list[Any]) -> Array:
    """Numbers as an array of the same kind, on the same device."""
    return array.new_tensor(values) if isinstance(array, Tensor) else np.asarray(values, array.dtype)


def resized(dataset: Dataset, image_size: tuple[int, int]) -> Dataset:
    """`dataset` with frames of `image_size` (height, width): itself when its first episode has that size already.

    Raises ValueError when the dataset holds no episode.
    """
    if not len(dataset):
        raise ValueError(f"{dataset.folder} holds no readable episode ({len(dataset.quarantined)} quarantined)")
    if dataset[0].frames.size == tuple(image_size):
        return dataset
    return cast(Dataset, ResizedDataset(dataset, image_size))


def resized_episode(episode: Track, image_size: tuple[int, int]) -> Track:
    """`episode` with frames of `image_size` (height, width) and intrinsics to match; itself when it has them."""
    fit = Fit(episode.frames.size, image_size)
    if fit.is_identity:
        return episode
    return replace(episode, frames=ResizedFrames(episode.frames, fit), intrinsics=fit.intrinsics(episode.intrinsics))


@dataclass(frozen=True)
class ResizedFrames:
    """`track.Frames` that are brought to another size when they are read."""

    frames: Frames
    fit: Fit

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        return self.fit.target

    def read(self, indices: list[int]) -> np.ndarray:
        return self.fit.images(torch.from_numpy(self.frames.read(indices))).numpy()


class ResizedDataset:
    """A dataset whose episodes have frames of `image_size` (height, width), and intrinsics to match."""

    def __init__(self, dataset: Dataset, image_size: tuple[int, int]) -> None:
        self.dataset, self.image_size = dataset, image_size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Track:
        return resized_episode(self.dataset[index], self.image_size)

    @property
    def fingerprint(self) -> str:
        """Changes with the dataset and with the size."""
        content = f"{self.dataset.fingerprint} {self.image_size[0]} x {self.image_size[1]}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by pickle and copy, before there is a dataset
            raise AttributeError(name)
        return getattr(self.dataset, name)
