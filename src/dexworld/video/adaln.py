"""The paper's other way to tell a video model about hands: keypoints through the adaptive norms (its AdaLN ablations).

Two variants. `global` pools the hands over time, so every token gets the same modulation. `per frame` gives each
video token the embedding of its own latent frame. The release's per-frame variant averages over time before use and
sets two layers in a row to zero, so no gradient reaches its weights; here only the last linear layer starts at zero.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dexworld.video.config import HAND_VECTOR, TIME_FACTOR


class Modulation(NamedTuple):
    """What a modulated norm is given in place of the time embedding alone.

    time: (B, D). hands: (B, f, E), or (B, 1, E) for every frame alike.
    """

    time: Tensor
    hands: Tensor


class HandEmbedding(nn.Module):
    """Hand vectors (B, F, 128) -> embeddings (B, f, dim), one for each latent frame, or (B, 1, dim) when `pooled`."""

    def __init__(self, dim: int, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        self.frame = nn.Sequential(
            nn.Linear(HAND_VECTOR, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        # The four pixel frames of a latent frame, with their neighbours in the latent frames before and after.
        self.fold = nn.Linear(TIME_FACTOR * dim, dim)
        self.mix = nn.Conv1d(dim, dim, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(dim)

    def forward(self, vectors: Tensor) -> Tensor:
        frames = vectors.shape[1]
        if vectors.shape[2] != HAND_VECTOR or (frames - 1) % TIME_FACTOR:
            raise ValueError(
                f"hand vectors must be (B, 1 + {TIME_FACTOR} n, {HAND_VECTOR}), not {tuple(vectors.shape)}"
            )
        embedded = self.frame(vectors)
        padded = torch.cat([embedded[:, :1].expand(-1, TIME_FACTOR, -1), embedded[:, 1:]], dim=1)
        folded = self.fold(padded.unflatten(1, (-1, TIME_FACTOR)).flatten(2))  # (B, f, dim)
        mixed = folded + self.mix(torch.nn.functional.silu(folded).transpose(1, 2)).transpose(1, 2)
        return self.norm(mixed.mean(dim=1, keepdim=True) if self.pooled else mixed)


class HandModulatedNorm(nn.Module):
    """CogVideoX's norm with a second source of shift, scale and gate: the hands.

    norm: the block's own norm; its weights keep their meaning. The new linear layer starts at zero, so that a new model
    computes exactly what the model without hands computes.
    """

    def __init__(self, norm: Any, hand_dim: int) -> None:
        super().__init__()
        self.norm = norm
        self.hands = nn.Linear(hand_dim, norm.linear.out_features)
        nn.init.zeros_(self.hands.weight)
        nn.init.zeros_(self.hands.bias)

    def forward(self, video: Tensor, text: Tensor, modulation: Modulation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normed video (B, f P, D) and text (B, L, D), and the gates of both.

        Raises ValueError when the video tokens don't divide into the frames.
        """
        base = self.norm
        time = base.linear(base.silu(modulation.time))[:, None]  # (B, 1, 6 D)
        hands = self.hands(base.silu(modulation.hands))  # (B, f or 1, 6 D)
        frames = hands.shape[1]
        if video.shape[1] % frames:
            raise ValueError(f"{video.shape[1]} video tokens don't divide into {frames} latent frames")
        shift, scale, gate = (time + hands).chunk(6, dim=2)[:3]
        shift, scale, gate = (
            each if frames == 1 else each.repeat_interleave(video.shape[1] // frames, dim=1)
            for each in (shift, scale, gate)
        )
        text_shift, text_scale, text_gate = (time + hands.mean(dim=1, keepdim=True)).chunk(6, dim=2)[3:]
        video = base.norm(video) * (1 + scale) + shift
        text = base.norm(text) * (1 + text_scale) + text_shift
        return video, text, gate, text_gate


def modulate_by_hands(transformer: Any, hand_dim: int) -> None:
    """Give both norms of every block of a CogVideoX transformer a hand input, in place."""
    for block in transformer.transformer_blocks:
        block.norm1 = HandModulatedNorm(block.norm1, hand_dim)
        block.norm2 = HandModulatedNorm(block.norm2, hand_dim)
