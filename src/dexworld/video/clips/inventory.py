"""What a validation reports: the problems, file by file, and what was counted."""

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
)
from dexworld.video.clips.triplets import read_record


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file, of which kind, in words, and what to do about it."""

    file: str
    kind: str
    message: str
    fix: str
    severity: Literal["error", "warning"] = "error"


# FROM inventory: Which triplets a folder claims to hold, and the files in it that belong to none.
_SUFFIXES = {VIDEOS: ".mp4", STATIC: ".mp4", HANDS: ".mp4", PROMPTS: ".txt", REWRITES: ".txt", MOTIONS: ".npz"}


@dataclass(frozen=True)
class Inventory:
    """names: the triplets to check. problems: of lists and stray files. unlisted: files of no listed triplet."""

    names: tuple[str, ...]
    problems: tuple[Problem, ...]
    unlisted: int


def take_inventory(root: Path, listing: Path | str | None, prompts: str) -> Inventory:
    """Names from the list (dataset.txt when none is given and it exists), else of every file in the folders.

    Raises TripletError when the root is no folder or the list file doesn't exist.
    """
    if not root.is_dir():
        raise TripletError(f"{root}: is no folder")
    problems: list[Problem] = []
    if listing is None and (root / "dataset.txt").is_file():
        listing = root / "dataset.txt"
    files, strays = _files(root)
    for path in strays:
        message = "is neither a video, prompt nor hand motion of a triplet"
        problems.append(Problem(str(path), "unknown-file", message, "move it out of the folder", "warning"))
    if listing is None:
        names = sorted(set(files.values()))
        unlisted: list[Path] = []
    else:
        names = _listed(root, find_listing(root, listing), problems)
        unlisted = sorted(path for path, name in files.items() if name not in set(names))
    for path in unlisted:
        message = f"{Path(listing).name if listing else ''} doesn't name its clip"
        problems.append(Problem(str(path), "unlisted", message, "list the clip, or remove the file", "warning"))
    if not names:
        message = "holds no triplets"
        problems.append(Problem(str(listing or root), "empty", message, "expected <group>/videos/<stem>.mp4"))
    try:
        record = read_record(root)
        orphans = sorted({*record.get("seeds", {}), *record.get("clips", {})} - set(files.values()))
        for name in orphans:
            message = f"records clip {name!r}, of which no file exists"
            problems.append(
                Problem(str(root / "triplets.json"), "points-nowhere", message, "write the clip again", "warning")
            )
    except TripletError as error:
        path = root / "triplets.json"
        message = str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
        problems.append(Problem(str(path), "undecodable", message, "finish the folder again"))
    return Inventory(tuple(names), tuple(problems), len(unlisted))


def _files(root: Path) -> tuple[dict[Path, str], list[Path]]:
    """Files of the triplet folders with the name of their clip, and files there that can't be one's."""
    files, strays = {}, []
    for path in sorted(root.rglob("*")):
        if path.parent.name not in _SUFFIXES or path.parent == root or not path.is_file():
            continue
        if path.name.startswith(".") or path.suffix != _SUFFIXES[path.parent.name]:
            strays.append(path)
            continue
        name = (path.relative_to(root).parent.parent / path.stem).as_posix()
        try:
            check_name(name)
            files[path] = name
        except ValueError:
            strays.append(path)
    return files, strays


def _listed(root: Path, listing: Path, problems: list[Problem]) -> list[str]:
    names: list[str] = []
    for number, entry in list_entries(listing):
        where = f"line {number}"
        if isinstance(entry, TripletError):
            message = str(entry).removeprefix(f"{listing}, ")
            problems.append(Problem(str(listing), "bad-line", message, "correct or remove the line"))
        elif entry in names:
            message = f"{where} repeats clip {entry!r}"
            problems.append(Problem(str(listing), "bad-line", message, "remove the line"))
        elif not any(path.exists() for path in files_of(root, entry).required):
            message = f"{where} names clip {entry!r}, of which no file exists"
            problems.append(Problem(str(listing), "points-nowhere", message, "remove the line, or write the clip"))
        else:
            names.append(entry)
    return names
