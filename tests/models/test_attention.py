"""Attention over a union of key sets, and its different kernels, agree."""

import torch

from dexworld.models import attention
from dexworld.models.attention import attend, attend_with_lse, merge_attention


def inputs(dtype: torch.dtype, *lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, length, 8, generator=generator, dtype=dtype) for length in lengths]


def merged_halves(query, key, value):
    """Attention to the first four keys and to the others, merged."""
    first, second = ((key[:, :, part], value[:, :, part]) for part in (slice(4), slice(4, None)))
    return merge_attention(attend_with_lse(query, *first), attend_with_lse(query, *second))


def test_merging_two_key_sets_is_attention_over_both():
    query, key, value = inputs(torch.float64, 5, 11, 11)
    assert (merged_halves(query, key, value) - attend(query, key, value)).abs().max() < 1e-14


def test_merging_survives_scores_that_would_overflow():
    query, key, value = inputs(torch.float32, 5, 11, 11)
    query = 1e4 * query
    assert torch.allclose(merged_halves(query, key, value), attend(query, key, value), atol=1e-3)


def test_the_explicit_path_equals_the_fused_one_in_chunks_and_with_gradients(monkeypatch):
    query, key, value = inputs(torch.float64, 7, 9, 9)
    expected_output, expected_lse = attend_with_lse(query, key, value)
    monkeypatch.setattr(attention, "EXPLICIT_CHUNK", 2 * 2 * 3 * 9)  # two rows at a time
    output, lse = attend_with_lse(query.requires_grad_(), key, value)
    assert (output - expected_output).abs().max() < 1e-14
    assert (lse - expected_lse).abs().max() < 1e-14
    lse.sum().backward()
    assert query.grad.abs().max() > 0


def test_bfloat16_attention_with_gradients_is_close_to_float32_forward_and_backward():
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        query, key, value = (each.to(dtype).requires_grad_() for each in inputs(torch.float32, 5, 11, 11))
        output = attend(query, key, value)
        assert output.dtype == dtype
        output.float().square().sum().backward()
        gradients.append([output.float(), query.grad.float(), key.grad.float(), value.grad.float()])
    for exact, rounded in zip(*gradients, strict=True):
        assert (exact - rounded).norm() < 0.03 * exact.norm()
