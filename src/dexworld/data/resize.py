"""Bring images to a model's size, with intrinsics and pixels that stay true.

Scale to cover, then crop the centre, as the DexWM release does: 1920 x 1080 becomes 398 x 224, of which 392 x 224 is
kept. Pixels are continuous: an image spans [0, w] x [0, h] and the centre of its first pixel is (0.5, 0.5).
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dexworld.data.source import Dataset
from dexworld.track import Frames, Track

Array = TypeVar("Array", np.ndarray, Tensor)
Size = tuple[int, int]  # height, width
Box = tuple[int, int, int, int]  # top, left, height, width
IMAGES_PER_CALL = 64  # bounds the float copy that interpolation needs


@dataclass(frozen=True)
class Fit:
    """How images of `source` (height, width) become images of `target` (height, width), in pixels.

    box: (top, left, height, width) of the source that is scaled to `placed`, the same of the target. What sticks out of
    the target is cut off; what is left of it is black.
    """

    source: Size
    target: Size
    box: Box
    placed: Box

    @classmethod
    def cover(cls, source: Size, target: Size, scaled: Size | None = None, multiple: int = 1) -> "Fit":
        """Scale to cover `scaled` (default: the target), keeping the aspect, then cut the target from the centre.

        multiple: sizes and the corner of the cut are multiples of this. Raises ValueError when a size is not positive.
        """
        least = scaled or target
        if len(source) != 2 or len(target) != 2 or min(*source, *target) < 1:
            raise ValueError(f"sizes must be positive (height, width) pairs, not {source} and {target}")
        factor = max(least[0] / source[0], least[1] / source[1])
        height, width = (max(multiple * round(s * factor / multiple), t) for s, t in zip(source, least, strict=True))
        top, left = ((side - t) // (2 * multiple) for side, t in zip((height, width), target, strict=True))
        placed = (-multiple * top, -multiple * left, height, width)
        return cls((source[0], source[1]), (target[0], target[1]), (0, 0, source[0], source[1]), placed)

    @property
    def scaled(self) -> Size:
        """Height and width of the box once it is scaled."""
        return self.placed[2:]

    @property
    def corner(self) -> Size:
        """Row and column of the scaled box that become the target's first ones."""
        return -self.placed[0], -self.placed[1]

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self.source == self.target == self.scaled == self.box[2:]

    @property
    def cut(self) -> float:
        """Share of the source's area outside the box."""
        return 1.0 - self.box[2] * self.box[3] / (self.source[0] * self.source[1])

    @property
    def empty(self) -> float:
        """Share of the target's area that is black bars, where nothing sticks out."""
        return 1.0 - self.placed[2] * self.placed[3] / (self.target[0] * self.target[1])

    def images(self, images: Tensor) -> Tensor:
        """Images (..., h, w, 3) of uint8 or float on any device to (..., H, W, 3) of the same kind and device.

        Bilinear with antialiasing; uint8 is rounded. Raises ValueError for images of another size.
        """
        if tuple(images.shape[-3:]) != (*self.source, 3):
            height, width = self.source
            raise ValueError(f"images have shape {tuple(images.shape)}, expected (..., {height}, {width}, 3)")
        top, left, height, width = self.box
        images = images[..., top : top + height, left : left + width, :]
        rows, columns = (slice(max(0, at), at + side) for at, side in zip(self.placed, self.scaled, strict=False))
        above, beside = (max(0, corner) for corner in self.corner)
        shown = slice(above, above + self.target[0]), slice(beside, beside + self.target[1])
        if self.scaled == (height, width) and (cut := images[..., *shown, :]).shape[-3:-1] == self.target:
            return cut
        flat = images.reshape(-1, height, width, 3)
        result = flat.new_zeros(len(flat), *self.target, 3)
        for part, place in zip(flat.split(IMAGES_PER_CALL), result.split(IMAGES_PER_CALL), strict=True):
            place[:, rows, columns] = self._scaled(part)[:, *shown]
        return result.reshape(*images.shape[:-3], *self.target, 3)

    def _scaled(self, images: Tensor) -> Tensor:
        if self.scaled == tuple(images.shape[1:3]):
            return images
        floats = images.is_floating_point()
        working = images.contiguous().permute(0, 3, 1, 2).to(images.dtype if floats else torch.float32)
        working = functional.interpolate(working, self.scaled, mode="bilinear", align_corners=False, antialias=True)
        return (working if floats else working.round().clamp(0, 255)).permute(0, 2, 3, 1).to(images.dtype)

    @property
    def _scale_and_shift(self) -> tuple[list[float], list[float]]:
        """Of rows and columns."""
        scale = [self.placed[axis + 2] / self.box[axis + 2] for axis in (0, 1)]
        return scale, [self.placed[axis] - scale[axis] * self.box[axis] for axis in (0, 1)]

    @property
    def target_from_source(self) -> np.ndarray:
        """(3, 3) matrix from source to target pixels, float64."""
        (down, across), (top, left) = self._scale_and_shift
        return np.array([[across, 0.0, left], [0.0, down, top], [0.0, 0.0, 1.0]])

    def pixels(self, pixels: Array) -> Array:
        """Pixels (..., 2) [u, v] of the source to those of the target; they may lie outside the image."""
        scale, shift = self._scale_and_shift
        return pixels * _like(pixels, scale[::-1]) + _like(pixels, shift[::-1])

    def intrinsics(self, intrinsics: Array) -> Array:
        """Pinhole matrices (..., 3, 3) of source images to those of target images."""
        return _like(intrinsics, self.target_from_source.tolist()) @ intrinsics

    def track(self, track: Track) -> Track:
        """A track of the source's pictures with intrinsics and pixels as of the target's; its frames stay."""
        moved = {name: self.pixels(each) for name, each in track.columns.items() if holds_pixels(name, each)}
        return replace(track.with_columns(**moved), intrinsics=self.intrinsics(track.intrinsics))


def holds_pixels(name: str, column: np.ndarray | Tensor) -> bool:
    """Whether a track's column holds pixels (..., 2) of its pictures."""
    return (name == "points" or name.endswith("_pixels")) and column.ndim > 1 and column.shape[-1] == 2


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
    """`episode` with frames of `image_size` (height, width), its intrinsics and pixels to match; or itself."""
    fit = Fit.cover(episode.frames.size, image_size)
    return episode if fit.is_identity else replace(fit.track(episode), frames=ResizedFrames(episode.frames, fit))


@dataclass(frozen=True)
class ResizedFrames:
    """`track.Frames` that are brought to another size when they are read."""

    frames: Frames
    fit: Fit

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, after resizing."""
        return self.fit.target

    def read(self, indices: list[int]) -> np.ndarray:
        """Resized frames (N, H, W, 3) uint8; see `Frames.read`."""
        return self.fit.images(torch.from_numpy(self.frames.read(indices))).numpy()


class ResizedDataset:
    """A dataset whose episodes have frames of `image_size` (height, width), and intrinsics and pixels to match."""

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
