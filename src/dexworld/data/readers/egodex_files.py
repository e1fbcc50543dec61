"""Which clips an EgoDex folder holds: found by listing folders, without opening a file."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

VIDEO, POSES = ".mp4", ".hdf5"
TRAIN_FOLDERS = ("part1", "part2", "part3", "part4", "part5")
SPLIT_FOLDERS = (*TRAIN_FOLDERS, "extra", "test")
DEPTH = 2  # folders between the one opened and the clips: SPLIT/TASK
PROBED_FOLDERS = 64  # how many `has_clip_pair` looks into before it gives up


@dataclass(frozen=True)
class Clip:
    """One video with its poses. place: their folder below the one opened. split: "" when no folder says it."""

    id: str
    place: PurePosixPath
    stem: str
    split: str
    task: str

    @property
    def path(self) -> PurePosixPath:
        """The video, relative to the folder opened."""
        return self.place / f"{self.stem}{VIDEO}"


def find_clips(folder: Path, split: str | None, tasks: tuple[str, ...]) -> tuple[list[Clip], list[tuple[str, str]]]:
    """The clips of a dataset, a split or a task, sorted by id, and (file, reason) of files without their partner.

    Raises FileNotFoundError when there is no clip, ValueError when `split` or one of `tasks` selects none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    clips: list[Clip] = []
    quarantined: list[tuple[str, str]] = []
    seen: Counter[str] = Counter()  # splits
    seen_tasks: set[str] = set()
    for place, stems in _listed(folder, PurePosixPath(), DEPTH):
        task = place.name or folder.resolve().name
        own_split = _split_of(folder, place)
        seen[own_split] += 1
        if not _selected(own_split, split):
            continue
        seen_tasks.add(task)
        if tasks and task not in tasks:
            continue
        prefix = "".join(f"{_safe(part)}." for part in place.parts)
        for stem, suffixes in stems.items():
            if len(suffixes) == 2:
                clips.append(Clip(prefix + _safe(stem), place, stem, own_split, task))
            else:
                have, lack = (VIDEO, POSES) if VIDEO in suffixes else (POSES, VIDEO)
                quarantined.append((str(place / f"{stem}{have}"), f"there is no {stem}{lack} beside it"))
    if not seen:
        raise FileNotFoundError(f"{folder} holds no clips of EgoDex: a clip is N{VIDEO} beside N{POSES}, in SPLIT/TASK")
    if not seen_tasks:
        raise ValueError(
            f"{folder}: nothing is of split {split!r}; found {sorted(name or 'no split' for name in seen)}"
        )
    unknown = sorted(set(tasks) - seen_tasks)
    if unknown:
        raise ValueError(f"{folder}: there is no task {', '.join(unknown)} among its {len(seen_tasks)}")
    clips.sort(key=lambda clip: clip.id)
    twice = [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]
    if twice:
        raise ValueError(f"{folder}: several clips have the id {twice[0]}; rename their folders")
    return clips, sorted(quarantined)


def has_clip_pair(folder: Path) -> bool:
    """Whether one of the first folders, at most two levels down, holds both files of a clip."""
    probed = islice(_listed(folder, PurePosixPath(), DEPTH), PROBED_FOLDERS)
    return any(len(suffixes) == 2 for _, stems in probed for suffixes in stems.values())


def _listed(root: Path, place: PurePosixPath, depth: int) -> Iterator[tuple[PurePosixPath, dict[str, set[str]]]]:
    """Yield (place, {stem: suffixes}) of every folder with videos or poses, parents first, sorted."""
    stems: dict[str, set[str]] = {}
    folders = []
    with os.scandir(root / place) as entries:
        for entry in entries:
            if entry.name.startswith("."):  # what file systems and copy programs leave
                continue
            stem, suffix = os.path.splitext(entry.name)
            if suffix in (VIDEO, POSES):
                stems.setdefault(stem, set()).add(suffix)
            elif depth and entry.is_dir():
                folders.append(entry.name)
    if stems:
        yield place, stems
    for name in sorted(folders):
        yield from _listed(root, place / name, depth - 1)


def _split_of(root: Path, place: PurePosixPath) -> str:
    """The split of clips in `place`: the name two levels above them, where the layout has it."""
    folders = (*root.resolve().parts, *place.parts)
    above = folders[-2] if len(folders) > 1 else ""
    if len(place.parts) == DEPTH:
        return above
    return above if above in SPLIT_FOLDERS else ""


def _selected(own: str, wanted: str | None) -> bool:
    if wanted is None:
        return True
    return own in TRAIN_FOLDERS if wanted == "train" else own == wanted


def _safe(name: str) -> str:
    """A name of letters, digits, '_' and '-' only, so that '.' can join them into an id; others by their code."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"-x{ord(match[0]):x}", name)
