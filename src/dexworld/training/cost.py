"""What a window costs in closed form: operations, parameters, memory; and how fast a run is, measured by them.

Tests compare the closed forms with torch's own counters. Recomputed activations are not counted, so the share of the
peak is "model FLOPs utilization" (MFU) as in Chowdhery et al., "PaLM", 2022, appendix B.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.utils.flop_counter import FlopCounterMode

from dexworld.baselines.goal_policy import GoalPolicy, GoalPolicyConfig
from dexworld.models.config import DexWMConfig
from dexworld.models.encoders.cnn import Lite0
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.predictor import Predictor
from dexworld.training.train_config import TrainConfig

KEPT_BLOCK = 110  # bytes that autograd keeps per token, number of width and predictor block, bfloat16 or float32
KEPT_HEAD = 65  # the same of the keypoint head; both measured with saved_tensors_hooks, see the test
# Layers and width of the MLP of the encoders in docs/model.md, by width, from their config.json on the hub:
# SigLIP 2 so400m has intermediate_size 4304, V-JEPA 2 giant mlp_ratio 48 / 11.
VIT_SHAPES = {384: (12, 1536), 768: (12, 3072), 1024: (24, 4096), 1152: (27, 4304), 1408: (40, 6144)}


def trained_parameters(config: DexWMConfig) -> int:
    """Parameters of predictor and keypoint head, counted without allocating them."""
    space = (config.encoder.dim, config.grid, config.image_size)
    with torch.device("meta"):
        predictor = Predictor(config.predictor, *space, config.action_scale, config.action_dim)
        parts = (predictor, KeypointHead(config.keypoint_head, *space))
    return sum(each.numel() for part in parts for each in part.parameters())


def window_bytes(config: DexWMConfig, checkpointed: bool = False) -> int:
    """What autograd keeps of a window; checkpointed: of predictor blocks, one at a time is recomputed."""
    own, head, tokens = config.predictor, config.keypoint_head, config.grid[0] * config.grid[1] * config.num_context
    block = own.dim * tokens
    if checkpointed:
        return 4 * block * own.depth + KEPT_BLOCK * block
    return KEPT_BLOCK * block * own.depth + KEPT_HEAD * head.dim * tokens * head.depth


def predictor_flops(config: DexWMConfig, unroll_steps: int | None = None) -> float:
    """Forward operations of a window, teacher-forced or unrolled for some steps; a multiply and an add are two.

    Linear layers of a block in units of d^2 per token: 3 + 1 self, 1 + 1 cross, 2 r MLP for queries, 2 for keys and
    values. Modulations are left out.
    """
    d, tokens, own = config.predictor.dim, config.grid[0] * config.grid[1], config.predictor
    predicted = attended = own.num_context
    pairs = predicted * (predicted + 1) // 2  # of query and context frames in the cross-attention
    if unroll_steps is not None:
        predicted, attended, pairs = unroll_steps, attended + unroll_steps - 1, unroll_steps * attended
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
    """Operations of the frozen encoder on one frame: a transformer of this width, convolutions, or a product (pca)."""
    dim, tokens = config.encoder.dim, config.grid[0] * config.grid[1]
    if (network := _cnn(config)) is not None:
        return 2.0 * tokens * config.encoder.patch**2 * network.products()
    return 2.0 * tokens * (encoder_parameters(config) + _encoder_shape(config)[0] * 2 * tokens * dim)


def encoder_parameters(config: DexWMConfig) -> int:
    """Weights of products of matrices: each is used once for each token, but for those of a cnn."""
    dim, encoder = config.encoder.dim, config.encoder
    if (network := _cnn(config)) is not None:
        return sum(each.numel() for each in network.parameters())
    layers, hidden = _encoder_shape(config)
    images = 2 if encoder.family == "vjepa2" else 1  # V-JEPA 2 makes a token of two frames: the image twice
    return layers * (4 * dim**2 + 2 * dim * hidden) + images * 3 * encoder.patch**2 * dim


def _cnn(config: DexWMConfig) -> Lite0 | None:
    if config.encoder.kind != "cnn":
        return None
    with torch.device("meta"):
        return Lite0(config.encoder.block or 0)


def _encoder_shape(config: DexWMConfig) -> tuple[int, int]:
    """Layers, and width of their MLP; none for pca, ViT-L's depth and the usual ratio for a width that is not known."""
    if config.encoder.kind == "pca":
        return 0, 0
    return VIT_SHAPES.get(config.encoder.dim, (24, 4 * config.encoder.dim))


def training_flops(config: DexWMConfig, training: TrainConfig, encoded: bool, unroll_steps: int | None = None) -> float:
    """Operations of training on one window, teacher-forced or unrolled: three times those of the forward pass.

    The keypoint head reads `keypoint_frames` frames, predicted and true. encoded: whether frames are encoded on the
    way (a frozen encoder has no backward pass).
    """
    passes = int(training.hand_consistency > 0) + int(training.true_keypoints > 0)
    read = passes * min(training.keypoint_frames, unroll_steps or config.num_context)
    encoder = (config.num_context + (unroll_steps or 1)) * encoder_flops(config) if encoded else 0.0
    return 3 * (predictor_flops(config, unroll_steps) + read * head_flops(config)) + encoder


def policy_cost(config: GoalPolicyConfig, encoder: DexWMConfig) -> tuple[int, float]:
    """Parameters of a policy, and operations of training it on one window that is encoded on the way.

    torch counts them on tensors without data. encoder: the world model whose encoder it is. Raises ImportError for
    Diffusion Policy without diffusers.
    """
    space, seen = config.latents, config.history
    with torch.device("meta"):
        policy, steps = GoalPolicy(config), torch.empty(1)
        latents, joints = torch.empty(1, seen + 1, space.tokens, space.dim), torch.empty(1, seen, 2 * config.joints)
        moves = torch.empty(1, config.horizon, config.joints)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        told = policy.condition(policy.look(latents)[0], joints)
        policy.network(*((told,) if config.form == "bc" else (moves, steps, told)))
    encoded = (seen + 1) * encoder_flops(encoder)
    return sum(each.numel() for each in policy.parameters()), 3 * counter.get_total_flops() + encoded


# 10^12 dense bfloat16 products per second, summed in float32, by how the driver's name begins. Source: NVIDIA's data
# sheets of A100, H100, H200 and HGX B200. Where a sheet gives the figure "with sparsity" only, it is half of that.
PEAK_BFLOAT16_TFLOPS = {
    "NVIDIA A100": 312.0,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H200": 989.4,
    "NVIDIA B200": 2250.0,
}


def known_peak(device: torch.device, bfloat16: bool) -> float | None:
    """The peak of `device` in 10^12 operations per second; None where it is not known."""
    if device.type != "cuda" or not bfloat16:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for start, peak in PEAK_BFLOAT16_TFLOPS.items() if name.startswith(start)), None)


@dataclass
class Meter:
    """Counts what steps took since the last figures; batches count whole, over all devices.

    flops: operations of training on one sample of batch number i, or None where no closed form is known. devices: how
    many share a batch. peak_tflops: of one device, or None.
    """

    flops: Callable[[int], float] | None = None
    devices: int = 1
    peak_tflops: float | None = None
    seconds: float = field(default=0.0, init=False)
    samples: int = field(default=0, init=False)
    operations: float = field(default=0.0, init=False)

    def add(self, index: int, samples: int, seconds: float) -> None:
        """Count `samples` samples of batches like number `index`, which took `seconds`, loading included."""
        self.samples += samples
        self.seconds += seconds
        if self.flops is not None:
            self.operations += samples * self.flops(index)

    def figures(self) -> dict[str, float]:
        """samples_per_second, tflops (of one device) and mfu, as far as they are known; counting starts anew."""
        seconds = max(self.seconds, 1e-9)
        figures = {"samples_per_second": self.samples / seconds}
        if self.flops is not None:
            tflops = self.operations / seconds / self.devices / 1e12
            figures["tflops"] = tflops
            if self.peak_tflops is not None:
                figures["mfu"] = tflops / self.peak_tflops
        self.seconds, self.samples, self.operations = 0.0, 0, 0.0
        return figures
