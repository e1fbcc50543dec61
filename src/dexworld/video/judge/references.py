"""What every evaluated method is held against: copying the static video, and what the codec lets through at best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

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


@dataclass(frozen=True)
class Reference:
    """The static or the true video of every clip, itself or as a `codec` shows it; the seeds don't matter."""

    name: str
    video: Literal["static", "interaction"]
    codec: Any | None = None
    deterministic: ClassVar[bool] = True

    def generate(self, clips: Sequence[TripletClip], seeds: Sequence[int], /) -> list[np.ndarray]:
        """A video (F, H, W, 3) uint8 for each clip."""
        videos = [getattr(clip, self.video) for clip in clips]
        return videos if self.codec is None else [through_codec(self.codec, video) for video in videos]


@torch.no_grad()
def through_codec(codec: Any, video: np.ndarray) -> np.ndarray:
    """A video (F, H, W, 3) uint8, encoded and decoded by `codec`."""
    pixels = torch.from_numpy(np.ascontiguousarray(video))[None]
    weight = next(codec.buffers(), None) if isinstance(codec, torch.nn.Module) else None
    latents = codec.encode(pixels if weight is None else pixels.to(weight.device))
    return codec.decode(latents)[0].cpu().numpy()


def reference_methods(codec: Any | None = None) -> list[VideoMethod]:
    """What stands in every table: static copy, and with a codec also what it makes of the static and the true video.

    The static copy through the codec is what a model of its latents has to beat, the true video its ceiling.
    """
    plain = Reference(STATIC_COPY, "static")
    if codec is None:
        return [plain]
    return [plain, Reference(STATIC_COPY_CODEC, "static", codec), Reference(CODEC_TRUTH, "interaction", codec)]
