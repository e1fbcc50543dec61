"""What a preparation will do: which episodes go into which pack, from which source, with which settings.

Every process that works on a store computes the plan on its own and comes to the same one; the first writes it to
`staging/plan.json`, the others compare. A store is never mixed from two sources or two settings.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dexworld.data.files import differences, read_json, write_json
from dexworld.data.readers import ReaderOptions
from dexworld.data.source import Source
from dexworld.data.store.packs import MARK, STAGING
from dexworld.data.store.store_settings import PrepareSettings

FORMAT = "dexworld-prepare-plan"
FORMAT_VERSION = 1
NAMED = 3  # examples in a message
UNREADABLE = -1  # size of an episode whose files can't be found


@dataclass(frozen=True)
class Pack:
    """Consecutive episodes that are written together. sizes: bytes of the files of each, -1 where one is missing."""

    number: int
    ids: tuple[str, ...]
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"pack-{self.number:06d}"

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

    @property
    def fingerprint(self) -> str:
        """Changes with the source's episodes and their sizes, the settings and the version; 32 hexadecimal digits."""
        content = self.to_json() | {"quarantined": [name for name, _ in self.quarantined]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def provenance(self) -> dict[str, Any]:
        """What the finished store keeps of its plan: nothing that depends on when, where or by whom it was made."""
        source = {"kind": self.kind, "folder": self.folder, "reader": self.reader}
        return source | {"episodes": self.counted, "plan": self.fingerprint}

    def to_json(self) -> dict[str, Any]:
        """What plan.json holds."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dexworld_version": version("dexworld"),
            "kind": self.kind,
            "folder": self.folder,
            "reader": self.reader,
            "settings": self.settings,
            "quarantined": [list(entry) for entry in self.quarantined],
            "packs": [{"ids": list(pack.ids), "sizes": list(pack.sizes)} for pack in self.packs],
        }


def plan_of(source: Source, settings: PrepareSettings, reader: ReaderOptions) -> PreparePlan:
    """The plan for a source: its ids in order, `settings.pack_episodes` to a pack.

    reader: the options that the source was opened with; only those of its kind are kept.
    Raises ValueError when the source holds no episode.
    """
    if not len(source):
        raise ValueError(
            f"{source.folder} holds no episode to prepare ({len(source.quarantined)} quarantined"
            f"{_examples(name for name, _ in source.quarantined)})"
        )
    known: dict[Path, int] = {}
    sizes = [_bytes_of(source.files(index), known) for index in range(len(source))]
    step = settings.pack_episodes
    packs = tuple(
        Pack(number, tuple(source.ids[start : start + step]), tuple(sizes[start : start + step]))
        for number, start in enumerate(range(0, len(source), step))
    )
    options = getattr(reader, source.kind.split("-")[0], None)
    return PreparePlan(
        kind=source.kind,
        folder=source.folder.resolve().name,
        reader=_plain(asdict(options)) if options is not None else {},
        settings=_plain(asdict(settings)),
        packs=packs,
        quarantined=tuple((str(name), str(reason)) for name, reason in source.quarantined),
        bytes=sum(size for size in known.values() if size != UNREADABLE),
    )


def agree_on_plan(destination: Path, plan: PreparePlan) -> None:
    """Write the plan to `destination/staging/plan.json`, or check that the one there is the same.

    A finished store keeps its plan's fingerprint in meta/dexworld.json, which is compared instead. Raises ValueError
    saying what differs when the store was made from another source, from another state of it, or with other settings,
    when its plan is damaged or of another version, and when the folder holds something else.
    """
    path = destination / STAGING / "plan.json"
    if (destination / MARK).exists():
        different = _differences_of_finished(destination / MARK, plan)
    elif path.exists():
        different = _differences(path, read_json(path), plan.to_json())
    else:
        if destination.exists() and any(each.name[0] != "." for each in destination.iterdir() if each.name != STAGING):
            raise ValueError(f"{destination} holds something that is no begun preparation; choose an empty folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, plan.to_json())  # several processes write the same bytes
        different = _differences(path, read_json(path), plan.to_json())
    if different:
        raise ValueError(
            f"{destination} was made from another source or with other settings: {'; '.join(different)}. "
            "Prepare into another folder, or delete this one"
        )


def _differences_of_finished(path: Path, plan: PreparePlan) -> list[str]:
    """What differs between a plan and that of the finished store whose mark is at `path`."""
    mark = read_json(path)
    provenance = mark.get("provenance") or {}
    if provenance.get("plan") == plan.fingerprint:
        return []
    found = {"dexworld_version": mark.get("dexworld_version"), **provenance, "settings": mark.get("settings") or {}}
    return _different_options(found, plan.to_json()) or [
        "episodes were added, removed or changed their size since (or the store was not made by this command)"
    ]


def _differences(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What differs between two plans, the one found at `path` and the one expected."""
    for key in ("format", "format_version"):
        if found.get(key) != expected[key]:
            raise ValueError(f"{path} has {key} {found.get(key)!r}, this version of dexworld writes {expected[key]!r}")
    texts = _different_options(found, expected)
    try:
        before, now = _sizes(found), _sizes(expected)
        broken_before, broken_now = ({name for name, _ in each["quarantined"]} for each in (found, expected))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); delete {path.parent}") from error
    for what, names in (
        ("episodes are gone", [name for name in before if name not in now]),
        ("episodes are new", [name for name in now if name not in before]),
        ("episodes have files of another size", [name for name in now if before.get(name, now[name]) != now[name]]),
        ("broken files are gone", sorted(broken_before - broken_now)),
        ("broken files are new", sorted(broken_now - broken_before)),
    ):
        if names:
            texts.append(f"{len(names)} {what}{_examples(names)}")
    if not texts and list(before) != list(now):
        texts.append("the episodes are in another order")
    return texts


def _different_options(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    names = ("dexworld_version", "kind", "folder", "settings", "reader")
    return differences({name: found.get(name) for name in names}, {name: expected[name] for name in names})


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back, so that a plan that is read again compares equal."""
    return json.loads(json.dumps(values, default=str))


def _sizes(plan: dict[str, Any]) -> dict[str, int]:
    return {name: size for pack in plan["packs"] for name, size in zip(pack["ids"], pack["sizes"], strict=True)}


def _examples(names: Iterable[str]) -> str:
    listed = list(names)
    return f", e.g. {', '.join(listed[:NAMED])}" if listed else ""


def _bytes_of(files: Iterable[Path], known: dict[Path, int]) -> int:
    """Bytes of an episode's files; several episodes may share a file, which is then asked for its size once."""
    total = 0
    for file in files:
        if file not in known:
            try:
                known[file] = file.stat().st_size
            except OSError:
                known[file] = UNREADABLE
        total = UNREADABLE if UNREADABLE in (total, known[file]) else total + known[file]
    return total
