"""Give a pretrained video transformer more input channels without changing what it computes.

The first layer of CogVideoX (a Conv2d on 2 x 2 patches) and of Wan (a Conv3d on 1 x 2 x 2 patches) is the only one that
knows how many channels come in. Columns of known channels are copied, those of new channels start at zero, the bias is
copied: at the first step the model is the pretrained one whatever the new channels hold, and gradient reaches them
(DWM paper, section 3.3). Our channel order is [noisy C | mask m | static C | hands C].
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def patch_embedding(transformer: nn.Module) -> nn.Conv2d | nn.Conv3d:
    """The convolution that turns input channels into tokens. Raises ValueError when the model has none that we know."""
    embed = getattr(transformer, "patch_embed", None)
    conv = getattr(embed, "proj", None) if embed is not None else getattr(transformer, "patch_embedding", None)
    if not isinstance(conv, (nn.Conv2d, nn.Conv3d)):
        raise ValueError(
            f"{type(transformer).__name__} embeds patches with {type(conv).__name__}, not with a Conv2d or Conv3d; "
            "CogVideoX 1.0 (also Fun V1.1) and Wan 2.1 do, CogVideoX 1.5 with its temporal patches is not supported"
        )
    return conv


def channel_columns(in_channels: int, latent: int, mask: int) -> tuple[int, ...]:
    """Where each input channel of a pretrained checkpoint goes in the order [noisy | mask | static | hands]. latent: C.
    mask: m (1 CogVideoX, 4 Wan). Known counts: text-to-video (C), CogVideoX image-to-video (2C: noisy, image; the image
    goes to static), inpainting (2C + m), and our own with hands (3C + m). Raises ValueError for any other."""
    if in_channels in (latent, 2 * latent + mask, 3 * latent + mask):
        return tuple(range(in_channels))
    if in_channels == 2 * latent:
        return tuple(range(latent)) + tuple(range(latent + mask, 2 * latent + mask))
    raise ValueError(
        f"the checkpoint has {in_channels} input channels; with {latent} latent and {mask} mask channels it should "
        f"have {latent} (text-to-video), {2 * latent} (image-to-video), {2 * latent + mask} (inpainting) or "
        f"{3 * latent + mask} (inpainting with hands)"
    )


@torch.no_grad()
def widen_weight(weight: Tensor, channels: int, columns: Sequence[int] | None = None) -> Tensor:
    """A convolution weight (out, channels, ...) whose column `columns[i]` is column i of `weight`, the others zero.
    columns: one place per input channel of `weight`, by default the first ones. Raises ValueError when a channel would
    be lost."""
    places = list(range(weight.shape[1])) if columns is None else list(columns)
    if len(places) != weight.shape[1] or len(set(places)) != len(places):
        raise ValueError(f"{weight.shape[1]} input channels need as many different places, not {places}")
    if places and max(places) >= channels:
        raise ValueError(
            f"a patch embedding of {weight.shape[1]} input channels does not fit into {channels}: channel "
            f"{max(places)} would be lost; use a config with more channels, or the checkpoint that this one came from"
        )
    wide = weight.new_zeros(weight.shape[0], channels, *weight.shape[2:])
    wide[:, places] = weight
    return wide


def widen_patch_embedding(transformer: Any, new_in_channels: int, columns: Sequence[int] | None = None) -> Any:
    """Widen the patch embedding of `transformer` in place to `new_in_channels`, and return it. columns: see
    `widen_weight`. A model that has that many channels is left alone. The model's config learns the number, so that
    `save_pretrained` writes a folder that loads again. Raises ValueError when a channel would be lost."""
    conv = patch_embedding(transformer)
    if conv.in_channels == new_in_channels:
        return transformer
    weight = widen_weight(conv.weight, new_in_channels, columns)
    # Built on the meta device: its random initialisation would cost time and draw from the global generator.
    build: Any = type(conv)
    shape = {"kernel_size": conv.kernel_size, "stride": conv.stride, "bias": conv.bias is not None}
    wide = build(new_in_channels, conv.out_channels, **shape, device="meta")
    wide.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)
    wide.bias = conv.bias
    wide.train(conv.training)
    if hasattr(transformer, "patch_embed"):
        transformer.patch_embed.proj = wide
    else:
        transformer.patch_embedding = wide
    if hasattr(transformer, "register_to_config"):
        transformer.register_to_config(in_channels=new_in_channels)
    return transformer
