"""A way around a narrow transformer: linear maps from a token's input to its output, mixed by what it has learned.

A token of CogVideoX covers 2 x 2 latent cells: with C channels it takes in 4 (3 C + 1) numbers and puts out 4 C.
Published models are 3,072 wide and carry all of it. A model 128 or 192 wide has no room to carry noise, scene and hands
through its layers and to think as well; so it only decides, token by token, which linear maps of its input make up the
output.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class GatedSkip(nn.Module):
    """sum_k gate_k(token) W_k input, for K maps W_k shared by all tokens; starts at zero.

    in_channels, out_channels: of latents. width: of the transformer's tokens.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, maps: int, patch: int = 2) -> None:
        super().__init__()
        self.patch, self.maps = patch, maps
        cells = patch * patch
        self.linear = nn.Linear(cells * in_channels, maps * cells * out_channels, bias=False)
        self.norm = nn.LayerNorm(width)
        self.gates = nn.Linear(width, maps)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)

    def forward(self, channels: Tensor, tokens: Tensor) -> Tensor:
        """What to add to the output (B, f, C, h, w), for inputs (B, f, in, h, w) and last tokens (B, f P, width)."""
        batch, frames = channels.shape[:2]
        cells = functional.pixel_unshuffle(channels.flatten(0, 1), self.patch)  # (B f, 4 in, h/2, w/2)
        rows, columns = cells.shape[2:]
        inputs = cells.flatten(2).transpose(1, 2)  # (B f, P, 4 in)
        gates = self.gates(self.norm(tokens)).unflatten(1, (frames, -1)).flatten(0, 1)  # (B f, P, K)
        mapped = self.linear(inputs).unflatten(2, (self.maps, -1))  # (B f, P, K, 4 C)
        mixed = (gates[:, :, None] @ mapped)[:, :, 0]  # (B f, P, 4 C)
        grid = mixed.transpose(1, 2).unflatten(2, (rows, columns))
        return functional.pixel_shuffle(grid, self.patch).unflatten(0, (batch, frames))

    @torch.no_grad()
    def copy_from(self, other: "GatedSkip") -> None:
        """Take over another's weights; further input channels, which stand last, start at zero."""
        known = other.linear.in_features
        self.linear.weight.zero_()
        self.linear.weight[:, :known] = other.linear.weight
        self.norm.load_state_dict(other.norm.state_dict())
        self.gates.load_state_dict(other.gates.state_dict())
