"""What every evaluated method is held against: copying the static video, and what the codec lets through at best."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from dexworld.video.clips.clip import TripletClip

STATIC_COPY = "static_copy"
STATIC_COPY_CODEC = "static_copy_codec"
CODEC_TRUTH = "codec_truth"


class VideoMethod(Protocol):
    """What is evaluated: a name, and videos for clips, made without a look at the outcome.

    A method that gives the same video for every seed has `deterministic = True` and is asked once. A trained one says
    on what it was trained with `provenance`, as checkpoints do.
    """

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int], /) -> list[np.ndarray]:
        """A video (F, H, W, 3) uint8 for each clip, drawn from its seed."""
        ...


class StaticCopy:
    """Nothing happens: the static video itself, or what a `codec` makes of it, for models of its latents."""

    deterministic = True

    def __init__(self, codec: Any | None = None) -> None:
        self.codec = codec
        self.name = STATIC_COPY if codec is None else STATIC_COPY_CODEC

    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int], /) -> list[np.ndarray]:
        """The static video of every clip; the seeds don't matter."""
        if self.codec is None:
            return [clip.static for clip in clips]
        return [through_codec(self.codec, clip.static) for clip in clips]


class Reconstruction:
    """The true video, encoded and decoded: the ceiling of every method that works in the codec's latents."""

    deterministic = True
    name = CODEC_TRUTH

    def __init__(self, codec: Any) -> None:
        self.codec = codec

    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int], /) -> list[np.ndarray]:
        """The true video of every clip as the codec shows it; the seeds don't matter."""
        return [through_codec(self.codec, clip.interaction) for clip in clips]


@torch.no_grad()
def through_codec(codec: Any, video: np.ndarray) -> np.ndarray:
    """A video (F, H, W, 3) uint8, encoded and decoded by `codec`."""
    pixels = torch.from_numpy(np.ascontiguousarray(video))[None]
    weight = next(codec.buffers(), None) if isinstance(codec, torch.nn.Module) else None
    latents = codec.encode(pixels if weight is None else pixels.to(weight.device))
    return codec.decode(latents)[0].cpu().numpy()


def reference_methods(codec: Any | None = None) -> list[VideoMethod]:
    """What stands in every table: static copy, and with a codec also what it makes of the static and the true video."""
    return [StaticCopy()] if codec is None else [StaticCopy(), StaticCopy(codec), Reconstruction(codec)]
