"""Five families of pretrained vision transformers: how each turns an image into one token per patch.

What is taken (DexWM paper, section 4.2; release): the last hidden state after the last LayerNorm, without class and
register tokens. N images, P patches, D width; `pixels` are normalised images (N, 3, H, W).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dexworld.models.config import Family

Grid = tuple[int, int]  # rows and columns of patches


@dataclass(frozen=True)
class Layout:
    """One kind of checkpoint: the families that use it, its class in `transformers`, and how patches are had from it.

    tokens: (model, pixels, grid) to (N, P, D). unused: beginnings of the names of weights that latents don't depend on,
    so that they may be missing. prepare: changes a loaded model for its grid.
    """

    families: tuple[Family, ...]
    model_class: str
    tokens: Callable[[Any, Tensor, Grid], Tensor]
    unused: tuple[str, ...] = ("embeddings.mask_token",)
    prepare: Callable[[Any, Grid], None] = lambda model, grid: None


def _dino(model: Any, pixels: Tensor, grid: Grid) -> Tensor:
    """DINO: a class token and register tokens stand before the patches."""
    tokens: Tensor = model(pixel_values=pixels).last_hidden_state
    return tokens[:, 1 + getattr(model.config, "num_register_tokens", 0) :]


def _without_pooling(model: Any, grid: Grid) -> None:
    """SigLIP's pooled embedding is not taken, so it need not be computed."""
    model.use_head, model.head = False, None


def _siglip(model: Any, pixels: Tensor, grid: Grid) -> Tensor:
    """SigLIP: no class token; learned positions of a square are interpolated to the grid."""
    tokens: Tensor = model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    return tokens


def _with_true_positions(model: Any, grid: Grid) -> None:
    """See `clip_positions`. The model's own predictor is dropped: it never runs."""
    for layer in model.encoder.layer:
        if not hasattr(layer.attention, "get_position_ids"):
            raise ValueError("this `transformers` numbers V-JEPA 2's positions in another way; use 5.17 to 5.23")
        layer.attention.get_position_ids = partial(clip_positions, grid)
    model.predictor = None


def _vjepa2(model: Any, pixels: Tensor, grid: Grid) -> Tensor:
    """V-JEPA 2: the image twice is a clip, whose two frames share one layer of tokens."""
    clip = pixels[:, None].expand(-1, model.config.tubelet_size, -1, -1, -1)
    tokens: Tensor = model.encoder(pixel_values_videos=clip).last_hidden_state
    return tokens


def clip_positions(grid: Grid, hidden: Tensor, masks: None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Frame, row and column (each (L,)) of the L tokens of a clip, `hidden` (N, L, D), for rotary positions.

    `transformers` derives them from the square that the model was trained on (16 x 16 tokens), whatever the image:
    for 14 x 24 tokens it puts the last 80 into a second frame and wraps rows after 16 columns, without an error.
    """
    rows, columns = grid
    index = torch.arange(hidden.shape[1], device=hidden.device)
    return index // (rows * columns), index // columns % rows, index % columns


_DINO: tuple[Family, ...] = ("dinov2", "webssl")  # Web-SSL's DINO models have DINOv2's layout
LAYOUTS: dict[str, Layout] = {  # by `model_type` of the checkpoint's config.json
    "dinov2": Layout(_DINO, "Dinov2Model", _dino),
    "dinov2_with_registers": Layout(_DINO, "Dinov2WithRegistersModel", _dino),
    "dinov3_vit": Layout(("dinov3",), "DINOv3ViTModel", _dino),
    "vjepa2": Layout(("vjepa2",), "VJEPA2Model", _vjepa2, ("predictor.",), _with_true_positions),
    # SigLIP 2 with a fixed resolution is saved in SigLIP's layout.
    "siglip": Layout(("siglip2",), "SiglipVisionModel", _siglip, ("head.",), _without_pooling),
}
