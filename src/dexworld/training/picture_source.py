"""Pictures of datasets with their latents, in batches: what a pixel decoder is trained on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dexworld.data.latent_cache import LatentCache
from dexworld.data.loader import FrameBatch, FrameLoader
from dexworld.data.mixture import MixConfig
from dexworld.data.sampling import EveryFrame
from dexworld.data.source import Dataset

Latents = Callable[[Tensor, np.ndarray], Tensor]  # (pictures (B, H, W, 3) uint8, rows (B,)) to (B, P, D)


@dataclass(frozen=True)
class Pictures:
    """images: (B, H, W, 3) uint8 RGB. latents: (B, P, D) float32 of them. rows: (B,) frame numbers over all clips."""

    images: Tensor
    latents: Tensor
    rows: Tensor


class CachedLatents:
    """Latents that were computed before, by row (a `Latents`)."""

    def __init__(self, caches: list[LatentCache]) -> None:
        self.caches = caches
        self.starts = np.cumsum([0, *(len(cache) for cache in caches)])

    def __call__(self, images: Tensor, rows: np.ndarray) -> Tensor:
        found = np.empty((len(rows), *self.caches[0].latents.shape[1:]), dtype=np.float32)
        which = np.searchsorted(self.starts, rows, side="right") - 1
        for number, cache in enumerate(self.caches):
            mine = np.flatnonzero(which == number)
            unique, places = np.unique(rows[mine] - self.starts[number], return_inverse=True)
            if len(unique):
                found[mine] = np.asarray(cache.latents[unique], dtype=np.float32)[places]
        return torch.from_numpy(found).to(images.device)


class PictureSource:
    """Batches of single frames, every frame of the given episodes once in an epoch; batch n depends on seed and n only.

    datasets: with frames of the model's size (see `data.fitted`). latents: of a batch of pictures. mix: shares of the
    datasets. workers: processes that decode; consecutive batches are loaded ahead. rank, world_size: this process among
    several, which share every batch.
    """

    def __init__(
        self,
        datasets: list[Dataset],
        episodes: list[np.ndarray],
        latents: Latents,
        device: torch.device | str,
        batch_size: int,
        seed: int,
        mix: MixConfig = MixConfig(),
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.loader = FrameLoader(
            datasets,
            EveryFrame(),
            batch_size,
            seed,
            episodes=episodes,
            mix=mix,
            workers=workers,
            rank=rank,
            world_size=world_size,
            pin=torch.device(device).type == "cuda",
        )
        self.latents, self.device = latents, torch.device(device)
        self._starts = np.concatenate([[0], np.cumsum(self.loader.sampler.clips.lengths)])
        self._stream: Iterator[FrameBatch] | None = None
        self._next = -1

    def batch(self, step: int, size: int) -> Pictures:
        """This process's share of batch `step` of `size` pictures, on the device."""
        if self._stream is None or self._next != step:
            self._stream = self.loader.batches(step, size)
        frames = next(self._stream)
        self._next = step + 1
        rows = self._starts[frames.clips.numpy()] + frames.frame_numbers[:, 0].numpy()
        images = frames.frames[:, 0].to(self.device)
        return Pictures(images, self.latents(images, rows), torch.from_numpy(rows))

    def describe(self, row: int) -> str:
        """Dataset folder, episode and frame of a row."""
        clip = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.loader.describe(clip, row - int(self._starts[clip]))
