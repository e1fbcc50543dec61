"""What every collection of episodes offers, whatever lies on disk: foreign datasets, recordings, prepared stores.

    Source      opened in seconds, episodes read one by one: to inspect, to prepare
    Dataset     a source whose lengths and checksums are known without reading: to train from

Readers of foreign layouts (`readers/`) return sources; `store.py` and `prepared/` return datasets.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from dexworld.track import Track

Item = TypeVar("Item")


class CorruptEpisodeError(ValueError):
    """An episode that can't be read; the message names the file, the frame where it is known, and the reason."""


@runtime_checkable
class Source(Protocol):
    """Episodes in the order of their ids.

    folder: where it lies. kind: the layout's name, e.g. "egodex". ids: one per episode that may be readable; stable,
    distinct, sorted. quarantined: (file or id, reason) of what opening already found broken or incomplete; reading may
    find more, one episode at a time.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def kind(self) -> str: ...

    @property
    def ids(self) -> tuple[str, ...]: ...

    @property
    def quarantined(self) -> tuple[tuple[str, str], ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy. Raises CorruptEpisodeError, and nothing else, when it can't be read."""
        ...

    def files(self, index: int) -> tuple[Path, ...]:
        """The files that episode `index` is read from, video first."""
        ...


@runtime_checkable
class Dataset(Source, Protocol):
    """A source that training can plan on before it reads an episode.

    lengths: frames of each episode. episode_seeds: simulator seed of each, None for recordings of the real world.
    settings: what the data was made with, as JSON values. fingerprint: changes when an episode is added, removed or
    rewritten. seeds: the distinct simulator seeds, sorted.
    """

    @property
    def lengths(self) -> tuple[int, ...]: ...

    @property
    def episode_seeds(self) -> tuple[int | None, ...]: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def seeds(self) -> tuple[int, ...]: ...


def splits_of(source: Source) -> tuple[str, ...]:
    """The split that the dataset's makers put each episode into, "" where the layout knows none."""
    named = getattr(source, "splits", None)
    if named is None:
        named = [getattr(clip, "split", "") for clip in getattr(source, "clips", ())] or [""] * len(source)
    return tuple(str(name or "") for name in named)


def evenly_spread(items: Sequence[Item], most: int | None) -> tuple[Item, ...]:
    """At most `most` of the items (None: all), evenly spread and in their order."""
    if most is None or len(items) <= most:
        return tuple(items)
    return tuple(items[place * len(items) // most] for place in range(most))
