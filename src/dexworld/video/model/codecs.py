"""What every video codec offers, the one that a configuration names, and the video VAEs of CogVideoX and Wan."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dexworld.models.checkpoint import CheckpointError, StandIn, check_finite, check_positive, shapes_only, understood
from dexworld.video.clips.clip import SPACE_FACTOR, TIME_FACTOR
from dexworld.video.model.pca_codec import PCACodec, check_codec_video
from dexworld.video.model.published_parts import find_part, library_model, part_settings, require
from dexworld.video.model.video_config import CodecConfig

VAE_CLASSES = {"cogvideox": "AutoencoderKLCogVideoX", "wan": "AutoencoderKLWan"}


class Codec(Protocol):
    """A frozen module, 4 x in time and 8 x in space. mask_value: "this pixel is known" in the mask channels."""

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
    if shapes_only() and config.kind != "pca":
        return StandIn()
    return PCACodec(config.channels) if config.kind == "pca" else load_vae_codec(config)


class VAECodec(nn.Module):
    """A frozen pretrained VAE of diffusers. Raises ValueError when it isn't 4 x in time and 8 x in space.

    Latents are scaled to what the transformers were trained on: CogVideoX multiplies by its config's scaling_factor
    (0.7 for 5B, 1.15258426 for 2B), Wan subtracts a mean and divides by a standard deviation per channel.

    group: frames after the first come in groups of this many; 8 for CogVideoX, whose decoder makes 8 frames, not 5, of
    two latent frames. sample: encode to a draw from the VAE's distribution (as the DWM release), not to its mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, vae: Any, sample: bool = False) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        self.sample = sample
        self._generator = torch.Generator().manual_seed(0)
        settings = vae.config
        if "z_dim" in settings:
            self.channels, self.mask_value, self.group = settings.z_dim, 1.0, TIME_FACTOR
            geometry = (settings.scale_factor_temporal, settings.scale_factor_spatial)
            mean, std = torch.tensor(settings.latents_mean), torch.tensor(settings.latents_std)
            if mean.numel() != self.channels or std.numel() != self.channels:
                sizes = f"{mean.numel()} latents_mean and {std.numel()} latents_std"
                raise ValueError(f"the VAE has {self.channels} channels, but {sizes}")
        else:
            self.channels, self.mask_value = settings.latent_channels, float(settings.scaling_factor)
            self.group = 2 * TIME_FACTOR
            geometry = (round(settings.temporal_compression_ratio), 2 ** (len(settings.block_out_channels) - 1))
            mean = torch.full((self.channels,), float(settings.shift_factor or 0.0))
            std = torch.full((self.channels,), 1.0 / float(settings.scaling_factor))
        if geometry != (TIME_FACTOR, SPACE_FACTOR):
            found = f"the VAE compresses {geometry[0]} x in time and {geometry[1]} x in space"
            raise ValueError(f"{found}; only {TIME_FACTOR} x and {SPACE_FACTOR} x are supported (CogVideoX, Wan 2.1)")
        self.register_buffer("mean", mean.view(-1, 1, 1, 1), persistent=False)
        self.register_buffer("std", std.view(-1, 1, 1, 1), persistent=False)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """See `Codec.encode`. Raises ValueError on another shape or type."""
        check_codec_video(video, self.group)
        pixels = video.permute(0, 4, 1, 2, 3).to(self.vae.device, self.vae.dtype) / 127.5 - 1.0  # (B, 3, F, H, W)
        posterior = self.vae.encode(pixels).latent_dist
        latents = posterior.sample(self._generator) if self.sample else posterior.mode()
        latents = (latents.float() - self.mean) / self.std
        return latents.transpose(1, 2).contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See `Codec.decode`. Raises ValueError on another number of channels."""
        if latents.ndim != 5 or latents.shape[2] != self.channels:
            raise ValueError(f"latents must be (B, f, {self.channels}, h, w), not {tuple(latents.shape)}")
        count = latents.shape[1]
        if (count - 1) * TIME_FACTOR % self.group:
            raise ValueError(f"{count} latent frames don't decode to 1 + {self.group} n frames with this VAE")
        latents = latents.transpose(1, 2).float().to(self.vae.device) * self.std + self.mean
        pixels = self.vae.decode(latents.to(self.vae.dtype)).sample.float()  # (B, 3, F, H, W)
        return ((pixels + 1.0) * 127.5).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def load_vae_codec(config: CodecConfig) -> VAECodec:
    """The VAE in the folder or hub id `config.source`. Raises ImportError, or CheckpointError for another."""
    require("diffusers")
    import diffusers

    assert config.source is not None  # CodecConfig checks it
    folder, name = find_part(config.source, "vae"), VAE_CLASSES[config.kind]
    saved = part_settings(folder).get("_class_name")
    if saved != name:
        raise CheckpointError(f"{folder / 'config.json'} describes {saved}, not {name}; choose the codec of its kind")
    vae = library_model(getattr(diffusers, name), folder, torch_dtype=torch.float32)
    with understood(folder):
        codec = VAECodec(vae, config.sample)
    scales = {"mean": codec.mean, "std": codec.std}
    check_finite(scales, f"{folder / 'config.json'}: the latents'")
    check_positive(scales, ["std"], f"{folder / 'config.json'}: the latents'")
    if codec.channels != config.channels:
        raise CheckpointError(f"{folder} has {codec.channels} latent channels, the config says {config.channels}")
    return codec
