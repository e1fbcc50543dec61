"""Run a frozen encoder over the frames of a dataset, in the order in which they lie."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dexworld.data.source import Dataset

FRAMES_PER_CALL = 64
Item = TypeVar("Item")


class FrameEncoder(Protocol):
    """A frozen encoder: (B, H, W, 3) uint8 RGB images to latents (B, P, D)."""

    def __call__(self, images: Tensor) -> Tensor: ...


def encoded_frames(
    dataset: Dataset, encoder: FrameEncoder, shape: tuple[int, ...], rows: tuple[int, int], device: torch.device | str
) -> Iterator[np.ndarray]:
    """Blocks (n, P, D) float16 of the dataset's frames `rows[0]` to `rows[1]` (exclusive), never across episodes.

    shape: (P, D) that the latents must have. Raises ValueError naming the episode when the encoder returns another
    shape, NaN, Inf or values beyond float16.
    """
    for where, images in _one_ahead(_images(dataset, rows)):
        latents = _encode(encoder, images.to(device), where)
        if latents.shape[1:] != shape:
            raise ValueError(f"{where}: the encoder made {latents.shape[1:]} of an image, and {shape} of others")
        yield latents


def latent_shape(dataset: Dataset, encoder: FrameEncoder, device: torch.device | str) -> tuple[int, int]:
    """(P, D) of the dataset's first frame."""
    where, images = next(_images(dataset, (0, 1)))
    patches, dim = _encode(encoder, images.to(device), where).shape[1:]
    return patches, dim


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
