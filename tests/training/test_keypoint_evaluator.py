"""The keypoint evaluator in training: it learns from true latents, and belongs to one encoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.data.sampling import EveryFrame
from dexworld.models.config import KeypointHeadConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.models.latent_readers import open_evaluator
from dexworld.training.train_evaluator import EvaluatorRunConfig, EvaluatorTrainConfig, train_evaluator

HEAD = KeypointHeadConfig(dim=32, depth=1, heads=2, cell=4)


@pytest.fixture
def make_run(disc_data, world_model, tmp_path):
    def make(output="run", latents="cached", **changes):
        settings = {"steps": 6, "batch_size": 8, "warmup_steps": 1, "log_every": 1, "learning_rate": 3e-3}
        return EvaluatorRunConfig(
            data=(disc_data,),
            output=tmp_path / output,
            checkpoint=str(world_model),
            validation_fraction=0.2,
            latents=latents,
            workers=0,
            device="cpu",
            training=EvaluatorTrainConfig(**(settings | {"validation_frames": 64} | changes)),
        )

    return make


def test_an_evaluator_learns_where_the_hand_is_on_scenes_it_has_not_seen(make_run, world_model):
    folder = train_evaluator(make_run(steps=150, batch_size=16, ema=0.9), HEAD)
    evaluator = open_evaluator(folder, DexWM.from_pretrained(world_model).encoder)
    figures = evaluator.provenance["figures"]
    assert figures["visible"] == 6 * 64  # the right hand's six; the left one isn't there and doesn't count
    assert figures["pck10"] > 0.9
    assert figures["median_px"] < 6
    assert evaluator.provenance["validation_episodes"] > 0
    assert evaluator.provenance["finished"] is True
    assert evaluator.config.head == HEAD


def test_a_run_that_starts_from_an_evaluator_keeps_its_weights_its_size_and_the_scenes_it_has_seen(make_run, tmp_path):
    first = train_evaluator(make_run("first", steps=2), HEAD)
    evaluator = KeypointEvaluator.from_pretrained(first)
    evaluator.save_pretrained(tmp_path / "older", evaluator.provenance | {"training_seeds": [[700, 709]]})
    config = replace(make_run("second", steps=1, learning_rate=1e-12, ema=0.0), initial=str(tmp_path / "older"))
    second = KeypointEvaluator.from_pretrained(train_evaluator(config))
    assert second.config == evaluator.config
    for name, weight in second.state_dict().items():
        assert torch.allclose(weight, evaluator.state_dict()[name], atol=1e-9)
    assert second.provenance["training_seeds"] == [[0, 11], [700, 709]]
    assert second.provenance["initial"] == "older"
    assert second.provenance["initial_provenance"]["steps"] == 2


def test_an_evaluator_of_another_encoder_is_no_start(make_run, world_model, tmp_path):
    folder = train_evaluator(make_run(steps=1), HEAD)
    other = DexWM.from_pretrained(world_model)
    other.encoder.mean += 0.01
    other.save_pretrained(tmp_path / "other")
    config = replace(make_run("second"), initial=str(folder), checkpoint=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"reads the latents of encoder .*Train one for this model's encoder"):
        train_evaluator(config)


def test_every_frame_is_drawn_once():
    lengths, fps = np.array([3, 5]), np.array([5.0, 5.0])
    strategy = EveryFrame()
    assert strategy.parts(lengths, fps).tolist() == [3, 5]
    drawn = strategy.draw(lengths, fps, np.array([2, 4]), lambda columns: np.zeros((2, columns)))
    assert drawn.frames.tolist() == [[2], [4]]


def test_options_that_make_no_sense_are_named(tmp_path):
    with pytest.raises(ValueError, match="sigma_px"):
        EvaluatorTrainConfig(sigma_px=0)
    with pytest.raises(ValueError, match="size is 'huge'; choose from debug"):
        EvaluatorRunConfig(size="huge")
