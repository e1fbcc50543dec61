"""From latents to heatmaps of the tracked keypoints (hand consistency, DexWM paper section 3.3), and their readout.

Maps are drawn at the encoder's own grid, the paper's 16 x 28 tokens, or at `KeypointHeadConfig.token_grid`, the
release's 16 x 16. P patches, D latent width, K keypoints, h x w heatmap size.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.models.attention import attend, merge_heads, split_heads
from dexworld.models.checkpoint import Pretrained
from dexworld.models.config import KeypointHeadConfig
from dexworld.models.latent_space import LatentSpace

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
        """Tokens (B, P, D) after attention among them and an MLP."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(self.norm_attention(x)).chunk(3, -1))
        x = x + self.out(merge_heads(attend(query, key, value)))
        return x + self.mlp(self.norm_mlp(x))


class CellTransformer(nn.Module):
    """A transformer over latents (N, P, D) with as many outputs for each token; new weights are normal, biases zero."""

    def __init__(
        self, latent_dim: int, tokens: int, dim: int, depth: int, heads: int, mlp_ratio: int, outputs: int
    ) -> None:
        super().__init__()
        self.project_in = nn.Linear(latent_dim, dim)
        self.positions = nn.Parameter(torch.empty(tokens, dim))
        self.blocks = nn.ModuleList(HeadBlock(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.project_out = nn.Linear(dim, outputs)
        nn.init.trunc_normal_(self.positions, std=0.02)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def cells(self, tokens: Tensor) -> Tensor:
        """Outputs (N, P, C) from the projected latents (N, P, dim)."""
        x = tokens + self.positions
        for block in self.blocks:
            x = block(x)
        return self.project_out(self.norm(x))


def join_cells(cells: Tensor, grid: tuple[int, int], cell: tuple[int, int]) -> Tensor:
    """Pictures (N, C, rows * h, columns * w) from tokens (N, rows * columns, C * h * w), a cell (h, w) of C each."""
    x = cells.unflatten(2, (-1, *cell)).unflatten(1, grid)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(len(x), x.shape[3], grid[0] * cell[0], grid[1] * cell[1])


class KeypointHead(CellTransformer):
    """Latents (..., P, D) to heatmap logits (..., K, h, w).

    With the `mse` loss the logits are the map itself (Gaussians of peak 1); with `cross_entropy` their softmax over
    h x w is.
    """

    def __init__(
        self, config: KeypointHeadConfig, latent_dim: int, grid: tuple[int, int], image_size: tuple[int, int]
    ) -> None:
        token_grid, outputs = config.token_grid or grid, config.cell**2 * config.channels
        tokens = token_grid[0] * token_grid[1]
        super().__init__(latent_dim, tokens, config.dim, config.depth, config.heads, config.mlp_ratio, outputs)
        self.config, self.grid, self.token_grid, self.image_size = config, grid, token_grid, image_size
        self.map_size = (grid[0] * config.cell, grid[1] * config.cell)

    def forward(self, latents: Tensor) -> Tensor:
        """Heatmap logits (..., K, h, w) of latents (..., P, D)."""
        cells = self.cells(self._resample(self.project_in(latents.reshape(-1, *latents.shape[-2:]))))
        maps = join_cells(cells, self.token_grid, (self.config.cell, self.config.cell))
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
        maps, is_probability = logits.float(), self.config.loss == "cross_entropy"
        maps = maps.flatten(-2).softmax(-1).view(maps.shape) if is_probability else maps.clamp(0.0, 1.0)
        centre, mass, peak = refine_peak(maps)
        scale = centre.new_tensor([self.image_size[1] / self.map_size[1], self.image_size[0] / self.map_size[0]])
        return centre * scale, mass if is_probability else peak


def refine_peak(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The peak of non-negative maps (..., h, w) to less than a cell.

    Returns the centroid (..., 2) of the neighbourhood of the highest cell, as (x, y) in cells with the centre of the
    first at (0.5, 0.5); the neighbourhood's sum (...,); and the highest value (...,). Of equal peaks the first counts;
    a map that is zero all over gives the centre of its first cell.
    """
    height, width = maps.shape[-2:]
    peak, index = maps.flatten(-2).max(dim=-1)
    x, y = index % width, index // width
    offsets = torch.arange(-REFINE_RADIUS, REFINE_RADIUS + 1, device=maps.device)
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


@dataclass(frozen=True)
class EvaluatorConfig:
    """A keypoint head for the latents of one encoder."""

    latents: LatentSpace
    head: KeypointHeadConfig = field(default_factory=KeypointHeadConfig)


EVALUATOR_PRESETS: dict[str, KeypointHeadConfig] = {
    "debug": KeypointHeadConfig(dim=32, depth=1, heads=2),
    "tiny": KeypointHeadConfig(dim=128, depth=3),
    "small": KeypointHeadConfig(dim=256, depth=6, heads=8, mlp_ratio=4),
    # The released configuration: 12 blocks of width 512, read by the height of the maps' peaks.
    "paper": KeypointHeadConfig(dim=512, depth=12, heads=16, mlp_ratio=4, cell=14, loss="mse"),
}


class KeypointEvaluator(Pretrained):
    """A keypoint head of its own, trained on true latents only, apart from every world model.

    Figures of predicted keypoints are read with it, so that they never depend on the head of the model under test
    (DexWM paper: a shared keypoint prediction layer, trained separately).
    """

    config_type = EvaluatorConfig

    def __init__(self, config: EvaluatorConfig, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.provenance = config, dict(provenance or {})
        space = config.latents
        self.head = KeypointHead(config.head, space.dim, space.grid, space.image_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Heatmap logits (..., 12, h, w) of latents (..., P, D)."""
        return self.head(latents)

    def keypoints(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Tracked keypoints (..., 12, 2) [u, v] in image pixels and confidences (..., 12) in [0, 1]."""
        return self.head.read(self.head(latents))
