"""Windows of a few frames, cut from episodes at random strides: what the world model trains on.

A window has `frames` slots. The first may repeat one frame (a hand that has not moved yet: planning starts that way),
the others follow at a constant stride. Departure from the DexWM release, whose dataset class samples sorted random
frames of the last four seconds: a constant stride keeps the time step of a window the one that planning uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dexworld.data.latent_cache import LatentCache

MOVED = 1e-3  # metres; objects that move less between two frames are at rest


@dataclass(frozen=True)
class WindowConfig:
    """How windows are drawn.

    frames: slots of a window F, observed and predicted together.
    history: slots that may be filled by repeating the first frame; the slots behind them are always different frames.
    stride_weights: relative frequency of strides 1, 2, ... in stored frames.
    short_history: fraction of windows whose history is partly repeats (uniformly 1 to history - 1 of them).
    moving_object_weight: extra weight of frames in which an object moves; 3 draws them four times as often.
    """

    frames: int = 8
    history: int = 4
    stride_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0)
    short_history: float = 0.4
    moving_object_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.history < self.frames:
            raise ValueError(f"history is {self.history}; it must lie between 1 and frames - 1 = {self.frames - 1}")
        weights = np.asarray(self.stride_weights, dtype=float)
        if not weights.size or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise ValueError(f"stride_weights is {self.stride_weights}; give non-negative numbers, not all zero")
        if not 0.0 <= self.short_history <= 1.0:
            raise ValueError(f"short_history is {self.short_history}; it is a fraction between 0 and 1")
        if not 0.0 <= self.moving_object_weight < float("inf"):
            raise ValueError(f"moving_object_weight is {self.moving_object_weight}; it must be 0 or more")


@dataclass(frozen=True)
class Window:
    """A batch of B windows of F frames.

    latents: (B, F, P, D) float32. keypoints_world: (B, F, 42, 3) metres. keypoints_valid: (B, F, 42) bool.
    world_from_camera: (B, F, 4, 4). intrinsics: (B, 3, 3) pixels of the stored frame size.
    repeats: (B,) leading slots that repeat the frame after them. stride: (B,) stored frames per step.
    rows: (B, F) index of each frame in the sampler's table, for error reports.
    """

    latents: Tensor
    keypoints_world: Tensor
    keypoints_valid: Tensor
    world_from_camera: Tensor
    intrinsics: Tensor
    repeats: Tensor
    stride: Tensor
    rows: Tensor

    def __post_init__(self) -> None:
        batch, frames = self.latents.shape[:2]
        for name, tail in (
            ("keypoints_world", (frames, 42, 3)),
            ("keypoints_valid", (frames, 42)),
            ("world_from_camera", (frames, 4, 4)),
            ("intrinsics", (3, 3)),
            ("repeats", ()),
            ("stride", ()),
            ("rows", (frames,)),
        ):
            shape = tuple(getattr(self, name).shape)
            if shape != (batch, *tail):
                raise ValueError(f"Window.{name} has shape {shape}, expected {(batch, *tail)}")

    @property
    def slots(self) -> Tensor:
        """(F,) slot numbers 0 to F - 1; slot j repeats the one before it where 0 < j <= repeats."""
        return torch.arange(self.latents.shape[1], device=self.latents.device)

    def to(self, device: torch.device | str) -> "Window":
        """The same window on another device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__}
        return replace(self, **moved)


class WindowSampler:
    """Draws batches of windows from latent caches. Without state: batch `step` is the same whenever it is asked for.

    caches: one per dataset; all with the same P and D. episodes: per cache the episodes to draw from (default: all).
    seed: of the draws. rank, world_size: this process among several; together they draw the batch that one alone would.
    """

    def __init__(
        self,
        caches: Sequence[LatentCache],
        config: WindowConfig,
        seed: int,
        episodes: Sequence[np.ndarray] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        shapes = {cache.latents.shape[1:] for cache in caches}
        if len(shapes) != 1:
            raise ValueError(f"windows need latents of one shape, the caches hold {sorted(shapes)}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} does not lie in a world of {world_size}")
        self.caches, self.config, self.seed = tuple(caches), config, seed
        self.rank, self.world_size = rank, world_size
        self._latents = [cache.latents for cache in caches]
        self._offsets = np.cumsum([0, *(len(cache) for cache in caches)])
        labels = [cache.labels for cache in caches]
        self._keypoints = np.concatenate([part.keypoints_world for part in labels])
        self._valid = np.concatenate([part.keypoints_valid for part in labels])
        self._cameras = np.concatenate([part.world_from_camera for part in labels])
        self._intrinsics = np.concatenate([part.intrinsics for part in labels])
        first_episode = np.cumsum([0, *(cache.episodes for cache in caches)])
        self._starts = np.concatenate(
            [part.starts[:-1] + offset for part, offset in zip(labels, self._offsets, strict=False)]
            + [self._offsets[-1:]]
        )
        self._episode = np.repeat(np.arange(first_episode[-1]), np.diff(self._starts))
        chosen = np.zeros(first_episode[-1], dtype=bool)
        for index, first in enumerate(first_episode[:-1]):
            chosen[first : first_episode[index + 1]] = episodes is None
            if episodes is not None:
                chosen[first + np.asarray(episodes[index], dtype=int)] = True
        motion = np.concatenate([part.object_motion for part in labels])
        weight = chosen[self._episode] * (1.0 + config.moving_object_weight * (motion > MOVED))
        if not weight.sum() > 0:
            raise ValueError("no episode is left to draw windows from")
        self._cumulative = np.cumsum(weight) / weight.sum()

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Patches P and width D."""
        return self._latents[0].shape[1], self._latents[0].shape[2]

    def batch(self, step: int, size: int) -> Window:
        """Batch number `step` of `size` windows over all ranks; this rank's share of it, as CPU tensors."""
        if size % self.world_size:
            raise ValueError(f"a batch of {size} can't be shared by {self.world_size} processes; choose a multiple")
        rows, repeats, stride = self._draw(np.random.default_rng([self.seed, step]), size)
        share = slice(self.rank, None, self.world_size)
        return self.gather(rows[share], repeats[share], stride[share])

    def gather(self, rows: np.ndarray, repeats: np.ndarray, stride: np.ndarray) -> Window:
        """The window batch of the given table rows (B, F), leading repeats (B,) and strides (B,)."""
        return Window(
            latents=torch.from_numpy(self._read_latents(rows)),
            keypoints_world=torch.from_numpy(self._keypoints[rows]),
            keypoints_valid=torch.from_numpy(self._valid[rows]),
            world_from_camera=torch.from_numpy(self._cameras[rows]),
            intrinsics=torch.from_numpy(self._intrinsics[self._episode[rows[:, 0]]]),
            repeats=torch.from_numpy(repeats),
            stride=torch.from_numpy(stride),
            rows=torch.from_numpy(rows),
        )

    def describe(self, row: int) -> str:
        """Where a table row comes from: cache folder, episode number in it, frame."""
        cache = int(np.searchsorted(self._offsets, row, side="right")) - 1
        labels, local = self.caches[cache].labels, row - int(self._offsets[cache])
        episode = int(labels.episode_of_frame[local])
        return f"{self.caches[cache].folder}, episode {episode}, frame {local - int(labels.starts[episode])}"

    def _draw(self, generator: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Table rows (B, F), leading repeats (B,) and strides (B,).

        A frame is drawn by weight and put into a random slot; the window around it is then shifted into the episode.
        A window too long for its episode first repeats its first frame, up to the whole history, then takes a shorter
        stride.
        """
        config = self.config
        weights = np.asarray(config.stride_weights, dtype=float)
        stride = 1 + generator.choice(len(weights), size=size, p=weights / weights.sum())
        short = (generator.random(size) < config.short_history) & (config.history > 1)
        repeats = np.where(short, generator.integers(1, max(config.history, 2), size=size), 0)
        anchor = np.searchsorted(self._cumulative, generator.random(size), side="right")
        place = generator.random(size)

        episode = self._episode[np.minimum(anchor, len(self._episode) - 1)]
        start, length = self._starts[episode], self._starts[episode + 1] - self._starts[episode]
        transitions = (length - 1) // stride
        repeats = np.clip(config.frames - 1 - transitions, repeats, config.history - 1)
        moving = config.frames - 1 - repeats
        stride = np.minimum(stride, np.maximum((length - 1) // moving, 1))
        slot = np.floor(place * (moving + 1)).astype(int)
        first = np.clip(anchor - start - slot * stride, 0, np.maximum(length - 1 - moving * stride, 0))
        steps = np.maximum(np.arange(config.frames) - repeats[:, None], 0) * stride[:, None]
        # Episodes shorter than a window end in repeats of their last frame.
        local = np.minimum(first[:, None] + steps, length[:, None] - 1)
        return start[:, None] + local, repeats, stride

    def _read_latents(self, rows: np.ndarray) -> np.ndarray:
        """(B, F, P, D) float32; the memory map is read in file order."""
        flat = rows.ravel()
        unique, places = np.unique(flat, return_inverse=True)
        read = np.empty((len(unique), *self.latent_shape), dtype=np.float32)
        bounds = np.searchsorted(unique, self._offsets)
        for latents, offset, lower, upper in zip(
            self._latents, self._offsets[:-1], bounds[:-1], bounds[1:], strict=True
        ):
            read[lower:upper] = latents[unique[lower:upper] - offset]
        return read[places].reshape(*rows.shape, *self.latent_shape)
