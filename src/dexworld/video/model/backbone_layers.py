"""What we change in a CogVideoX transformer: norms that see the hands, a way around narrow layers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dexworld.video.clips.clip import HAND_VECTOR, TIME_FACTOR

PATCH = 2  # latent cells on a side of a token, in both backbones


class Modulation(NamedTuple):
    """What a modulated norm is given in place of the time (B, D) alone: hands (B, f, E), (B, 1, E) for all frames."""

    time: Tensor
    hands: Tensor


class HandEmbedding(nn.Module):
    """Hand vectors (B, F, 128) -> embeddings (B, f, dim), one for each latent frame, or (B, 1, dim) when `pooled`.

    The two AdaLN ablations of the paper. The release's per-frame variant averages over time before use and sets two
    layers in a row to zero, so no gradient reaches them; here only the last one is zero.
    """

    def __init__(self, dim: int, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        layers = [nn.Linear(HAND_VECTOR, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim)]
        self.frame = nn.Sequential(*layers)
        # The four pixel frames of a latent frame, with their neighbours in the latent frames before and after.
        self.fold = nn.Linear(TIME_FACTOR * dim, dim)
        self.mix = nn.Conv1d(dim, dim, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """Embeddings (B, f or 1, D) of hand vectors (B, 1 + 4 n, V): one a latent frame, or one where `pooled`.

        Raises ValueError on another shape.
        """
        if vectors.shape[2] != HAND_VECTOR or (vectors.shape[1] - 1) % TIME_FACTOR:
            shape = f"(B, 1 + {TIME_FACTOR} n, {HAND_VECTOR})"
            raise ValueError(f"hand vectors must be {shape}, not {tuple(vectors.shape)}")
        embedded = self.frame(vectors)
        padded = torch.cat([embedded[:, :1].expand(-1, TIME_FACTOR, -1), embedded[:, 1:]], dim=1)
        folded = self.fold(padded.unflatten(1, (-1, TIME_FACTOR)).flatten(2))  # (B, f, dim)
        mixed = folded + self.mix(functional.silu(folded).transpose(1, 2)).transpose(1, 2)
        return self.norm(mixed.mean(dim=1, keepdim=True) if self.pooled else mixed)


class HandModulatedNorm(nn.Module):
    """CogVideoX's norm with a second source of shift, scale and gate: the hands, whose layer starts at zero."""

    def __init__(self, norm: Any, hand_dim: int) -> None:
        super().__init__()
        self.norm = norm
        self.hands = zero_linear(hand_dim, norm.linear.out_features)

    def forward(self, video: Tensor, text: Tensor, modulation: Modulation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normed video (B, f P, D) and text (B, L, D), and the gates of both."""
        base = self.norm
        time = base.linear(base.silu(modulation.time))[:, None]  # (B, 1, 6 D)
        hands = self.hands(base.silu(modulation.hands))  # (B, f or 1, 6 D)
        frames = hands.shape[1]
        if video.shape[1] % frames:
            raise ValueError(f"{video.shape[1]} video tokens don't divide into {frames} latent frames")
        shift, scale, gate = (
            each if frames == 1 else each.repeat_interleave(video.shape[1] // frames, dim=1)
            for each in (time + hands).chunk(6, dim=2)[:3]
        )
        text_shift, text_scale, text_gate = (time + hands.mean(dim=1, keepdim=True)).chunk(6, dim=2)[3:]
        video = base.norm(video) * (1 + scale) + shift
        text = base.norm(text) * (1 + text_scale) + text_shift
        return video, text, gate, text_gate


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts at zero: gradient reaches it, but nothing comes out yet."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def modulate_by_hands(transformer: Any, hand_dim: int) -> None:
    """Give both norms of every block of a CogVideoX transformer a hand input, in place."""
    for block in transformer.transformer_blocks:
        block.norm1 = HandModulatedNorm(block.norm1, hand_dim)
        block.norm2 = HandModulatedNorm(block.norm2, hand_dim)


class GatedSkip(nn.Module):
    """sum_k gate_k(token) W_k input, for K maps W_k shared by all tokens; starts at zero.

    A token of 2 x 2 latent cells takes in 4 (3 C + 1) numbers and puts out 4 C. Published models are wide enough to
    carry them. A model 128 or 192 wide only decides which linear maps of its input make up the output.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, maps: int) -> None:
        super().__init__()
        self.maps, cells = maps, PATCH**2
        self.linear = nn.Linear(cells * in_channels, maps * cells * out_channels, bias=False)
        self.norm = nn.LayerNorm(width)
        self.gates = zero_linear(width, maps)

    def forward(self, channels: Tensor, tokens: Tensor) -> Tensor:
        """What to add to the output (B, f, C, h, w), for inputs (B, f, in, h, w) and last tokens (B, f P, width)."""
        batch, frames = channels.shape[:2]
        cells = functional.pixel_unshuffle(channels.flatten(0, 1), PATCH)  # (B f, 4 in, h/2, w/2)
        rows, columns = cells.shape[2:]
        inputs = cells.flatten(2).transpose(1, 2)  # (B f, P, 4 in)
        gates = self.gates(self.norm(tokens)).unflatten(1, (frames, -1)).flatten(0, 1)  # (B f, P, K)
        mapped = self.linear(inputs).unflatten(2, (self.maps, -1))  # (B f, P, K, 4 C)
        mixed = (gates[:, :, None] @ mapped)[:, :, 0]  # (B f, P, 4 C)
        grid = mixed.transpose(1, 2).unflatten(2, (rows, columns))
        return functional.pixel_shuffle(grid, PATCH).unflatten(0, (batch, frames))

    @torch.no_grad()
    def copy_from(self, other: "GatedSkip") -> None:
        """Take over another's weights; further input channels, which stand last, start at zero."""
        known = other.linear.in_features
        self.linear.weight.zero_()
        self.linear.weight[:, :known] = other.linear.weight
        self.norm.load_state_dict(other.norm.state_dict())
        self.gates.load_state_dict(other.gates.state_dict())
