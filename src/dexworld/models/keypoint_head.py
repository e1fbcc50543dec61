"""From latents to heatmaps of the tracked keypoints (hand consistency, DexWM paper section 3.3), and their readout.

Drawn at the encoder's own grid: the paper's 16 x 28 tokens to 224 x 392 maps. The released code squeezes them to
16 x 16 and stretches the maps back, as `KeypointHeadConfig.token_grid` does. B batch, P patches, D latent width, K
keypoints, h x w heatmap size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.models.attention import attend, merge_heads, split_heads
from dexworld.models.config import KeypointHeadConfig

REFINE_RADIUS = 2  # heatmap cells around the peak that the sub-cell readout averages over


class HeadBlock(nn.Module):
    """A pre-norm transformer block: fused qkv without bias, GELU MLP."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(self.norm_attention(x)).chunk(3, -1))
        x = x + self.out(merge_heads(attend(query, key, value)))
        return x + self.mlp(self.norm_mlp(x))


def draw_weights(module: nn.Module) -> None:
    """First weights of all linear layers in `module`: truncated normal of deviation 0.02, biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class KeypointHead(nn.Module):
    """Latents (..., P, D) to heatmap logits (..., K, h, w).

    With the `mse` loss the logits are the map itself (Gaussians of peak 1); with `cross_entropy` their softmax over
    h x w is.
    """

    def __init__(
        self, config: KeypointHeadConfig, latent_dim: int, grid: tuple[int, int], image_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.config, self.grid, self.image_size = config, grid, image_size
        self.map_size = (grid[0] * config.cell, grid[1] * config.cell)
        self.token_grid = config.token_grid or grid
        self.project_in = nn.Linear(latent_dim, config.dim)
        self.positions = nn.Parameter(torch.empty(self.token_grid[0] * self.token_grid[1], config.dim))
        self.blocks = nn.ModuleList(HeadBlock(config.dim, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)
        self.project_out = nn.Linear(config.dim, config.cell**2 * config.channels)
        nn.init.trunc_normal_(self.positions, std=0.02)
        draw_weights(self)

    def forward(self, latents: Tensor) -> Tensor:
        x = self._resample(self.project_in(latents.reshape(-1, *latents.shape[-2:]))) + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.project_out(self.norm(x))
        (rows, columns), cell = self.token_grid, self.config.cell
        x = x.view(-1, rows, columns, self.config.channels, cell, cell)
        maps = x.permute(0, 3, 1, 4, 2, 5).reshape(-1, self.config.channels, rows * cell, columns * cell)
        if self.token_grid != self.grid:
            maps = F.interpolate(maps, self.map_size, mode="bilinear", align_corners=False)
        return maps.view(*latents.shape[:-2], *maps.shape[1:])

    def _resample(self, tokens: Tensor) -> Tensor:
        """Tokens (N, P, D) of the encoder's grid to those of `token_grid`, bilinearly."""
        if self.token_grid == self.grid:
            return tokens
        picture = tokens.transpose(1, 2).unflatten(2, self.grid)
        return F.interpolate(picture, self.token_grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)

    def read(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., K, 2) [u, v] of the image and confidences (..., K) in [0, 1] from logits (..., K, h, w).

        The peak, refined by the mean over its neighbourhood. Confidence is the probability mass of that neighbourhood
        (`cross_entropy`) or the height of the peak (`mse`).
        """
        maps = logits.float()
        if self.config.loss == "cross_entropy":
            maps = maps.flatten(-2).softmax(-1).view(maps.shape)
        else:
            maps = maps.clamp(0.0, 1.0)
        centre, mass, peak = refine_peak(maps)
        height, width = self.map_size
        scale = centre.new_tensor([self.image_size[1] / width, self.image_size[0] / height])
        return centre * scale, mass if self.config.loss == "cross_entropy" else peak


def refine_peak(maps: Tensor, radius: int = REFINE_RADIUS) -> tuple[Tensor, Tensor, Tensor]:
    """The peak of non-negative maps (..., h, w) to less than a cell.

    Returns the centroid (..., 2) of the neighbourhood of the highest cell, as (x, y) in cells with the centre of the
    first at (0.5, 0.5); the neighbourhood's sum (...,); and the highest value (...,). Of equal peaks the first counts;
    a map that is zero all over gives the centre of its first cell.
    """
    height, width = maps.shape[-2:]
    peak, index = maps.flatten(-2).max(dim=-1)
    x, y = index % width, index // width
    offsets = torch.arange(-radius, radius + 1, device=maps.device)
    columns, rows = x[..., None] + offsets, y[..., None] + offsets  # (..., window)
    inside = ((columns >= 0) & (columns < width))[..., None, :] & ((rows >= 0) & (rows < height))[..., :, None]
    flat = rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    window = maps.flatten(-2).gather(-1, flat.flatten(-2)).view(flat.shape) * inside
    mass = window.sum(dim=(-2, -1))
    safe = mass.clamp_min(torch.finfo(maps.dtype).tiny)
    step = offsets.to(maps.dtype)
    dx = (window.sum(-2) * step).sum(-1) / safe
    dy = (window.sum(-1) * step).sum(-1) / safe
    return torch.stack([x + dx + 0.5, y + dy + 0.5], dim=-1), mass, peak


def gaussian_heatmaps(
    pixels: Tensor, map_size: tuple[int, int], image_size: tuple[int, int], sigma_px: float
) -> Tensor:
    """Target maps (..., K, h, w) with peak 1 at image pixels (..., K, 2), Gaussian of `sigma_px` image pixels.

    Drawn as an outer product on the device of `pixels`; a point outside the image leaves only its tail.
    """
    (height, width), (image_height, image_width) = map_size, image_size
    x = (torch.arange(width, device=pixels.device, dtype=pixels.dtype) + 0.5) * (image_width / width)
    y = (torch.arange(height, device=pixels.device, dtype=pixels.dtype) + 0.5) * (image_height / height)
    across = torch.exp(-0.5 * ((x - pixels[..., 0, None]) / sigma_px) ** 2)
    down = torch.exp(-0.5 * ((y - pixels[..., 1, None]) / sigma_px) ** 2)
    return down[..., :, None] * across[..., None, :]
