"""Recomputing the blocks of a transformer in the backward pass, for less memory."""

from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from dexworld.models.world_model import Blocks

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


def recompute_blocks(blocks: Blocks, recompute: Literal["none", "selective", "full"]) -> None:
    """Change the methods of `blocks` in place. Parameters and names stay.

    A recomputed block keeps its inputs, and what attention to the context needs, instead of everything in between.
    """
    if recompute == "none":
        return
    contexts: dict[str, Any] = {}
    if recompute == "selective":
        contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for block in blocks.layers:
        for name in ("forward", *blocks.methods):
            setattr(block, name, partial(checkpoint, getattr(block, name), use_reentrant=False, **contexts))


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
