"""Triplets on disk: the interaction video, the static scene video and the hand video of a clip, with its prompt.

The folder layout is the one that DWM's release reads, so its lists and data open as they are:

    <group>/videos/<stem>.mp4          what happened; written last, so it is the mark of a complete triplet
    <group>/videos_static/<stem>.mp4   the same camera path through the untouched scene
    <group>/videos_hands/<stem>.mp4    hands alone on black, left green, right red
    <group>/prompts/<stem>.txt         (prompts_rewrite/<stem>.txt when asked for)
    <group>/hand_motions/<stem>.npz    optional: keypoints and camera (`HandTrack`)
    triplets.json                      optional: how the folder is made and from which seeds; written before the clips
    dataset.txt                        optional: the list of its interaction videos

`<group>` may be empty or any depth of folders. A triplet's name is `<group>/<stem>`.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dexworld.data.files import check_same_settings, read_json, write_json, written_atomically
from dexworld.data.video import VideoError, write_video
from dexworld.data.video_frames import VideoFrames
from dexworld.evaluation.guard import split_of
from dexworld.video.clip import HandTrack, TripletClip, check_name

FORMAT = "dexworld-triplets"
FORMAT_VERSION = 1
VIDEOS, STATIC, HANDS, MOTIONS = "videos", "videos_static", "videos_hands", "hand_motions"
PROMPTS, REWRITES = "prompts", "prompts_rewrite"
RECORD = "triplets.json"
RATE_TOLERANCE = 0.01  # fps by which the videos of a triplet may differ
CRF = 12  # near-lossless: these files are training targets, not views
_TRACK = ("keypoints_world", "keypoints_valid", "world_from_camera", "intrinsics")
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


class TripletError(ValueError):
    """A triplet that can't be read or found; the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class TripletFiles:
    """Where the files of one triplet lie. prompt may lie outside the usual folder; motion may not exist."""

    interaction: Path
    static: Path
    hands: Path
    prompt: Path
    motion: Path

    @property
    def required(self) -> tuple[Path, ...]:
        """The files without which it is no triplet."""
        return self.interaction, self.static, self.hands, self.prompt

    @property
    def signature(self) -> str:
        """Changes when a video or the hand motion is rewritten with other content; 32 hexadecimal digits."""
        paths = (self.interaction, self.static, self.hands, self.motion)
        return hashlib.sha256(b"".join(_signature(path) for path in paths)).hexdigest()[:32]


def files_of(root: Path, name: str, prompts: str = PROMPTS) -> TripletFiles:
    """The files of triplet `name` below `root` by the folder contract; they need not exist.

    prompts: the prompt folder. "prompts_rewrite" is a preference: a clip without a rewrite keeps its plain prompt.
    """
    check_name(name)
    stem = PurePosixPath(name).name
    group = root / PurePosixPath(name).parent
    prompt = group / prompts / f"{stem}.txt"
    if prompts == REWRITES and not prompt.exists():
        prompt = group / PROMPTS / f"{stem}.txt"
    interaction, static, hands = (group / folder / f"{stem}.mp4" for folder in (VIDEOS, STATIC, HANDS))
    return TripletFiles(interaction, static, hands, prompt, motion=group / MOTIONS / f"{stem}.npz")


def write_triplet(root: Path | str, clip: TripletClip) -> None:
    """Write one triplet below `root`; a kill at any moment leaves no half triplet behind a complete mark.

    Near-lossless H.264 (crf 12); the hand video keeps full colour resolution. The interaction video is written last;
    when the triplet exists already it is removed first. Raises ValueError on odd frame sizes.
    """
    files = files_of(Path(root), clip.name)
    for path in (*files.required, files.motion):
        if path is not files.motion or clip.track is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    files.interaction.unlink(missing_ok=True)
    files.motion.unlink(missing_ok=True)
    _write(files.static, clip.static, clip.fps)
    _write(files.hands, clip.hands, clip.fps, chroma="444")
    with written_atomically(files.prompt) as temporary:
        temporary.write_text(clip.prompt.strip() + "\n", encoding="utf-8")
    if clip.track is not None:
        with written_atomically(files.motion) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{name: getattr(clip.track, name) for name in _TRACK})
    _write(files.interaction, clip.interaction, clip.fps)


def _write(path: Path, frames: np.ndarray, fps: float, chroma: str = "420") -> None:
    with written_atomically(path) as temporary:
        write_video(temporary, frames, fps, crf=CRF, chroma=chroma)


def read_track(path: Path) -> HandTrack:
    """Read a hand_motions npz. Raises TripletError naming the file and the key."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return HandTrack(**{name: archive[name] for name in _TRACK})
    except _UNREADABLE as error:
        raise TripletError(f"{path}: can't be read as hand motion ({type(error).__name__}: {error})") from error


def read_prompt(path: Path) -> str:
    """The whole text of a prompt file, stripped. Raises TripletError for a missing or undecodable file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TripletError(f"{path}: the prompt can't be read ({error})") from error


@dataclass(frozen=True)
class TripletFolder:
    """The triplets of a folder, decoded when they are asked for.

    names: in order. files: of each name. settings: how they were made, {} when unknown. all_seeds: recorded seeds.
    """

    root: Path
    names: tuple[str, ...]
    files: Mapping[str, TripletFiles] = field(repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    all_seeds: Mapping[str, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> TripletClip:
        """Triplet `index`. Raises TripletError naming the file that is missing, damaged or of another shape."""
        name = self.names[index]
        files = self.files[name]
        try:
            sources = [VideoFrames(path) for path in (files.interaction, files.static, files.hands)]
            check_rates(sources)
            videos = [source.read(list(range(len(source)))) for source in sources]
            return TripletClip(
                name=name,
                interaction=videos[0],
                static=videos[1],
                hands=videos[2],
                prompt=read_prompt(files.prompt),
                fps=sources[0].fps,
                track=read_track(files.motion) if files.motion.exists() else None,
                seed=self.seeds.get(name),
            )
        except VideoError as error:
            raise TripletError(str(error)) from error
        except TripletError:
            raise
        except ValueError as error:
            raise TripletError(f"{files.interaction}: {error}") from error

    @cached_property
    def seeds(self) -> dict[str, int]:
        """Simulator seed of each name that has one; empty for recordings of the real world."""
        return {name: int(self.all_seeds[name]) for name in self.names if name in self.all_seeds}

    def rates(self) -> dict[str, float]:
        """Frames a second of each clip's interaction video, by name. Raises VideoError for one that can't be opened."""
        return {name: VideoFrames(self.files[name].interaction).fps for name in self.names}

    @cached_property
    def fingerprint(self) -> str:
        """Changes when a triplet is added, removed or rewritten, not when the folder moves; 32 hexadecimal digits."""
        digest = hashlib.sha256()
        for name in self.names:
            files = self.files[name]
            digest.update(f"{name} {self.seeds.get(name)}\n".encode())
            for path in (*files.required, files.motion):
                digest.update(_signature(path))
        return digest.hexdigest()[:32]

    def subset(self, names: Iterable[str]) -> "TripletFolder":
        """Only these triplets, in this order. Raises TripletError naming the first that the folder doesn't hold."""
        names = tuple(names)
        for name in names:
            if name not in self.files:
                raise TripletError(f"{self.root}: holds no triplet {name!r}; it has {len(self)}: {_few(self.names)}")
        return replace(self, names=names, files={name: self.files[name] for name in names})


def open_triplets(root: Path | str, listing: Path | str | None = None, prompts: str = PROMPTS) -> TripletFolder:
    """Open the triplets that `listing` names, or all complete ones (every `videos/*.mp4` at any depth).

    listing: a text file of `<group>/videos/<stem>.mp4` lines, relative to `root` (looked for as given, then in `root`).
    prompts: "prompts" or "prompts_rewrite" (falls back to "prompts" for a clip without a rewrite).
    Raises TripletError when the folder holds none, a line is no such path or comes twice, or a file is missing.
    """
    root = Path(root)
    names = list_names(find_listing(root, listing)) if listing is not None else find_names(root)
    if not names:
        raise TripletError(f"{listing or root}: holds no triplets; expected videos/<stem>.mp4 in it or in its folders")
    files = {name: files_of(root, name, prompts) for name in names}
    missing = [path for name in names for path in files[name].required if not path.exists()]
    if missing:
        raise TripletError(
            f"{root}: {len(missing)} files of {len(names)} triplets are missing: {_few(map(str, missing))}; "
            "validate the folder to see them all"
        )
    return TripletFolder(root, tuple(names), files, *recorded(files, root))


def recorded(files: Mapping[str, TripletFiles], top: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Settings and scene seeds by name of triplets, each from the nearest triplets.json above its interaction video.

    top: the uppermost folder in which it is looked for. The settings are {} where the triplets come from several.
    """
    records: dict[Path, dict[str, Any]] = {}
    owners: dict[Path, Path] = {}  # of each group of clips
    seeds: dict[str, int] = {}
    top = top.absolute()
    for name, each in files.items():
        path = each.interaction.absolute()
        group = path.parent
        if group not in owners:
            above = [folder for folder in group.parents if folder.is_relative_to(top)]
            owners[group] = next((folder for folder in above if (folder / RECORD).is_file()), top)
        owner = owners[group]
        if owner not in records:
            records[owner] = read_record(owner)
        known = records[owner].get("seeds", {})
        own_name = _name_of(path.relative_to(owner))
        if own_name in known:
            seeds[name] = int(known[own_name])
    settings = [record.get("settings", {}) for record in records.values()]
    return settings[0] if len(settings) == 1 else {}, seeds


def check_rates(videos: Sequence[VideoFrames]) -> None:
    """Raise TripletError unless a triplet's three videos have one frame rate."""
    for video in videos[1:]:
        if abs(video.fps - videos[0].fps) > RATE_TOLERANCE:
            raise TripletError(
                f"{video.path}: {video.fps:g} fps, but {videos[0].path} has {videos[0].fps:g}; the three videos of a "
                "triplet show the same moments, so write them at one rate"
            )


def find_names(root: Path) -> list[str]:
    """Names of all interaction videos below `root`, sorted; hidden folders and unfinished files don't count."""
    if not root.is_dir():
        raise TripletError(f"{root}: is no folder")
    found = (path.relative_to(root) for path in root.rglob(f"{VIDEOS}/*.mp4"))
    return sorted(_name_of(path) for path in found if not any(part.startswith(".") for part in path.parts))


def find_listing(root: Path, listing: Path | str) -> Path:
    """The list file, as given or inside `root`. Raises TripletError when it is neither."""
    for path in (Path(listing), root / listing):
        if path.is_file():
            return path
    raise TripletError(f"{listing}: no such list file, neither there nor in {root}")


def list_names(listing: Path) -> list[str]:
    """Names of a list file's lines, in order; blank lines don't count. Raises TripletError naming file and line."""
    names: dict[str, None] = {}
    for number, entry in list_entries(listing):
        if isinstance(entry, TripletError):
            raise entry
        if entry in names:
            raise TripletError(f"{listing}, line {number}: {entry!r} is listed twice")
        names[entry] = None
    return list(names)


def list_entries(listing: Path) -> list[tuple[int, str | TripletError]]:
    """Line number and name, or what is wrong with the line, of each line of a list file that isn't blank."""
    entries: list[tuple[int, str | TripletError]] = []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        path = PurePosixPath(text)
        if not text:
            continue
        try:
            if path.is_absolute() or path.parent.name != VIDEOS or path.suffix != ".mp4":
                raise ValueError("is not of the form <group>/videos/<stem>.mp4, relative to the data folder")
            check_name(_name_of(path))
            entries.append((number, _name_of(path)))
        except ValueError as error:
            entries.append((number, TripletError(f"{listing}, line {number}: {text!r}: {error}")))
    return entries


def start_triplets(root: Path | str, settings: Mapping[str, Any], seeds: Mapping[str, int] | None = None) -> None:
    """Write triplets.json before the first clip, so that a folder whose making was killed knows what its clips are.

    settings: what makes the clips. seeds: simulator seed by name of all clips that are planned. A folder that has the
    same settings is gone on with. Raises ValueError for other settings than the folder's, and for seeds of another
    split (training, validation, evaluation) than its clips have.
    """
    root = Path(root)
    check_settings(root, settings)
    names = set(find_names(root)) if root.is_dir() else set()
    old = read_record(root)
    planned = {**{name: seed for name, seed in old.get("seeds", {}).items() if name in names}, **(seeds or {})}
    check_one_split(root, planned)
    root.mkdir(parents=True, exist_ok=True)
    record = _record(settings, {"triplets": len(names)})
    write_json(root / RECORD, record | {"seeds": planned, "clips": old.get("clips", {})})


def check_one_split(root: Path, seeds: Mapping[str, int]) -> None:
    """Raise ValueError when the clips of a folder would come from scenes of more than one split."""
    first: dict[str, int] = {}
    for seed in seeds.values():
        first.setdefault(split_of(seed), seed)
    if len(first) > 1:
        found = " and ".join(f"{split} (seed {seed})" for split, seed in sorted(first.items()))
        raise ValueError(f"{root}: would hold scenes of {found}; write each split into a folder of its own")


def _record(settings: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Any]:
    record = {"format": FORMAT, "format_version": FORMAT_VERSION, "dexworld_version": version("dexworld")}
    return record | {"settings": dict(settings), "counts": dict(counts)}


def finish_triplets(
    root: Path | str,
    settings: Mapping[str, Any],
    seeds: Mapping[str, int],
    clips: Mapping[str, Mapping[str, Any]] | None = None,
    counts: Mapping[str, Any] | None = None,
) -> TripletFolder:
    """Write triplets.json and dataset.txt for all triplets of the folder, and open it.

    settings: what made the clips, as JSON values. seeds: simulator seed by name, {} for real video. clips: what was
    decided for a single clip, by name. counts: further figures. A second run with the same settings adds to the
    record. Raises ValueError for other settings than the folder's, seeds of triplets that it doesn't hold, or seeds of
    another split than its other clips'.
    """
    root = Path(root)
    check_settings(root, settings)
    names = find_names(root)
    for name in {*seeds, *(clips or {})} - set(names):
        raise ValueError(f"{root}: holds no triplet {name!r}, but a seed or record is given for it")
    old = read_record(root)
    record = _record(settings, {"triplets": len(names), **(counts or {})})
    for key, new in (("seeds", seeds), ("clips", clips or {})):
        merged = {**old.get(key, {}), **new}
        record[key] = {name: merged[name] for name in names if name in merged}
    check_one_split(root, record["seeds"])
    write_json(root / RECORD, record)
    with written_atomically(root / "dataset.txt") as temporary:
        temporary.write_text("".join(f"{list_line(name)}\n" for name in names), encoding="utf-8")
    return open_triplets(root)


def check_settings(root: Path, settings: Mapping[str, Any]) -> None:
    """Raise ValueError when the folder's clips were made with other settings: one folder, one generator."""
    found = read_record(root).get("settings")
    if found is not None and find_names(root):
        check_same_settings(root / RECORD, found, settings)


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


def list_line(name: str) -> str:
    """The line of a list file for a triplet's name."""
    path = PurePosixPath(name)
    return str(path.parent / VIDEOS / f"{path.name}.mp4")


def _name_of(path: PurePosixPath | Path) -> str:
    return (path.parent.parent / path.stem).as_posix()


def _signature(path: Path) -> bytes:
    """Size and checksum of both ends: an mp4's index, which lies at one of them, holds the size of every frame."""
    if not path.exists():
        return b"-\n"
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(4096)
        file.seek(max(0, size - 4096))
        return f"{path.parent.name} {size} {zlib.crc32(head)} {zlib.crc32(file.read())}\n".encode()


def _few(items: Iterable[str], limit: int = 5) -> str:
    listed = list(items)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")
