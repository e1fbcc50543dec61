"""Windows of a few frames: what models are trained on, and their draw from cached latents.

`sampling.py` decides which frames make a window, `mixture.py` which clips come when.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexworld.data.frame_labels import EPISODES_FILE, POSE
from dexworld.data.latent_cache import LatentCache
from dexworld.data.mixture import Clips, MixConfig, Picks, make_sampler
from dexworld.data.sampling import PartStrategy, StrideSampling
from dexworld.track import Track

DEFAULT_COLUMNS = ("keypoints_world", "keypoints_valid", "keypoints_shown")
NOTHING = torch.empty(0)  # stands where a window has no latents or frames
MOVED = 1e-3  # metres; objects that move less between two frames are at rest


@dataclass(frozen=True)
class Problem:
    """A window that could not be read: where (folder, episode id) and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Window:
    """A batch of B windows of F frames. What a source does not give has no elements.

    track: hands, cameras and the columns that were asked for, with one batch dimension; floats are float32.
    repeats: (B,) leading slots that repeat the frame after them. stride: (B,) steps between slots, 0 where they vary.
    rows: (B, F) number of each frame over all clips of the source. latents: (B, F, P, D) float32.
    frames: (B, F, H, W, 3) uint8 RGB. clips: (B,) index over all episodes. numbers: (B,) of the samples.
    problems: windows of this batch that were replaced.
    """

    track: Track
    repeats: Tensor
    stride: Tensor
    rows: Tensor
    latents: Tensor = NOTHING
    frames: Tensor = NOTHING
    clips: Tensor = NOTHING
    numbers: Tensor = NOTHING
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        batch, length = (*self.track.batch, len(self.track))
        expected = {"repeats": (batch,), "stride": (batch,), "rows": (batch, length), "clips": (batch,)}
        expected |= {"numbers": (batch,), "latents": (batch, length), "frames": (batch, length)}
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if found[: len(shape)] != shape and found != (0,):
                raise ValueError(f"Window.{name} has shape {tuple(found)}, expected {shape} for its track")

    @classmethod
    def of(
        cls, picks: Picks, rows: np.ndarray, labels: dict[str, np.ndarray], intrinsics: np.ndarray, **more: Any
    ) -> "Window":
        """The windows of picks. labels: camera poses and columns. intrinsics: (B, 3, 3). more: other fields."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in labels.items()}
        own: dict[str, Any] = {"repeats": picks.drawn.repeats, "stride": picks.drawn.stride, "rows": rows}
        own |= {"clips": picks.clips, "numbers": picks.numbers}
        own = {name: torch.from_numpy(value) for name, value in own.items()}
        return cls(Track(tensors.pop(POSE), torch.from_numpy(intrinsics), tensors), **own, **more)

    @property
    def slots(self) -> Tensor:
        """(F,) slot numbers 0 to F - 1; slot j repeats the one before it where 0 < j <= repeats."""
        return torch.arange(len(self.track), device=self.rows.device)

    @property
    def bad_row(self) -> int | None:
        """The row of the first frame whose latents hold NaN or Inf, if any."""
        bad = ~torch.isfinite(self.latents).flatten(2).all(dim=-1)
        return int(self.rows[bad][0]) if bad.any() else None

    @property
    def _own(self) -> dict[str, Any]:
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in own.items() if isinstance(value, Tensor) and value.numel()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Everything that it holds, by name."""
        track = {POSE: self.track.world_from_camera, "intrinsics": self.track.intrinsics, **self.track.columns}
        return track | self._own

    def to(self, device: torch.device | str) -> "Window":
        """The same window on another device."""
        moved = {name: value.to(device, non_blocking=True) for name, value in self._own.items()}
        return replace(self, track=self.track.to(device), **moved)

    def pin_memory(self) -> "Window":
        """The same window in page-locked memory, from which a GPU copies while it computes."""
        return replace(self, track=self.track.pin_memory(), **{name: v.pin_memory() for name, v in self._own.items()})


class CachedLatents:
    """Latents of several caches by row, the caches behind each other. All have the same (P, D)."""

    def __init__(self, caches: Sequence[LatentCache]) -> None:
        shapes = {cache.latents.shape[1:] for cache in caches}
        if len(shapes) != 1:
            raise ValueError(f"windows need latents of one shape, the caches hold {sorted(shapes)}")
        self.shape = shapes.pop()
        self.latents = [cache.latents for cache in caches]
        self.offsets = np.cumsum([0, *(len(cache) for cache in caches)])

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(*rows.shape, P, D) float32; the memory maps are read in file order."""
        unique, places = np.unique(rows, return_inverse=True)
        read = np.empty((len(unique), *self.shape), dtype=np.float32)
        bounds = np.searchsorted(unique, self.offsets)
        for latents, offset, lower, upper in zip(self.latents, self.offsets, bounds, bounds[1:], strict=False):
            read[lower:upper] = latents[unique[lower:upper] - offset]
        return read[places.ravel()].reshape(*rows.shape, *self.shape)


class WindowSampler:
    """Draws batches of windows from latent caches. Without state: batch `step` is the same whenever it is asked for.

    caches: one per dataset; all with the same P and D. episodes: per cache the episodes to draw from (default: all).
    seed: of the draws. rank, world_size: this process among several; together they draw the batch that one alone would.
    mix: proportions of the caches. columns: what the windows' tracks hold. Raises ValueError when nothing is left to
    draw from, a cache lacks a column, or the numbers don't fit.
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
        columns: Sequence[str] = DEFAULT_COLUMNS,
    ) -> None:
        self.caches, self.latents = tuple(caches), CachedLatents(caches)
        self.rank, self.world_size, self.columns = rank, world_size, (POSE, *columns)
        _check_columns(self.caches, self.columns)
        labels = [cache.labels for cache in caches]
        self._intrinsics = np.concatenate([part.intrinsics for part in labels])
        clips = Clips.of([np.diff(part.starts) for part in labels], [part.fps for part in labels], episodes)
        self.sampler = make_sampler(clips, sampling, seed, mix, lambda: [part.moved(MOVED) for part in labels])

    def batch(self, step: int, size: int) -> Window:
        """Batch number `step` of `size` windows over all ranks; this rank's share of it, as CPU tensors."""
        picks = self.sampler.draw(step, size).share(self.rank, self.world_size)
        rows = self.sampler.clips.rows(picks)
        latents = torch.from_numpy(self.latents(rows))
        return Window.of(picks, rows, self._labels(rows), self._intrinsics[picks.clips], latents=latents)

    def describe(self, row: int) -> str:
        """Where a row comes from: cache folder, episode number in it, frame."""
        clip, frame = self.sampler.clips.locate(row)
        dataset, episode = self.sampler.clips.episode(clip)
        return f"{self.caches[dataset].folder}, episode {episode}, frame {frame}"

    def close(self) -> None:
        """Does nothing: it has no processes."""

    def _labels(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """(B, F, ...) labels of rows (B, F) by name."""
        kinds = self.caches[0].labels.records.dtype
        found = {name: np.empty((*rows.shape, *kinds[name].shape), kinds[name].base) for name in self.columns}
        cache = np.searchsorted(self.latents.offsets, rows, side="right") - 1
        for number in np.unique(cache).tolist():
            mine = cache == number
            records = self.caches[number].labels.take(rows[mine] - self.latents.offsets[number])
            for name in self.columns:
                found[name][mine] = records[name]
        return found


def _check_columns(caches: Sequence[LatentCache], columns: Sequence[str]) -> None:
    """Raise ValueError naming a column that a cache lacks, or that has not one shape."""
    for name in columns:
        for cache in caches:
            if name not in cache.labels.columns:
                lack = f"{cache.folder} holds no column {name!r}, but {', '.join(cache.labels.columns)}"
                advice = f"Delete {EPISODES_FILE} and cache.json in it if the dataset has that column now"
                raise ValueError(f"{lack}. {advice}; only the labels are read anew")
        kinds = {str(cache.labels.records.dtype[name]) for cache in caches}
        if len(kinds) > 1:
            raise ValueError(f"column {name!r} is {' and '.join(sorted(kinds))} in datasets that are to be mixed")
