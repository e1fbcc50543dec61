"""From latents back to pixels: a vision transformer trained on a frozen encoder (DexWM paper, appendix A.4).

It draws at the encoder's own grid. (The release's decoder draws at 16 x 16 places and stretches the picture.) N images,
P patches, D latent width, H x W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dexworld.models.checkpoint import Pretrained
from dexworld.models.keypoint_head import CellTransformer, join_cells
from dexworld.models.latent_space import LatentSpace

IMAGES_PER_CALL = 32  # decoded at once by `decode`
RIDGE = 1e-7  # of the least squares, on latents of about unit spread
SMALLEST_SPREAD = 0.02  # of a component of the latents: what varies less stays small


@dataclass(frozen=True)
class DecoderConfig:
    """Size of the transformer.

    output: `tanh` keeps pixels in range (as released); `linear` leaves them free, `decode` clips. residual (ours): add
    the transformer's output to a linear picture of each token by itself, which `PixelDecoder.fit` finds by least
    squares; needs the `linear` output. refine (ours): channels of a small convolutional network over the picture at
    half its size, which learns edges and hides the borders of tokens; 0 has none.
    """

    dim: int = 192
    depth: int = 4
    heads: int = 6
    mlp_ratio: int = 4
    output: Literal["tanh", "linear"] = "tanh"
    residual: bool = False
    refine: int = 0

    def __post_init__(self) -> None:
        if min(self.dim, self.depth, self.heads, self.mlp_ratio) < 1:
            raise ValueError(f"decoder sizes must be positive, not {self}")
        if self.dim % self.heads:
            raise ValueError(f"decoder dim {self.dim} is not a multiple of its {self.heads} heads")
        if self.output not in ("tanh", "linear"):
            raise ValueError(f"decoder output is {self.output!r}; choose 'tanh' or 'linear'")
        if self.residual and self.output != "linear":
            raise ValueError("a residual decoder adds to a linear picture: its output must be 'linear'")
        if self.refine < 0:
            raise ValueError(f"refine is {self.refine}; it counts channels, 0 for none")


@dataclass(frozen=True)
class PixelDecoderConfig:
    """A decoder for the latents of one encoder."""

    latents: LatentSpace
    network: DecoderConfig = field(default_factory=DecoderConfig)


DECODER_PRESETS: dict[str, DecoderConfig] = {
    "debug": DecoderConfig(dim=32, depth=1, heads=2, mlp_ratio=2),
    "tiny": DecoderConfig(),
    "vit-s": DecoderConfig(dim=384, depth=12, heads=6),
    "vit-b": DecoderConfig(dim=768, depth=12, heads=12),
    "vit-l": DecoderConfig(dim=1024, depth=24, heads=16),  # the paper's
}


class PixelDecoder(CellTransformer, Pretrained):
    """Latents (..., P, D) to pictures. `provenance` says where the weights come from."""

    config_type, divisors = PixelDecoderConfig, ("spread",)
    spread: Tensor

    def __init__(self, config: PixelDecoderConfig, provenance: dict[str, Any] | None = None) -> None:
        space, network = config.latents, config.network
        outputs = 3 * space.cell[0] * space.cell[1]
        sizes = (network.dim, network.depth, network.heads, network.mlp_ratio)
        super().__init__(space.dim, space.tokens, *sizes, outputs)
        self.config, self.provenance = config, dict(provenance or {})
        if network.residual:
            self.linear = nn.Linear(space.dim, outputs).requires_grad_(False)
            self.register_buffer("spread", torch.ones(space.dim))
            nn.init.zeros_(self.project_out.weight)
        if network.refine:
            if space.image_size[0] % 2 or space.image_size[1] % 2:
                raise ValueError(f"refine works at half size; pictures of {space.image_size} have no even sides")
            self.refine = refiner(network.refine)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> "PixelDecoder":
        """Fit the linear part by least squares, and the scale on which the transformer sees each latent component.

        batches: pictures (N, 3, H, W) in [-1, 1] and their latents (N, P, D). Returns itself. Raises ValueError for a
        decoder that is not residual, and for fewer tokens than the latents are wide.
        """
        if not self.config.network.residual:
            raise ValueError("only a residual decoder has a linear part to fit")
        dim, cell, count = self.config.latents.dim, self.config.latents.cell, 0
        inner = torch.zeros(dim + 1, dim + 1, dtype=torch.float64)
        outer = torch.zeros(dim + 1, self.linear.out_features, dtype=torch.float64)
        for images, latents in batches:
            tokens = latents.reshape(-1, dim).cpu()
            tokens = torch.cat([tokens, torch.ones(len(tokens), 1)], dim=1)
            count += len(tokens)
            inner += (tokens.T @ tokens).double()
            cells = functional.unfold(images, cell, stride=cell).transpose(1, 2).reshape(len(tokens), -1).cpu()
            outer += (tokens.T @ cells).double()
        if count <= dim:
            raise ValueError(f"{count} tokens can't fit a linear decoder of {dim} dims; give it more pictures")
        ridge = RIDGE * count * torch.eye(dim + 1, dtype=torch.float64)
        solution = torch.linalg.solve(inner + ridge, outer).T
        self.linear.weight.copy_(solution[:, :dim])
        self.linear.bias.copy_(solution[:, dim])
        mean = inner[:dim, dim] / count  # the last row and column are sums
        spread = (inner.diagonal()[:dim] / count - mean.square()).clamp_min(0.0).sqrt()
        self.spread.copy_(spread + SMALLEST_SPREAD)
        return self

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), [-1, 1] for black to white, of latents (N, P, D)."""
        space, network = self.config.latents, self.config.network
        x = self.cells(self.project_in(latents / self.spread if network.residual else latents))
        if network.residual:
            with torch.autocast(x.device.type, enabled=False):  # bfloat16 is coarser than the steps of a pixel
                x = x.float() + self.linear(latents.float())
        images = join_cells(x, space.grid, space.cell)
        if network.output == "tanh":
            images = images.tanh()
        return images + self.refine(images) if network.refine else images

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images (..., H, W, 3) uint8 RGB of latents (..., P, D). Raises ValueError for latents of another shape."""
        space = self.config.latents
        if tuple(latents.shape[-2:]) != (space.tokens, space.dim):
            wanted = f"(..., {space.tokens}, {space.dim})"
            raise ValueError(f"latents are {tuple(latents.shape)}; this decoder takes {wanted}")
        flat = latents.reshape(-1, *latents.shape[-2:]).to(self.positions)
        images = torch.cat([to_pixels(self(part)) for part in flat.split(IMAGES_PER_CALL)])
        return images.view(*latents.shape[:-2], *images.shape[1:])


def refiner(channels: int) -> nn.Sequential:
    """What is to be added to pictures (N, 3, H, W): nothing at first. Every pixel of it sees 13 pixels around."""
    last = nn.Conv2d(channels, 12, 3, padding=1)
    first, second = nn.Conv2d(12, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(nn.PixelUnshuffle(2), first, nn.GELU(), second, nn.GELU(), last, nn.PixelShuffle(2))


def to_pixels(images: Tensor) -> Tensor:
    """(N, 3, H, W) in [-1, 1] to (N, H, W, 3) uint8."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def from_pixels(images: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1
