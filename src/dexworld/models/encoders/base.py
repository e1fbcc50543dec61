"""What every encoder offers: images in, a grid of latent tokens out."""

import torch
from torch import Tensor, nn

from dexworld.models.config import EncoderConfig


def normalised(images: Tensor, factor: int, mean: Tensor, std: Tensor) -> Tensor:
    """Images (N, H, W, 3) uint8, averaged by `factor`, normalised as RGB in [0, 1]: (N, 3, H, W) / factor."""
    height, width = images.shape[1] // factor, images.shape[2] // factor
    pixels = images.float() / 255.0
    if factor > 1:
        pixels = pixels.view(-1, height, factor, width, factor, 3).mean(dim=(2, 4))
    return ((pixels - mean) / std).permute(0, 3, 1, 2)


def merged(cells: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Tokens (N, P, side^2 * C) of cells (N, P * side^2, C), both row by row; grid: rows and columns of tokens."""
    blocks = cells.unflatten(1, (grid[0], side, grid[1], side)).transpose(2, 3)
    return blocks.flatten(3).flatten(1, 2)


def unmerged(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The cells that `merged` made tokens of."""
    blocks = tokens.unflatten(1, grid).unflatten(3, (side, side, -1)).transpose(2, 3)
    return blocks.flatten(1, 4)


class Encoder(nn.Module):
    """Images (..., H, W, 3) uint8 RGB to latents (..., P, D) float32, tokens row by row. Frozen: no gradient flows.

    Subclasses fill in `_encode` for a flat batch, and `_decode` with `can_decode = True` if latents go back to pixels.
    """

    can_decode = False

    def __init__(self, config: EncoderConfig, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.image_size = config, image_size
        self.grid, self.dim = config.grid(image_size), config.dim

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents of images. Raises ValueError for another size or type; it never resizes or crops by itself."""
        expected = (*self.image_size, 3)
        if images.dtype != torch.uint8 or images.ndim < 3 or tuple(images.shape[-3:]) != expected:
            found = f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
            wanted = f"(..., {expected[0]}, {expected[1]}, 3) uint8 RGB"
            raise ValueError(f"images are {found}; this model takes {wanted}: resize or crop them first")
        return self._encode(images.reshape(-1, *expected)).view(*images.shape[:-3], -1, self.dim)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (..., H, W, 3) uint8 of latents (..., P, D). Raises ValueError if this encoder has no way back."""
        if not self.can_decode:
            raise ValueError(f"a {self.config.kind} encoder can't decode latents; train a decoder, or use pca")
        images = self._decode(latents.reshape(-1, *latents.shape[-2:]))
        return images.view(*latents.shape[:-2], *images.shape[1:])

    def _encode(self, images: Tensor) -> Tensor:  # (N, H, W, 3) uint8 to (N, P, D) float32
        raise NotImplementedError

    def _decode(self, latents: Tensor) -> Tensor:  # (N, P, D) to (N, H, W, 3) uint8
        raise NotImplementedError
