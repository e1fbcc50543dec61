"""Batches of windows as pictures, decoded by worker processes that each make whole batches.

A batch is a pure function of the seed and of its number, so the number of workers changes nothing but speed. Only the
frames of a window are decoded, each once; labels come as arrays, (u, v) and heatmaps are made on the device.

An episode that turns out to be broken is named and counted, and a window of another clip of the same dataset takes its
place: the one that `Sampler.redraw(sample number, dataset, attempt)` gives, for attempt 1, 2, ... until one can be
read. In strict mode it raises instead.
"""

import gc
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from dexworld.data.mixture import Clips, MixConfig, Picks, Sampler, make_sampler
from dexworld.data.resize import Fit
from dexworld.data.sampling import PartStrategy, StrideSampling
from dexworld.data.source import CorruptEpisodeError, Dataset
from dexworld.data.video import VideoError
from dexworld.data.windows import MOVED
from dexworld.hands import NUM_KEYPOINTS
from dexworld.track import Track

logger = logging.getLogger(__name__)
ATTEMPTS = 10  # clips tried in place of a broken one
EPISODES_KEPT = 32  # per process
PREFETCH = 2  # batches that each worker prepares ahead
Request = tuple[int, int, int | None]  # step, size, number of the first sample


@dataclass(frozen=True)
class Problem:
    """A window that could not be read: what (folder, episode id) and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class FrameBatch:
    """B windows of F frames.

    frames: (B, F, H, W, 3) uint8 RGB; (B, F, 0, 0, 3) from a loader that does not decode. keypoints_world: (B, F, 42,
    3) float32 metres, zero where not valid. keypoints_valid: (B, F, 42) bool. keypoints_shown: (B, F, 42) bool, see
    `windows.Window`. world_from_camera: (B, F, 4, 4) float32. intrinsics: (B, 3, 3) float32 for H x W. times: (B, F)
    float32 seconds since the clip began. repeats, stride: (B,) see `windows.Window`. numbers: (B,) of the samples.
    clips: (B,) index over the episodes of all datasets. frame_numbers: (B, F) within the clip. problems: windows of
    this batch that were replaced.
    Every float is finite.
    """

    frames: Tensor
    keypoints_world: Tensor
    keypoints_valid: Tensor
    keypoints_shown: Tensor
    world_from_camera: Tensor
    intrinsics: Tensor
    times: Tensor
    repeats: Tensor
    stride: Tensor
    numbers: Tensor
    clips: Tensor
    frame_numbers: Tensor
    problems: tuple[Problem, ...] = ()

    def _moved(self, move: Any) -> "FrameBatch":
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(self, **{name: move(value) for name, value in tensors.items() if isinstance(value, Tensor)})

    def pin_memory(self) -> "FrameBatch":
        """The same batch in page-locked memory, from which a GPU copies while it computes."""
        return self._moved(lambda value: value.pin_memory())

    def to(self, device: torch.device | str) -> "FrameBatch":
        """The same batch on another device."""
        return self._moved(lambda value: value.to(device, non_blocking=True))


class FrameLoader:
    """Windows of several datasets as batches of frames and labels.

    datasets: recorded episodes or prepared stores. sampling: the strategy. batch_size: over all ranks.
    seed: of order and frames. episodes: per dataset the episodes to draw from (default: all). mix: proportions.
    rank, world_size: this process among several; together they load the batch that one alone would.
    workers: processes that decode; 0 decodes in this one. strict: a broken episode raises CorruptEpisodeError.
    image_size: (height, width) that frames are brought to in the workers. None leaves them as stored, to be resized on
        the device; all datasets must then store one size.
    decode: False loads labels only. pin: put batches into page-locked memory.
    Raises ValueError for numbers that don't fit each other.
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
        image_size: tuple[int, int] | None = None,
        strict: bool = False,
        decode: bool = True,
        pin: bool = False,
    ) -> None:
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(f"a batch of {batch_size} can't be shared by rank {rank} of {world_size} processes")
        facts = [stored_facts(dataset) for dataset in datasets]
        sizes = [size for size, _ in facts]
        if image_size is None and decode and len(set(sizes)) > 1:
            raise ValueError(f"datasets store frames of sizes {sorted(set(sizes))}; give the loader an image_size")
        clips = Clips.of([dataset.lengths for dataset in datasets], [fps for _, fps in facts], episodes)
        weights = None
        if isinstance(sampling, StrideSampling) and sampling.moving_object_weight:
            weights = 1.0 + sampling.moving_object_weight * np.concatenate([_moving(each) for each in datasets])
        sampler = make_sampler(clips, sampling, seed, mix, weights)
        if len(sampler.left_out):
            logger.warning("%d clips are shorter than a window and never drawn", len(sampler.left_out))
        fits = tuple(Fit(size, image_size or size) for size in sizes)
        self.batch_size, self.workers, self.pin = batch_size, workers, pin
        self.reader = _BatchReader(tuple(datasets), sampler, fits, rank, world_size, strict, decode)
        self.broken: dict[str, str] = {}
        self.replaced = 0
        self._order = _Requests()
        self._loader: DataLoader | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the frames of a batch."""
        return self.reader.fits[0].target

    @property
    def sampler(self) -> Sampler:
        """What decides which windows come."""
        return self.reader.sampler

    def batch(self, step: int, size: int | None = None, first: int | None = None) -> FrameBatch:
        """Batch number `step`, loaded in this process.

        size: samples over all ranks (default: batch_size). first: number of the first sample (default: step * size).
        Raises CorruptEpisodeError in strict mode, or when no clip can be read in place of a broken one.
        """
        return self._told(self.reader[(step, size or self.batch_size, first)])

    def batches(
        self, start: int = 0, size: int | None = None, first: int | None = None, stop: int | None = None
    ) -> Iterator[FrameBatch]:
        """Batches `start`, `start` + 1, ... up to `stop` (exclusive; None never ends), loaded ahead by the workers.

        first: number of the first sample of batch `start`; the others follow. One iterator of a loader at a time.
        """
        size = size or self.batch_size
        self._order.set(start, size, first, stop)
        if not self.workers:
            for request in self._order:
                yield self._told(self.reader[request])
            return
        if self._loader is None:
            self._loader = DataLoader(
                self.reader,
                batch_size=None,
                sampler=self._order,
                num_workers=self.workers,
                persistent_workers=True,
                prefetch_factor=PREFETCH,
                pin_memory=self.pin,
                collate_fn=_as_it_is,
            )
        for batch in _forked_safely(self._loader):
            yield self._told(batch)

    def __iter__(self) -> Iterator[FrameBatch]:
        return self.batches()

    def close(self) -> None:
        """End the workers; they start again when batches are asked for."""
        self._loader = None

    def describe(self, clip: int, frame: int) -> str:
        """Where a frame comes from: dataset folder, episode id, frame."""
        return f"{self.reader.name(clip)}, frame {frame}"

    def _told(self, batch: FrameBatch) -> FrameBatch:
        self.replaced += len(batch.problems)
        for problem in batch.problems:
            if problem.where not in self.broken:
                self.broken[problem.where] = problem.reason
                logger.warning("%s can't be read and is replaced: %s", problem.where, problem.reason)
        return batch


class _Requests:
    """The batches that a DataLoader asks its workers for, in order."""

    def __init__(self) -> None:
        self.set(0, 1, None, 0)

    def set(self, start: int, size: int, first: int | None, stop: int | None) -> None:
        self.start, self.size, self.stop = start, size, stop
        self.first = start * size if first is None else first

    def __iter__(self) -> Iterator[Request]:
        step, size, first, stop = self.start, self.size, self.first - self.start * self.size, self.stop
        while stop is None or step < stop:
            yield step, size, first + step * size
            step += 1

    def __len__(self) -> int:
        return 2**62 if self.stop is None else max(self.stop - self.start, 0)


class _BatchReader(torch.utils.data.Dataset[FrameBatch]):
    """Makes batches by request; lives in every worker."""

    def __init__(
        self,
        datasets: tuple[Dataset, ...],
        sampler: Sampler,
        fits: tuple[Fit, ...],
        rank: int,
        world_size: int,
        strict: bool,
        decode: bool,
    ) -> None:
        self.datasets, self.sampler, self.fits = datasets, sampler, fits
        self.rank, self.world_size, self.strict, self.decode = rank, world_size, strict, decode
        self._first = np.concatenate([[0], np.cumsum([len(each) for each in datasets])])
        self._open: OrderedDict[int, Track] = OrderedDict()

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, request: Request) -> FrameBatch:
        step, size, first = request
        picks = self.sampler.draw(step, size, first).share(self.rank, self.world_size)
        batch = _Arrays(len(picks.numbers), self.sampler.frames, self.fits[0].target if self.decode else (0, 0))
        problems: list[Problem] = []
        for row in range(len(picks.numbers)):
            self._fill(batch, row, picks, problems)
        return batch.finished(tuple(problems))

    def name(self, clip: int) -> str:
        """Dataset folder and episode id of a clip."""
        dataset = self.datasets[int(self.sampler.clips.dataset[clip])]
        return f"{dataset.folder}, episode {dataset.ids[clip - self._first[self.sampler.clips.dataset[clip]]]}"

    def _fill(self, batch: "_Arrays", row: int, picks: Picks, problems: list[Problem]) -> None:
        """Row `row` of the batch, from its clip or from the clips that stand in for it."""
        number, place, clip = int(picks.numbers[row]), row, int(picks.clips[row])
        dataset = int(self.sampler.clips.dataset[clip])
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._read(batch, row, clip, picks, place)
                return
            except (CorruptEpisodeError, VideoError, OSError) as error:
                if self.strict:
                    raise CorruptEpisodeError(f"{self.name(clip)}: {error}") from error
                problems.append(Problem(self.name(clip), str(error)))
                picks, place = self.sampler.redraw(number, dataset, attempt), 0
                clip = int(picks.clips[0])
        names = ", ".join(problem.where for problem in problems[-ATTEMPTS:])
        raise CorruptEpisodeError(f"{ATTEMPTS} clips in a row can't be read ({names}): {problems[-1].reason}")

    def _read(self, batch: "_Arrays", row: int, clip: int, picks: Picks, place: int) -> None:
        episode, drawn = self._episode(clip), picks.drawn
        fit, frames = self.fits[int(self.sampler.clips.dataset[clip])], drawn.frames[place]
        batch.labels(row, episode, frames, fit.intrinsics(np.asarray(episode.intrinsics, dtype=np.float64)))
        if self.decode:
            batch.pictures(row, episode, frames, fit)
        batch.numbers[row], batch.clips[row], batch.frame_numbers[row] = picks.numbers[place], clip, frames
        batch.repeats[row], batch.stride[row] = drawn.repeats[place], drawn.stride[place]

    def _episode(self, clip: int) -> Track:
        """The episode of a clip, checked against what the sampler was told of it."""
        if clip in self._open:
            self._open.move_to_end(clip)
            return self._open[clip]
        clips = self.sampler.clips
        dataset = int(clips.dataset[clip])
        episode = self.datasets[dataset][clip - int(self._first[dataset])]
        for what, found, expected in (
            ("frames", len(episode), int(clips.lengths[clip])),
            ("frames per second", round(episode.fps, 3), round(float(clips.fps[clip]), 3)),
            ("pixels", episode.frames.size, self.fits[dataset].source),
        ):
            if found != expected:
                raise CorruptEpisodeError(f"holds {found} {what}, expected {expected} as in the rest of the dataset")
        self._open[clip] = episode
        if len(self._open) > EPISODES_KEPT:
            self._open.popitem(last=False)
        return episode


class _Arrays:
    """A batch that is being filled; a worker's frames lie in shared memory, so that handing over copies nothing."""

    def __init__(self, batch: int, slots: int, size: tuple[int, int]) -> None:
        shape = (batch, slots, *size, 3)
        # numpy asks for huge pages, which torch does not: half the time of filling a batch goes into new pages
        self.tensor = _shared(shape) if get_worker_info() else torch.from_numpy(np.empty(shape, np.uint8))
        self.frames = self.tensor.numpy()
        self.keypoints_world = np.zeros((batch, slots, NUM_KEYPOINTS, 3), np.float32)
        self.keypoints_valid = np.zeros((batch, slots, NUM_KEYPOINTS), bool)
        self.keypoints_shown = np.zeros((batch, slots, NUM_KEYPOINTS), bool)
        self.world_from_camera = np.zeros((batch, slots, 4, 4), np.float32)
        self.intrinsics = np.zeros((batch, 3, 3), np.float32)
        self.times = np.zeros((batch, slots), np.float32)
        self.repeats, self.stride = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        self.numbers, self.clips = np.zeros(batch, np.int64), np.zeros(batch, np.int64)
        self.frame_numbers = np.zeros((batch, slots), np.int64)

    def labels(self, row: int, episode: Track, frames: np.ndarray, intrinsics: np.ndarray) -> None:
        """Labels of one window. Raises CorruptEpisodeError when one is not finite."""
        valid = episode.keypoints_valid[frames]
        self.keypoints_valid[row] = valid
        self.keypoints_shown[row] = episode.keypoints_shown[frames]
        self.keypoints_world[row] = np.where(valid[..., None], episode.keypoints_world[frames], 0.0)
        self.world_from_camera[row] = episode.world_from_camera[frames]
        self.intrinsics[row] = intrinsics
        self.times[row] = frames / episode.fps
        for name in ("keypoints_world", "world_from_camera", "intrinsics"):
            if not np.isfinite(getattr(self, name)[row]).all():
                raise CorruptEpisodeError(f"{name} of frames {frames.tolist()} hold NaN or Inf")

    def pictures(self, row: int, episode: Track, frames: np.ndarray, fit: Fit) -> None:
        """Frames of one window, each decoded and resized once."""
        unique, places = np.unique(frames, return_inverse=True)
        images = episode.frames.read(unique.tolist())
        if not fit.is_identity:
            images = fit.images(torch.from_numpy(images)).numpy()
        self.frames[row] = images if len(unique) == len(frames) else images[places]

    def finished(self, problems: tuple[Problem, ...]) -> FrameBatch:
        """The batch as tensors."""
        names = [each.name for each in fields(FrameBatch) if each.name not in ("frames", "problems")]
        labels = {name: torch.from_numpy(getattr(self, name)) for name in names}
        return FrameBatch(frames=self.tensor, problems=problems, **labels)


def stored_facts(dataset: Dataset) -> tuple[tuple[int, int], float]:
    """Frame size (height, width) and frames per second of a dataset, from its first episode that can be read.

    Raises CorruptEpisodeError when none of the first hundred can.
    """
    reason = "it holds no episode"
    for index in range(min(len(dataset), 100)):
        try:
            episode = dataset[index]
            return episode.frames.size, episode.fps
        except (CorruptEpisodeError, VideoError, OSError) as error:
            reason = str(error)
    raise CorruptEpisodeError(f"no episode of {dataset.folder} can be read: {reason}")


def _moving(dataset: Dataset) -> np.ndarray:
    """(N,) whether an object moves, for every frame of a dataset; nothing moves in an episode that can't be read."""
    parts = []
    for index, length in enumerate(dataset.lengths):
        moving = np.zeros(length, dtype=bool)
        try:
            motion = dataset[index].columns.get("object_motion")
        except CorruptEpisodeError as error:
            logger.warning("%s: %s", dataset.ids[index], error)  # met again, and replaced, when it is drawn
            motion = None
        if motion is not None and len(motion) == length:
            moving = np.asarray(motion) > MOVED
        parts.append(moving)
    return np.concatenate(parts)


def _forked_safely(loader: DataLoader) -> Iterator[FrameBatch]:
    """Start iterating with workers that can't collect this process's garbage.

    A video decoder with threads that lies in a reference cycle would otherwise be freed by a worker, which waits for
    threads that the fork has not copied, for ever.
    """
    gc.collect()
    gc.freeze()
    try:
        return iter(loader)
    finally:
        gc.unfreeze()


def _shared(shape: tuple[int, ...]) -> Tensor:
    """An uninitialised uint8 tensor in memory that processes share."""
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)))
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def _as_it_is(batch: Any) -> Any:
    return batch
