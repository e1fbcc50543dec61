"""Recorded episodes on disk: one folder, written by many processes, readable at any moment.

    dataset.json            format version, the generator's settings, counts, seed range
    episodes/<id>.mp4       frames (see `video.py`)
    episodes/<id>.npz       labels, without pickle; written last, so it is the mark of a complete episode

A file that can't be read is quarantined: left out, counted and named with the reason, never dropped in silence.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.files import check_checksum, check_same_settings, read_arrays, read_json, with_checksum
from dexworld.data.source import CorruptEpisodeError, FolderSource
from dexworld.data.video import VideoError, write_video
from dexworld.data.video_frames import VideoFrames
from dexworld.track import COLUMNS, Track
from dexworld.writing import write_json, written_atomically

FORMAT = "dexworld-episodes"
FORMAT_VERSION = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRAS = "extras/"  # before the name of a column that `track.COLUMNS` doesn't know


class EpisodeWriter:
    """Writes episodes into `folder`; several processes may write different ids at once.

    settings: what the episodes were made with, as JSON values. A folder that already holds episodes made with other
    settings is refused with ValueError: one dataset, one generator.
    """

    def __init__(self, folder: Path | str, settings: dict[str, Any]) -> None:
        self.folder, self.settings = Path(folder), settings
        (self.folder / "episodes").mkdir(parents=True, exist_ok=True)
        index = self.folder / "dataset.json"
        if index.exists():
            check_same_settings(index, _read_index(self.folder)["settings"], settings)
        else:
            write_json(index, _index_header(settings))

    def has(self, episode_id: str) -> bool:
        """Whether this episode is complete, so that a resumed collection can pass over it."""
        return self._path(episode_id, ".npz").exists()

    def write(self, episode_id: str, episode: Track) -> None:
        """Write one episode, video first and labels last; a kill at any moment leaves no half episode.

        episode_id: letters, digits, '.', '_' and '-'. Raises ValueError on another id or on object arrays in extras.
        """
        video, labels = self._path(episode_id, ".mp4"), self._path(episode_id, ".npz")
        arrays = _to_arrays(episode)
        with written_atomically(video) as temporary:
            write_video(temporary, episode.frames.read(list(range(len(episode)))), episode.fps)
            content = temporary.read_bytes()
        arrays["video_bytes"], arrays["video_crc32"] = np.int64(len(content)), np.int64(zlib.crc32(content))
        with written_atomically(labels) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    def finish(self, counts: dict[str, Any] | None = None) -> "EpisodeDataset":
        """Write dataset.json with all episodes of the folder, and return the dataset.

        counts: further figures of the generator to keep with it (rejected episodes and why, ...).
        """
        dataset = open_recordings(self.folder)
        seeds, frames = dataset.seeds, sum(dataset.lengths)
        own = {"episodes": len(dataset), "frames": frames, "quarantined": len(dataset.quarantined)}
        dataset = replace(dataset, counts=own | (counts or {}))
        content = _index_header(self.settings) | {
            "counts": dataset.counts,
            "seeds": [min(seeds), max(seeds)] if seeds else None,
            "episodes": list(dataset.ids),
            "checksums": list(dataset.checksums),
        }
        write_json(self.folder / "dataset.json", with_checksum(content))
        return dataset

    def _path(self, episode_id: str, suffix: str) -> Path:
        if not _ID.fullmatch(episode_id):
            raise ValueError(f"episode id {episode_id!r} must hold letters, digits, '.', '_' and '-', no mark in front")
        return self.folder / "episodes" / f"{episode_id}{suffix}"


@dataclass(frozen=True)
class EpisodeDataset(FolderSource):
    """The readable episodes of a folder, in the order of their ids.

    lengths, episode_seeds, checksums: frames, simulator seed and checksum of each episode. settings, counts: as
    dataset.json holds them.
    """

    kind = "episodes"
    lengths: tuple[int, ...]
    episode_seeds: tuple[int | None, ...]
    checksums: tuple[int, ...]
    settings: dict[str, Any]
    counts: dict[str, Any]

    def __getitem__(self, index: int) -> Track:
        """Episode `index`, its frames lazy. Raises CorruptEpisodeError when its files were damaged since."""
        return _read_episode(self.folder, self.ids[index])[0]

    def files(self, index: int) -> tuple[Path, ...]:
        """The video and the labels of episode `index`."""
        return tuple(self.folder / "episodes" / f"{self.ids[index]}{suffix}" for suffix in (".mp4", ".npz"))

    @cached_property
    def fingerprint(self) -> str:
        """Changes when an episode is added, removed or rewritten; 32 hexadecimal digits."""
        content = "\n".join(f"{name} {checksum}" for name, checksum in zip(self.ids, self.checksums, strict=True))
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """The distinct simulator seeds, sorted; empty for recordings of the real world."""
        return tuple(sorted({seed for seed in self.episode_seeds if seed is not None}))


def open_recordings(folder: Path | str, verify: bool = False) -> EpisodeDataset:
    """Open a folder of recordings and check every episode: labels readable, the video's bytes and length as recorded.

    verify: also decode every frame, and compare each labels file with its checksum in dataset.json. What fails is
    quarantined. Raises FileNotFoundError when the folder holds no dataset.json, ValueError when that file is damaged or
    of another format version. `datasets.open_dataset` opens other layouts as well.
    """
    folder = Path(folder)
    index = _read_index(folder)
    kept: list[tuple[str, int, int | None, int]] = []  # id, length, seed, checksum
    quarantined: list[tuple[str, str]] = []
    listed, recorded = index.get("episodes") or [], index.get("checksums") or []  # both come with `finish`
    expected = dict(zip(listed, recorded, strict=False))
    found = {path.stem for path in (folder / "episodes").glob("*.npz") if not path.name.startswith(".")}
    for episode_id in sorted(found):
        try:
            episode, checksum = _read_episode(folder, episode_id)
            if verify and expected.get(episode_id, checksum) != checksum:
                raise CorruptEpisodeError(f"{folder / 'episodes' / episode_id}.npz is not the file that was written")
            if verify:
                episode.frames.read(list(range(len(episode))))
        except (CorruptEpisodeError, VideoError) as error:
            quarantined.append((f"episodes/{episode_id}", str(error)))
        else:
            kept.append((episode_id, len(episode), episode.seed, checksum))
    for name in sorted(set(listed) - found):
        missing = folder / "episodes" / f"{name}.npz"
        quarantined.append((f"episodes/{name}", f"listed in dataset.json, but {missing} is missing"))
    columns: Any = zip(*kept, strict=True) if kept else ((),) * 4
    ids, lengths, seeds, checksums = columns
    facts = lengths, seeds, checksums, index["settings"], index.get("counts") or {}
    return EpisodeDataset(folder, ids, tuple(quarantined), *facts)


def _index_header(settings: dict[str, Any]) -> dict[str, Any]:
    own = {"format": FORMAT, "format_version": FORMAT_VERSION, "dexworld_version": version("dexworld")}
    return own | {"settings": settings}


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not path.exists():
        ways = "`dexworld prepare` makes one of recordings, `dexworld video episodes` of triplets"
        raise FileNotFoundError(
            f"{folder} is no dataset: it holds no dataset.json; `dexworld collect` records one, {ways}"
        )
    index = read_json(path)
    if index.get("format") != FORMAT or index.get("format_version") != FORMAT_VERSION:
        found = f"{index.get('format')!r} version {index.get('format_version')!r}"
        raise ValueError(f"{path} is of format {found}; dexworld reads {FORMAT!r} version {FORMAT_VERSION}")
    if not isinstance(index.get("settings"), dict):
        raise ValueError(f"{path} holds no settings; it is damaged")
    check_checksum(index, path)
    listed, checksums = index.get("episodes") or [], index.get("checksums") or []
    if not (isinstance(listed, list) and isinstance(checksums, list) and all(isinstance(each, str) for each in listed)):
        raise ValueError(f"{path} lists no episodes by their names; it is damaged")
    return index


def _to_arrays(episode: Track) -> dict[str, Any]:
    arrays: dict[str, Any] = {"world_from_camera": episode.world_from_camera, "intrinsics": episode.intrinsics}
    arrays |= {"fps": np.float64(episode.fps), "source": np.str_(episode.source), "task": np.str_(episode.task)}
    if episode.seed is not None:
        arrays["seed"] = np.int64(episode.seed)
    for name, value in episode.columns.items():
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise ValueError(f"{episode.source}: column {name!r} is {array.dtype}; it must be a plain array")
        arrays[name if name in COLUMNS else _EXTRAS + name] = array
    return arrays


def _read_episode(folder: Path, episode_id: str) -> tuple[Track, int]:
    """The episode and the CRC-32 of its labels file, which holds the CRC-32 of the video."""
    labels, video = (folder / "episodes" / f"{episode_id}{suffix}" for suffix in (".npz", ".mp4"))
    try:
        arrays, checksum = read_arrays(labels)
        content = video.read_bytes()
        if len(content) != arrays["video_bytes"] or zlib.crc32(content) != arrays["video_crc32"]:
            written = arrays["video_bytes"]
            raise ValueError(f"{video.name} holds {len(content)} bytes that are not the {written} written")
        own = {name: array for name, array in arrays.items() if name in COLUMNS or name.startswith(_EXTRAS)}
        episode = Track(
            arrays["world_from_camera"],
            arrays["intrinsics"],
            {name.removeprefix(_EXTRAS): array for name, array in own.items()},
            float(arrays["fps"]),
            VideoFrames(video),
            source=str(arrays["source"]),
            task=str(arrays["task"]),
            seed=int(arrays["seed"]) if "seed" in arrays else None,
        )
        return episode, checksum
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptEpisodeError(f"{labels}: {type(error).__name__}: {error}") from error
