"""Windows of a few frames: what the world model trains on, and their draw from cached latents.

Which frames make a window is the business of `sampling.py`, which clips come when that of `mixture.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dexworld.data.frame_labels import FRAME, Labels
from dexworld.data.latent_cache import LatentCache
from dexworld.data.mixture import Clips, MixConfig, make_sampler
from dexworld.data.sampling import PartStrategy, StrideSampling
from dexworld.hands import TRACKED
from dexworld.track import Track

MOVED = 1e-3  # metres; objects that move less between two frames are at rest
_READ_BY_ROW = ("keypoints_world", "keypoints_valid", "keypoints_shown", "world_from_camera")


@dataclass(frozen=True)
class Window:
    """A batch of B windows of F frames.

    latents: (B, F, P, D) float32. keypoints_world: (B, F, 42, 3) metres. keypoints_valid: (B, F, 42) bool.
    world_from_camera: (B, F, 4, 4). intrinsics: (B, 3, 3) pixels of the stored frame size.
    repeats: (B,) leading slots that repeat the frame after them. stride: (B,) steps between slots, 0 where they vary.
    rows: (B, F) index of each frame in the sampler's table, for error reports.
    keypoints_shown: (B, F, 42) bool, those that a picture can show (`Track.keypoints_shown`); the valid ones
    when not given.
    """

    latents: Tensor
    keypoints_world: Tensor
    keypoints_valid: Tensor
    world_from_camera: Tensor
    intrinsics: Tensor
    repeats: Tensor
    stride: Tensor
    rows: Tensor
    keypoints_shown: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.keypoints_shown is None:
            object.__setattr__(self, "keypoints_shown", self.keypoints_valid)
        batch, frames = self.latents.shape[:2]
        for name, tail in (
            ("keypoints_world", (frames, 42, 3)),
            ("keypoints_valid", (frames, 42)),
            ("keypoints_shown", (frames, 42)),
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
    def track(self) -> Track:
        """Hands and camera of the windows, with one batch dimension."""
        names = ("keypoints_world", "keypoints_valid", "keypoints_shown")
        return Track(self.world_from_camera, self.intrinsics, {name: getattr(self, name) for name in names})

    @property
    def tracked_shown(self) -> Tensor:
        """(B, F, 12) bool: the tracked keypoints that a picture can show."""
        return self.keypoints_shown[..., list(TRACKED)]

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
    mix: proportions of the caches. Raises ValueError when nothing is left to draw from or the numbers don't fit.
    """

    def __init__(
        self,
        caches: Sequence[LatentCache],
        sampling: PartStrategy | StrideSampling,
        seed: int,
        episodes: Sequence[np.ndarray] | None = None,
        rank: int = 0,
        world_size: int = 1,
        mix: MixConfig = MixConfig(),
    ) -> None:
        shapes = {cache.latents.shape[1:] for cache in caches}
        if len(shapes) != 1:
            raise ValueError(f"windows need latents of one shape, the caches hold {sorted(shapes)}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} does not lie in a world of {world_size}")
        self.caches = tuple(caches)
        self.rank, self.world_size = rank, world_size
        self._latents = [cache.latents for cache in caches]
        self._offsets = np.cumsum([0, *(len(cache) for cache in caches)])
        labels = [cache.labels for cache in caches]
        self._intrinsics = np.concatenate([part.intrinsics for part in labels])
        self._starts = np.concatenate(
            [part.starts[:-1] + offset for part, offset in zip(labels, self._offsets, strict=False)]
        )
        clips = Clips.of([np.diff(part.starts) for part in labels], [part.fps for part in labels], episodes)
        weights = None
        if isinstance(sampling, StrideSampling) and sampling.moving_object_weight:
            weights = _motion_weights(labels, sampling.moving_object_weight)
        self.sampler = make_sampler(clips, sampling, seed, mix, weights)

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Patches P and width D."""
        return self._latents[0].shape[1], self._latents[0].shape[2]

    def batch(self, step: int, size: int, first: int | None = None) -> Window:
        """Batch number `step` of `size` windows over all ranks; this rank's share of it, as CPU tensors.

        first: the number of its first sample, by default step * size; it decides which clips an epoch has come to.
        """
        picks = self.sampler.draw(step, size, first).share(self.rank, self.world_size)
        rows = self._starts[picks.clips][:, None] + picks.drawn.frames
        return self.gather(rows, picks.clips, picks.drawn.repeats, picks.drawn.stride)

    def gather(self, rows: np.ndarray, clips: np.ndarray, repeats: np.ndarray, stride: np.ndarray) -> Window:
        """The window batch of the given table rows (B, F) of clips (B,), leading repeats (B,) and strides (B,)."""
        labels = self._read_labels(rows)
        return Window(
            latents=torch.from_numpy(self._read_latents(rows)),
            **{name: torch.from_numpy(np.ascontiguousarray(labels[name])) for name in _READ_BY_ROW},
            intrinsics=torch.from_numpy(self._intrinsics[clips]),
            repeats=torch.from_numpy(repeats),
            stride=torch.from_numpy(stride),
            rows=torch.from_numpy(rows),
        )

    def describe(self, row: int) -> str:
        """Where a table row comes from: cache folder, episode number in it, frame."""
        cache = int(np.searchsorted(self._offsets, row, side="right")) - 1
        starts, local = self.caches[cache].labels.starts, row - int(self._offsets[cache])
        episode = int(np.searchsorted(starts, local, side="right")) - 1
        return f"{self.caches[cache].folder}, episode {episode}, frame {local - int(starts[episode])}"

    def _read_labels(self, rows: np.ndarray) -> np.ndarray:
        """Records of `FRAME` of table rows (B, F)."""
        read = np.empty(rows.shape, dtype=FRAME)
        cache = np.searchsorted(self._offsets, rows, side="right") - 1
        for number in np.unique(cache).tolist():
            mine = cache == number
            read[mine] = self.caches[number].labels.take(rows[mine] - self._offsets[number])
        return read

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


def _motion_weights(labels: Sequence[Labels], extra: float) -> np.ndarray | None:
    """(N,) weight of each frame of all caches, 1 and `extra` more where an object moves; None where none ever does."""
    moved = [part.moved(MOVED) for part in labels]
    if all(each is None for each in moved):
        return None
    still = (np.zeros(int(part.starts[-1]), dtype=bool) for part in labels)
    return 1.0 + extra * np.concatenate(
        [rest if each is None else each for each, rest in zip(moved, still, strict=True)]
    )
