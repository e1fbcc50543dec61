"""Give a pretrained video transformer more input channels without changing what it computes.

Only the first layer of CogVideoX (a Conv2d on 2 x 2 patches) and of Wan (a Conv3d on 1 x 2 x 2 patches) knows how many
channels come in. Columns of known channels and the bias are copied, those of new channels start at zero: the model
starts as the pretrained one (DWM paper, section 3.3). Our channel order is [noisy C | mask m | static C | hands C].
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
        found = f"{type(transformer).__name__} embeds patches with {type(conv).__name__}"
        raise ValueError(f"{found}, not with a convolution as CogVideoX 1.0 and Wan 2.1 do (and CogVideoX 1.5 not)")
    return conv


def channel_columns(in_channels: int, latent: int, mask: int) -> tuple[int, ...]:
    """Where each input channel of a pretrained checkpoint goes in the order [noisy | mask | static | hands].

    latent: C. mask: m. Known counts: text-to-video (C), CogVideoX image-to-video (2C, the image goes to static),
    inpainting (2C + m), and our own with hands (3C + m). Raises ValueError for any other.
    """
    if in_channels in (latent, 2 * latent + mask, 3 * latent + mask):
        return tuple(range(in_channels))
    if in_channels == 2 * latent:
        return tuple(range(latent)) + tuple(range(latent + mask, 2 * latent + mask))
    known = f"{latent} (text-to-video), {2 * latent} (image-to-video), {2 * latent + mask} (inpainting)"
    raise ValueError(
        f"the checkpoint has {in_channels} input channels, not {known} or {3 * latent + mask} (with hands)"
    )


@torch.no_grad()
def widen_weight(weight: Tensor, channels: int, columns: Sequence[int] | None = None) -> Tensor:
    """A convolution weight whose column `columns[i]` is column i of `weight`. ValueError if one is lost."""
    places = list(range(weight.shape[1])) if columns is None else list(columns)
    if len(places) != weight.shape[1] or len(set(places)) != len(places):
        raise ValueError(f"{weight.shape[1]} input channels need as many different places, not {places}")
    if places and max(places) >= channels:
        lost = f"channel {max(places)} would be lost; use a config with more channels"
        raise ValueError(f"a patch embedding of {weight.shape[1]} input channels does not fit into {channels}: {lost}")
    wide = weight.new_zeros(weight.shape[0], channels, *weight.shape[2:])
    wide[:, places] = weight
    return wide


def widen_patch_embedding(transformer: Any, new_in_channels: int, columns: Sequence[int] | None = None) -> Any:
    """Widen the patch embedding and config of `transformer` in place. ValueError if a channel is lost."""
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
