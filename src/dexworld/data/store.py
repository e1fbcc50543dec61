"""A dataset on disk: one folder of episodes, written by many processes, readable at any moment.

    dataset.json            format version, the generator's settings, counts, seed range
    episodes/<id>.mp4       frames (see `video.py`)
    episodes/<id>.npz       labels, without pickle; written last, so it is the mark of a complete episode

A file that can't be read is quarantined: left out, counted and named with the reason, never dropped in silence.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.begun import check_begun_with
from dexworld.data.checked import check_checksum, read_arrays, with_checksum
from dexworld.data.files import read_json, write_json, written_atomically
from dexworld.data.source import CorruptEpisodeError
from dexworld.data.video import VideoError, VideoFrames, write_video
from dexworld.track import COLUMNS, Track

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
        self.folder = Path(folder)
        self.settings = settings
        (self.folder / "episodes").mkdir(parents=True, exist_ok=True)
        index = self.folder / "dataset.json"
        if index.exists():
            check_begun_with(index, _read_index(self.folder)["settings"], settings)
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
        dataset = open_dataset(self.folder)
        ids = list(dataset.ids)
        seeds = dataset.seeds
        write_json(
            self.folder / "dataset.json",
            with_checksum(
                _index_header(self.settings)
                | {
                    "counts": {
                        "episodes": len(ids),
                        "frames": sum(dataset.lengths),
                        "quarantined": len(dataset.quarantined),
                        **(counts or {}),
                    },
                    "seeds": [min(seeds), max(seeds)] if seeds else None,
                    "episodes": ids,
                    "checksums": list(dataset.checksums),
                }
            ),
        )
        return dataset

    def _path(self, episode_id: str, suffix: str) -> Path:
        if not _ID.fullmatch(episode_id):
            raise ValueError(
                f"episode id {episode_id!r} may hold letters, digits, '.', '_' and '-', and starts with none"
            )
        return self.folder / "episodes" / f"{episode_id}{suffix}"


@dataclass(frozen=True)
class EpisodeDataset:
    """The readable episodes of a folder, in the order of their ids.

    ids, lengths: id and number of frames of each episode. quarantined: (file, reason) of everything left out.
    episode_seeds, checksums: simulator seed and checksum of each episode. settings, counts: as dataset.json holds them.
    """

    folder: Path
    ids: tuple[str, ...]
    lengths: tuple[int, ...]
    episode_seeds: tuple[int | None, ...]
    checksums: tuple[int, ...]
    quarantined: tuple[tuple[str, str], ...]
    settings: dict[str, Any]
    counts: dict[str, Any]
    kind: str = "episodes"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def splits(self) -> tuple[str, ...]:
        """One "" per episode: recordings have no splits."""
        return ("",) * len(self)

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


def open_dataset(folder: Path | str, verify: bool = False) -> EpisodeDataset:
    """Open a dataset folder and check every episode: labels readable, the video's bytes and frame count as recorded.

    verify: also decode every frame, and compare each labels file with its checksum in dataset.json. What fails is
    quarantined. Raises FileNotFoundError when the folder holds no
    dataset.json, ValueError when that file is damaged or of another format version.
    """
    folder = Path(folder)
    index = _read_index(folder)
    ids: list[str] = []
    lengths: list[int] = []
    seeds: list[int | None] = []
    checksums: list[int] = []
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
            continue
        ids.append(episode_id)
        lengths.append(len(episode))
        seeds.append(episode.seed)
        checksums.append(checksum)
    for episode_id in sorted(set(listed) - found):
        path = folder / "episodes" / f"{episode_id}.npz"
        quarantined.append((f"episodes/{episode_id}", f"listed in dataset.json, but {path} is missing"))
    return EpisodeDataset(
        folder=folder,
        ids=tuple(ids),
        lengths=tuple(lengths),
        episode_seeds=tuple(seeds),
        checksums=tuple(checksums),
        quarantined=tuple(quarantined),
        settings=index["settings"],
        counts=index.get("counts") or {},
    )


def _index_header(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dexworld_version": version("dexworld"),
        "settings": settings,
    }


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} is no dataset: it holds no dataset.json; make one with `dexworld collect`")
    index = read_json(path)
    if index.get("format") != FORMAT or index.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} is of format {index.get('format')!r} version {index.get('format_version')!r}; "
            f"this version of dexworld reads {FORMAT!r} version {FORMAT_VERSION}"
        )
    if not isinstance(index.get("settings"), dict):
        raise ValueError(f"{path} holds no settings; it is damaged")
    check_checksum(index, path)
    listed, checksums = index.get("episodes"), index.get("checksums")
    if not isinstance(listed or [], list) or not isinstance(checksums or [], list):
        raise ValueError(f"{path} lists no episodes; it is damaged")
    if not all(isinstance(name, str) for name in listed or []):
        raise ValueError(f"{path} lists episodes by something else than names; it is damaged")
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
    labels = folder / "episodes" / f"{episode_id}.npz"
    video = folder / "episodes" / f"{episode_id}.mp4"
    try:
        arrays, checksum = read_arrays(labels)
        content = video.read_bytes()
    except ValueError as error:
        raise CorruptEpisodeError(str(error)) from error
    except OSError as error:
        raise CorruptEpisodeError(f"{video}: can't be read ({error})") from error
    try:
        if len(content) != arrays["video_bytes"] or zlib.crc32(content) != arrays["video_crc32"]:
            raise ValueError(
                f"{video.name} holds {len(content)} bytes that are not the {arrays['video_bytes']} written"
            )
        episode = Track(
            frames=VideoFrames(video),
            fps=float(arrays["fps"]),
            source=str(arrays["source"]),
            task=str(arrays["task"]),
            seed=int(arrays["seed"]) if "seed" in arrays else None,
            world_from_camera=arrays["world_from_camera"],
            intrinsics=arrays["intrinsics"],
            columns={
                name.removeprefix(_EXTRAS): array
                for name, array in arrays.items()
                if name in COLUMNS or name.startswith(_EXTRAS)
            },
        )
        return episode, checksum
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptEpisodeError(f"{labels}: {type(error).__name__}: {error}") from error
