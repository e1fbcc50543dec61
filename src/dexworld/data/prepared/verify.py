"""Everything in a finished store read again: checksums of all files, labels of all episodes, every frame decoded."""

import logging
from collections.abc import Iterator

from dexworld.data.prepared.dataset import PreparedDataset
from dexworld.data.prepared.pack import crc32_of
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError

BLOCK = 64  # frames decoded at once
_logger = logging.getLogger(__name__)


def problems(dataset: PreparedDataset) -> Iterator[tuple[str, str]]:
    """(file or episode id, reason) of everything that is not as it was written; nothing when the store is whole."""
    for place, entry in dataset.mark["files"].items():
        path = dataset.folder / place
        try:
            if path.stat().st_size != entry["bytes"] or crc32_of(path) != entry["crc32"]:
                yield place, f"{path} is not the file that was written: its checksum differs"
        except OSError as error:
            yield place, f"{path} can't be read ({error.strerror})"
    for index, name in enumerate(dataset.ids):
        try:
            frames = dataset[index].frames
            for start in range(0, len(frames), BLOCK):
                frames.read(list(range(start, min(start + BLOCK, len(frames)))))
        except (CorruptEpisodeError, VideoError) as error:
            _logger.warning("episode %s: %s", name, error)
            yield name, str(error)
