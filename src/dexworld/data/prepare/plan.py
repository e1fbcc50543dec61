"""What a preparation will do: which episodes go into which pack, from which source, with which settings.

Every process computes the same plan. The first writes its fingerprint to `staging/plan.json`, the others compare, so
that a store is never mixed from two sources or two settings.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from dexworld.data.files import check_same_settings, read_json
from dexworld.data.readers import ReaderOptions
from dexworld.data.source import Source
from dexworld.data.store.packs import MARK, STAGING
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.writing import write_json

HEAD = {"format": "dexworld-prepare-plan", "format_version": 1}
UNREADABLE = -1  # size of an episode whose files can't be found
COMPARED = ("dexworld_version", "kind", "folder", "settings", "reader")


@dataclass(frozen=True)
class Pack:
    """Consecutive episodes that are written together. sizes: bytes of the files of each, -1 where one is missing."""

    number: int
    ids: tuple[str, ...]
    sizes: tuple[int, ...]

    def __str__(self) -> str:
        return f"pack {self.number}"


@dataclass(frozen=True)
class PreparePlan:
    """The packs of a store, and what they are made from.

    kind, folder: layout of the source and the name of its folder. reader, settings: options of the reader and of the
    store, as JSON values. quarantined: (file or id, reason) of what opening the source found broken. bytes: of the
    source's files, each counted once.
    """

    kind: str
    folder: str
    reader: dict[str, Any]
    settings: dict[str, Any]
    packs: tuple[Pack, ...]
    quarantined: tuple[tuple[str, str], ...]
    bytes: int

    @property
    def ids(self) -> tuple[str, ...]:
        """All episodes that may be readable, in the order of the source."""
        return tuple(name for pack in self.packs for name in pack.ids)

    @property
    def counted(self) -> int:
        """Episodes that the source has, those included that opening it found broken."""
        return len(self.ids) + len(self.quarantined)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the source's episodes and their sizes, the settings and the version; 32 hexadecimal digits."""
        content = HEAD | {"dexworld_version": version("dexworld"), "settings": self.settings}
        content |= {"kind": self.kind, "folder": self.folder, "reader": self.reader}
        content |= {"packs": [{"ids": list(pack.ids), "sizes": list(pack.sizes)} for pack in self.packs]}
        content |= {"quarantined": [name for name, _ in self.quarantined]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def provenance(self) -> dict[str, Any]:
        """What the finished store keeps of its plan: nothing that depends on when, where or by whom it was made."""
        source = {"kind": self.kind, "folder": self.folder, "reader": self.reader}
        return source | {"episodes": self.counted, "plan": self.fingerprint}


def plan_of(source: Source, settings: PrepareSettings, reader: ReaderOptions) -> PreparePlan:
    """The plan for a source: its ids in order, `settings.pack_episodes` to a pack.

    reader: the options that the source was opened with; only those of its kind are kept.
    Raises ValueError when the source holds no episode, or two of one id: the second would replace the first.
    """
    if not len(source):
        first = f", the first: {source.quarantined[0][0]}" if source.quarantined else ""
        raise ValueError(f"{source.folder} holds no episode to prepare ({len(source.quarantined)} quarantined{first})")
    files = [source.files(index) for index in range(len(source))]
    first_of: dict[str, int] = {}
    for index, name in enumerate(source.ids):
        if (other := first_of.setdefault(name, index)) != index:
            both = " and ".join(str(next(iter(files[place]), source.folder)) for place in (other, index))
            raise ValueError(f"{source.folder}: {both} have the same id {name!r}; rename one")
    known = {file: _size_of(file) for file in dict.fromkeys(chain.from_iterable(files))}  # episodes may share a file
    sizes = [UNREADABLE if UNREADABLE in each else sum(each) for each in ([known[f] for f in group] for group in files)]
    step = settings.pack_episodes
    packs = tuple(
        Pack(number, tuple(source.ids[start : start + step]), tuple(sizes[start : start + step]))
        for number, start in enumerate(range(0, len(source), step))
    )
    options = getattr(reader, source.kind.split("-")[0], None)
    return PreparePlan(
        kind=source.kind,
        folder=source.folder.resolve().name,
        reader=_plain(options) if options is not None else {},
        settings=_plain(settings),
        packs=packs,
        quarantined=tuple((str(name), str(reason)) for name, reason in source.quarantined),
        bytes=sum(size for size in known.values() if size != UNREADABLE),
    )


def agree_on_plan(destination: Path, plan: PreparePlan) -> None:
    """Write the plan to `destination/staging/plan.json`, or check that the one there or in the store is the same.

    Raises ValueError saying which settings differ or that the source does, when the plan is damaged or of another
    version, and when the folder holds something else.
    """
    now = {"dexworld_version": version("dexworld"), "settings": plan.settings} | plan.provenance()
    path = destination / MARK
    if not path.exists():
        path = destination / STAGING / "plan.json"
        if not path.exists():
            others = destination.glob("[!.]*") if destination.exists() else ()
            if any(each.name != STAGING for each in others):
                raise ValueError(f"{destination} holds something that is no begun preparation; choose an empty folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, now)  # several processes write the same bytes
    found = read_json(path)
    found |= found.get("provenance") or {}
    check_same_settings(path, {name: found.get(name) for name in COMPARED}, {name: now[name] for name in COMPARED})
    if found.get("plan") != plan.fingerprint:
        raise ValueError(
            f"{destination} was begun from another state of its source: episodes were added, removed or changed "
            "their size; prepare into another folder, or delete this one"
        )


def _plain(values: Any) -> dict[str, Any]:
    """A dataclass as JSON gives it back, so that a plan that is read again compares equal."""
    return json.loads(json.dumps(asdict(values), default=str))


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return UNREADABLE
