"""Which triplets a folder claims to hold, and the files in it that belong to none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dexworld.video.clips.clip import check_name
from dexworld.video.clips.triplet_files import (
    HANDS,
    MOTIONS,
    PROMPTS,
    REWRITES,
    STATIC,
    VIDEOS,
    TripletError,
    files_of,
    find_listing,
    list_entries,
    name_of,
)
from dexworld.video.clips.triplets import RECORD, read_record

Severity = Literal["error", "warning"]
_SUFFIXES = {VIDEOS: ".mp4", STATIC: ".mp4", HANDS: ".mp4", PROMPTS: ".txt", REWRITES: ".txt", MOTIONS: ".npz"}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file, of which kind, in words, and what to do about it."""

    file: str
    kind: str
    message: str
    fix: str
    severity: Severity = "error"


class Findings(list[Problem]):
    """Problems in the order in which they were found."""

    def add(self, file: Path | str, kind: str, message: str, fix: str, severity: Severity = "error") -> None:
        """Note a problem; the file's name in front of the message is dropped."""
        message = message.removeprefix(f"{file}: ").removeprefix(f"{file} ").removeprefix(f"{file}, ")
        self.append(Problem(str(file), kind, message, fix, severity))


@dataclass(frozen=True)
class Inventory:
    """names: the triplets to check. problems: of lists and stray files. unlisted: files of no listed triplet."""

    names: tuple[str, ...]
    problems: tuple[Problem, ...]
    unlisted: int


def take_inventory(root: Path, listing: Path | str | None) -> Inventory:
    """Names from the list (dataset.txt when none is given and it exists), else of every file in the folders. Raises
    TripletError when the root is no folder or the list file doesn't exist."""
    if not root.is_dir():
        raise TripletError(f"{root}: is no folder")
    if listing is None and (root / "dataset.txt").is_file():
        listing = root / "dataset.txt"
    found = Findings()
    files = _files(root, found)
    names, unlisted = sorted(set(files.values())), 0
    if listing is not None:
        names = _listed(root, find_listing(root, listing), found)
        for path in sorted(path for path, name in files.items() if name not in set(names)):
            unlisted += 1
            message = f"{Path(listing).name} doesn't name its clip"
            found.add(path, "unlisted", message, "list the clip, or remove the file", "warning")
    if not names:
        found.add(listing or root, "empty", "holds no triplets", "expected <group>/videos/<stem>.mp4")
    try:
        record = read_record(root)
        for name in sorted({*record.get("seeds", {}), *record.get("clips", {})} - set(files.values())):
            message = f"records clip {name!r}, of which no file exists"
            found.add(root / RECORD, "points-nowhere", message, "write the clip again", "warning")
    except TripletError as error:
        found.add(root / RECORD, "undecodable", str(error), "finish the folder again")
    return Inventory(tuple(names), tuple(found), unlisted)


def _files(root: Path, found: Findings) -> dict[Path, str]:
    """Files of the triplet folders with the name of their clip; a file there that can't be one's is a problem."""
    files = {}
    for path in sorted(root.rglob("*")):
        if path.parent.name not in _SUFFIXES or path.parent == root or not path.is_file():
            continue
        try:
            if path.name.startswith(".") or path.suffix != _SUFFIXES[path.parent.name]:
                raise ValueError
            name = name_of(path.relative_to(root))
            check_name(name)
            files[path] = name
        except ValueError:
            message = "is neither a video, prompt nor hand motion of a triplet"
            found.add(path, "unknown-file", message, "move it out of the folder", "warning")
    return files


def _listed(root: Path, listing: Path, found: Findings) -> list[str]:
    names: list[str] = []
    for number, entry in list_entries(listing):
        if isinstance(entry, TripletError):
            found.add(listing, "bad-line", str(entry), "correct or remove the line")
        elif entry in names:
            found.add(listing, "bad-line", f"line {number} repeats clip {entry!r}", "remove the line")
        elif not any(path.exists() for path in files_of(root, entry).required):
            message = f"line {number} names clip {entry!r}, of which no file exists"
            found.add(listing, "points-nowhere", message, "remove the line, or write the clip")
        else:
            names.append(entry)
    return names
