"""Estimates: the paper's scale on paper, real folders, and closed forms against torch's own counters."""

import re
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Dinov2Config, Dinov2Model

from dexworld.actions import HandMotion
from dexworld.baselines.goal_policy import GoalPolicy, GoalPolicyConfig
from dexworld.models.config import ENCODERS
from dexworld.models.encoders import build_encoder
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.latent_space import LatentSpace
from dexworld.models.predictor import Predictor
from dexworld.models.world_model import preset
from dexworld.training.cost import (
    KEPT_BLOCK,
    encoder_flops,
    encoder_parameters,
    head_flops,
    policy_cost,
    predictor_flops,
    trained_parameters,
)
from dexworld.training.estimate import DataPlan, PlanConfig, plan_run, windows_per_epoch
from dexworld.training.train_config import SamplingConfig, TrainConfig
from dexworld.training.train_world_model import RunConfig

GRID, TOKENS = (8, 8), 64


def small_predictor(depth=2, dim=192):
    paper = preset("paper-s")
    predictor = replace(paper.predictor, dim=dim, depth=depth, heads=4, num_context=4)
    head = replace(paper.keypoint_head, dim=64, heads=4, depth=2, cell=4)
    encoder = replace(paper.encoder, dim=256)
    return replace(paper, image_size=(112, 112), predictor=predictor, encoder=encoder, keypoint_head=head)


def window(dim):
    pixels, visible = torch.rand(1, 5, 12, 3) + 0.1, torch.ones(1, 5, 12, dtype=torch.bool)
    return torch.randn(1, 5, TOKENS, dim), HandMotion(torch.randn(1, 4, 44, 3), pixels, visible)


def counted(function):
    """Operations of linear layers and of attention that torch counts; the plain kernel, since it counts products."""
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):
        function()
    return counter.get_total_flops()


def test_operations_are_those_that_torch_counts():
    config = small_predictor()
    model = Predictor(config.predictor, 256, GRID, (112, 112), (1.0, 1.0, 1.0))
    latents, motion = window(256)
    expected = predictor_flops(config)
    assert counted(lambda: model(latents, motion)) == pytest.approx(expected, rel=0.03)
    head = KeypointHead(config.keypoint_head, 256, GRID, (112, 112))
    assert counted(lambda: head(latents)) == pytest.approx(5 * head_flops(config), rel=1e-6)


def test_parameters_and_encoder_operations_are_those_of_the_papers_models():
    for name, millions in (("paper-s", 30.6), ("paper-b", 104.0), ("paper-l", 343.7), ("paper-xl", 456.4)):
        assert trained_parameters(preset(name)) / 1e6 == pytest.approx(millions + 5.7, abs=0.3)  # with the head
    assert encoder_flops(preset("paper-xl")) / 1e9 == pytest.approx(271.7 + 4 * 24 * 448**2 * 1024 / 1e9, rel=0.01)


def test_parameters_and_operations_of_an_encoder_are_those_of_its_model():
    config = preset("paper-s").with_encoder(ENCODERS["dinov2-large"])
    image = torch.empty(1, 3, *config.image_size, device="meta")
    with torch.device("meta"):
        model = Dinov2Model(Dinov2Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, patch_size=14))
    assert encoder_parameters(config) == pytest.approx(sum(each.numel() for each in model.parameters()), rel=0.006)
    assert encoder_flops(config) == pytest.approx(counted(lambda: model(pixel_values=image)), rel=0.006)


@pytest.mark.parametrize("name", ["lite0-block10", "lite0-block4"])
def test_operations_of_a_cnn_are_those_that_torch_counts(name):
    config = preset("tiny").with_encoder(ENCODERS[name])
    with torch.device("meta"):
        network = build_encoder(config.encoder, config.image_size).network
        image = torch.empty(1, 3, *config.image_size)
    assert encoder_flops(config) == counted(lambda: network(image))
    assert encoder_parameters(config) == sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize("form", ["bc", "unet", "transformer"])
def test_a_policy_costs_what_its_loss_and_the_encoder_take(form):
    config = preset("debug")
    policy = GoalPolicy(GoalPolicyConfig.sized(LatentSpace.of(config, ""), 23, form, "debug"))
    made, space = policy.config, policy.config.latents
    latents, joints = torch.randn(1, made.history + 1, space.tokens, space.dim), torch.randn(1, made.history, 46)
    moves = torch.randn(1, made.horizon, 23)

    def loss():
        policy.loss(
            policy.condition(policy.look(latents)[0], joints), moves, torch.tensor([5]), torch.randn_like(moves)
        )

    parameters, flops = policy_cost(made, config)
    assert parameters == sum(each.numel() for each in policy.parameters())
    assert flops == pytest.approx(3 * counted(loss) + (made.history + 1) * encoder_flops(config), rel=1e-6)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_memory_of_a_block_is_what_autograd_keeps(bfloat16):
    def kept(depth):
        config = small_predictor(depth, dim=384)
        model = Predictor(config.predictor, 384, GRID, (112, 112), (1.0, 1.0, 1.0))
        own = {each.untyped_storage().data_ptr() for each in model.parameters()}
        storages, alive = {}, []

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        latents, motion = window(384)
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16),
        ):
            model(latents, motion)
        return sum(storages.values())

    per_block = (kept(3) - kept(1)) / 2
    assert per_block / (4 * TOKENS * 384) == pytest.approx(KEPT_BLOCK, rel=0.2)


def planned(run, plan=PlanConfig()):
    """The table's values by the names of their rows, and the whole text in single spaces."""
    text = plan_run(run, plan)
    rows = [re.split(r"\s{2,}", line) for line in text.splitlines()]
    return {row[0]: row[1] for row in rows}, " ".join(text.split())


def test_a_plan_without_data_is_the_papers_run():
    values, text = planned(RunConfig(), PlanConfig(gpus=256))
    expected = {"EgoDex": "829.0 h", "DROID": "100.0 h", "windows per epoch": "3,537,110", "steps": "34,543"}
    expected |= {"disk, h264 store": "608.99 GB", "disk, cached latents": "87.10 TB", "trained parameters": "462.1 M"}
    expected |= {"operations of a window": "14.92 TFLOP", "GPU-hours": "1,694.1", "windows per GPU-second": "23.2"}
    assert expected.items() <= values.items()
    assert "6.6 h on 256 GPUs, assuming 35% of 989 TFLOP/s" in text


def test_what_is_given_replaces_the_papers_values():
    run = RunConfig(preset="debug", training=TrainConfig(steps=7, batch_size=5, accumulation=2))
    plan = PlanConfig(gpus=1, plan=("mine:2:15:100",))
    values, text = planned(run, plan)
    assert (values["mine"], values["windows per epoch"], values["steps"]) == ("2.0 h", "1,000", "7")
    assert "of 10 windows; 70 in all" in text
    assert planned(run, replace(plan, epochs=3))[0]["steps"] == "300"


def test_real_folders_are_counted(disc_data):
    values, text = planned(RunConfig((disc_data,), preset="debug"), PlanConfig(gpus=1))
    assert "12 clips, 5 frames/s" in text
    assert (values["steps"], values["windows per epoch"]) == (f"{TrainConfig().steps:,}", "240")  # strides draw frames
    paper = RunConfig((disc_data,), preset="debug", sampling=SamplingConfig(windows="paper", segments=5))
    assert planned(paper)[0]["windows per epoch"] == "60"


def test_clips_too_short_for_a_window_count_nothing():
    sampling = SamplingConfig(windows="paper")
    assert windows_per_epoch(DataPlan("still", 1 / 3600, 10, 10), sampling, TrainConfig(), preset("debug")) == 0


@pytest.mark.parametrize("text", ["egodex", "egodex:x:30:5", "egodex:0:30:5"])
def test_plans_that_make_no_sense_are_refused(text):
    with pytest.raises(ValueError, match=r"plan|hours"):
        PlanConfig(plan=(text,))
