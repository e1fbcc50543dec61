"""Pretrained vision transformers from the `transformers` library, with our own normalisation (no image processor)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.models.config import EncoderConfig
from dexworld.models.encoders.base import Encoder
from dexworld.models.encoders.loading import load_weights, read_checkpoint_config


class TransformersEncoder(Encoder):
    """Patch tokens after the last LayerNorm of a pretrained encoder of one of five families (see `families.py`).

    `config.source` is a local folder or a Hugging Face id. Raises ValueError when it can't be loaded or does not fit
    the configured family, dim and patch. The weights are not part of our checkpoints: they are named, not copied.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig, image_size: tuple[int, int]) -> None:
        super().__init__(config, image_size)
        checkpoint = read_checkpoint_config(str(config.source))
        if config.family not in (None, *checkpoint.layout.families):
            raise ValueError(
                f"encoder {config.source} is of family {' or '.join(checkpoint.layout.families)}, config says "
                f"{config.family}"
            )
        found = (checkpoint.dim, checkpoint.patch)
        if found != (config.dim, config.patch):
            raise ValueError(
                f"encoder {config.source} has (dim, patch) {found}, config says {(config.dim, config.patch)}"
            )
        self.model = load_weights(checkpoint)
        self._tokens = checkpoint.layout.tokens
        checkpoint.layout.prepare(self.model, self.grid)
        if config.precision == "bfloat16":
            for module in self.model.modules():
                if isinstance(module, nn.Linear):
                    module.to(torch.bfloat16)
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
        pixels = ((pixels - self.mean) / self.std).permute(0, 3, 1, 2).contiguous()
        if self.config.precision == "bfloat16":
            # The residual stream, LayerNorms and positions stay in float32: positions suffer most from rounding.
            with torch.autocast(pixels.device.type, dtype=torch.bfloat16):
                tokens = self._tokens(self.model, pixels, self.grid)
        else:
            tokens = self._tokens(self.model, pixels, self.grid)
        patches = self.grid[0] * self.grid[1]
        if tokens.shape[1] != patches:
            raise ValueError(f"encoder {self.config.source} gave {tokens.shape[1]} tokens for a grid of {patches}")
        tokens = tokens.float()
        return F.layer_norm(tokens, tokens.shape[-1:]) if self.config.feature_norm == "layer" else tokens
