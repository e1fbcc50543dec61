"""Which triplets a folder claims to hold, and the files in it that belong to none."""

from dataclasses import dataclass
from pathlib import Path

from dexworld.video.clips.clip import check_name
from dexworld.video.clips.triplet_files import SUFFIXES, TripletError, files_of, find_listing, list_entries, name_of
from dexworld.video.clips.triplets import RECORD, read_record

FIXES = {  # what to do about each kind of problem
    "missing": "write it, or take the clip out of the list",
    "undecodable": "write or copy the file again",
    "empty-prompt": "write one or two sentences of what happens",
    "frame-count": "prepare the clip again with that length, all its files from the same frames",
    "size": "prepare the clip again with such a size",
    "frame-rate": "prepare the clip again at that rate",
    "black-hands": "extract the hands again, or leave the clip out",
    "no-hand-video": "render the hands alone, on black",
    "static-is-interaction": "render the scene at the clip's start, without hands",
    "misaligned": "render the static video along the camera path of this clip, frame by frame",
    "shifted": "check intrinsics and distortion of the static rendering; scores outside the hands suffer from it",
    "bad-motion": "write it again, or remove it",
    "bad-line": "correct or remove the line",
    "points-nowhere": "write the clip, or remove its entry",
    "empty": "expected <group>/videos/<stem>.mp4",
    "unlisted": "list the clip, or remove the file",
    "unknown-file": "move it out of the folder",
    "mixed-shapes": "prepare all clips with one shape",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: with which file, of which kind (`FIXES`), in words; `error` or `warning`."""

    file: str
    kind: str
    message: str
    fix: str
    severity: str


class Findings(list[Problem]):
    """Problems in the order in which they were found."""

    def add(self, file: Path | str, kind: str, message: str, severity: str = "error") -> None:
        """Note a problem; the file's name in front of the message is dropped."""
        text = message.removeprefix(str(file)).lstrip(":, ")
        self.append(Problem(str(file), kind, text, FIXES[kind], severity))


def take_inventory(root: Path, listing: Path | str | None, found: Findings) -> tuple[list[str], int]:
    """Names of the triplets to check, and how many files belong to no listed one.

    Names come from the list (dataset.txt when none is given and it exists), else from every file in the folders. found:
    takes up problems of lists, stray files and the record. Raises TripletError when the root is no folder or the list
    doesn't exist.
    """
    if not root.is_dir():
        raise TripletError(f"{root}: is no folder")
    if listing is None and (root / "dataset.txt").is_file():
        listing = root / "dataset.txt"
    files = _files(root, found)
    names, unlisted = sorted(set(files.values())), []
    if listing is not None:
        names = _listed(root, find_listing(root, listing), found)
        unlisted = sorted(path for path, name in files.items() if name not in set(names))
    for path in unlisted:
        found.add(path, "unlisted", f"{Path(str(listing)).name} doesn't name its clip", "warning")
    if not names:
        found.add(listing or root, "empty", "holds no triplets")
    try:
        record = read_record(root)
        for name in sorted({*record.get("seeds", {}), *record.get("clips", {})} - set(files.values())):
            found.add(root / RECORD, "points-nowhere", f"records clip {name!r}, of which no file exists", "warning")
    except TripletError as error:
        found.add(root / RECORD, "undecodable", str(error))
    return names, len(unlisted)


def _files(root: Path, found: Findings) -> dict[Path, str]:
    """Files of the triplet folders with the name of their clip; a file there that can't be one's is a problem."""
    files = {}
    for path in sorted(root.rglob("*")):
        if path.parent.name not in SUFFIXES or path.parent == root or not path.is_file():
            continue
        try:
            if path.name.startswith(".") or path.suffix != SUFFIXES[path.parent.name]:
                raise ValueError
            name = name_of(path.relative_to(root))
            check_name(name)
            files[path] = name
        except ValueError:
            found.add(path, "unknown-file", "is neither a video, prompt nor hand motion of a triplet", "warning")
    return files


def _listed(root: Path, listing: Path, found: Findings) -> list[str]:
    names: list[str] = []
    for number, entry in list_entries(listing):
        if isinstance(entry, TripletError):
            found.add(listing, "bad-line", str(entry))
        elif not any(path.exists() for path in files_of(root, entry).required):
            found.add(listing, "points-nowhere", f"line {number} names clip {entry!r}, of which no file exists")
        else:
            names.append(entry)
    return names
