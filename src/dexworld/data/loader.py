"""Batches of windows as pictures, decoded by worker processes that each make whole batches.

A batch is a pure function of the seed and of its number, whatever the number of workers. Only the frames of a window
are decoded, each once.

A broken episode is named and counted, and a window of another clip of the same dataset takes its place: the one that
`Sampler.redraw(sample number, dataset, attempt)` gives, for attempt 1, 2, ... In strict mode it raises instead.
"""

import gc
import logging
import signal
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from dexworld.data.frame_labels import POSE, label_column
from dexworld.data.mixture import Clips, MixConfig, Picks, Sampler, make_sampler
from dexworld.data.parallel import signals_held
from dexworld.data.sampling import PartStrategy, StrideSampling
from dexworld.data.source import CorruptEpisodeError, Dataset
from dexworld.data.video import VideoError
from dexworld.data.windows import DEFAULT_COLUMNS, MOVED, Problem, Window
from dexworld.track import Track

logger = logging.getLogger(__name__)
ATTEMPTS = 10  # clips tried in place of a broken one
EPISODES_KEPT = 32  # per process
PREFETCH = 2  # batches that each worker prepares ahead
Request = tuple[int, int]  # step, size
Labels = dict[str, np.ndarray]


class FrameLoader:
    """Windows of several datasets as batches of frames and labels.

    datasets: with frames of one size; a `resize.ResizedDataset` resizes in the workers. sampling: the strategy.
    batch_size: over all ranks. seed: of order and frames. episodes: per dataset the episodes to draw from (default:
        all). mix: proportions.
    rank, world_size: this process among several; together they load the batch that one alone would.
    workers: processes that decode; 0 decodes in this one. strict: a broken episode raises CorruptEpisodeError.
    decode: False loads labels only. pin: put batches into page-locked memory. columns: what the tracks hold.
    Raises ValueError for numbers that don't fit each other, and for a column that a dataset lacks.
    """

    def __init__(
        self,
        datasets: Sequence[Dataset],
        sampling: PartStrategy | StrideSampling,
        batch_size: int,
        seed: int,
        *,
        episodes: Sequence[np.ndarray] | None = None,
        mix: MixConfig = MixConfig(),
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        strict: bool = False,
        decode: bool = True,
        pin: bool = False,
        columns: Sequence[str] = DEFAULT_COLUMNS,
    ) -> None:
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(f"a batch of {batch_size} can't be shared by rank {rank} of {world_size} processes")
        first = [first_readable(dataset) for dataset in datasets]
        sizes = [episode.frames.size for episode in first]
        if decode and len(set(sizes)) > 1:
            raise ValueError(f"datasets have frames of sizes {sorted(set(sizes))}; bring them to one by `data.resize`")
        clips = Clips.of([dataset.lengths for dataset in datasets], [episode.fps for episode in first], episodes)
        sampler = make_sampler(clips, sampling, seed, mix, lambda: [_moving(dataset) for dataset in datasets])
        if len(sampler.left_out):
            logger.warning("%d clips are shorter than a window and never drawn", len(sampler.left_out))
        shapes = {name: _shape_in_all(first, name) for name in columns}
        self.batch_size, self.workers, self.pin = batch_size, workers, pin
        self.reader = _BatchReader(tuple(datasets), sampler, tuple(sizes), shapes, rank, world_size, strict, decode)
        self.sampler, self.image_size = sampler, sizes[0]
        self.broken: dict[str, str] = {}
        self.replaced = 0
        self._order = _Requests(0, 1, 0)
        self._loader: DataLoader | None = None

    def batch(self, step: int, size: int | None = None) -> Window:
        """Batch number `step`, loaded in this process: windows with frames and without latents.

        size: samples over all ranks (default: batch_size). Raises CorruptEpisodeError in strict mode, or when no clip
        can be read in place of a broken one.
        """
        return self._counted(self.reader[(step, size or self.batch_size)])

    def batches(self, start: int = 0, size: int | None = None, stop: int | None = None) -> Iterator[Window]:
        """Batches `start`, `start` + 1, ... up to `stop` (exclusive; None never ends), loaded ahead by the workers.

        One iterator of a loader at a time.
        """
        order = self._order  # the DataLoader holds it
        order.start, order.size, order.stop = start, size or self.batch_size, stop
        if not self.workers:
            for request in order:
                yield self._counted(self.reader[request])
            return
        if self._loader is None:
            options: dict[str, Any] = {"num_workers": self.workers, "persistent_workers": True, "pin_memory": self.pin}
            options |= {"batch_size": None, "prefetch_factor": PREFETCH}
            self._loader = DataLoader(self.reader, sampler=order, **options)
        for batch in _forked_safely(self._loader):
            yield self._counted(batch)

    def close(self) -> None:
        """End the workers; they start again when batches are asked for."""
        self._loader = None

    def describe(self, row: int) -> str:
        """Where a row of a window comes from: dataset folder, episode id, frame."""
        clip, frame = self.sampler.clips.locate(row)
        return f"{self.reader.name(clip)}, frame {frame}"

    def _counted(self, batch: Window) -> Window:
        self.replaced += len(batch.problems)
        for problem in batch.problems:
            if problem.where not in self.broken:
                self.broken[problem.where] = problem.reason
                logger.warning("%s can't be read and is replaced: %s", problem.where, problem.reason)
        return batch


@dataclass
class _Requests:
    """The batches that a DataLoader asks its workers for, in order."""

    start: int
    size: int
    stop: int | None

    def __iter__(self) -> Iterator[Request]:
        steps = count(self.start) if self.stop is None else range(self.start, self.stop)
        return zip(steps, repeat(self.size), strict=False)


@dataclass
class _BatchReader(torch.utils.data.Dataset[Window]):
    """Makes batches by request; lives in every worker. columns: the shape of a row of each."""

    datasets: tuple[Dataset, ...]
    sampler: Sampler
    sizes: tuple[tuple[int, int], ...]
    columns: dict[str, tuple[int, ...]]
    rank: int
    world_size: int
    strict: bool
    decode: bool
    _open: OrderedDict[int, Track] = field(default_factory=OrderedDict)

    def __getitem__(self, request: Request) -> Window:
        picks = self.sampler.draw(*request).share(self.rank, self.world_size)
        shape = (len(picks.numbers), self.sampler.strategy.frames, *(self.sizes[0] if self.decode else (0, 0)), 3)
        # NumPy asks for huge pages, which torch does not: half the time of filling a batch goes into new pages.
        frames = _shared(shape) if get_worker_info() else torch.from_numpy(np.empty(shape, np.uint8))
        problems: list[Problem] = []
        read = [self._read_or_replace(picks.at(slice(row, row + 1)), frames[row], problems) for row in range(shape[0])]
        labels = {name: np.stack([each[1][name] for each in read]) for name in (POSE, "intrinsics", *self.columns)}
        chosen, intrinsics = Picks.join([each[0] for each in read]), labels.pop("intrinsics")
        rows = self.sampler.clips.rows(chosen)
        return Window.of(chosen, rows, labels, intrinsics, frames=frames, problems=tuple(problems))

    def name(self, clip: int) -> str:
        """Dataset folder and episode id of a clip."""
        number, episode = self.sampler.clips.episode(clip)
        return f"{self.datasets[number].folder}, episode {self.datasets[number].ids[episode]}"

    def _read_or_replace(self, pick: Picks, frames: Tensor, problems: list[Problem]) -> tuple[Picks, Labels]:
        """One window from its clip, or from a clip that stands in for it: which it is, and its labels."""
        number, dataset = int(pick.numbers[0]), int(self.sampler.clips.dataset[pick.clips[0]])
        for attempt in range(1, ATTEMPTS + 1):
            clip = int(pick.clips[0])
            try:
                return pick, self._read(clip, pick.drawn.frames[0], frames)
            except (CorruptEpisodeError, VideoError, OSError) as error:
                if self.strict:
                    raise CorruptEpisodeError(f"{self.name(clip)}: {error}") from error
                problems.append(Problem(self.name(clip), str(error)))
                pick = self.sampler.redraw(number, dataset, attempt)
        names = ", ".join(problem.where for problem in problems[-ATTEMPTS:])
        raise CorruptEpisodeError(f"{ATTEMPTS} clips in a row can't be read ({names}): {problems[-1].reason}")

    def _read(self, clip: int, rows: np.ndarray, frames: Tensor) -> Labels:
        """Labels of the given rows of a clip; fills `frames`, each decoded once."""
        episode = self._episode(clip)
        labels = {name: label_column(episode, name, rows) for name in (POSE, *self.columns)}
        labels["intrinsics"] = np.asarray(episode.intrinsics, dtype=np.float32)
        if self.decode:
            unique, places = np.unique(rows, return_inverse=True)
            images = episode.frames.read(unique.tolist())
            frames.numpy()[:] = images if len(unique) == len(rows) else images[places]
        return labels

    def _episode(self, clip: int) -> Track:
        """The episode of a clip. Raises CorruptEpisodeError where it differs from what is known of it."""
        if clip in self._open:
            self._open.move_to_end(clip)
            return self._open[clip]
        clips = self.sampler.clips
        dataset, number = clips.episode(clip)
        episode = self.datasets[dataset][number]
        for what, found, expected in (
            ("frames", len(episode), int(clips.lengths[clip])),
            ("frames per second", round(episode.fps, 3), round(float(clips.fps[clip]), 3)),
            ("pixels", episode.frames.size, self.sizes[dataset]),
            *((f"as a row of column {name!r}", _row_shape(episode, name), self.columns[name]) for name in self.columns),
        ):
            if found != expected:
                raise CorruptEpisodeError(f"holds {found} {what}, expected {expected} as in the rest of the dataset")
        self._open[clip] = episode
        if len(self._open) > EPISODES_KEPT:
            self._open.popitem(last=False)
        return episode


def first_readable(dataset: Dataset) -> Track:
    """The first episode of a dataset that can be read. Raises CorruptEpisodeError when none of the first hundred can.

    All episodes of a dataset have its frame size, rate and columns.
    """
    reason = "it holds no episode"
    for index in range(min(len(dataset), 100)):
        try:
            episode = dataset[index]
            if episode.frames.size:  # read from the video's header, which may be broken
                return episode
        except (CorruptEpisodeError, VideoError, OSError) as error:
            reason = str(error)
    raise CorruptEpisodeError(f"no episode of {dataset.folder} can be read: {reason}")


def _row_shape(episode: Track, name: str) -> tuple[int, ...] | None:
    """The shape of one row of a column, None where there is no such column."""
    try:
        return label_column(episode, name, slice(0, 1)).shape[1:]
    except KeyError:
        return None


def _shape_in_all(episodes: Sequence[Track], name: str) -> tuple[int, ...]:
    """The shape of one row of a column. Raises ValueError when an episode lacks it or they differ."""
    shapes = [_row_shape(episode, name) for episode in episodes]
    for episode, shape in zip(episodes, shapes, strict=True):
        if shape is None:
            raise ValueError(f"{episode.source} holds no column {name!r}, but {', '.join(episode.columns)}")
    if len(set(shapes)) > 1:
        raise ValueError(f"column {name!r} has rows of shapes {shapes} in datasets that are to be mixed")
    return shapes[0] or ()


def _moving(dataset: Dataset) -> np.ndarray:
    """(N,) whether an object moves, for every frame of a dataset; nothing moves in an episode that can't be read."""
    parts = []
    for index, length in enumerate(dataset.lengths):
        try:
            motion = dataset[index].get("object_motion")
        except CorruptEpisodeError as error:
            logger.warning("%s: %s", dataset.ids[index], error)  # met again, and replaced, when it is drawn
            motion = None
        known = motion is not None and len(motion) == length
        parts.append(np.asarray(motion) > MOVED if known else np.zeros(length, dtype=bool))
    return np.concatenate(parts)


def _forked_safely(loader: DataLoader) -> Iterator[Window]:
    """Start iterating with workers that can't collect this process's garbage.

    A worker that freed a video decoder would wait for ever for threads that the fork has not copied.
    """
    gc.collect()
    gc.freeze()
    try:
        with signals_held(signal.SIGINT):  # SIGTERM ends torch's workers without a word
            return iter(loader)
    finally:
        gc.unfreeze()


def _shared(shape: tuple[int, ...]) -> Tensor:
    """An uninitialised uint8 tensor in memory that processes share."""
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
