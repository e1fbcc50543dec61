"""The data of a run as sources of windows: latents kept on disk, or frames encoded while training.

A run at the paper's scale has to encode online: latents of EgoDex would fill 82 TB (917 kB a frame, 5.5 kB of video).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dexworld.data.augment import CHANCES, augment, draw_augmentation
from dexworld.data.latent_cache import LatentCache, latent_cache
from dexworld.data.loader import FrameLoader, first_readable
from dexworld.data.mixture import MixConfig
from dexworld.data.resize import Fit, ResizedDataset, resized
from dexworld.data.sampling import EveryFrame, PartStrategy, StrideSampling, uniforms
from dexworld.data.source import Dataset
from dexworld.data.windows import DEFAULT_COLUMNS, NOTHING, CachedLatents, Window, WindowSampler
from dexworld.training.distributed import Processes
from dexworld.training.run_data import DataConfig
from dexworld.training.train_config import LoopConfig

logger = logging.getLogger(__name__)
AUGMENTATION = 1 << 20  # stream of random numbers, apart from those that draw frames
FRAMES_PER_CALL = 256  # frames that the encoder takes at once
SHOWN_SEED = 0  # of the windows that are measured on: the same for runs of all seeds, so that these can be compared
Strategy = PartStrategy | StrideSampling
Episodes = list[np.ndarray]
Latents = Callable[[Tensor], Tensor] | CachedLatents  # images (N, H, W, 3) uint8 to (N, P, D), or latents by row


class FrameSource:
    """Windows of decoded frames with latents.

    loader: where frames come from; its workers load consecutive batches ahead. latents: an encoder for images of
    `image_size`, or latents computed before; None for labels only. augment: change colours, one draw per clip from
    (seed, sample number). bfloat16: encode under autocast. keep_frames: leave the frames in the windows.
    """

    def __init__(
        self,
        loader: FrameLoader,
        latents: Latents | None,
        image_size: tuple[int, int],
        device: torch.device | str = "cpu",
        augment: bool = False,
        seed: int = 0,
        bfloat16: bool = False,
        keep_frames: bool = False,
    ) -> None:
        self.loader, self.latents, self.image_size, self.device = loader, latents, image_size, torch.device(device)
        self.augment, self.seed, self.bfloat16, self.keep_frames = augment, seed, bfloat16, keep_frames
        self._stream: Iterator[Window] | None = None
        self._next = (0, 0, 0)

    def batch(self, step: int, size: int, first: int | None = None) -> Window:
        """Batch `step` of `size` windows on the device. first: number of its first sample (default step * size)."""
        wanted = (step, size, step * size if first is None else first)
        if self._stream is None or self._next != wanted:
            self._stream = self.loader.batches(*wanted)
        window = next(self._stream)
        self._next = (step + 1, size, wanted[2] + size)
        return self.window(window)

    def window(self, loaded: Window) -> Window:
        """A loaded window on the device: resized with its intrinsics, augmented, with latents."""
        fit, window = Fit.cover(self.loader.image_size, self.image_size), loaded.to(self.device)
        window = replace(window, track=replace(window.track, intrinsics=fit.intrinsics(window.track.intrinsics)))
        if self.latents is None:
            return replace(window, frames=NOTHING)
        images = fit.images(window.frames)
        if self.augment:
            chances = uniforms(self.seed, loaded.numbers.numpy(), CHANCES, AUGMENTATION)
            images = augment(images, draw_augmentation(chances))
        if isinstance(self.latents, CachedLatents):
            latents = torch.from_numpy(self.latents(loaded.rows.numpy())).to(self.device)
        else:
            new = torch.ones_like(loaded.rows, dtype=torch.bool)
            new[:, 1:] = loaded.rows[:, 1:] != loaded.rows[:, :-1]  # a repeated frame is encoded once
            place = new.flatten().cumsum(0).view_as(new) - 1
            latents = self._encoded(self.latents, images[new.to(self.device)])[place.to(self.device)]
        return replace(window, latents=latents, frames=images if self.keep_frames else NOTHING)

    @torch.no_grad()
    def _encoded(self, encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Latents (N, P, D) float32 of images (N, H, W, 3) uint8."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            return torch.cat([encode(part) for part in images.split(FRAMES_PER_CALL)]).float()

    def describe(self, row: int) -> str:
        """Dataset folder, episode and frame of a window's row."""
        return self.loader.describe(row)

    def close(self) -> None:
        """End the loader's workers."""
        self._stream = None
        self.loader.close()


WindowSource = FrameSource | WindowSampler


def picture_source(
    datasets: list[Dataset],
    episodes: Episodes,
    latents: Latents,
    device: torch.device,
    batch_size: int,
    seed: int,
    mix: tuple[float, ...] = (),
    workers: int = 0,
    processes: Processes = Processes(),
) -> FrameSource:
    """Single frames with pictures and latents; an epoch brings every frame of the given episodes once.

    datasets: with frames of the model's size (see `data.resize`). mix: shares of the datasets. workers: processes that
    decode. processes: those that share every batch.
    """
    options: dict[str, Any] = {"mix": MixConfig(mix), "workers": workers, "pin": device.type == "cuda"}
    options |= {"episodes": episodes, "rank": processes.rank, "world_size": processes.count}
    loader = FrameLoader(datasets, EveryFrame(), batch_size, seed, **options)
    return FrameSource(loader, latents, loader.image_size, device, keep_frames=True)


class CachedData:
    """Several datasets whose latents are computed once; opening computes what is missing.

    Frames of another size than the model's are brought to it before they are encoded. mix: shares of the datasets.
    processes: those that share the batches of training.
    """

    def __init__(
        self,
        datasets: list[Dataset],
        model: Any,
        fingerprint: str,
        mix: tuple[float, ...],
        seed: int,
        device: torch.device,
        processes: Processes = Processes(),
    ) -> None:
        self.drawn: dict[str, Any] = {"mix": MixConfig(mix), "seed": seed}
        self.drawn |= {"rank": processes.rank, "world_size": processes.count}
        self.caches = [_cache(model, dataset, fingerprint, device) for dataset in datasets]
        self.rates = {float(rate) for cache in self.caches for rate in cache.labels.fps}

    def source(self, strategy: Strategy, model: Any, episodes: Episodes, shown: bool = False) -> WindowSource:
        """Windows of the given episodes of each dataset, with the columns that the model reads.

        shown: as they are and mixed by size, to measure on.
        """
        _warn_of_rates(strategy, self.rates)
        drawn = {"seed": SHOWN_SEED} if shown else self.drawn
        return WindowSampler(self.caches, strategy, episodes=episodes, columns=columns_of(model), **drawn)

    def labels(self, strategy: Strategy, episodes: Episodes) -> WindowSource:
        """Windows whose latents are not asked for, in one process."""
        return WindowSampler(self.caches, strategy, self.drawn["seed"], episodes, mix=self.drawn["mix"])


class OnlineData:
    """The same of frames that `workers` processes decode; they are resized, augmented and encoded on `device`.

    Datasets that store different sizes are brought to the model's in the workers, others on the device.
    """

    def __init__(
        self,
        datasets: list[Dataset],
        image_size: tuple[int, int],
        mix: tuple[float, ...],
        training: LoopConfig,
        device: torch.device,
        processes: Processes = Processes(),
        augment: bool = False,
        workers: int = 0,
        strict: bool = False,
    ) -> None:
        first = [first_readable(dataset) for dataset in datasets]
        self.datasets, self.image_size, self.training, self.device = datasets, image_size, training, device
        self.augment, self.rates = augment, {episode.fps for episode in first}
        self.drawn: dict[str, Any] = {"mix": MixConfig(mix), "workers": workers}
        self.drawn |= {"rank": processes.rank, "world_size": processes.count}
        if len({episode.frames.size for episode in first}) > 1:
            self.datasets = [cast(Dataset, ResizedDataset(dataset, image_size)) for dataset in datasets]
        self.options = {"strict": strict, "pin": device.type == "cuda"}

    def source(self, strategy: Strategy, model: Any, episodes: Episodes, shown: bool = False) -> WindowSource:
        """See `CachedData.source`; the model's encoder is asked for latents when a batch is."""
        _warn_of_rates(strategy, self.rates)
        changing = {"seed": SHOWN_SEED} if shown else self.drawn
        loader = self._loader(strategy, episodes, columns=columns_of(model), **changing)
        # As in the release; a pca encoder is cheap enough to stay exact.
        bfloat16 = self.training.bfloat16 and model.config.encoder.kind == "transformers"
        colours = self.augment and not shown
        return FrameSource(loader, model.encode, self.image_size, self.device, colours, self.training.seed, bfloat16)

    def labels(self, strategy: Strategy, episodes: Episodes) -> WindowSource:
        """Windows without latents, in one process; nothing is decoded."""
        loader = self._loader(strategy, episodes, decode=False, mix=self.drawn["mix"])
        return FrameSource(loader, None, self.image_size)

    def _loader(self, strategy: Strategy, episodes: Episodes, **changing: Any) -> FrameLoader:
        options: dict[str, Any] = {"seed": self.training.seed, "episodes": episodes, **self.options, **changing}
        return FrameLoader(self.datasets, strategy, self.training.batch_size, **options)


def open_data(
    config: DataConfig,
    training: LoopConfig,
    datasets: list[Dataset],
    model: Any,
    fingerprint: str,
    device: torch.device,
    processes: Processes,
    **online: bool,
) -> CachedData | OnlineData:
    """The data of a run as `config.latents` says. fingerprint: of the encoder. online: options of `OnlineData`."""
    if config.latents == "cached":
        return CachedData(datasets, model, fingerprint, config.shares, training.seed, device, processes)
    size = model.config.image_size
    return OnlineData(datasets, size, config.shares, training, device, processes, workers=config.workers, **online)


def columns_of(model: Any) -> tuple[str, ...]:
    """The columns that a model reads: those that it names in `columns`, or keypoints."""
    return tuple(getattr(model, "columns", DEFAULT_COLUMNS))


def _warn_of_rates(strategy: Strategy, rates: set[float]) -> None:
    """Say when strides of stored frames mean different times in different data."""
    if isinstance(strategy, StrideSampling) and strategy.rate_hz is None and len(rates) > 1:
        logger.warning(
            "the data have %s frames per second, so a stride is a different time in each; set `--rate-hz`",
            ", ".join(f"{rate:g}" for rate in sorted(rates)),
        )


def _cache(model: Any, dataset: Dataset, fingerprint: str, device: torch.device) -> LatentCache:
    sized = resized(dataset, model.config.image_size)
    tenths = 0

    def log(done: int, total: int) -> None:
        nonlocal tenths
        if done * 10 // total > tenths:
            tenths = done * 10 // total
            logger.info("%s: latents of %d of %d frames", dataset.folder, done, total)

    return latent_cache(sized, model.encode, fingerprint, device=device, progress=log)
