"""Latents of a frozen encoder, computed once per dataset, with the labels of every frame beside them.

    latents.npy     (N, P, D) float16 of all N frames of the dataset, read as a memory map
    labels.npz      keypoints and cameras of the same frames
    cache.json      which dataset and which encoder it belongs to

All frames of all episodes lie behind each other; `FrameLabels.starts` says where each episode begins.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dexworld.data.files import read_json, write_json
from dexworld.data.store import EpisodeDataset
from dexworld.hands import NUM_KEYPOINTS

FORMAT_VERSION = 1
FRAMES_PER_CALL = 64
Progress = Callable[[int, int], None]  # (frames done, frames in all)


class FrameEncoder(Protocol):
    """A frozen encoder: (B, H, W, 3) uint8 RGB images to latents (B, P, D)."""

    def __call__(self, images: Tensor) -> Tensor: ...


class StaleCacheError(ValueError):
    """A latent cache that belongs to another dataset or encoder; the message says which and what to do."""


@dataclass(frozen=True)
class FrameLabels:
    """Labels of N frames of E episodes, as dense arrays.

    keypoints_world: (N, 42, 3) float32 metres, zero where not valid. keypoints_valid: (N, 42) bool.
    world_from_camera: (N, 4, 4) float32. intrinsics: (E, 3, 3) float32, pixels of the stored frame size.
    starts: (E + 1,) int64; episode e owns frames starts[e] to starts[e + 1] (exclusive).
    object_motion: (N,) float32 metres that objects moved since the frame before; zeros when it was not recorded.
    fps: (E,) float64.
    """

    keypoints_world: np.ndarray
    keypoints_valid: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    starts: np.ndarray
    object_motion: np.ndarray
    fps: np.ndarray

    def __post_init__(self) -> None:
        frames, episodes = int(self.starts[-1]), len(self.starts) - 1
        expected = {
            "keypoints_world": (frames, NUM_KEYPOINTS, 3),
            "keypoints_valid": (frames, NUM_KEYPOINTS),
            "world_from_camera": (frames, 4, 4),
            "intrinsics": (episodes, 3, 3),
            "object_motion": (frames,),
            "fps": (episodes,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"frame labels: {name} has shape {getattr(self, name).shape}, expected {shape}")

    @cached_property
    def episode_of_frame(self) -> np.ndarray:
        """(N,) index of the episode that each frame belongs to."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @classmethod
    def from_dataset(cls, dataset: EpisodeDataset) -> "FrameLabels":
        """Read the labels of every episode, without decoding a frame."""
        columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(cls) if field.name != "starts"}
        for index in range(len(dataset)):
            episode = dataset[index]
            valid = episode.keypoints_valid
            columns["keypoints_world"].append(np.where(valid[..., None], episode.keypoints_world, 0).astype(np.float32))
            columns["keypoints_valid"].append(valid)
            columns["world_from_camera"].append(episode.world_from_camera.astype(np.float32))
            columns["intrinsics"].append(episode.intrinsics.astype(np.float32)[None])
            motion = episode.extras.get("object_motion", np.zeros(len(episode)))
            columns["object_motion"].append(np.asarray(motion, dtype=np.float32))
            columns["fps"].append(np.array([episode.fps]))
        return cls(
            starts=np.concatenate([[0], np.cumsum(dataset.lengths)]).astype(np.int64),
            **{name: np.concatenate(parts) for name, parts in columns.items()},
        )


@dataclass(frozen=True)
class LatentCache:
    """latents: (N, P, D) float16, memory-mapped and read-only. labels: of the same N frames. folder: where both lie."""

    folder: Path
    latents: np.ndarray
    labels: FrameLabels

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def episodes(self) -> int:
        """Number of episodes E."""
        return len(self.labels.starts) - 1


def latent_cache(
    dataset: EpisodeDataset,
    encoder: FrameEncoder,
    fingerprint: str,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> LatentCache:
    """The latents of every frame of `dataset`: opened when they were computed before, computed otherwise.

    fingerprint: identifies the encoder and its weights. folder: where the cache lies or shall lie; by default
    `latents/<fingerprint>` in the dataset folder. The folder appears whole or not at all.
    Raises StaleCacheError when the folder holds latents of another dataset state or another encoder, ValueError when
    the dataset is empty or the encoder returns NaN, Inf or values beyond float16.
    """
    folder = folder or dataset.folder / "latents" / fingerprint[:32]
    if not folder.exists():
        _build(dataset, encoder, fingerprint, folder, device, progress)
    return _open(dataset, fingerprint, folder)


def _open(dataset: EpisodeDataset, fingerprint: str, folder: Path) -> LatentCache:
    header = read_json(folder / "cache.json")
    for name, expected, what in (
        ("format_version", FORMAT_VERSION, "another version of dexworld"),
        ("encoder", fingerprint, "another encoder"),
        ("dataset", dataset.fingerprint, "another state of the dataset (episodes were added, removed or rewritten)"),
    ):
        if header.get(name) != expected:
            raise StaleCacheError(f"{folder} holds latents of {what}; delete that folder to compute them anew")
    latents = np.load(folder / "latents.npy", mmap_mode="r", allow_pickle=False)
    with np.load(folder / "labels.npz", allow_pickle=False) as archive:
        labels = FrameLabels(**{name: archive[name] for name in archive.files})
    if latents.ndim != 3 or len(latents) != labels.starts[-1]:
        raise StaleCacheError(f"{folder}: latents {latents.shape} don't fit the {labels.starts[-1]} labelled frames")
    return LatentCache(folder, latents, labels)


def _build(
    dataset: EpisodeDataset,
    encoder: FrameEncoder,
    fingerprint: str,
    folder: Path,
    device: torch.device | str,
    progress: Progress | None,
) -> None:
    if not len(dataset):
        raise ValueError(f"{dataset.folder} holds no readable episode ({len(dataset.quarantined)} quarantined)")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        total, done, latents = sum(dataset.lengths), 0, None
        for index in range(len(dataset)):
            frames = dataset[index].frames
            images = torch.from_numpy(frames.read(list(range(len(frames)))))
            for chunk in images.split(FRAMES_PER_CALL):
                encoded = _encode(encoder, chunk.to(device), f"{dataset.folder}, episode {dataset.ids[index]}")
                if latents is None:
                    shape = (total, *encoded.shape[1:])
                    path = temporary / "latents.npy"
                    latents = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
                latents[done : done + len(encoded)] = encoded
                done += len(encoded)
                if progress is not None:
                    progress(done, total)
        assert latents is not None
        latents.flush()
        labels = FrameLabels.from_dataset(dataset)
        np.savez(temporary / "labels.npz", **{field.name: getattr(labels, field.name) for field in fields(labels)})
        header = {"format_version": FORMAT_VERSION, "encoder": fingerprint, "dataset": dataset.fingerprint}
        write_json(temporary / "cache.json", header | {"frames": total, "episodes": len(dataset)})
        if not folder.exists():  # another process may have been faster
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _encode(encoder: FrameEncoder, images: Tensor, where: str) -> np.ndarray:
    with torch.no_grad():
        latents = encoder(images)
    if latents.ndim != 3 or len(latents) != len(images):
        raise ValueError(
            f"{where}: the encoder made {tuple(latents.shape)} of {len(images)} images, expected (B, P, D)"
        )
    halves = latents.to(torch.float16)
    if not torch.isfinite(halves).all():
        raise ValueError(f"{where}: the encoder's latents hold NaN, Inf or values beyond float16")
    return halves.cpu().numpy()
