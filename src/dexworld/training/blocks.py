"""What makes the blocks of a transformer take less memory in training: recomputing them in the backward pass."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

_aten = torch.ops.aten
# Products of matrices and attention: most of a block's operations, a fraction of its memory.
KEPT = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}


def prepare_blocks(
    blocks: Sequence[nn.Module],
    methods: tuple[str, ...],
    recompute: Literal["none", "selective", "full"],
) -> None:
    """Change `blocks` in place. methods: those that training calls beside `forward`. Parameters and names stay.

    A recomputed block keeps its inputs, and what attention to the context needs, instead of everything in between.
    """
    if recompute == "none":
        return
    for block in blocks:
        for name in ("forward", *methods):
            setattr(block, name, _recomputed(getattr(block, name), recompute == "selective"))


def _recomputed(function: Callable[..., Any], selective: bool) -> Callable[..., Any]:
    if not selective:
        return partial(checkpoint, function, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    return partial(checkpoint, function, use_reentrant=False, context_fn=contexts)


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
