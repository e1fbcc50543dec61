"""Pretrained vision transformers from the `transformers` library, with our own normalisation (no image processor)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexworld.models.config import EncoderConfig
from dexworld.models.encoders.base import Encoder


class TransformersEncoder(Encoder):
    """Patch tokens after the last LayerNorm of a DINOv2-like model; class and register tokens are dropped.

    `config.source` is a local folder or a Hugging Face id. Raises ValueError when it can't be loaded or does not fit
    the configured dim and patch. The weights are not part of our checkpoints: they are named, not copied.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config, image_size)
        self.model = _load(str(config.source)).eval().requires_grad_(False)
        settings = self.model.config
        found = (settings.hidden_size, settings.patch_size)
        if found != (config.dim, config.patch):
            raise ValueError(
                f"encoder {config.source} has (dim, patch) {found}, config says {(config.dim, config.patch)}"
            )
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)

    def train(self, mode: bool = True) -> "TransformersEncoder":
        """Frozen: stays in evaluation mode."""
        return super().train(False)

    def _encode(self, images: Tensor) -> Tensor:
        factor = self.config.downsample
        pixels = images.float() / 255.0
        if factor > 1:
            height, width = self.image_size[0] // factor, self.image_size[1] // factor
            pixels = pixels.view(len(images), height, factor, width, factor, 3).mean(dim=(2, 4))
        pixels = ((pixels - self.mean) / self.std).permute(0, 3, 1, 2)
        tokens = self.model(pixel_values=pixels).last_hidden_state
        patches = self.grid[0] * self.grid[1]
        if tokens.shape[1] < patches:
            raise ValueError(f"encoder {self.config.source} gave {tokens.shape[1]} tokens for a grid of {patches}")
        return tokens[:, -patches:].float()


def _load(source: str) -> Any:
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise ValueError("a transformers encoder needs the `transformers` package: pip install transformers") from error
    try:
        return AutoModel.from_pretrained(source)
    except (OSError, ValueError) as error:
        kind = "folder" if Path(source).exists() else "Hugging Face id (no folder has this name)"
        raise ValueError(
            f"can't load encoder weights from {source!r}, taken as a {kind}: {error}. Download the model and pass its "
            "folder as `source`, or use the pca encoder, which needs no download"
        ) from error
