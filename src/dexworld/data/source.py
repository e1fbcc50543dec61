"""What every collection of episodes offers, whatever lies on disk: foreign datasets, recordings, prepared stores.

    Source      opened in seconds, episodes read one by one: to inspect, to prepare
    Dataset     a source whose lengths and checksums are known without reading: to train from

Readers of foreign layouts (`readers/`) return sources; `datasets.open_dataset` returns datasets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from dexworld.track import Track

Item = TypeVar("Item")


class CorruptEpisodeError(ValueError):
    """An episode that can't be read; the message names the file, the frame where it is known, and the reason."""


@runtime_checkable
class Source(Protocol):
    """Episodes in the order of their ids."""

    @property
    def folder(self) -> Path:
        """Where it lies."""

    @property
    def kind(self) -> str:
        """The layout's name, e.g. "egodex"."""

    @property
    def ids(self) -> tuple[str, ...]:
        """One name per episode that may be readable; stable, distinct, sorted."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The split that the dataset's makers put each episode into, "" where the layout knows none."""

    @property
    def quarantined(self) -> tuple[tuple[str, str], ...]:
        """(file or id, reason) of what opening already found broken; reading may find more."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy. Raises CorruptEpisodeError, and nothing else, when it can't be read."""

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that episode `index` is read from, video first."""


@runtime_checkable
class Dataset(Source, Protocol):
    """A source that training can plan on before it reads an episode."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each episode."""

    @property
    def episode_seeds(self) -> tuple[int | None, ...]:
        """Simulator seed of each episode, None for recordings of the real world."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the data was made with, as JSON values."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when an episode is added, removed or rewritten."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The distinct simulator seeds, sorted."""


@dataclass(frozen=True)
class FolderSource:
    """What most sources share; see `Source`."""

    kind: ClassVar[str]
    folder: Path
    ids: tuple[str, ...]
    quarantined: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def splits(self) -> tuple[str, ...]:
        """One "" per episode: the layout knows no splits."""
        return ("",) * len(self)


def evenly_spread(items: Sequence[Item], most: int | None) -> tuple[Item, ...]:
    """At most `most` of the items (None: all), evenly spread and in their order."""
    if most is None or len(items) <= most:
        return tuple(items)
    return tuple(items[place * len(items) // most] for place in range(most))
