"""Latents of a frozen encoder, computed once per dataset, with the labels of every frame beside them.

    plan.json                                which dataset, encoder and sizes; written first
    shards/                                  (N, P, D) float16 of all N frames of the dataset (see `latent_shards.py`)
    frame_labels.npy, episode_labels.npz     cameras and columns of the same frames (see `frame_labels.py`)
    cache.json                               the mark of a complete cache; written last

All frames of all episodes lie behind each other; `FrameLabels.starts` says where each episode begins. A stopped build
goes on with the shards that are missing. Several processes, or machines, may work on one folder; the finished one is
the same, byte for byte.
"""

import functools
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dexworld.data.files import Shard, check_checksum, is_writable, read_json, with_checksum
from dexworld.data.frame_labels import FrameLabels, record_type, write_labels
from dexworld.data.latent_shards import LatentShards, write_shard
from dexworld.data.locks import claimed, write_missing
from dexworld.data.source import Dataset
from dexworld.writing import json_text

logger = logging.getLogger(__name__)
FORMAT_VERSION = 5
FRAMES_PER_SHARD = 1024  # what a kill loses at most; 22 MB of the default encoder, 0.9 GB of a ViT-L at 224 x 392
FRAMES_PER_CALL = 64  # of the encoder
Progress = Callable[[int, int], None]  # (frames done, frames in all)
Encoder = Callable[[Tensor], Tensor]  # frozen: (B, H, W, 3) uint8 RGB images to latents (B, P, D)
Item = TypeVar("Item")


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


def place_of_latents(data: Path, name: str, cache: Path | None, whole: Callable[[Path], bool] = Path.exists) -> Path:
    """Where latents of the data in a folder lie or are to be written, as a file or folder `name`.

    It is `<data>/latents/<name>`, where it is whole or can be written; else below the user's cache folder, which a
    warning says. cache: below this folder instead. Raises ValueError where no place can be written.
    """
    beside, own = data / "latents", f"{data.name}-{zlib.crc32(os.path.abspath(data).encode()):08x}"
    if cache is not None:
        return cache / own / name
    if whole(beside / name) or is_writable(beside):
        return beside / name
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "dexworld" / "latents" / own
    if not (user.is_absolute() and is_writable(user)):
        raise ValueError(f"latents can't be written beside {data}, nor into {user}; name a folder with `--cache`")
    _say_once(data, user)
    return user / name


@functools.cache
def _say_once(data: Path, user: Path) -> None:
    logger.warning("%s can't be written: its latents are kept in %s; `--cache` names another folder", data, user)


def cache_folder(dataset: Dataset, fingerprint: str, cache: Path | None = None) -> Path:
    """The folder of a dataset's latents; see `place_of_latents`."""
    return place_of_latents(dataset.folder, fingerprint[:32], cache, lambda path: (path / "cache.json").exists())


def latent_cache(
    dataset: Dataset,
    encoder: Encoder,
    fingerprint: str,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> LatentCache:
    """The latents of every frame of `dataset`: opened when they were computed before, computed otherwise.

    fingerprint: identifies the encoder and its weights. folder: of the cache (default: see `cache_folder`).
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
        what = f"{path} is damaged ({type(error).__name__}: {error})"
        raise StaleCacheError(f"{what}; delete it, and only what is missing is computed anew") from error
    if missing:
        what = f"{len(missing)} of {len(latents.paths)} shards are missing or truncated ({missing[0]} first)"
        raise StaleCacheError(f"{folder}: {what}; delete them and cache.json, and only they are computed anew")
    try:
        labels = FrameLabels.open(folder, header.get("labels_crc32"))
    except ValueError as error:
        raise StaleCacheError(str(error)) from error
    if len(latents) != labels.starts[-1]:
        raise StaleCacheError(f"{folder}: latents {latents.shape} don't fit the {labels.starts[-1]} labelled frames")
    return LatentCache(folder, latents, labels)


def compute_latents(
    dataset: Dataset,
    encoder: Encoder,
    fingerprint: str,
    folder: Path,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    shard: Shard = Shard(),
    frames_per_shard: int = FRAMES_PER_SHARD,
) -> bool:
    """Compute the share `shard` of the shards that are missing; whoever finds all of them there completes the cache.

    Returns whether the cache is complete: other shares may still be at work. frames_per_shard: of a new cache; a
    stopped build keeps its own. Errors as `latent_cache`.
    """
    if not len(dataset):
        raise ValueError(f"{dataset.folder} holds no readable episode ({len(dataset.quarantined)} quarantined)")
    if frames_per_shard < 1:
        raise ValueError(f"a shard holds at least one frame, not {frames_per_shard}")
    plan = _plan(dataset, encoder, fingerprint, folder, frames_per_shard, device)
    shape, total = tuple(plan["shape"]), int(plan["frames"])
    shards = LatentShards(folder, (total, *shape), int(plan["frames_per_shard"]))
    (folder / "shards").mkdir(exist_ok=True)
    rows = {path: shards.rows_of(number) for number, path in enumerate(shards.paths)}
    done = sum(last - first for path, (first, last) in rows.items() if path.exists())
    needed = (total - done) * (2 * shape[0] * shape[1] + record_type(dataset[0]).itemsize)
    if needed > (free := shutil.disk_usage(folder).free):
        sizes = f"need {needed / 1e9:.1f} GB more, the disk has {free / 1e9:.1f} GB left"
        raise ValueError(f"{folder}: the latents {sizes}; make room, choose another folder, or train without a cache")

    def write(path: Path, part: Path) -> None:
        first, last = rows[path]
        write_shard(path, part, last - first, shape, _encoded_frames(dataset, encoder, shape, (first, last), device))

    def finished(path: Path) -> None:
        nonlocal done
        done += rows[path][1] - rows[path][0]
        if progress is not None:
            progress(done, total)

    write_missing([path for path in shard.of(list(rows)) if not path.exists()], write, finished)
    if not all(path.exists() for path in rows):
        return False
    labels_crc32 = write_labels(dataset, folder)
    for part in (folder / "shards").glob(".*.part"):  # of writers that died
        part.unlink(missing_ok=True)
    _write_claimed_json(folder / "cache.json", with_checksum(plan | {"labels_crc32": labels_crc32}))
    return True


def _plan(
    dataset: Dataset,
    encoder: Encoder,
    fingerprint: str,
    folder: Path,
    frames_per_shard: int,
    device: torch.device | str,
) -> dict[str, Any]:
    """What is computed in `folder`, as its plan.json says; written now when the folder is new."""
    path = folder / "plan.json"
    if not path.exists():
        where, images = next(_images(dataset, (0, 1)))
        shape = list(_encode(encoder, images.to(device), where).shape[1:])
        plan = {"format_version": FORMAT_VERSION, "encoder": fingerprint, "dataset": dataset.fingerprint}
        plan |= {"frames": sum(dataset.lengths), "episodes": len(dataset), "shape": shape}
        plan |= {"frames_per_shard": frames_per_shard}
        folder.mkdir(parents=True, exist_ok=True)
        _write_claimed_json(path, plan)
    found = read_json(path)
    _check_identity(found, dataset, fingerprint, folder)
    return found


def _check_identity(header: dict[str, Any], dataset: Dataset, fingerprint: str, folder: Path) -> None:
    """Raises StaleCacheError naming what differs."""
    for name, expected, what in (
        ("format_version", FORMAT_VERSION, "another version of dexworld"),
        ("encoder", fingerprint, "another encoder"),
        ("dataset", dataset.fingerprint, "another state of the dataset (episodes were added, removed or rewritten)"),
    ):
        if header.get(name) != expected:
            raise StaleCacheError(f"{folder} holds latents of {what}; delete that folder to compute them anew")


def _write_claimed_json(path: Path, content: dict[str, Any]) -> None:
    with claimed(path) as part:
        if part is not None:
            part.write_text(json_text(content), encoding="utf-8")


def _encoded_frames(
    dataset: Dataset, encoder: Encoder, shape: tuple[int, ...], rows: tuple[int, int], device: torch.device | str
) -> Iterator[np.ndarray]:
    """Blocks (n, P, D) float16 of the dataset's frames `rows[0]` to `rows[1]` (exclusive), never across episodes.

    shape: (P, D) that the latents must have. Raises ValueError naming the episode on another shape, NaN, Inf or values
    beyond float16.
    """
    for where, images in _one_ahead(_images(dataset, rows)):
        latents = _encode(encoder, images.to(device), where)
        if latents.shape[1:] != shape:
            raise ValueError(f"{where}: the encoder made {latents.shape[1:]} of an image, and {shape} of others")
        yield latents


def _images(dataset: Dataset, rows: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
    """(where from, images (n, H, W, 3) uint8) of the dataset's frames `rows[0]` to `rows[1]`, never across episodes."""
    starts = np.concatenate([[0], np.cumsum(dataset.lengths)])
    first_episode = int(np.searchsorted(starts, rows[0], side="right")) - 1
    for index in range(first_episode, len(dataset)):
        begin, end = max(rows[0], int(starts[index])), min(rows[1], int(starts[index + 1]))
        if begin >= end:
            return
        frames = dataset[index].frames
        for start in range(begin, end, FRAMES_PER_CALL):
            stop = min(start + FRAMES_PER_CALL, end)
            images = torch.from_numpy(frames.read(list(range(start - int(starts[index]), stop - int(starts[index])))))
            yield f"{dataset.folder}, episode {dataset.ids[index]}", images


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; a thread makes the next one while this one is used (decoding frees the interpreter)."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def _encode(encoder: Encoder, images: Tensor, where: str) -> np.ndarray:
    with torch.no_grad():
        latents = encoder(images)
    if latents.ndim != 3 or len(latents) != len(images):
        shape = tuple(latents.shape)
        raise ValueError(f"{where}: the encoder made {shape} of {len(images)} images, expected (B, P, D)")
    halves = latents.to(torch.float16)
    if not torch.isfinite(halves).all():
        raise ValueError(f"{where}: the encoder's latents hold NaN, Inf or values beyond float16")
    return halves.cpu().numpy()
