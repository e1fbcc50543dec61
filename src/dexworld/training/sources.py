"""The data of a run as sources of windows: latents kept on disk, or frames encoded while training.

A run at the paper's scale has to encode online: latents of EgoDex would fill 82 TB (917 kB a frame, 5.5 kB of video).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dexworld.data.augment import CHANCES, augment, draw_augmentation
from dexworld.data.latent_cache import LatentCache, cache_folder, latent_cache
from dexworld.data.loader import FrameLoader, first_readable
from dexworld.data.mixture import MixConfig
from dexworld.data.pace import Pace
from dexworld.data.resize import Fit, ResizedDataset, resized
from dexworld.data.sampling import EveryFrame, PartStrategy, StrideSampling, uniforms
from dexworld.data.source import Dataset
from dexworld.data.windows import DEFAULT_COLUMNS, NOTHING, CachedLatents, Window, WindowSampler
from dexworld.models.encoders import Encoder
from dexworld.track import Track
from dexworld.training.distributed import Processes
from dexworld.training.run_data import DataConfig, RunData
from dexworld.training.train_config import LoopConfig

logger = logging.getLogger(__name__)
AUGMENTATION = 1 << 20  # stream of random numbers, apart from those that draw frames
FRAMES_PER_CALL = 256  # frames that the encoder takes at once
LOOKED_AT = 512  # windows whose labels are looked at before anything is encoded
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
        self._next = (0, 0)

    def batch(self, step: int, size: int) -> Window:
        """Batch `step` of `size` windows on the device."""
        if self._stream is None or self._next != (step, size):
            self._stream = self.loader.batches(step, size)
        self._next = (step + 1, size)
        return self.window(next(self._stream))

    def window(self, loaded: Window) -> Window:
        """A loaded window on the device: resized with its intrinsics and pixels, augmented, with latents."""
        fit, window = Fit.cover(self.loader.image_size, self.image_size), loaded.to(self.device)
        window = replace(window, track=fit.track(window.track))
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


class TrainingData:
    """Datasets as windows with latents of one encoder: computed once and kept on disk, or made when a batch is drawn.

    Frames of another size than the encoder's are brought to it. training: batch size, seed and precision of the run.
    fingerprint: of the encoder, under which latents are kept; what is missing is computed now. None makes latents when
    they are asked for. mix: shares of the datasets. processes: those that share the batches of training. workers:
    processes that decode. augment, strict: of latents that aren't kept (`FrameSource`, `FrameLoader`). cache: folder of
    kept latents (`place_of_latents`).
    """

    def __init__(
        self,
        datasets: list[Dataset],
        encoder: Encoder,
        training: LoopConfig,
        device: torch.device,
        fingerprint: str | None = None,
        mix: tuple[float, ...] = (),
        processes: Processes = Processes(),
        workers: int = 0,
        augment: bool = False,
        strict: bool = False,
        cache: Path | None = None,
    ) -> None:
        self.datasets, self.encoder, self.training, self.device = datasets, encoder, training, device
        self.mix, self.workers, self.augment, self.caches = MixConfig(mix), workers, augment, list[LatentCache]()
        self.shared: dict[str, Any] = {"mix": self.mix, "rank": processes.rank, "world_size": processes.count}
        self.options: dict[str, Any] = {"strict": strict, "pin": device.type == "cuda"}
        if fingerprint is not None:
            self.caches = [_cache(encoder, dataset, fingerprint, device, cache) for dataset in datasets]
            self.rates = {float(rate) for cache in self.caches for rate in cache.labels.fps}
            return
        first = [first_readable(dataset) for dataset in datasets]
        self.rates = {episode.fps for episode in first}
        if len({episode.frames.size for episode in first}) > 1:  # to be resized by the workers, else on the device
            self.datasets = [cast(Dataset, ResizedDataset(dataset, encoder.image_size)) for dataset in datasets]

    def source(
        self, strategy: Strategy, episodes: Episodes, columns: tuple[str, ...] = DEFAULT_COLUMNS, shown: bool = False
    ) -> WindowSource:
        """Windows of the given episodes of each dataset, with these columns of their tracks.

        shown: as they are and mixed by size, to measure on.
        """
        _warn_of_rates(strategy, self.rates)
        drawn: dict[str, Any] = {"seed": SHOWN_SEED} if shown else {"seed": self.training.seed, **self.shared}
        drawn |= {"episodes": episodes, "columns": columns}
        if self.caches:
            return WindowSampler(self.caches, strategy, **drawn)
        drawn["workers"] = 0 if shown else self.workers
        loader = FrameLoader(self.datasets, strategy, self.training.batch_size, **drawn, **self.options)
        # As in the release; a pca encoder is cheap enough to stay exact.
        bfloat16 = self.training.bfloat16 and self.encoder.config.kind == "transformers"
        options = (self.device, self.augment and not shown, self.training.seed, bfloat16)
        return FrameSource(loader, self.encoder.encode, self.encoder.image_size, *options)

    def labels(
        self, strategy: Strategy, episodes: Episodes, columns: tuple[str, ...] = DEFAULT_COLUMNS
    ) -> WindowSource:
        """Windows whose latents are not asked for, in one process; nothing is decoded."""
        drawn: dict[str, Any] = {"seed": self.training.seed, "episodes": episodes, "mix": self.mix, "columns": columns}
        if self.caches:
            return WindowSampler(self.caches, strategy, **drawn)
        size, drawn = self.training.batch_size, drawn | self.options
        loader = FrameLoader(self.datasets, strategy, size, decode=False, **drawn)
        return FrameSource(loader, None, self.encoder.image_size)

    def pictures(self, episodes: Episodes, batch_size: int, alike: bool = False) -> FrameSource:
        """Single frames with pictures and latents; an epoch brings every frame of the given episodes once.

        The datasets must have frames of the encoder's size. alike: the same in every process, and mixed by size.
        """
        drawn = {} if alike else {**self.shared, "workers": self.workers}
        seed, pin = self.training.seed, self.device.type == "cuda"
        loader = FrameLoader(self.datasets, EveryFrame(), batch_size, seed, episodes=episodes, pin=pin, **drawn)
        latents = CachedLatents(self.caches) if self.caches else self.encoder.encode
        return FrameSource(loader, latents, loader.image_size, self.device, keep_frames=True)


def open_data(
    config: DataConfig,
    training: LoopConfig,
    run: RunData,
    encoder: Encoder,
    fingerprint: str,
    device: torch.device,
    processes: Processes,
    augment: bool = False,
    strict: bool = False,
) -> tuple[TrainingData, TrainingData]:
    """What a run trains on and what it measures on."""
    kept = fingerprint if config.latents == "cached" else None
    more = (training, device, kept, config.shares, processes, config.workers, augment, strict, config.cache)
    with processes.first_alone():  # it encodes what is not cached yet, the others read what it wrote
        data = TrainingData(run.datasets, encoder, *more)
        return data, TrainingData(run.held_out_data, encoder, *more) if run.held_out_data else data


def check_acting(run: RunData, strategy: Strategy, columns: tuple[str, ...] = DEFAULT_COLUMNS) -> None:
    """Look at the labels of a few windows, before anything is encoded: in some of them something must act.

    Columns of other models may act, too. Warns where only the camera moves. Raises ValueError where nothing does, and
    for a column that the data lack.
    """
    names, track = _looked_at(run, strategy, columns)
    valid = track.keypoints_valid[:, 1:] & track.keypoints_valid[:, :-1]
    moved = bool((track.keypoints_world.diff(dim=1)[valid] != 0).any())
    if moved or set(columns) != set(DEFAULT_COLUMNS):
        return
    still = "no valid keypoint" if not track.keypoints_valid.any() else "no keypoint that moves"
    if not (track.world_from_camera.diff(dim=1) != 0).any():
        what = f"{names}: {LOOKED_AT} windows hold {still}, and the camera stands still, so all actions are zero"
        raise ValueError(f"{what}; look at the data with `dexworld inspect`")
    logger.warning("%s: %d windows hold %s; the camera's motion is the only action", names, LOOKED_AT, still)


def check_visible(run: RunData) -> None:
    """Raise ValueError unless some of a few frames hold a valid keypoint."""
    names, track = _looked_at(run, EveryFrame())
    if not track.keypoints_valid.any():
        raise ValueError(f"{names}: {LOOKED_AT} frames hold no valid keypoint; look at them with `dexworld inspect`")


def _looked_at(run: RunData, strategy: Strategy, columns: tuple[str, ...] = ()) -> tuple[str, Track]:
    """The names of the datasets, and the labels of some windows."""
    options: dict[str, Any] = {"decode": False, "columns": tuple(dict.fromkeys((*DEFAULT_COLUMNS, *columns)))}
    loader = FrameLoader(run.datasets, strategy, LOOKED_AT, SHOWN_SEED, episodes=run.training, **options)
    return ", ".join(str(dataset.folder) for dataset in run.datasets), loader.batch(0).track


def _warn_of_rates(strategy: Strategy, rates: set[float]) -> None:
    """Say when strides of stored frames mean different times in different data."""
    if isinstance(strategy, StrideSampling) and strategy.rate_hz is None and len(rates) > 1:
        logger.warning(
            "the data have %s frames per second, so a stride is a different time in each; set `--rate-hz`",
            ", ".join(f"{rate:g}" for rate in sorted(rates)),
        )


def _cache(
    encoder: Encoder, dataset: Dataset, fingerprint: str, device: torch.device, cache: Path | None
) -> LatentCache:
    sized, folder = resized(dataset, encoder.image_size), cache_folder(dataset, fingerprint, cache)
    progress = partial(Pace().update, f"{dataset.folder}: frames encoded")
    return latent_cache(sized, encoder.encode, fingerprint, folder, device, progress)
