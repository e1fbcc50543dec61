"""A folder of triplets: which it holds, how they were made and from which scenes.

    triplets.json   optional: how the folder is made and from which seeds; written before the clips
    dataset.txt     optional: the list of its interaction videos

`triplet_files` describes the other files.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dexworld.data.files import check_same_settings, read_json
from dexworld.data.video_frames import VideoFrames
from dexworld.evaluation.guard import split_of
from dexworld.video.clips.clip import TripletClip
from dexworld.video.clips.hand_video import skin_colour
from dexworld.video.clips.triplet_files import (
    PROMPTS,
    RATE_TOLERANCE,
    RENDERER_FOLDERS,
    TripletFiles,
    few,
    files_of,
    find_names,
    list_line,
    read_list,
    read_prompt,
    read_track,
    signature,
)
from dexworld.writing import write_json, write_text

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
        """Triplet `index`. Raises ValueError naming the file that is missing or damaged, or the clip and its shapes."""
        name = self.names[index]
        files = self.files[name]
        videos = [VideoFrames(path) for path in (files.interaction, files.static, files.hands)]
        for video in videos[1:]:
            if abs(video.fps - videos[0].fps) > RATE_TOLERANCE:
                rates = f"{video.fps:g} fps, but {videos[0].path} has {videos[0].fps:g}"
                raise ValueError(f"{video.path}: {rates}; write the three videos of a triplet at one rate")
        moving, static, hands = (video.read(list(range(len(video)))) for video in videos)
        track = read_track(files.motion, moving.shape[1:3]) if files.motion.exists() else None
        about = read_prompt(files.prompt), videos[0].fps, track, self.seeds.get(name)
        return TripletClip(name, moving, static, hands, *about, skin_colour(hands[0], moving[0]))

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
        """Only these triplets, in this order. Raises ValueError naming the first that the folder doesn't hold."""
        names = tuple(names)
        for name in names:
            if name not in self.files:
                raise ValueError(f"{self.root}: holds no triplet {name!r}; it has {len(self)}: {few(self.names)}")
        seeds = {name: self.seeds[name] for name in names if name in self.seeds}
        return replace(self, names=names, files={name: self.files[name] for name in names}, seeds=seeds)


def open_triplets(root: Path | str, listing: Path | str | None = None, prompts: str = PROMPTS) -> TripletFolder:
    """Open the triplets that `listing` names, or all complete ones (every `videos/*.mp4` at any depth).

    listing: lines `<group>/videos/<stem>.mp4` in a file, as given or in `root`. prompts: "prompts", or
    "prompts_rewrite" for clips that have one. Settings and seeds come from the nearest triplets.json above a clip.
    Raises ValueError when there are none, a line is no such path or comes twice, or a file is missing.
    """
    root = Path(root)
    names, problems = (find_names(root), []) if listing is None else read_list(root, listing)
    if problems:
        raise ValueError(f"{listing}, {problems[0]}")
    files = {name: files_of(root, name, prompts, RENDERER_FOLDERS) for name in names}
    if not files:
        raise ValueError(f"{listing or root}: holds no triplets; expected videos/<stem>.mp4 in it or in its folders")
    missing = [str(path) for each in files.values() for path in each.required if not path.exists()]
    if missing:
        count = f"{len(missing)} files of {len(files)} triplets"
        raise ValueError(f"{root}: {count} are missing: {few(missing)}; validate the folder to see them all")
    return TripletFolder(root, tuple(files), files, *_recorded(root, files))


def _recorded(root: Path, names: Iterable[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """Settings and scene seeds by name; the settings are {} where the triplets come from several records."""
    records = {path.parent: read_record(path.parent) for path in root.rglob(RECORD)}
    owners = {name: next((each for each in (root / name).parents if each in records), root) for name in names}
    seeds: dict[str, int] = {}
    for name, owner in owners.items():
        known, own_name = records.get(owner, {}).get("seeds", {}), (root / name).relative_to(owner).as_posix()
        if own_name in known:
            seeds[name] = int(known[own_name])
    settings = [records.get(owner, {}).get("settings", {}) for owner in set(owners.values())]
    return settings[0] if len(settings) == 1 else {}, seeds


def start_triplets(root: Path | str, settings: Mapping[str, Any], seeds: Mapping[str, int] | None = None) -> None:
    """Write triplets.json before the first clip, so that a folder whose making was killed knows what its clips are.

    settings: what makes the clips. seeds: simulator seed by name of all planned clips. Raises ValueError for other
    settings than the folder's, and for seeds of another split (training, validation, evaluation) than its clips'.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    _write_record(Path(root), settings, seeds or {}, {}, {})


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
    root, clips = Path(root), clips or {}
    names = find_names(root)
    for name in {*seeds, *clips} - set(names):
        raise ValueError(f"{root}: holds no triplet {name!r}, but a seed or record is given for it")
    _write_record(root, settings, seeds, clips, counts or {})
    write_text(root / "dataset.txt", "".join(f"{list_line(name)}\n" for name in names))
    return open_triplets(root)


def _write_record(
    root: Path,
    settings: Mapping[str, Any],
    seeds: Mapping[str, int],
    clips: Mapping[str, Any],
    counts: Mapping[str, Any],
) -> None:
    """Write triplets.json: what is given now, beside what it held of clips that are there.

    Raises ValueError when clips that are there were made with other settings, or come from another split's scenes.
    """
    old, names = read_record(root), find_names(root)
    if names and "settings" in old:
        check_same_settings(root / RECORD, old["settings"], settings)
    merged = {"seeds": {**old.get("seeds", {}), **seeds}, "clips": {**old.get("clips", {}), **clips}}
    merged = {key: {name: each[name] for name in [*names, *seeds] if name in each} for key, each in merged.items()}
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
    """The folder's triplets.json, {} when it has none. Raises ValueError for a damaged file or another version."""
    path = root / RECORD
    if not path.exists():
        return {}
    record = read_json(path)
    if record.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path}: format version {record.get('format_version')!r}; this reads {FORMAT_VERSION}")
    return record
