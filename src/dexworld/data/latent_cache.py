"""Latents of a frozen encoder, computed once per dataset, with the labels of every frame beside them.

    plan.json                                which dataset, encoder and sizes; written first
    shards/                                  (N, P, D) float16 of all N frames of the dataset (see `latent_shards.py`)
    frame_labels.npy, episode_labels.npz     keypoints and cameras of the same frames (see `frame_labels.py`)
    cache.json                               the mark of a complete cache; written last

All frames of all episodes lie behind each other; `Labels.starts` says where each episode begins. A folder without
`cache.json` is a build that was stopped: the next one goes on with the shards that are missing, and several processes
(or shares on several machines) may work on one folder. The finished folder is the same, byte for byte.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.data.files import check_checksum, read_arrays, read_json
from dexworld.data.frame_encoding import FrameEncoder
from dexworld.data.frame_labels import FrameLabels, Labels, MappedLabels
from dexworld.data.latent_build import (
    FORMAT_VERSION,
    LABELS_IN_ONE_FILE,
    Progress,
    StaleCacheError,
    cache_identity,
    check_identity,
    compute_latents,
)
from dexworld.data.latent_shards import LatentShards
from dexworld.data.source import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentCache:
    """latents: (N, P, D) float16, memory-mapped and read-only. labels: of the same N frames. folder: where both lie."""

    folder: Path
    latents: np.ndarray | LatentShards
    labels: Labels

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def episodes(self) -> int:
        """Number of episodes E."""
        return len(self.labels.starts) - 1

    def damaged(self) -> Iterator[tuple[str, bool]]:
        """Every file's relative path, and whether its bytes differ from the recorded checksum; reads everything."""
        if isinstance(self.latents, LatentShards):
            yield from self.latents.damaged()
        yield from self.labels.damaged()


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
    if not (folder / "cache.json").exists():
        raise FileNotFoundError(f"{folder} holds no complete latents; compute them with `dexworld cache-latents`")
    header = read_json(folder / "cache.json")
    old = header.get("format_version") == LABELS_IN_ONE_FILE
    check_identity(
        header | ({"format_version": FORMAT_VERSION} if old else {}), cache_identity(dataset, fingerprint), folder
    )
    check_checksum(header, folder / "cache.json")
    try:
        patches, dim = (int(side) for side in header["shape"])
        latents = LatentShards(folder, (int(header["frames"]), patches, dim), int(header["frames_per_shard"]))
        shards = latents.shards
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise StaleCacheError(
            f"{folder / 'cache.json'} is damaged ({type(error).__name__}: {error}); delete it, and only what is "
            "missing is computed anew"
        ) from error
    if missing := latents.missing():
        raise StaleCacheError(
            f"{folder}: {len(missing)} of {shards} shards are missing or truncated ({missing[0]} first); "
            "delete them and cache.json, and only they are computed anew"
        )
    labels = _labels_in_one_file(folder, header) if old else _labels(folder, header)
    if len(latents) != labels.starts[-1]:
        raise StaleCacheError(f"{folder}: latents {latents.shape} don't fit the {labels.starts[-1]} labelled frames")
    return LatentCache(folder, latents, labels)


def _labels(folder: Path, header: dict[str, Any]) -> MappedLabels:
    try:
        return MappedLabels.opened(folder, header.get("labels_crc32"))
    except ValueError as error:
        raise StaleCacheError(str(error)) from error


def _labels_in_one_file(folder: Path, header: dict[str, Any]) -> FrameLabels:
    """The labels of a cache of the version before, which keeps all of them in memory."""
    logger.info("%s is of an earlier version: its labels are held in memory; made anew it reads them on demand", folder)
    path = folder / "labels.npz"
    try:
        arrays, checksum = read_arrays(path)
        if header.get("labels_crc32", checksum) != checksum:
            raise ValueError("it is not the file that was written")
        return FrameLabels(**arrays)
    except (ValueError, TypeError) as error:
        raise StaleCacheError(
            f"{path} is damaged ({error}); delete it and cache.json, and only the labels are read anew"
        ) from error


__all__ = ["FrameLabels", "LatentCache", "StaleCacheError", "cache_folder", "latent_cache", "open_cache"]
