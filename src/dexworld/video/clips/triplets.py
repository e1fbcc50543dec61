"""A folder of triplets: which it holds, how they were made and from which scenes.

    triplets.json   optional: how the folder is made and from which seeds; written before the clips
    dataset.txt     optional: the list of its interaction videos

`triplet_files` describes the other files.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dexworld.data.files import check_same_settings, read_json, write_json, written_atomically
from dexworld.data.video import VideoError
from dexworld.data.video_frames import VideoFrames
from dexworld.evaluation.guard import split_of
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.triplet_files import (
    PROMPTS,
    TripletError,
    TripletFiles,
    check_rates,
    few,
    files_of,
    find_listing,
    find_names,
    list_line,
    list_names,
    name_of,
    read_prompt,
    read_track,
    signature,
)

FORMAT = "dexworld-triplets"
FORMAT_VERSION = 1
RECORD = "triplets.json"


@dataclass(frozen=True)
class TripletFolder:
    """The triplets of a folder, decoded when they are asked for.

    names: in order. files: of each name. settings: how they were made, {} when unknown. seeds: simulator seed of each
    name that has one; empty for recordings of the real world.
    """

    root: Path
    names: tuple[str, ...]
    files: Mapping[str, TripletFiles] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seeds: Mapping[str, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> TripletClip:
        """Triplet `index`. Raises TripletError naming the file that is missing, damaged or of another shape."""
        name = self.names[index]
        files = self.files[name]
        try:
            sources = [VideoFrames(path) for path in (files.interaction, files.static, files.hands)]
            check_rates(sources)
            moving, static, hands = (source.read(list(range(len(source)))) for source in sources)
            prompt, fps = read_prompt(files.prompt), sources[0].fps
            track = read_track(files.motion) if files.motion.exists() else None
            return TripletClip(name, moving, static, hands, prompt, fps, track, self.seeds.get(name))
        except (VideoError, TripletError) as error:
            raise TripletError(str(error)) from error
        except ValueError as error:
            raise TripletError(f"{files.interaction}: {error}") from error

    def rates(self) -> dict[str, float]:
        """Frames a second of each clip's interaction video, by name. Raises VideoError for one that can't be opened."""
        return {name: VideoFrames(self.files[name].interaction).fps for name in self.names}

    @cached_property
    def fingerprint(self) -> str:
        """Changes when a triplet is added, removed or rewritten, not when the folder moves; 32 hex digits."""
        digest = hashlib.sha256()
        for name in self.names:
            files = self.files[name]
            digest.update(f"{name} {self.seeds.get(name)}\n".encode())
            for path in (*files.required, files.motion):
                digest.update(signature(path))
        return digest.hexdigest()[:32]

    def subset(self, names: Iterable[str]) -> "TripletFolder":
        """Only these triplets, in this order. Raises TripletError naming the first that the folder doesn't hold."""
        names = tuple(names)
        for name in names:
            if name not in self.files:
                raise TripletError(f"{self.root}: holds no triplet {name!r}; it has {len(self)}: {few(self.names)}")
        seeds = {name: self.seeds[name] for name in names if name in self.seeds}
        return replace(self, names=names, files={name: self.files[name] for name in names}, seeds=seeds)


def open_triplets(root: Path | str, listing: Path | str | None = None, prompts: str = PROMPTS) -> TripletFolder:
    """Open the triplets that `listing` names, or all complete ones (every `videos/*.mp4` at any depth).

    listing: lines `<group>/videos/<stem>.mp4` in a file, as given or in `root`. prompts: "prompts", or
    "prompts_rewrite" for clips that have one. Raises TripletError when there are none, a line is no such path or comes
    twice, or a file is missing.
    """
    root = Path(root)
    names = list_names(find_listing(root, listing)) if listing is not None else find_names(root)
    return opened(root, listing, {name: files_of(root, name, prompts) for name in names}, root)


def opened(root: Path, listing: Path | str | None, files: Mapping[str, TripletFiles], top: Path) -> TripletFolder:
    """The folder of these files, with settings and seeds from records no higher than `top`.

    Raises TripletError when there are no files, or when some don't exist, naming the first few.
    """
    if not files:
        raise TripletError(f"{listing or root}: holds no triplets; expected videos/<stem>.mp4 in it or in its folders")
    missing = [str(path) for each in files.values() for path in each.required if not path.exists()]
    if missing:
        count = f"{len(missing)} files of {len(files)} triplets"
        raise TripletError(f"{root}: {count} are missing: {few(missing)}; validate the folder to see them all")
    return TripletFolder(root, tuple(files), files, *_recorded(files, top.absolute()))


def _recorded(files: Mapping[str, TripletFiles], top: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Settings and scene seeds by name, each from the nearest triplets.json above its interaction video.

    The settings are {} where the triplets come from several.
    """

    @cache
    def owner_of(group: Path) -> Path:
        above = (folder for folder in group.parents if folder.is_relative_to(top) and (folder / RECORD).is_file())
        return next(above, top)

    read = cache(read_record)
    records: dict[Path, dict[str, Any]] = {}
    seeds: dict[str, int] = {}
    for name, each in files.items():
        path = each.interaction.absolute()
        owner = owner_of(path.parent)
        record = records.setdefault(owner, read(owner))
        known, own_name = record.get("seeds", {}), name_of(path.relative_to(owner))
        if own_name in known:
            seeds[name] = int(known[own_name])
    settings = [record.get("settings", {}) for record in records.values()]
    return settings[0] if len(settings) == 1 else {}, seeds


def start_triplets(root: Path | str, settings: Mapping[str, Any], seeds: Mapping[str, int] | None = None) -> None:
    """Write triplets.json before the first clip, so that a folder whose making was killed knows what its clips are.

    settings: what makes the clips. seeds: simulator seed by name of all planned clips. Raises ValueError for other
    settings than the folder's, and for seeds of another split (training, validation, evaluation) than its clips'.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    names = find_names(Path(root))
    _write_record(Path(root), settings, names, [*names, *(seeds or {})], seeds or {}, {}, {})


def finish_triplets(
    root: Path | str,
    settings: Mapping[str, Any],
    seeds: Mapping[str, int],
    clips: Mapping[str, Mapping[str, Any]] | None = None,
    counts: Mapping[str, Any] | None = None,
) -> TripletFolder:
    """Write triplets.json and dataset.txt for all triplets of the folder, and open it.

    settings: what made the clips, as JSON values. seeds: simulator seed by name. clips: what was decided for a clip, by
    name. counts: further figures. A second run with the same settings adds to the record. Raises ValueError for other
    settings, for names that the folder doesn't hold, and for seeds of another split than its other clips'.
    """
    root = Path(root)
    names = find_names(root)
    for name in {*seeds, *(clips or {})} - set(names):
        raise ValueError(f"{root}: holds no triplet {name!r}, but a seed or record is given for it")
    _write_record(root, settings, names, names, seeds, clips or {}, counts or {})
    with written_atomically(root / "dataset.txt") as temporary:
        temporary.write_text("".join(f"{list_line(name)}\n" for name in names), encoding="utf-8")
    return open_triplets(root)


def _write_record(
    root: Path,
    settings: Mapping[str, Any],
    names: list[str],
    kept: list[str],
    seeds: Mapping[str, int],
    clips: Mapping[str, Any],
    counts: Mapping[str, Any],
) -> None:
    """Write triplets.json: what is given now, beside what it held of the clips `kept`.

    Raises ValueError when clips that are there were made with other settings, or come from another split's scenes.
    """
    old = read_record(root)
    if names and "settings" in old:
        check_same_settings(root / RECORD, old["settings"], settings)
    merged = {"seeds": {**old.get("seeds", {}), **seeds}, "clips": {**old.get("clips", {}), **clips}}
    merged = {key: {name: each[name] for name in kept if name in each} for key, each in merged.items()}
    first: dict[str, int] = {}
    for seed in merged["seeds"].values():
        first.setdefault(split_of(seed), seed)
    if len(first) > 1:
        found = " and ".join(f"{split} (seed {seed})" for split, seed in sorted(first.items()))
        raise ValueError(f"{root}: would hold scenes of {found}; write each split into a folder of its own")
    record = {"format": FORMAT, "format_version": FORMAT_VERSION, "dexworld_version": version("dexworld")}
    record |= {"settings": dict(settings), "counts": {"triplets": len(names), **counts}}
    write_json(root / RECORD, record | merged)


def read_record(root: Path) -> dict[str, Any]:
    """The folder's triplets.json, {} when it has none. Raises TripletError for a damaged file or another version."""
    path = root / RECORD
    if not path.exists():
        return {}
    try:
        record = read_json(path)
    except ValueError as error:
        raise TripletError(str(error)) from error
    if record.get("format_version") != FORMAT_VERSION:
        raise TripletError(f"{path}: format version {record.get('format_version')!r}; this reads {FORMAT_VERSION}")
    return record
