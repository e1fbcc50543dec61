"""CogVideoX's attention, with explicit products where torch's fused kernel is slow: bfloat16 training on a CPU.

On the CPU the fused kernel's backward pass takes a large part of a small model's training step. Plain matrix products
make the whole step about 1.2 times as fast (benchmarks/video.py); everywhere else the fused kernel runs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LONGEST = 1024  # tokens; beyond, the table of products costs more memory than it saves time


class JointAttention:
    """An attention processor for diffusers' CogVideoX blocks: video and text tokens attend to each other."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attended video (B, P, D) and text (B, L, D); the rotary tables (P, head_dim) turn video tokens only."""
        texts = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query, key, value = (
            project(tokens).unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        if image_rotary_emb is not None:
            query, key = (
                torch.cat([each[:, :, :texts], rotated(each[:, :, texts:], *image_rotary_emb)], dim=2)
                for each in (query, key)
            )
        query, key = query.to(value.dtype), key.to(value.dtype)
        mixed = attend(query, key, value, attention_mask).transpose(1, 2).flatten(2)
        mixed = attn.to_out[1](attn.to_out[0](mixed))
        return mixed[:, texts:], mixed[:, :texts]


def rotated(tokens: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Tokens (B, heads, P, head_dim), each pair of neighbouring channels turned by its angle; tables (P, head_dim)."""
    even, odd = tokens.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (tokens * cosine.to(tokens) + turned * sine.to(tokens)).to(tokens.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention (B, heads, P, head_dim), by whichever of the two ways is faster here; equal up to rounding."""
    slow = value.device.type == "cpu" and value.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if slow and mask is None and query.shape[2] <= LONGEST:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return scores.softmax(dim=-1).to(value.dtype) @ value
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
