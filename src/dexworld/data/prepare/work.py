"""Writing one pack: what a worker does, in this process, in another, or on another machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dexworld.data.prepare.plan import Pack
from dexworld.data.prepared.pack import write_pack
from dexworld.data.prepared.settings import PrepareSettings
from dexworld.data.readers import ReaderOptions, open_source
from dexworld.data.source import Source
from dexworld.track import Track


@dataclass(frozen=True)
class EpisodeBegun:
    """An episode of a pack is being read; frames is 0 until they are counted."""

    pack: int
    episode: str
    frames: int


@dataclass(frozen=True)
class EpisodeDone:
    """An episode is encoded, or left out: then frames is 0."""

    pack: int
    episode: str
    frames: int


@dataclass(frozen=True)
class PackDone:
    """A pack is on disk. episodes, frames: written; quarantined: left out, with the reason in the pack's record."""

    pack: int
    episodes: int
    frames: int
    quarantined: int


@dataclass(frozen=True)
class PackFailed:
    """A pack that could not be written; another run tries it again. ids: its episodes."""

    pack: int
    ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class PackAgain:
    """A pack is begun once more after its worker failed."""

    pack: int
    reason: str


class StrictError(ValueError):
    """An episode is broken, and the preparation was told to accept none."""


Event = EpisodeBegun | EpisodeDone | PackAgain | PackDone | PackFailed
Told = Callable[[Event], None]


@dataclass(frozen=True)
class PackWork:
    """Everything a worker must know, as plain values that travel to other processes.

    source, kind, reader: what to open and how. destination: the store. settings: resolved, equal for all packs.
    """

    source: Path
    kind: str
    reader: ReaderOptions
    destination: Path
    settings: PrepareSettings

    @cached_property
    def _opened(self) -> tuple[Source, dict[str, int], tuple[str, ...]]:
        source = open_source(self.source, self.kind, self.reader)
        return source, {name: index for index, name in enumerate(source.ids)}, source.splits

    def write(self, pack: Pack, tell: Told = lambda event: None) -> PackDone:
        """Write one pack, telling of every episode before it is read and after it is encoded.

        Raises OSError when the disk fails, RuntimeError when the source no longer has an episode of the plan. What is
        broken in the source raises nothing: it is quarantined in the pack's record.
        """
        record = write_pack(
            self.destination,
            pack.number,
            self._items(pack, tell),
            self.settings,
            lambda name, frames: tell(EpisodeDone(pack.number, name, frames)),
            self._split_of,
        )
        return PackDone(pack.number, len(record.episodes), record.frames, len(record.quarantined))

    def _items(self, pack: Pack, tell: Told) -> Iterator[tuple[str, Callable[[], Track]]]:
        for name in pack.ids:
            yield name, partial(self._read, pack.number, name, tell)

    def _read(self, number: int, name: str, tell: Told) -> Track:
        source, places, _ = self._opened
        if name not in places:
            raise RuntimeError(f"{self.source} lost episode {name} since the preparation began; prepare it anew")
        tell(EpisodeBegun(number, name, 0))
        episode = source[places[name]]
        tell(EpisodeBegun(number, name, len(episode)))
        return episode

    def _split_of(self, name: str) -> str:
        _, places, splits = self._opened
        return splits[places[name]]

    def __getstate__(self) -> dict[str, Any]:
        """Without the opened source: every process opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}
