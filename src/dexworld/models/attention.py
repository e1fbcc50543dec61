"""Scaled dot-product attention, and the exact merge of attention over two sets of keys.

The merge lets all candidates of a plan share the keys of the observed frames without a copy for each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EXPLICIT_CHUNK = 1 << 24  # scores held at a time by the explicit path
FUSED_ALIGNMENT = 8  # CUDA's fused kernel takes head widths that are multiples of this


def split_heads(x_NLD: Tensor, heads: int) -> Tensor:
    """(N, L, D) to (N, heads, L, D / heads), as a view."""
    return x_NLD.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x_NHLd: Tensor) -> Tensor:
    """(N, H, L, d) to (N, L, H * d)."""
    return x_NHLd.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of queries (N, H, Q, d) to keys and values (N, H, L, d): (N, H, Q, d)."""
    # On CPUs the fused kernel's backward in bfloat16 is several times slower than plain products, which AMX runs fast.
    if query.dtype == torch.bfloat16 and query.device.type == "cpu" and _wants_gradient(query, key, value):
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return scores.softmax(dim=-1, dtype=torch.bfloat16) @ value
    return F.scaled_dot_product_attention(query, key, value)


def attend_with_lse(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention as `attend`, with the log-sum-exp (N, H, Q) of the scaled scores. Both are differentiable."""
    if not _wants_gradient(query, key, value):
        if query.device.type == "cpu":
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
        if query.device.type == "cuda" and query.dtype != torch.float64 and query.shape[-1] % FUSED_ALIGNMENT == 0:
            output, lse, _, _ = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)
            return output, lse[..., : query.shape[-2]]
    return _explicit(query, key, value)


def _wants_gradient(*inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and any(each.requires_grad for each in inputs)


def _explicit(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    query = query * query.shape[-1] ** -0.5
    rows = max(1, EXPLICIT_CHUNK // max(1, query.shape[0] * query.shape[1] * key.shape[-2]))
    outputs, lses = [], []
    for part in query.split(rows, dim=-2):
        scores = part @ key.transpose(-1, -2)
        lse = scores.logsumexp(dim=-1)
        outputs.append((scores - lse[..., None]).exp() @ value)
        lses.append(lse)
    return torch.cat(outputs, dim=-2), torch.cat(lses, dim=-1)


def merge_attention(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over the union of two disjoint key sets, from (output, log-sum-exp) over each: their weighted mean."""
    (output_a, lse_a), (output_b, lse_b) = first, second
    share = torch.sigmoid(lse_a - lse_b)[..., None].to(output_a.dtype)
    return torch.lerp(output_b, output_a, share)
