"""The lite0 distance in the loss of a video model: between prediction and truth, as the codec's decoder shows both."""

import torch
from torch import Tensor

from dexworld.models.perceptual import Lite0Distance
from dexworld.video.model.pca_codec import PCACodec

FRAMES = 2  # of each clip, drawn anew in every batch: all of them cost more than the rest of a small model's step


class PerceptualTerm:
    """Raises ValueError naming the extra `cnn` where the network's package is missing."""

    def __init__(self, codec: PCACodec, device: torch.device) -> None:
        self.codec, self.distance = codec, Lite0Distance.from_package().to(device)

    def __call__(self, made: Tensor, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Mean distance, a scalar, of frames of latents made and clean (B, f, C, h, w); `generator` draws the frames.

        Frames are drawn among all of a clip, without repetition, for each clip by itself.
        """
        with torch.autocast(made.device.type, enabled=False):
            ours, true = self.codec.pixels(made.float()), self.codec.pixels(clean.float())
            count, frames = ours.shape[:2]
            drawn = torch.rand(count, frames, generator=generator).argsort(dim=1)[:, :FRAMES].to(ours.device)
            rows = torch.arange(count, device=ours.device)[:, None]
            return self.distance(*(_planes(video[rows, drawn]) for video in (ours, true))).mean()


def _planes(pictures: Tensor) -> Tensor:
    """(B n, 3, H, W) in [-1, 1] of (B, n, H, W, 3) in [0, 1]."""
    return pictures.flatten(0, 1).permute(0, 3, 1, 2) * 2 - 1
