"""Compute a latent cache, alone or with others; whoever is killed is replaced by whoever comes next."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.data.files import Shard, read_json, with_checksum, write_json
from dexworld.data.frame_encoding import FrameEncoder, encoded_frames, latent_shape
from dexworld.data.frame_labels import FRAME, write_labels
from dexworld.data.latent_shards import LatentShards, claimed, remove_leftovers, shard_path, write_shard
from dexworld.data.source import Dataset

FORMAT_VERSION = 4
LABELS_IN_ONE_FILE = 3  # the version before: the same latents, all labels in labels.npz
FRAMES_PER_SHARD = 1024  # what a kill loses at most; 22 MB of the default encoder, 0.9 GB of a ViT-L at 224 x 392
Progress = Callable[[int, int], None]  # (frames done, frames in all)


class StaleCacheError(ValueError):
    """A latent cache that belongs to another dataset or encoder; the message says which and what to do."""


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

    @property
    def fits(self) -> bool:
        """Whether the disk can hold what is missing."""
        return self.missing <= self.free


def estimate_cache(dataset: Dataset, shape: tuple[int, int], folder: Path) -> CacheEstimate:
    """Disk for latents (P, D) of every frame and their labels; what lies in `folder` already is counted as done."""
    frames = sum(dataset.lengths)
    per_frame = 2 * shape[0] * shape[1] + FRAME.itemsize
    done = 0
    if (folder / "plan.json").exists():
        rows = int(read_json(folder / "plan.json").get("frames_per_shard") or FRAMES_PER_SHARD)
        shards = LatentShards(folder, (frames, *shape), rows)
        ranges = [shards.rows_of(number) for number in range(shards.shards) if shard_path(folder, number).exists()]
        done = sum(last - first for first, last in ranges)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    missing = 0 if (folder / "cache.json").exists() else (frames - done) * per_frame
    return CacheEstimate(frames, done, frames * per_frame, missing, shutil.disk_usage(existing).free)


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

    Returns whether the cache is complete: other shares may still be at work. frames_per_shard: of a new cache; one that
    was begun keeps its own. force: start even when the disk seems too small. Errors as `latent_cache`.
    """
    if not len(dataset):
        raise ValueError(f"{dataset.folder} holds no readable episode ({len(dataset.quarantined)} quarantined)")
    if frames_per_shard < 1:
        raise ValueError(f"a shard holds at least one frame, not {frames_per_shard}")
    plan = _plan(dataset, encoder, fingerprint, folder, device, frames_per_shard)
    shape, total = tuple(plan["shape"]), int(plan["frames"])
    estimate = estimate_cache(dataset, shape, folder)
    if not estimate.fits and not force:
        raise ValueError(
            f"{folder}: the latents need {estimate.missing / 1e9:.1f} GB more, the disk has "
            f"{estimate.free / 1e9:.1f} GB left; make room, choose another folder, or train without a cache"
        )
    shards = LatentShards(folder, (total, *shape), int(plan["frames_per_shard"]))
    (folder / "shards").mkdir(exist_ok=True)
    done = [shard_path(folder, number).exists() for number in range(shards.shards)]

    def told(extra: int = 0) -> None:
        if progress is not None:
            there = (shards.rows_of(number) for number in range(shards.shards) if done[number])
            progress(sum(last - first for first, last in there) + extra, total)

    # First what nobody works on, then what others do, in case that they die.
    for wait in (False, True):
        for number in shard.of(range(shards.shards)):
            path = shard_path(folder, number)
            if done[number]:
                continue
            with claimed(path, wait) as part:
                if part is not None:
                    first, last = shards.rows_of(number)
                    blocks = encoded_frames(dataset, encoder, shape, (first, last), device)
                    write_shard(path, part, last - first, shape, _counted(blocks, told))
            done[number] = path.exists()
            told()
    if not all(shard_path(folder, number).exists() for number in range(shards.shards)):
        return False
    _complete(dataset, folder, plan)
    return True


def cache_identity(dataset: Dataset, fingerprint: str) -> dict[str, Any]:
    """What a cache must agree on with whoever opens it."""
    return {
        "format_version": FORMAT_VERSION,
        "encoder": fingerprint,
        "dataset": dataset.fingerprint,
    }


def check_identity(header: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    """Raises StaleCacheError naming what differs."""
    for name, what in (
        ("format_version", "another version of dexworld"),
        ("encoder", "another encoder"),
        ("dataset", "another state of the dataset (episodes were added, removed or rewritten)"),
    ):
        if header.get(name) != expected[name]:
            raise StaleCacheError(f"{folder} holds latents of {what}; delete that folder to compute them anew")


def _plan(
    dataset: Dataset,
    encoder: FrameEncoder,
    fingerprint: str,
    folder: Path,
    device: torch.device | str,
    frames_per_shard: int,
) -> dict[str, Any]:
    """What is computed in `folder`, as its plan.json says; written now when the folder is new."""
    identity = cache_identity(dataset, fingerprint)
    path = folder / "plan.json"
    if (folder / "latents.npy").exists():
        raise StaleCacheError(
            f"{folder} holds latents of an earlier version of dexworld, in one file; delete that folder to compute "
            "them anew"
        )
    if not path.exists():
        shape = latent_shape(dataset, encoder, device)
        plan = identity | {
            "frames": sum(dataset.lengths),
            "episodes": len(dataset),
            "shape": list(shape),
            "frames_per_shard": frames_per_shard,
        }
        folder.mkdir(parents=True, exist_ok=True)
        _write_claimed_json(path, plan)
    found = read_json(path)
    if found.get("format_version") == LABELS_IN_ONE_FILE and not (folder / "cache.json").exists():
        found |= {"format_version": FORMAT_VERSION}  # a build that was stopped before it came to its labels
        check_identity(found, identity, folder)
        write_json(path, found)
    check_identity(found, identity, folder)
    return found


def _complete(dataset: Dataset, folder: Path, plan: dict[str, Any]) -> None:
    labels_crc32 = write_labels(dataset, folder)
    remove_leftovers(folder)
    _write_claimed_json(folder / "cache.json", with_checksum(plan | {"labels_crc32": labels_crc32}))


def _write_claimed_json(path: Path, content: dict[str, Any]) -> None:
    with claimed(path) as part:
        if part is not None:
            part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _counted(blocks: Iterable[np.ndarray], told: Callable[[int], None]) -> Iterator[np.ndarray]:
    written = 0
    for block in blocks:
        yield block
        written += len(block)
        told(written)
