"""What a window costs in closed form: operations, parameters, memory. Tests compare it with torch's own counters."""

from dataclasses import dataclass
from typing import Any

import torch

from dexworld.models.config import DexWMConfig
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.predictor import Predictor
from dexworld.training.config import TrainConfig

KEPT_BLOCK = 110  # bytes that autograd keeps per token, number of width and predictor block, bfloat16 or float32
KEPT_HEAD = 65  # the same of the keypoint head; both measured with saved_tensors_hooks, see the test
# Layers and width of the MLP of the encoders in docs/model.md, by width, from their config.json on the hub:
# SigLIP 2 so400m has intermediate_size 4304, V-JEPA 2 giant mlp_ratio 48 / 11.
VIT_SHAPES = {384: (12, 1536), 768: (12, 3072), 1024: (24, 4096), 1152: (27, 4304), 1408: (40, 6144)}


@dataclass(frozen=True)
class ModelCost:
    """Of one window. Operations count a multiply and an add as two.

    trained, encoder: parameters. teacher_flops, unrolled_flops: forward passes of predictor and head.
    encoder_flops: of one frame. kept_bytes: what autograd keeps; checkpointed_bytes: with activation checkpointing.
    """

    trained: int
    encoder: int
    teacher_flops: float
    unrolled_flops: float
    encoder_flops: float
    kept_bytes: int
    checkpointed_bytes: int


def model_cost(config: DexWMConfig, unroll_steps: int) -> ModelCost:
    """The cost of one window of this model, whose parameters are counted without allocating them."""
    predictor, tokens = config.predictor, config.grid[0] * config.grid[1]
    with torch.device("meta"):
        parts = (
            Predictor(predictor, config.encoder.dim, config.grid, config.image_size, config.action_scale),
            KeypointHead(config.keypoint_head, config.encoder.dim, config.grid, config.image_size),
        )
    trained = sum(each.numel() for part in parts for each in part.parameters())
    context = predictor.num_context
    head = head_flops(config)
    block = predictor.dim * tokens * context
    kept = KEPT_BLOCK * block * predictor.depth + KEPT_HEAD * tokens * config.keypoint_head.dim * (
        config.keypoint_head.depth * context
    )
    return ModelCost(
        trained=trained,
        encoder=_encoder_parameters(config),
        teacher_flops=predictor_flops(config, context, context, context * (context + 1) // 2) + context * head,
        unrolled_flops=predictor_flops(config, unroll_steps, context + unroll_steps - 1, unroll_steps * context)
        + unroll_steps * head,
        encoder_flops=encoder_flops(config),
        kept_bytes=kept,
        checkpointed_bytes=4 * block * predictor.depth + KEPT_BLOCK * block,
    )


def predictor_flops(config: DexWMConfig, predicted: int, attended: int, pairs: int) -> float:
    """Forward operations of a window: `predicted` frames of queries, `attended` frames of keys and values.

    pairs: (query frame, context frame) pairs of the cross-attention. Linear layers of a block in units of d^2 per
    token: 3 + 1 self, 1 + 1 cross, 2 r MLP for queries, 2 for keys and values. Modulations are left out.
    """
    d, tokens, own = config.predictor.dim, config.grid[0] * config.grid[1], config.predictor
    linear = (6 + 2 * own.mlp_ratio) * predicted + 2 * attended
    attention = 2 * tokens * (predicted + pairs)
    ends = d * d + (0 if config.encoder.dim == d else 2 * config.encoder.dim * d)
    return 2.0 * tokens * (own.depth * (linear * d * d + attention * d) + predicted * ends)


def head_flops(config: DexWMConfig) -> float:
    """Forward operations of the keypoint head on one frame."""
    head, tokens = config.keypoint_head, config.grid[0] * config.grid[1]
    linear = head.depth * (4 + 2 * head.mlp_ratio) * head.dim**2
    ends = head.dim * (config.encoder.dim + head.cell**2 * head.channels)
    return 2.0 * tokens * (linear + 2 * head.depth * tokens * head.dim + ends)


def encoder_flops(config: DexWMConfig) -> float:
    """Operations of the frozen encoder on one frame: a vision transformer of this width, or a product for pca."""
    dim, tokens = config.encoder.dim, config.grid[0] * config.grid[1]
    layers, _ = _encoder_shape(config)
    return 2.0 * tokens * (_encoder_parameters(config) + layers * 2 * tokens * dim)


def _encoder_parameters(config: DexWMConfig) -> int:
    """Weights of products of matrices: each is used once for each token."""
    dim, encoder = config.encoder.dim, config.encoder
    layers, hidden = _encoder_shape(config)
    images = 2 if encoder.family == "vjepa2" else 1  # V-JEPA 2 makes a token of two frames: the image twice
    return layers * (4 * dim**2 + 2 * dim * hidden) + images * 3 * encoder.patch**2 * dim


def _encoder_shape(config: DexWMConfig) -> tuple[int, int]:
    """Layers, and width of their MLP; none for pca, ViT-L's depth and the usual ratio for a width that is not known."""
    if config.encoder.kind == "pca":
        return 0, 0
    return VIT_SHAPES.get(config.encoder.dim, (24, 4 * config.encoder.dim))


def training_flops(config: Any, training: TrainConfig, encoded: bool) -> tuple[float, float] | None:
    """Operations of training on one window, teacher-forced and unrolled: three times those of the forward pass.

    None for a model whose operations have no closed form here.

    The keypoint head reads `keypoint_frames` frames, predicted and true. encoded: whether frames are encoded on the way
    (a frozen encoder has no backward pass). Recomputed activations are not counted.
    """
    if not isinstance(config, DexWMConfig):
        return None
    context = config.predictor.num_context
    passes = int(training.hand_consistency > 0) + int(training.true_keypoints > 0)
    cost, head = model_cost(config, training.unroll_steps), head_flops(config)
    totals = []
    for flops, predicted, slots in (
        (cost.teacher_flops, context, context + 1),
        (cost.unrolled_flops, training.unroll_steps, context + training.unroll_steps),
    ):
        predictor = flops - predicted * head  # `model_cost` counts the head on every predicted frame
        read = passes * min(training.keypoint_frames, predicted)
        totals.append(3 * (predictor + read * head) + (slots * cost.encoder_flops if encoded else 0.0))
    return totals[0], totals[1]
