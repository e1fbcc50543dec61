"""Points on objects: where a point of the start frame is in another frame, and where hands take it.

Point consistency is the sister of hand consistency (DexWM paper, section 3.3): `find` reads a heatmap of a point from
latents, true or predicted. `follow` tells where hands push a point without any latents between: it adds up small
displacements along the hands' way, each from how the hand lies around the point and what the point looks like.

B batch, F frames, Q points, P patches, D latent width, C channels, h x w cells of a map, T steps, K keypoints, E heads.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.actions import HandMotion
from dexworld.forecast import Forecast
from dexworld.models.config import PointsConfig
from dexworld.models.keypoint_head import CellTransformer, join_cells, refine_peak

_NEAR_PX = (8.0, 24.0)  # spreads of the closeness of a keypoint to a point
_OFFSET_PX, _DEPTH_M = 24.0, 0.1  # what offsets and depths of keypoints count as one
_DEPTH_REFERENCE_M = 0.8  # depths are measured from here
_PLACE_PX = 100.0
_STILL_PX = 0.2  # least spread of a piece
_REST = 1 / 16  # of those units; a hand that moves less in a piece is at rest


class Maps(CellTransformer):
    """Latents (N, P, D) to maps (N, C, h, w), in which a point looks the same wherever it is."""

    def __init__(self, config: PointsConfig, latent_dim: int, grid: tuple[int, int]) -> None:
        outputs = config.cell**2 * config.channels
        tokens = grid[0] * grid[1]
        super().__init__(latent_dim, tokens, config.dim, config.depth, config.heads, config.mlp_ratio, outputs)
        self.grid, self.cell = grid, config.cell
        self.first = nn.Conv2d(config.channels, 2 * config.channels, 3, padding=1)
        self.second = nn.Conv2d(2 * config.channels, config.channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Maps (N, C, h, w) of latents (N, P, D)."""
        maps = join_cells(self.cells(self.project_in(latents)), self.grid, (self.cell, self.cell))
        return maps + self.second(F.gelu(self.first(maps)))


class PointHead(nn.Module):
    """Finds points in latents, and follows them under hands."""

    def __init__(
        self,
        config: PointsConfig,
        latent_dim: int,
        grid: tuple[int, int],
        image_size: tuple[int, int],
        tracked: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.config, self.image_size, self.tracked = config, image_size, list(tracked)
        self.map_size = (grid[0] * config.cell, grid[1] * config.cell)
        self.maps = Maps(config, latent_dim, grid)
        self.scale = nn.Parameter(torch.tensor(10.0))
        last = nn.Conv2d(8, 1, 3, padding=1)
        self.refine = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.GELU(), last)
        self.cover = nn.Conv2d(config.channels, 1, 1)  # where what is hidden may be
        for value in (*last.parameters(), *self.cover.parameters()):
            nn.init.zeros_(value)
        self.hidden = nn.Sequential(nn.Linear(2 * config.channels + 3, 64), nn.GELU(), nn.Linear(64, 1))
        self.movable = nn.Linear(config.channels, 1)  # logits of looks: whether such a point moves when it is pushed
        self.motion = PieceNetwork(config, len(self.tracked))

    def look(self, maps: Tensor, pixels: Tensor) -> Tensor:
        """What points (B, Q, 2) [u, v] of pictures with these maps (B, C, h, w) look like: (B, Q, C)."""
        height, width = self.image_size
        places = 2 * pixels / pixels.new_tensor([width, height]) - 1
        found = F.grid_sample(maps, places[:, :, None].to(maps), align_corners=False, padding_mode="border")
        return found[..., 0].transpose(1, 2)

    def find(self, looks: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmap logits (B, F, Q, h, w) of points that look like (B, Q, C) in maps (B, F, C, h, w), and logits
        (B, F, Q) of being hidden.
        """
        unit, targets = F.normalize(looks, dim=-1), F.normalize(maps, dim=2)
        matches = torch.einsum("bqc,bfchw->bfqhw", unit, targets)
        logits = self.scale * matches
        flat = logits.flatten(0, 2)[:, None]
        cover = self.cover(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])
        logits = (flat + self.refine(flat)).view_as(logits) + cover
        weights = logits.flatten(3).softmax(-1)
        seen = torch.einsum("bfqn,bfcn->bfqc", weights, maps.flatten(3))
        clues = [matches.flatten(3).amax(-1), weights.amax(-1), (matches.flatten(3) * weights).sum(-1)]
        own = looks[:, None].expand(-1, maps.shape[1], -1, -1)
        return logits, self.hidden(torch.cat([own, seen, torch.stack(clues, dim=-1)], dim=-1))[..., 0]

    def read(self, logits: Tensor) -> Tensor:
        """Pixels (..., 2) [u, v] of heatmap logits (..., h, w): the mean around the peak."""
        centre, _, _ = refine_peak(logits.float().flatten(-2).softmax(-1).view(logits.shape))
        return centre * centre.new_tensor(
            [self.image_size[1] / self.map_size[1], self.image_size[0] / self.map_size[0]]
        )

    def follow(self, looks: Tensor, pixels: Tensor, motion: HandMotion) -> Forecast:
        """Where hands take points that look like (N, Q, C) and are at pixels (N, Q, 2), in motion (N, T)."""
        hands, visible = motion.pixels[..., self.tracked, :], motion.visible[..., self.tracked]
        count, points = pixels.shape[:2]
        place = pixels.expand(self.config.ensemble, count, points, 2)
        spread = pixels.new_zeros(self.config.ensemble, count, points)
        own = self.motion.prepared(looks)
        found: list[tuple[Tensor, Tensor]] = []
        for step in range(motion.steps):
            shares = torch.linspace(0, 1, self.config.pieces + 1, device=pixels.device)
            way = [torch.lerp(hands[:, step], hands[:, step + 1], share) for share in shares]
            both = visible[:, step] & visible[:, step + 1]
            for now, following in pairwise(way):
                moved, scale = self.motion(own, place, now, following, both)
                place, spread = place + moved, (spread.square() + scale.square() + 1e-6).sqrt()
            found.append((place, spread))
        return Forecast(*(torch.stack(each, dim=1).transpose(0, 2) for each in zip(*found, strict=True)))


class PieceNetwork(nn.Module):
    """How far a point moves while the hand moves a piece of a step: E networks side by side."""

    def __init__(self, config: PointsConfig, keypoints: int) -> None:
        super().__init__()
        heads, width = config.ensemble, config.width
        features = keypoints * (6 + 2 * len(_NEAR_PX)) + 2
        self.own = nn.Linear(config.channels, heads * width)
        self.first = _Parallel(heads, features, width)
        self.inner = nn.ModuleList(_Parallel(heads, width, width) for _ in range(config.layers))
        self.last = _Parallel(heads, width, 3)
        nn.init.zeros_(self.last.weight)
        self.heads = heads

    def prepared(self, looks: Tensor) -> Tensor:
        """What looks (N, Q, C) add to the first layer, (E, N, Q, width)."""
        return self.own(looks).unflatten(-1, (self.heads, -1)).permute(2, 0, 1, 3)

    def forward(
        self, own: Tensor, place: Tensor, now: Tensor, following: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Displacement (E, N, Q, 2) and its scale (E, N, Q), pixels, of points at place (E, N, Q, 2).

        now, following (N, K, 3) [u px, v px, depth m]: the keypoints at both ends; visible (N, K). A hand at rest
        moves nothing.
        """
        parts = [place / _PLACE_PX]
        seen = visible[:, None, :, None].to(place)
        for hand in (now, following):
            offset = hand[:, None, :, :2] - place[..., None, :]  # (E, N, Q, K, 2)
            square = offset.square().sum(-1, keepdim=True)
            near = [torch.exp(-0.5 * square / spread**2) for spread in _NEAR_PX]
            parts.append((torch.cat([(offset / _OFFSET_PX).clamp(-6, 6), *near], dim=-1) * seen).flatten(-2))
        depth = torch.stack(
            [(now[..., 2] - _DEPTH_REFERENCE_M) / _DEPTH_M, (following - now)[..., 2] / _DEPTH_M * 4], dim=-1
        )
        hand = (depth * seen[:, 0]).flatten(-2)
        parts.append(hand[None, :, None].expand(*place.shape[:3], -1))
        x = F.gelu(self.first(torch.cat(parts, dim=-1)) + own)
        for layer in self.inner:
            x = x + F.gelu(layer(x))
        out = self.last(x)
        units = place.new_tensor([_OFFSET_PX, _OFFSET_PX, _DEPTH_M])
        square = ((following - now) / units).square().sum(-1).mul(visible).amax(-1)  # (N,), of the fastest keypoint
        moves = 1.0 - torch.exp(-square / _REST**2)
        return out[..., :2] * moves[:, None, None], _STILL_PX + F.softplus(out[..., 2] - 3.0)


class _Parallel(nn.Module):
    """E linear layers side by side: (E, N, Q, I) to (E, N, Q, O)."""

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(heads, inputs, outputs).div_(inputs**0.5))
        self.bias = nn.Parameter(torch.zeros(heads, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.flatten(1, 2), self.weight).unflatten(1, x.shape[1:3])
