"""An image encoder of your own: register it under a name, then `--encoder NAME` takes it wherever an encoder is chosen.

This one describes each patch by its mean colour and by how the colour changes across it. An encoder says how images
become tokens (`_encode`) and, where it can, how tokens become images again (`_decode`). One that learns from the data
also has `fit(batches)`, as patch PCA does.
"""

import torch
from torch import Tensor

from dexworld.models.config import EncoderConfig
from dexworld.models.encoders import register_encoder
from dexworld.models.encoders.base import Encoder


class PatchColours(Encoder):
    """Nine numbers a patch: mean colour, and its change from left to right and from top to bottom."""

    can_decode = True

    def _patches(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) to (N, rows, columns, side, side, 3)."""
        side = self.config.patch * self.config.downsample
        return images.unflatten(1, (-1, side)).unflatten(3, (-1, side)).transpose(2, 3)

    def _encode(self, images: Tensor) -> Tensor:
        patches = self._patches(images.float() / 127.5 - 1.0)
        half = patches.shape[3] // 2
        down = patches[..., half:, :, :].mean((3, 4)) - patches[..., :half, :, :].mean((3, 4))
        right = patches[..., half:, :].mean((3, 4)) - patches[..., :half, :].mean((3, 4))
        return torch.cat([patches.mean((3, 4)), right, down], dim=-1).flatten(1, 2)

    def _decode(self, latents: Tensor) -> Tensor:
        side = self.config.patch * self.config.downsample
        ramp = torch.linspace(-1.0, 1.0, side, device=latents.device)[:, None]
        mean, right, down = latents.unflatten(1, self.grid)[:, :, :, None, None].split(3, dim=-1)
        patches = mean + right * ramp + down * ramp[:, None]
        images = patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return ((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


register_encoder("patch-colours", PatchColours, EncoderConfig(kind="patch-colours", dim=9, patch=14, downsample=1))
