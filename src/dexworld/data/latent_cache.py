"""Latents of a frozen encoder, computed once per dataset, with the labels of every frame beside them.

    plan.json                                which dataset, encoder and sizes; written first
    shards/                                  (N, P, D) float16 of all N frames of the dataset (see `latent_shards.py`)
    frame_labels.npy, episode_labels.npz     cameras and columns of the same frames (see `frame_labels.py`)
    cache.json                               the mark of a complete cache; written last

All frames of all episodes lie behind each other; `FrameLabels.starts` says where each episode begins. A folder without
`cache.json` is a build that was stopped: the next one goes on with the shards that are missing, and several processes
(or shares on several machines) may work on one folder. The finished folder is the same, byte for byte.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.data.files import Shard, check_checksum, read_json, with_checksum, write_json
from dexworld.data.frame_encoding import FrameEncoder, encoded_frames, latent_shape
from dexworld.data.frame_labels import EPISODES_FILE, FrameLabels, record_type, write_labels
from dexworld.data.latent_shards import LatentShards, remove_leftovers, write_shard
from dexworld.data.locks import claimed, write_missing
from dexworld.data.source import Dataset

FORMAT_VERSION = 5
READABLE = (4, 5)  # caches of version 4 hold keypoints, cameras and object motion, and no other column
FRAMES_PER_SHARD = 1024  # what a kill loses at most; 22 MB of the default encoder, 0.9 GB of a ViT-L at 224 x 392
Progress = Callable[[int, int], None]  # (frames done, frames in all)


class StaleCacheError(ValueError):
    """A latent cache that belongs to another dataset or encoder; the message says which and what to do."""


@dataclass(frozen=True)
class LatentCache:
    """latents: (N, P, D) float16, memory-mapped and read-only. labels: of the same N frames. folder: where both lie."""

    folder: Path
    latents: np.ndarray | LatentShards
    labels: FrameLabels

    def __len__(self) -> int:
        return len(self.latents)

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """Every file's relative path, and whether its bytes differ from the recorded checksum; reads everything."""
        if isinstance(self.latents, LatentShards):
            yield from self.latents.damaged()
        yield from self.labels.damaged()


@dataclass(frozen=True)
class CacheEstimate:
    """What a cache takes on disk. frames: of the dataset. done: frames that exist already. bytes: of the whole cache.

    missing: bytes still to write. free: bytes that the disk has left.
    """

    frames: int
    done: int
    bytes: int
    missing: int
    free: int


def estimate_cache(dataset: Dataset, shape: tuple[int, int], folder: Path) -> CacheEstimate:
    """Disk for latents (P, D) of every frame and their labels; what lies in `folder` already is counted as done."""
    frames = sum(dataset.lengths)
    per_frame = 2 * shape[0] * shape[1] + record_type(dataset[0]).itemsize
    done = 0
    if (folder / "plan.json").exists():
        rows = int(read_json(folder / "plan.json").get("frames_per_shard") or FRAMES_PER_SHARD)
        shards = LatentShards(folder, (frames, *shape), rows)
        ranges = [shards.rows_of(number) for number, path in enumerate(shards.paths) if path.exists()]
        done = sum(last - first for first, last in ranges)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    missing = 0 if (folder / "cache.json").exists() else (frames - done) * per_frame
    return CacheEstimate(frames, done, frames * per_frame, missing, shutil.disk_usage(existing).free)


def cache_folder(dataset: Dataset, fingerprint: str) -> Path:
    """Where the latents of a dataset lie when nothing else is said."""
    return dataset.folder / "latents" / fingerprint[:32]


def latent_cache(
    dataset: Dataset,
    encoder: FrameEncoder,
    fingerprint: str,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> LatentCache:
    """The latents of every frame of `dataset`: opened when they were computed before, computed otherwise.

    fingerprint: identifies the encoder and its weights. folder: where the cache lies or shall lie; by default
    `latents/<fingerprint>` in the dataset folder.
    Raises StaleCacheError when the folder holds latents of another dataset state or another encoder, or files of it are
    missing; ValueError when the dataset is empty, the disk can't hold the latents, or the encoder returns NaN, Inf or
    values beyond float16.
    """
    folder = folder or cache_folder(dataset, fingerprint)
    if not (folder / "cache.json").exists():
        compute_latents(dataset, encoder, fingerprint, folder, device, progress)
    return open_cache(dataset, fingerprint, folder)


def open_cache(dataset: Dataset, fingerprint: str, folder: Path | None = None) -> LatentCache:
    """A complete cache. Raises FileNotFoundError when it isn't complete, StaleCacheError as `latent_cache` does."""
    folder = folder or cache_folder(dataset, fingerprint)
    path = folder / "cache.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no complete latents; compute them with `dexworld cache-latents`")
    header = read_json(path)
    _check_identity(header, dataset, fingerprint, folder)
    check_checksum(header, path)
    try:
        patches, dim = (int(side) for side in header["shape"])
        latents = LatentShards(folder, (int(header["frames"]), patches, dim), int(header["frames_per_shard"]))
        missing = latents.missing()
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise StaleCacheError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete it, and only what is missing is computed anew"
        ) from error
    if missing:
        raise StaleCacheError(
            f"{folder}: {len(missing)} of {len(latents.paths)} shards are missing or truncated ({missing[0]} first); "
            "delete them and cache.json, and only they are computed anew"
        )
    try:
        labels = FrameLabels.open(folder, header.get("labels_crc32"))
    except ValueError as error:
        raise StaleCacheError(str(error)) from error
    if len(latents) != labels.starts[-1]:
        raise StaleCacheError(f"{folder}: latents {latents.shape} don't fit the {labels.starts[-1]} labelled frames")
    return LatentCache(folder, latents, labels)


def compute_latents(
    dataset: Dataset,
    encoder: FrameEncoder,
    fingerprint: str,
    folder: Path,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    shard: Shard = Shard(),
    frames_per_shard: int = FRAMES_PER_SHARD,
    force: bool = False,
) -> bool:
    """Compute the share `shard` of the shards that are missing; whoever finds all of them there completes the cache.

    Returns whether the cache is complete: other shares may still be at work. frames_per_shard: of a new cache; a
    stopped build keeps its own. force: start even when the disk seems too small. Errors as `latent_cache`.
    """
    if not len(dataset):
        raise ValueError(f"{dataset.folder} holds no readable episode ({len(dataset.quarantined)} quarantined)")
    if frames_per_shard < 1:
        raise ValueError(f"a shard holds at least one frame, not {frames_per_shard}")
    plan = _plan(dataset, fingerprint, folder, frames_per_shard, lambda: latent_shape(dataset, encoder, device))
    shape, total = tuple(plan["shape"]), int(plan["frames"])
    estimate = estimate_cache(dataset, shape, folder)
    if estimate.missing > estimate.free and not force:
        raise ValueError(
            f"{folder}: the latents need {estimate.missing / 1e9:.1f} GB more, the disk has "
            f"{estimate.free / 1e9:.1f} GB left; make room, choose another folder, or train without a cache"
        )
    shards = LatentShards(folder, (total, *shape), int(plan["frames_per_shard"]))
    (folder / "shards").mkdir(exist_ok=True)
    numbers, done = {path: number for number, path in enumerate(shards.paths)}, estimate.done

    def report(extra: int = 0) -> None:
        if progress is not None:
            progress(done + extra, total)

    def write(path: Path, part: Path) -> None:
        first, last = shards.rows_of(numbers[path])
        blocks = encoded_frames(dataset, encoder, shape, (first, last), device)
        write_shard(path, part, last - first, shape, _counted(blocks, report))

    def finished(path: Path) -> None:
        nonlocal done
        first, last = shards.rows_of(numbers[path])
        done += last - first
        report()

    write_missing([path for path in shard.of(list(numbers)) if not path.exists()], write, finished)
    if not all(path.exists() for path in numbers):
        return False
    labels_crc32 = write_labels(dataset, folder)
    remove_leftovers(folder)
    _write_claimed_json(folder / "cache.json", with_checksum(plan | {"labels_crc32": labels_crc32}))
    return True


def _plan(
    dataset: Dataset, fingerprint: str, folder: Path, frames_per_shard: int, shape: Callable[[], tuple[int, int]]
) -> dict[str, Any]:
    """What is computed in `folder`, as its plan.json says; written now when the folder is new."""
    path = folder / "plan.json"
    if not path.exists():
        plan = {
            "format_version": FORMAT_VERSION,
            "encoder": fingerprint,
            "dataset": dataset.fingerprint,
            "frames": sum(dataset.lengths),
            "episodes": len(dataset),
            "shape": list(shape()),
            "frames_per_shard": frames_per_shard,
        }
        folder.mkdir(parents=True, exist_ok=True)
        _write_claimed_json(path, plan)
    found = read_json(path)
    _check_identity(found, dataset, fingerprint, folder)
    if found["format_version"] != FORMAT_VERSION and not (folder / "cache.json").exists():
        found |= {"format_version": FORMAT_VERSION}  # a stopped build of the version before: the same shards
        (folder / EPISODES_FILE).unlink(missing_ok=True)
        write_json(path, found)
    return found


def _check_identity(header: dict[str, Any], dataset: Dataset, fingerprint: str, folder: Path) -> None:
    """Raises StaleCacheError naming what differs."""
    for name, expected, what in (
        ("format_version", READABLE, "another version of dexworld"),
        ("encoder", (fingerprint,), "another encoder"),
        ("dataset", (dataset.fingerprint,), "another state of the dataset (episodes were added, removed or rewritten)"),
    ):
        if header.get(name) not in expected:
            raise StaleCacheError(f"{folder} holds latents of {what}; delete that folder to compute them anew")


def _write_claimed_json(path: Path, content: dict[str, Any]) -> None:
    with claimed(path) as part:
        if part is not None:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _counted(blocks: Iterable[np.ndarray], report: Callable[[int], None]) -> Iterator[np.ndarray]:
    written = 0
    for block in blocks:
        yield block
        written += len(block)
        report(written)
