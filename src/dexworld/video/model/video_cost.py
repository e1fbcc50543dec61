"""What a preset costs before anything is loaded: tokens, parameters, memory and time (`--dry-run`)."""

from dataclasses import dataclass

from dexworld.video.model.backbone import Backbone
from dexworld.video.model.backbone_layers import PATCH
from dexworld.video.model.lora import LoRAConfig, add_lora
from dexworld.video.model.published_parts import require
from dexworld.video.model.train_video import (
    VideoRunConfig,
    check_data,
    check_held_out,
    open_run,
    preset_config,
    trained_seeds,
)
from dexworld.video.model.video_config import DWMConfig

STEPS = 50  # of sampling, with guidance
TFLOPS = 370.0  # 10^12 operations a second: CogVideoX-5B's 90 s for a clip (50 steps, guidance, H100)
# Bytes that autograd keeps of one block for each token and each number of the token's width: (trained in full, with
# LoRA), without and with `bfloat16`. Measured by tests/video/test_video_estimate.py on fused attention. Frozen linear
# layers keep no inputs.
KEPT = {
    "cogvideox": {False: (93.0, 57.5), True: (49.0, 35.0)},
    "wan": {False: (122.0, 74.0), True: (85.0, 56.0)},
}


@dataclass(frozen=True)
class Cost:
    """The estimate. Memory in bytes, operations in FLOPs (a multiply and an add are two), time in seconds."""

    video_tokens: int
    text_tokens: int
    parameters: int
    trained: int
    adapters: int
    weights_bytes: int
    gradients_bytes: int
    optimiser_bytes: int
    ema_bytes: int
    activations_bytes: int
    forward_flops: float
    step_flops: float
    sample_flops: float
    step_seconds: float
    sample_seconds: float

    @property
    def training_bytes(self) -> int:
        """Memory of training."""
        state = self.weights_bytes + self.gradients_bytes + self.optimiser_bytes + self.ema_bytes
        return state + self.activations_bytes


def estimate(config: DWMConfig, run: VideoRunConfig) -> Cost:
    """The cost of training and sampling, without frozen VAE and text encoder. Raises ImportError.

    Of `run` the settings that change it: batch_size, bfloat16 (of products; weights are float32), ema, lora_rank and
    recompute.
    """
    require("diffusers", "accelerate", "peft")
    from accelerate import init_empty_weights

    lora, batch = run.lora_rank > 0, run.training.batch_size
    with init_empty_weights():
        backbone = Backbone(config)
        if lora:
            add_lora(backbone.transformer, LoRAConfig(run.lora_rank, run.lora_rank))
    sizes = {name: (each.numel(), each.requires_grad) for name, each in backbone.named_parameters()}
    adapters = sum(size for name, (size, _) in sizes.items() if ".lora_" in name)
    parameters = sum(size for size, _ in sizes.values()) - adapters
    trained = sum(size for size, trains in sizes.values() if trains)
    linear, attention, other = forward_flops(config)
    forward = linear + attention + other
    # Backward: a product for each layer's input, another for its weight unless frozen; fused attention repeats its own.
    step = forward * (2 if run.recompute else 1) + linear * (1 if lora else 2) + 2.5 * attention + 2 * other
    step, sample = batch * step, forward * STEPS * 2  # guidance takes a second pass
    return Cost(
        *token_counts(config),
        parameters,
        trained,
        adapters,
        weights_bytes=4 * (parameters + adapters),
        gradients_bytes=4 * trained,
        optimiser_bytes=8 * trained,
        ema_bytes=4 * trained if run.training.ema > 0 else 0,
        activations_bytes=_activations(config, run, parameters),
        forward_flops=forward,
        step_flops=step,
        sample_flops=sample,
        step_seconds=step / TFLOPS / 1e12,
        sample_seconds=sample / TFLOPS / 1e12,
    )


def token_counts(config: DWMConfig) -> tuple[int, int]:
    """(video tokens, text tokens) of one clip: f h w / 4, and the text encoder's length."""
    clip = config.clip
    video = clip.latent_frames * (clip.latent_height // PATCH) * (clip.latent_width // PATCH)
    return video, config.backbone.text_tokens


def describe_run(run: VideoRunConfig) -> str:
    """The estimate of a run's preset as lines of text. Raises what training would, and ValueError for other starts."""
    if run.base is not None or run.initial is not None:
        raise ValueError("a dry run estimates a `preset`: name one like your model, without base or initial")
    config = preset_config(run)
    if run.data:
        _, folders, held_out = open_run(run)
        check_held_out(held_out, trained_seeds(folders, None))
        check_data(run, config, folders + held_out)
    result, clip = estimate(config, run), config.clip
    how = f"LoRA rank {run.lora_rank} and the patch embedding" if run.lora_rank else "full training"
    kept = "recomputed in the backward pass" if run.recompute else "all kept"
    shape = f"{clip.latent_frames} x {config.codec.channels} x {clip.latent_height} x {clip.latent_width}"
    sampled = f"({STEPS} steps with guidance)"
    rows = {
        "clip": f"{clip.frames} frames of {clip.height} x {clip.width} pixels at {clip.fps:g} fps, latents {shape}",
        "tokens": f"{result.video_tokens:,} video + {result.text_tokens:,} text",
        "parameters": f"{_count(result.parameters)}, {config.in_channels} input channels",
        "trained": f"{_count(result.trained)} ({how})",
        "weights": f"{_bytes(result.weights_bytes)} ({'autocast' if run.training.bfloat16 else 'float32'})",
        "gradients": _bytes(result.gradients_bytes),
        "optimiser": f"{_bytes(result.optimiser_bytes)} (AdamW)",
        **({"averaged weights": _bytes(result.ema_bytes)} if result.ema_bytes else {}),
        "activations": f"{_bytes(result.activations_bytes)} (batch {run.training.batch_size}, {kept})",
        "training": f"{_bytes(result.training_bytes)} in all, without the VAE and the text encoder",
        "a step": f"{result.step_flops / 1e12:,.3g} TFLOP, {_seconds(result.step_seconds)}",
        "a sampled clip": f"{result.sample_flops / 1e12:,.3g} TFLOP, {_seconds(result.sample_seconds)} {sampled}",
        "time": f"assumes {TFLOPS:g} TFLOP/s sustained",
    }
    return "\n".join([run.preset, *(f"  {label:<17}{value}" for label, value in rows.items())])


def forward_flops(config: DWMConfig) -> tuple[float, float, float]:
    """FLOPs of one clip's forward pass: the blocks' linear layers, their attention, and all around them."""
    backbone, (video, text) = config.backbone, token_counts(config)
    width, mlp = backbone.width, backbone.mlp_dim or 4 * backbone.width
    around = 2 * video * width * PATCH**2 * (config.in_channels + config.codec.channels)
    around += 2 * text * backbone.text_dim * width
    if backbone.kind == "cogvideox":
        linear = 2 * (video + text) * (4 * width**2 + 2 * width * mlp)
        attention = 4 * (video + text) ** 2 * width
    else:
        linear = 2 * video * (6 * width**2 + 2 * width * mlp) + 2 * text * 2 * width**2
        attention = 4 * video * (video + text) * width
        around += 2 * text * width**2
    blocks = backbone.depth + (config.control_depth if config.condition == "control" else 0)
    return float(blocks * linear), float(blocks * attention), float(around)


def _activations(config: DWMConfig, run: VideoRunConfig, parameters: int) -> int:
    """Bytes kept for the backward pass, at its peak."""
    backbone, (video, text) = config.backbone, token_counts(config)
    frozen, bfloat16 = run.lora_rank > 0, run.training.bfloat16
    numbers = run.training.batch_size * (video + (text if backbone.kind == "cogvideox" else 0)) * backbone.width
    kept = KEPT[backbone.kind][bfloat16][int(frozen)]
    # The table is for a feed-forward part of 4 x width: its product's input and output, or only the input when frozen.
    ratio = (backbone.mlp_dim or 4 * backbone.width) / backbone.width
    block = numbers * (kept + (ratio - 4) * (2 if bfloat16 else 4) * (1 if frozen else 2))
    if bfloat16:
        block += 2 * parameters / backbone.depth  # the block's weights, rounded
    return round(4 * backbone.depth * numbers + block if run.recompute else backbone.depth * block)


def _count(number: int) -> str:
    return f"{number / 1e9:.3f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"


def _bytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 / 10 else f"{number / 2**20:.1f} MiB"


def _seconds(number: float) -> str:
    return f"about {number:.2g} s" if number < 100 else f"about {number / 60:.2g} min"
