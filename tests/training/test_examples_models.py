"""The examples of models from outside the package do what their first lines say."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dexworld.models.config import PRESETS, EncoderConfig
from dexworld.models.encoders import EncoderChoice, build_encoder
from dexworld.models.world_model import build_world_model, kinds, load_world_model, preset, register
from dexworld.training.train_config import TrainConfig
from dexworld.training.train_world_model import RunConfig, train

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def load_example(name: str):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def token_mlp():
    return load_example("my_world_model")


def test_a_model_from_outside_trains_saves_and_loads_by_the_same_commands(token_mlp, disc_data, tmp_path):
    training = TrainConfig(
        steps=6, batch_size=4, warmup_steps=1, hand_consistency=0.0, true_keypoints=0.0, validation_windows=4
    )
    config = RunConfig(
        (disc_data,), tmp_path, preset="token-mlp", training=training, validation_fraction=0.3, device="cpu"
    )
    model = load_world_model(train(config))
    assert isinstance(model, token_mlp.TokenMLP)
    assert model.provenance["figures"].keys() >= {"mse_ratio_stride1_step1"}
    assert not np.allclose(model.network[2].weight.detach(), build_world_model(model.config).network[2].weight.detach())


def test_a_loss_that_a_model_can_t_give_is_refused(token_mlp, disc_data, tmp_path):
    with pytest.raises(ValueError, match="no keypoint head"):
        train(RunConfig((disc_data,), tmp_path, preset="token-mlp", device="cpu", encoder_frames=8))


def test_names_are_taken_once(token_mlp):
    assert {"dexwm", "token-mlp"} <= kinds().keys()
    with pytest.raises(ValueError, match="taken"):
        register(token_mlp.Kind("other", object, int, {"tiny": None}))
    with pytest.raises(ValueError, match="choose from paper-s"):
        preset("no such")


def test_an_encoder_from_outside_is_chosen_by_its_name(disc_data, tmp_path):
    example = load_example("my_encoder")
    training = TrainConfig(steps=4, batch_size=2, warmup_steps=1, validation_windows=2)
    choice, model_size = EncoderChoice("patch-colours"), replace(PRESETS["debug"], image_size=(56, 56))
    folder = train(RunConfig((disc_data,), tmp_path, encoder=choice, training=training, device="cpu"), model_size)
    model = load_world_model(folder)
    assert isinstance(model.encoder, example.PatchColours)
    ramp = torch.arange(56, dtype=torch.uint8)[None, :, None].expand(56, 56, 3) * 4
    assert (model.decode(model.encode(ramp)).int() - ramp.int()).abs().max() < 30
    with pytest.raises(ValueError, match="no encoder kind 'other'"):
        build_encoder(EncoderConfig(kind="other"), (56, 56))
