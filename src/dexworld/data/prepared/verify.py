"""Everything in a finished store read again: checksums of all files, labels of all episodes, every frame decoded."""

import logging
from collections.abc import Callable, Iterator
from functools import partial

from dexworld.data.parallel import OrderedPool, worker_count
from dexworld.data.prepared.dataset import PreparedDataset
from dexworld.data.prepared.pack import crc32_of
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError

BLOCK = 64  # frames decoded at once
_logger = logging.getLogger(__name__)


def problems(
    dataset: PreparedDataset, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> Iterator[tuple[str, str]]:
    """(file or episode id, reason) of everything that is not as it was written; nothing when the store is whole.

    workers: processes, 0 is one per core; the order of what is found is the same. progress: called with (files and
    episodes done, of how many).
    """
    items: list[str | int] = [*dataset.mark["files"], *range(len(dataset))]
    job = partial(_problem, dataset=dataset)
    pool: OrderedPool[str | int, str] = OrderedPool(job, worker_count(len(items), workers), [__name__])
    for done, (item, reason) in enumerate(zip(items, pool.map(items), strict=True), 1):
        if progress is not None:
            progress(done, len(items))
        if reason:
            name = item if isinstance(item, str) else dataset.ids[item]
            _logger.warning("%s: %s", name, reason)
            yield name, str(reason)


def _problem(item: str | int, dataset: PreparedDataset) -> str:
    """What is wrong with a file of the store (its place) or with an episode (its index); empty when nothing is."""
    return _problem_of_file(item, dataset) if isinstance(item, str) else _problem_of_episode(item, dataset)


def _problem_of_file(place: str, dataset: PreparedDataset) -> str:
    path, entry = dataset.folder / place, dataset.mark["files"][place]
    try:
        if path.stat().st_size != entry["bytes"] or crc32_of(path) != entry["crc32"]:
            return f"{path} is not the file that was written: its checksum differs"
    except OSError as error:
        return f"{path} can't be read ({error.strerror})"
    return ""


def _problem_of_episode(index: int, dataset: PreparedDataset) -> str:
    try:
        frames = dataset[index].frames
        for start in range(0, len(frames), BLOCK):
            frames.read(list(range(start, min(start + BLOCK, len(frames)))))
    except (CorruptEpisodeError, VideoError) as error:
        return str(error)
    return ""
