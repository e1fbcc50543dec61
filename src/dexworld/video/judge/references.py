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
    """What is evaluated: a name, and videos for clips. A method looks only at what it may know of a clip, never at the
    outcome. One that gives the same video for every seed has `deterministic = True` and is asked once; one that was
    trained says on what with `provenance`, as checkpoints do."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int], /) -> list[np.ndarray]:
        """A video (F, H, W, 3) uint8 for each clip, drawn from its seed."""
        ...


class StaticCopy:
    """Nothing happens: the static video itself, or with a `codec` what that codec makes of it. A model that works in a
    codec's latents can't show more detail than the second one, which is therefore what it is to beat."""

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
    tensors = [*codec.parameters(), *codec.buffers()] if isinstance(codec, torch.nn.Module) else []
    pixels = torch.from_numpy(np.ascontiguousarray(video))[None]
    latents = codec.encode(pixels.to(tensors[0].device) if tensors else pixels)
    return codec.decode(latents)[0].cpu().numpy()


def reference_methods(codec: Any | None = None) -> list[VideoMethod]:
    """What stands in every table: static copy, and with a codec also what it makes of the static and the true video."""
    return [StaticCopy()] if codec is None else [StaticCopy(), StaticCopy(codec), Reconstruction(codec)]
