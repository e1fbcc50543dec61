"""The cost estimate against the published sizes, torch's FLOP counter, and what autograd keeps."""

from functools import cache
from pathlib import Path

import pytest
import torch

from dexworld.video.clips.clip import ClipShape
from dexworld.video.model.backbone import Backbone
from dexworld.video.model.lora import LoRAConfig, add_lora
from dexworld.video.model.train_video import VideoRunConfig
from dexworld.video.model.video_config import BackboneConfig, CodecConfig, DWMConfig, preset
from dexworld.video.model.video_cost import estimate
from dexworld.video.model.video_task import VideoTrainConfig

pytest.importorskip("diffusers")
pytest.importorskip("peft")
LORAS = pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])


@cache
def run_of(rank=0, batch=1, bfloat16=True, recompute=True, ema=0.0, **changes):
    training = VideoTrainConfig(batch_size=batch, bfloat16=bfloat16, ema=ema)
    settings = {"lora_rank": rank, "recompute": recompute, "training": training, **changes}
    return VideoRunConfig((Path("data"),), Path("run"), **settings)


@cache
def cost_5b(**changes):
    return estimate(preset("cogvideox-fun-5b"), run_of(**changes))


def small(kind, depth=2, **changes):
    sizes = {"heads": 4, "head_dim": 32, "depth": depth, "time_dim": 16, "text_tokens": 16, "text_dim": 32}
    backbone = BackboneConfig(kind, **sizes | changes)
    return DWMConfig(ClipShape(17, 96, 144), CodecConfig(), backbone, prediction="velocity")


def run(backbone):
    config = backbone.config
    channels = torch.randn(1, 5, config.in_channels, 12, 18, generator=torch.Generator().manual_seed(0))
    return backbone(channels, torch.tensor([500]))


def test_the_5b_model_has_its_published_tokens_and_parameters():
    cost = cost_5b()
    assert (cost.video_tokens, cost.text_tokens) == (17_550, 226)
    assert cost.parameters == 5_570_688_576  # 5.571 B with 49 input channels
    assert cost.trained == cost.parameters
    assert cost.weights_bytes == 4 * cost.parameters


def test_lora_trains_66_million_and_the_patch_embedding_of_the_5b_model():
    cost = cost_5b(rank=64)
    assert cost.adapters == 66_060_288
    assert cost.trained - cost.adapters == 605_184
    assert cost.parameters == 5_570_688_576
    assert cost.optimiser_bytes == 8 * cost.trained


def test_adapters_fit_into_80_gb_and_full_training_does_not():
    assert 30e9 < cost_5b(batch=2, rank=64).training_bytes < 80e9
    assert cost_5b(batch=2).training_bytes > 80e9


@pytest.mark.parametrize("name", ["wan2.1-fun-1.3b", "wan2.1-fun-14b"])
def test_wan_models_have_the_sizes_in_their_names(name):
    cost = estimate(preset(name), run_of())
    billions = float(name.rsplit("-", 1)[1].rstrip("b"))
    assert cost.parameters / 1e9 == pytest.approx(billions, rel=0.1)


def counted_flops(backbone, backward):
    """By torch's counter, which knows matrix products but not the fused attention of a CPU."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.set_grad_enabled(backward):
        answer = run(backbone)
        if backward:
            answer.square().mean().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", ["cogvideox", "wan"])
@pytest.mark.parametrize("mlp_dim", [0, 768])
def test_forward_operations_are_those_that_torch_counts(kind, mlp_dim):
    config = small(kind, mlp_dim=mlp_dim if kind == "wan" else 0)
    assert estimate(config, run_of()).forward_flops == pytest.approx(counted_flops(Backbone(config), False), rel=0.02)


@pytest.mark.parametrize("kind", ["cogvideox", "wan"])
@LORAS
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_operations_are_those_that_torch_counts(kind, rank, checkpointing):
    config = small(kind)
    backbone = Backbone(config)
    if rank:
        add_lora(backbone.transformer, LoRAConfig(rank, rank))
    if checkpointing:
        backbone.transformer.enable_gradient_checkpointing()
    expected = estimate(config, run_of(rank, recompute=checkpointing)).step_flops
    tokens = 270 + 16
    unfused = tokens**2 if kind == "cogvideox" else 270 * tokens
    expected -= 0.5 * 2 * 4 * unfused * 128  # unfused attention keeps its products instead of repeating one of four
    # small widths make adapters of rank 4, and the head, count for more than in a real model
    assert expected == pytest.approx(counted_flops(backbone, True), rel=0.08)


def kept_bytes(config, rank, bfloat16):
    """Bytes of all tensors, other than weights, that autograd keeps of a forward pass."""
    backbone = Backbone(config)
    if rank:
        add_lora(backbone.transformer, LoRAConfig(rank, rank))
    own = {each.untyped_storage().data_ptr() for each in [*backbone.parameters(), *backbone.buffers()]}
    kept, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # or another tensor might be given the same address
        return tensor

    channels = torch.randn(1, 5, config.in_channels, 12, 18, generator=torch.Generator().manual_seed(0))
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16),
    ):
        backbone(channels, torch.tensor([500]))
    return sum(kept.values())


@pytest.mark.parametrize("kind", ["cogvideox", "wan"])
@LORAS
@pytest.mark.parametrize("bfloat16", [False, True])
def test_activations_are_those_that_autograd_keeps(kind, rank, bfloat16):
    one, two = (kept_bytes(small(kind, depth), rank, bfloat16) for depth in (1, 2))
    run = run_of(rank, bfloat16=bfloat16, recompute=False)
    expected = [estimate(small(kind, depth), run).activations_bytes for depth in (1, 2)]
    assert expected[1] - expected[0] == pytest.approx(two - one, rel=0.12)


def test_checkpointing_keeps_a_fraction_of_the_activations_and_recomputes_the_rest():
    kept = cost_5b(recompute=False)
    recomputed = cost_5b()
    assert recomputed.activations_bytes < kept.activations_bytes / 10
    assert recomputed.step_flops == pytest.approx(kept.step_flops + kept.forward_flops)
