"""Which clips come when: several datasets in given proportions, each with its own epochs, without state.

Sample n is a pure function of the seed and of n. A training step therefore knows its samples from its number alone: a
resumed run saves nothing but the step, and ranks and workers take shares of the same sequence.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dexworld.data.sampling import Drawn, PartStrategy, StrideSampling, uniforms

PERMUTATIONS_KEPT = 4  # of epochs, per sampler; a batch at an epoch's edge needs two
ORDER, FRAMES, REPLACEMENT = 1, 2, 3  # streams of random numbers


@dataclass(frozen=True)
class Clips:
    """The clips of several datasets, behind each other.

    lengths: (E,) frames. fps: (E,) frames per second. dataset: (E,) which dataset, ascending. eligible: (E,) bool,
    whether windows may be drawn from it.
    """

    lengths: np.ndarray
    fps: np.ndarray
    dataset: np.ndarray
    eligible: np.ndarray

    @classmethod
    def of(
        cls,
        lengths: Sequence[Sequence[int] | np.ndarray],
        fps: Sequence[float | np.ndarray],
        episodes: Sequence[np.ndarray] | None = None,
    ) -> "Clips":
        """Per dataset: the lengths of its clips, their rate (one or (E,)), and which of them to use (default: all)."""
        sizes = [len(each) for each in lengths]
        eligible = [np.full(size, episodes is None) for size in sizes]
        for mask, chosen in zip(eligible, episodes or (), strict=False):
            mask[np.asarray(chosen, dtype=int)] = True
        rates = [np.broadcast_to(np.asarray(rate, dtype=float), size) for rate, size in zip(fps, sizes, strict=True)]
        return cls(
            np.concatenate([np.asarray(each, dtype=np.int64) for each in lengths]),
            np.concatenate(rates),
            np.repeat(np.arange(len(sizes)), sizes),
            np.concatenate(eligible),
        )

    @property
    def datasets(self) -> int:
        """Number of datasets."""
        return int(self.dataset[-1]) + 1 if len(self.dataset) else 0

    @cached_property
    def starts(self) -> np.ndarray:
        """(E + 1,) the row of each clip's first frame, when the frames of all clips lie behind each other."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def edges(self) -> np.ndarray:
        """(datasets + 1,) the first clip of each dataset, and the number of clips."""
        return np.searchsorted(self.dataset, np.arange(self.datasets + 1))

    def rows(self, picks: "Picks") -> np.ndarray:
        """(B, F) rows of the frames that were picked."""
        return self.starts[picks.clips][:, None] + picks.drawn.frames

    def locate(self, row: int) -> tuple[int, int]:
        """The clip of a row, and the frame in it."""
        clip = int(np.searchsorted(self.starts, row, side="right")) - 1
        return clip, row - int(self.starts[clip])

    def episode(self, clip: int) -> tuple[int, int]:
        """The dataset of a clip, and its number in there."""
        dataset = int(self.dataset[clip])
        return dataset, clip - int(self.edges[dataset])


@dataclass(frozen=True)
class MixConfig:
    """In which proportions datasets are mixed.

    weights: one positive number per dataset; empty mixes by size, as one epoch over everything (the paper).
    block: every so many samples hold the weights' proportions, rounded to whole samples.
    """

    weights: tuple[float, ...] = ()
    block: int = 1000

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block is {self.block}; it must be positive")
        if not all(0 < weight < float("inf") for weight in self.weights):
            raise ValueError(f"mixing weights must be positive numbers, not {self.weights}")

    def counts(self, datasets: int) -> np.ndarray:
        """(datasets,) samples of each in a block, by largest remainder. Raises ValueError when weights don't fit."""
        if len(self.weights) != datasets:
            raise ValueError(f"{len(self.weights)} mixing weights were given for {datasets} datasets")
        shares = np.asarray(self.weights) / sum(self.weights) * self.block
        counts = np.floor(shares + 1e-9).astype(int)
        counts[np.argsort(counts - shares, kind="stable")[: self.block - counts.sum()]] += 1
        if (counts == 0).any():
            raise ValueError(f"mixing weights {self.weights} give a dataset no sample in {self.block}; raise the block")
        return counts

    def schedule(self, seed: int, numbers: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of samples `numbers` (B,): their dataset (B,), and how many samples of it came before (B,), in its order."""
        block, place = np.divmod(numbers, self.block)
        first = np.concatenate([[0], np.cumsum(counts)])
        unique, where = np.unique(block, return_inverse=True)
        keys = uniforms(seed, unique, self.block, ORDER)
        ticket = np.argsort(keys, axis=1, kind="stable")[where, place]  # a shuffled block of tickets 0 .. block - 1
        dataset = np.searchsorted(first, ticket, side="right") - 1
        return dataset, block * counts[dataset] + ticket - first[dataset]


@dataclass(frozen=True)
class Picks:
    """A batch of B windows: sample numbers (B,), clips (B,) as indices into `Clips`, and their frames."""

    numbers: np.ndarray
    clips: np.ndarray
    drawn: Drawn

    def share(self, rank: int, world_size: int) -> "Picks":
        """What process `rank` of `world_size` takes. Raises ValueError when the batch can't be shared evenly."""
        if len(self.numbers) % world_size:
            size = len(self.numbers)
            raise ValueError(f"a batch of {size} can't be shared by {world_size} processes; choose a multiple")
        return self.at(slice(rank, None, world_size))

    def at(self, part: slice) -> "Picks":
        """Some of the windows."""
        drawn = Drawn(*(each[part] for each in vars(self.drawn).values()))
        return Picks(self.numbers[part], self.clips[part], drawn)

    @classmethod
    def join(cls, parts: "Sequence[Picks]") -> "Picks":
        """The windows of several batches as one."""
        drawn = [np.concatenate(each) for each in zip(*(vars(part.drawn).values() for part in parts), strict=True)]
        numbers, clips = zip(*((part.numbers, part.clips) for part in parts), strict=True)
        return cls(np.concatenate(numbers), np.concatenate(clips), Drawn(*drawn))


class EpochSampler:
    """Every part of every clip once per epoch, in an order of its own for each epoch.

    Without mixing weights the epoch runs over all datasets together; with weights each dataset has its own.
    left_out: indices of eligible clips that are too short for a window. Raises ValueError when nothing, or nothing of a
    dataset, is long enough.
    """

    def __init__(self, clips: Clips, strategy: PartStrategy, seed: int, mix: MixConfig = MixConfig()) -> None:
        self.clips, self.strategy, self.seed, self.mix = clips, strategy, seed, mix
        parts = np.where(clips.eligible, strategy.parts(clips.lengths, clips.fps), 0)
        self.left_out = np.flatnonzero(clips.eligible & (parts == 0))
        self._bounds = np.concatenate([[0], np.cumsum(parts)])  # clip c has items _bounds[c] to _bounds[c + 1]
        self._counts = mix.counts(clips.datasets) if mix.weights else None
        self._dataset_starts = self._bounds[clips.edges]
        starts = self._dataset_starts if mix.weights else self._dataset_starts[[0, -1]]
        self._starts, self.sizes = starts[:-1], np.diff(starts)
        if not len(self.sizes) or not (self.sizes > 0).all():
            raise ValueError("no episode is left to draw windows from: all are held out, or shorter than a window")
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def draw(self, step: int, size: int, first: int | None = None) -> Picks:
        """Batch `step` of `size` windows. first: the number of its first sample, by default step * size."""
        numbers = np.arange(size) + (step * size if first is None else first)
        if self._counts is None:
            group, place = np.zeros(size, dtype=int), numbers
        else:
            group, place = self.mix.schedule(self.seed, numbers, self._counts)
        epoch, place = np.divmod(place, self.sizes[group])
        items = np.empty(size, dtype=np.int64)
        for key in {(int(g), int(e)) for g, e in zip(group, epoch, strict=True)}:
            mask = (group == key[0]) & (epoch == key[1])
            items[mask] = self._starts[key[0]] + self._order(*key)[place[mask]]
        return self._pick(numbers, items, FRAMES)

    def redraw(self, number: int, dataset: int, attempt: int) -> Picks:
        """One window of the same dataset in place of sample `number`, whose clip can't be read; attempt 1, 2, ..."""
        numbers, stream = np.array([number]), REPLACEMENT + 2 * attempt
        start, stop = self._dataset_starts[dataset], self._dataset_starts[dataset + 1]
        item = start + np.floor(uniforms(self.seed, numbers, 1, stream)[:, 0] * (stop - start)).astype(np.int64)
        return self._pick(numbers, item, stream + 1)

    def _pick(self, numbers: np.ndarray, items: np.ndarray, stream: int) -> Picks:
        chosen = np.searchsorted(self._bounds, items, side="right") - 1
        part = items - self._bounds[chosen]
        lengths, fps = self.clips.lengths[chosen], self.clips.fps[chosen]
        drawn = self.strategy.draw(lengths, fps, part, lambda n: uniforms(self.seed, numbers, n, stream))
        return Picks(numbers, chosen, drawn)

    def _order(self, group: int, epoch: int) -> np.ndarray:
        key = (group, epoch)
        if key not in self._orders:
            while len(self._orders) >= max(PERMUTATIONS_KEPT, 2 * len(self.sizes)):
                del self._orders[min(self._orders, key=lambda kept: kept[1])]
            generator = np.random.default_rng([self.seed, ORDER, group, epoch])
            size = int(self.sizes[group])
            self._orders[key] = generator.permutation(np.arange(size, dtype=np.int32 if size < 2**31 else np.int64))
        return self._orders[key]


class StrideSampler:
    """Windows at a constant stride around frames that are drawn by weight (`StrideSampling`).

    weights: (N,) of each frame of all clips, None for equal ones. Without mixing weights a dataset's share is that of
    its frames. Batch `step` is drawn by one generator seeded with (seed, step).
    """

    def __init__(
        self,
        clips: Clips,
        strategy: StrideSampling,
        seed: int,
        mix: MixConfig = MixConfig(),
        weights: np.ndarray | None = None,
    ) -> None:
        self.clips, self.strategy, self.seed, self.mix = clips, strategy, seed, mix
        self.left_out = np.zeros(0, dtype=int)  # short clips give windows with repeats
        strategy.base(clips.fps)
        self._by_frame = weights is not None
        self._frames_until = np.concatenate([[0], np.cumsum(clips.eligible * clips.lengths)])
        if weights is None:
            weight = clips.eligible * clips.lengths.astype(float)
        else:
            weight = np.repeat(clips.eligible, clips.lengths) * weights
        if not weight.sum() > 0:
            raise ValueError("no episode is left to draw windows from")
        self._bounds = np.concatenate([[0.0], np.cumsum(weight) / weight.sum()])
        self._edges = self._bounds[clips.starts[clips.edges] if self._by_frame else clips.edges]
        self._counts = mix.counts(clips.datasets) if mix.weights else None
        if mix.weights and (np.diff(self._edges) <= 0).any():
            raise ValueError("no episode of a dataset is left to draw windows from")

    def draw(self, step: int, size: int, first: int | None = None) -> Picks:
        """See `EpochSampler`."""
        numbers = np.arange(size) + (step * size if first is None else first)
        dataset = None if self._counts is None else self.mix.schedule(self.seed, numbers, self._counts)[0]
        return self._draw(np.random.default_rng([self.seed, step]), numbers, dataset)

    def redraw(self, number: int, dataset: int, attempt: int) -> Picks:
        """See `EpochSampler`."""
        generator = np.random.default_rng([self.seed, number, REPLACEMENT, attempt])
        return self._draw(generator, np.array([number]), np.array([dataset]))

    def _draw(self, generator: np.random.Generator, numbers: np.ndarray, dataset: np.ndarray | None) -> Picks:
        """Windows of the given datasets (B,), of any when None."""
        config, size = self.strategy, len(numbers)
        weights = np.asarray(config.stride_weights, dtype=float)
        stride = 1 + generator.choice(len(weights), size=size, p=weights / weights.sum())
        short = (generator.random(size) < config.short_history) & (config.history > 1)
        repeats = np.where(short, generator.integers(1, max(config.history, 2), size=size), 0)
        chance = generator.random(size)
        slot = generator.random(size)
        if dataset is not None:
            chance = self._edges[dataset] + chance * (self._edges[dataset + 1] - self._edges[dataset])
        clips, anchor = self._frame_at(chance)
        drawn = config.place(self.clips.lengths[clips], self.clips.fps[clips], anchor, stride, repeats, slot)
        return Picks(numbers, clips, drawn)

    def _frame_at(self, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Clip (B,) and frame in it (B,) at places `chance` (B,) of the cumulative weight."""
        if self._by_frame:
            starts = self.clips.starts
            frame = np.minimum(np.searchsorted(self._bounds[1:], chance, side="right"), starts[-1] - 1)
            clips = np.searchsorted(starts, frame, side="right") - 1
            return clips, frame - starts[clips]
        # What a search among the equal weights of all frames would find, to the last digit, without holding them: the
        # first number of frames whose share of all lies beyond `chance`.
        total = self._frames_until[-1]
        number = np.floor(chance * total) - 1
        for _ in range(4):
            number += number / total <= chance
        number = np.clip(number, 1, total).astype(int)
        clips = np.searchsorted(self._frames_until[1:], number)
        return clips, number - 1 - self._frames_until[clips]


Sampler = EpochSampler | StrideSampler


def make_sampler(
    clips: Clips,
    sampling: PartStrategy | StrideSampling,
    seed: int,
    mix: MixConfig = MixConfig(),
    moving: Callable[[], Iterable[np.ndarray]] = tuple,
) -> Sampler:
    """The sampler of a strategy. moving: tells for each dataset in which frames (N,) an object moves.

    It is asked only where the strategy draws such frames more often.
    """
    if not isinstance(sampling, StrideSampling):
        return EpochSampler(clips, sampling, seed, mix)
    weights = None
    if sampling.moving_object_weight:
        moved = np.concatenate(list(moving()))
        weights = 1.0 + sampling.moving_object_weight * moved if moved.any() else None
    return StrideSampler(clips, sampling, seed, mix, weights)
