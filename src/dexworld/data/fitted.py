"""A dataset seen at a model's image size: frames and intrinsics are fitted when they are read."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.data.resize import Fit
from dexworld.data.source import Dataset
from dexworld.track import Frames, Track


def fitted(dataset: Dataset, image_size: tuple[int, int]) -> Dataset:
    """`dataset` with frames of `image_size` (height, width): itself when its first episode has that size already.

    Scaled to cover and cut at the centre (see `resize.py`). Raises ValueError when the dataset holds no episode.
    """
    if not len(dataset):
        raise ValueError(f"{dataset.folder} holds no readable episode ({len(dataset.quarantined)} quarantined)")
    return dataset if dataset[0].frames.size == tuple(image_size) else FittedDataset(dataset, image_size)


def fitted_episode(episode: Track, image_size: tuple[int, int]) -> Track:
    """`episode` with frames of `image_size` (height, width) and intrinsics to match; itself when it has them."""
    fit = Fit(episode.frames.size, image_size)
    if fit.is_identity:
        return episode
    return replace(episode, frames=FittedFrames(episode.frames, fit), intrinsics=fit.intrinsics(episode.intrinsics))


@dataclass(frozen=True)
class FittedFrames:
    """Frames brought to another size. fit: from their own one."""

    frames: Frames
    fit: Fit

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.fit.target

    def read(self, indices: list[int]) -> np.ndarray:
        """Frames (len(indices), H, W, 3), uint8 RGB, in the order asked for."""
        return self.fit.images(torch.from_numpy(self.frames.read(indices))).numpy()


@dataclass(frozen=True)
class FittedDataset:
    """A dataset whose episodes have frames of `image_size` (height, width), and intrinsics to match."""

    dataset: Dataset
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy. Raises CorruptEpisodeError as the dataset does."""
        return fitted_episode(self.dataset[index], self.image_size)

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that episode `index` is read from."""
        return self.dataset.files(index)

    @property
    def fingerprint(self) -> str:
        """Changes with the dataset and with the size."""
        content = f"{self.dataset.fingerprint} {self.image_size[0]} x {self.image_size[1]}"
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    @property
    def folder(self) -> Path:
        """Where the dataset lies."""
        return self.dataset.folder

    @property
    def kind(self) -> str:
        """The layout's name."""
        return self.dataset.kind

    @property
    def ids(self) -> tuple[str, ...]:
        """One per episode."""
        return self.dataset.ids

    @property
    def splits(self) -> tuple[str, ...]:
        """The dataset's own split of each episode."""
        return self.dataset.splits

    @property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each episode."""
        return self.dataset.lengths

    @property
    def quarantined(self) -> tuple[tuple[str, str], ...]:
        """What was left out, and why."""
        return self.dataset.quarantined

    @property
    def episode_seeds(self) -> tuple[int | None, ...]:
        """Simulator seed of each episode."""
        return self.dataset.episode_seeds

    @property
    def settings(self) -> dict[str, Any]:
        """What the data was made with."""
        return self.dataset.settings

    @property
    def seeds(self) -> tuple[int, ...]:
        """The distinct simulator seeds, sorted."""
        return self.dataset.seeds
