"""What every video codec offers, and the one that a configuration names."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from dexworld.video.config import CodecConfig


@runtime_checkable
class Codec(Protocol):
    """A frozen module between pixels and latents, 4 x in time (the first frame alone), 8 x in space.

    mask_value: what "this pixel is known" is in the model's mask channels (CogVideoX-Fun multiplies its mask by the
    VAE's scaling factor as well).
    """

    channels: int
    mask_value: float

    def encode(self, video: Tensor) -> Tensor:
        """Latents (B, f, C, h, w) float of video (B, F, H, W, 3) uint8 RGB; ValueError for a shape that doesn't fit."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Video (B, F, H, W, 3) uint8 RGB of latents (B, f, C, h, w)."""
        ...


def build_codec(config: CodecConfig) -> nn.Module:
    """The codec that `config` names; a `pca` codec still has to be fitted or loaded."""
    if config.kind == "pca":
        from dexworld.video.codecs.pca import PCACodec

        return PCACodec(config.channels)
    from dexworld.video.codecs.diffusers import load_vae_codec

    return load_vae_codec(config)
