"""The data of a run as sources of windows: latents kept on disk, or frames encoded while training."""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from dexworld.data.augment import AugmentConfig
from dexworld.data.fitted import fitted
from dexworld.data.latent_cache import LatentCache, latent_cache
from dexworld.data.loader import FrameLoader, stored_facts
from dexworld.data.mixture import MixConfig
from dexworld.data.sampling import StrideSampling
from dexworld.data.source import Dataset
from dexworld.data.windows import WindowSampler
from dexworld.training.config import TrainConfig
from dexworld.training.frame_task import FrameSource
from dexworld.training.window_task import Strategy, WindowSource

logger = logging.getLogger(__name__)
Episodes = list[np.ndarray]
SHOWN_SEED = 0  # of the windows that are measured on: the same for runs of all seeds, so that these can be compared


class TrainingData(Protocol):
    """Several datasets that windows are drawn from."""

    def source(self, strategy: Strategy, model: Any, episodes: Episodes, shown: bool = False) -> WindowSource:
        """Windows of the given episodes of each dataset. shown: as they are and mixed by size, to measure on."""
        ...

    def labels(self, strategy: Strategy, episodes: Episodes) -> WindowSource:
        """Windows whose latents need not be true."""
        ...


class CachedData:
    """Latents computed once per dataset; opening computes what is missing.

    Frames of another size than the model's are brought to it before they are encoded. mix: shares of the datasets.
    rank, world_size: this process among several, which share the batches of training.
    """

    def __init__(
        self,
        datasets: list[Dataset],
        model: Any,
        fingerprint: str,
        mix: tuple[float, ...],
        seed: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.mix, self.seed, self.share = MixConfig(mix), seed, {"rank": rank, "world_size": world_size}
        self.caches = [_cache(model, dataset, fingerprint, device) for dataset in datasets]
        self.rates = {float(rate) for cache in self.caches for rate in cache.labels.fps}

    def source(self, strategy: Strategy, model: Any, episodes: Episodes, shown: bool = False) -> WindowSource:
        """See `TrainingData`."""
        warn_of_rates(strategy, self.rates)
        mix, seed, share = (MixConfig(), SHOWN_SEED, {}) if shown else (self.mix, self.seed, self.share)
        return WindowSampler(self.caches, strategy, seed, episodes, mix=mix, **share)

    def labels(self, strategy: Strategy, episodes: Episodes) -> WindowSource:
        """See `TrainingData`."""
        return WindowSampler(self.caches, strategy, self.seed, episodes, mix=self.mix)


class OnlineData:
    """Frames decoded by `workers` processes, resized, augmented and encoded on `device`.

    Datasets that store different sizes are brought to the model's in the workers, others on the device. rank,
    world_size: this process among several, which share the batches of training.
    """

    def __init__(
        self,
        datasets: list[Dataset],
        image_size: tuple[int, int],
        mix: tuple[float, ...],
        training: TrainConfig,
        device: torch.device,
        augment: bool = False,
        workers: int = 0,
        strict: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        facts = [stored_facts(dataset) for dataset in datasets]
        self.datasets, self.image_size, self.mix, self.training = datasets, image_size, MixConfig(mix), training
        self.device, self.augment, self.workers, self.strict = device, augment, workers, strict
        self.share = {"rank": rank, "world_size": world_size}
        self.rates = {rate for _, rate in facts}
        self.worker_size = image_size if len({size for size, _ in facts}) > 1 else None

    def source(self, strategy: Strategy, model: Any, episodes: Episodes, shown: bool = False) -> WindowSource:
        """See `TrainingData`; the model's encoder is asked for latents when a batch is."""
        warn_of_rates(strategy, self.rates)
        return FrameSource(
            self._loader(strategy, episodes, shown),
            model.encode,
            self.image_size,
            self.device,
            AugmentConfig() if self.augment and not shown else None,
            self.training.seed,
            # As in the release; a pca encoder is cheap enough to stay exact.
            self.training.bfloat16 and model.config.encoder.kind == "transformers",
        )

    def labels(self, strategy: Strategy, episodes: Episodes) -> WindowSource:
        """See `TrainingData`; nothing is decoded."""
        return FrameSource(self._loader(strategy, episodes, decode=False), None, self.image_size)

    def _loader(self, strategy: Strategy, episodes: Episodes, shown: bool = False, decode: bool = True) -> FrameLoader:
        return FrameLoader(
            self.datasets,
            strategy,
            self.training.batch_size,
            SHOWN_SEED if shown else self.training.seed,
            episodes=episodes,
            mix=MixConfig() if shown else self.mix,
            workers=0 if shown or not decode else self.workers,
            image_size=self.worker_size,
            strict=self.strict,
            decode=decode,
            pin=self.device.type == "cuda",
            **(self.share if decode and not shown else {}),
        )


def warn_of_rates(strategy: Strategy, rates: set[float]) -> None:
    """Say when strides of stored frames mean different times in different data."""
    if isinstance(strategy, StrideSampling) and strategy.rate_hz is None and len(rates) > 1:
        logger.warning(
            "the data have %s frames per second, so a stride is a different time in each; set `--rate-hz`",
            ", ".join(f"{rate:g}" for rate in sorted(rates)),
        )


def _cache(model: Any, dataset: Dataset, fingerprint: str, device: torch.device) -> LatentCache:
    sized = fitted(dataset, model.config.image_size)
    return latent_cache(sized, model.encode, fingerprint, device=device, progress=_tenths(dataset))


def _tenths(dataset: Dataset) -> Callable[[int, int], None]:
    """A log line for every tenth of the frames."""
    told = 0

    def log(done: int, total: int) -> None:
        nonlocal told
        if done * 10 // total > told:
            told = done * 10 // total
            logger.info("%s: latents of %d of %d frames", dataset.folder, done, total)

    return log
