"""What makes the blocks of a transformer cheaper in training: recomputing them in the backward pass, compiling them."""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn
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
COMPILER = "inductor"


def prepare_blocks(
    blocks: Sequence[nn.Module],
    methods: tuple[str, ...],
    recompute: Literal["none", "selective", "full"],
    compiled: tuple[str, ...] = (),
) -> None:
    """Change `blocks` in place. methods: those that training calls beside `forward`. Parameters and names stay.

    A recomputed block keeps its inputs, and what attention to the context needs, instead of everything in between.
    compiled: methods that are compiled; they take and give tensors only, whose first axis may have any length. All
    blocks share the code.
    """
    for block in blocks:
        for name in compiled:
            # Inside compiled code `selective` is for the compiler to see to; around it, nothing could look in.
            function = getattr(block, name)
            inner = _recomputed(function, selective=True) if recompute == "selective" else function
            setattr(block, name, _compiled(function, inner))
        if recompute == "full" or (recompute == "selective" and not compiled):
            for name in ("forward", *methods):
                setattr(block, name, _recomputed(getattr(block, name), recompute == "selective"))


def check_compiler(device: torch.device) -> None:
    """Compile and run a line of code. Raises ValueError saying what is missing on this machine."""
    if COMPILER != "inductor":
        return
    try:
        torch.compile(lambda x: x + 1, backend=COMPILER)(torch.zeros(2, device=device))
    except Exception as error:  # compilers fail in many ways; whichever it is, nothing can be compiled here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"`--compile True` can't compile for {device}: {reason}. It needs a C++ compiler (g++ or clang; the "
            "environment variable CXX names another), on a GPU also a C compiler and Triton. Or leave the option out"
        ) from error


def _compiled(plain: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled for training; without gradients `plain` runs, so that figures of validation stay the same."""
    from torch._dynamo import maybe_mark_dynamic  # slow to import

    compiled = torch.compile(function, backend=COMPILER)

    @wraps(plain)
    def call(*tensors: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return plain(*tensors)
        tensors = tuple(each.contiguous() for each in tensors)  # one layout: otherwise each had code of its own
        for each in tensors:
            maybe_mark_dynamic(each, 0)
        return compiled(*tensors)

    return call


def _recomputed(function: Callable[..., Any], selective: bool) -> Callable[..., Any]:
    contexts: dict[str, Any] = {}
    if selective:
        contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return partial(checkpoint, function, use_reentrant=False, **contexts)


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
