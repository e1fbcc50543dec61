"""The predictor: parameter counts, causality and initialisation. `test_release.py` has its equations written out."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import (
    GRID,
    IMAGE_SIZE,
    LATENT_DIM,
    PAPER_LIKE,
    TINY_LIKE,
    random_latents,
    random_motion,
    random_predictor,
    refused,
)

from dexworld.actions import HandMotion
from dexworld.models.config import PRESETS
from dexworld.models.predictor import Predictor


@pytest.mark.parametrize(
    ("name", "count"),
    [("paper-s", 30_611_968), ("paper-b", 103_985_152), ("paper-l", 343_665_664), ("paper-xl", 456_403_968)],
)
def test_paper_presets_have_the_parameter_counts_of_table_5(name, count):
    config = PRESETS[name]
    with torch.device("meta"):
        predictor = Predictor(config.predictor, config.encoder.dim, config.grid, config.image_size, config.action_scale)
    assert sum(value.numel() for value in predictor.parameters()) == count


@pytest.mark.parametrize("config", [PAPER_LIKE, TINY_LIKE], ids=["paper-like", "tiny-like"])
def test_a_prediction_depends_on_earlier_frames_and_on_actions_up_to_its_own(config):
    predictor = random_predictor(config)
    latents, motion = random_latents(1, 5), random_motion(1, 4)
    with torch.no_grad():
        before = predictor(latents, motion)
        changed = latents.clone()
        changed[:, 2] += 1.0
        moved = predictor(changed, motion)
        deltas = motion.deltas.clone()
        deltas[:, 2] += 0.05  # leads from frame 2 to frame 3
        acted = predictor(latents, HandMotion(deltas, motion.pixels, motion.visible))
    unchanged_frames = (moved - before).abs().amax(dim=(0, 2, 3)) < 1e-12
    assert unchanged_frames.tolist() == [True, True, False, False]  # predictions of frames 1, 2, 3, 4
    unchanged_actions = (acted - before).abs().amax(dim=(0, 2, 3)) < 1e-12
    assert unchanged_actions.tolist() == [True, True, False, False]


def test_a_fresh_residual_model_predicts_that_nothing_changes_and_learns_at_once():
    predictor = Predictor(TINY_LIKE, LATENT_DIM, GRID, IMAGE_SIZE, (0.05, 0.05, 0.05)).double()
    latents = random_latents(2, 4)
    predicted = predictor(latents, random_motion(2, 3))
    assert torch.equal(predicted, latents[:, :-1])
    (predicted - latents[:, 1:]).square().mean().backward()
    assert predictor.project_out.weight.grad.abs().max() > 0


def test_a_fresh_paper_model_of_the_encoders_width_predicts_zero():
    config = replace(PAPER_LIKE, dim=LATENT_DIM, heads=2)
    predictor = Predictor(config, LATENT_DIM, GRID, IMAGE_SIZE, (1.0, 1.0, 1.0)).double()
    assert predictor(random_latents(1, 3), random_motion(1, 2)).abs().max() == 0


def test_windows_of_a_wrong_length_are_refused():
    predictor = random_predictor(TINY_LIKE)
    refused("a window holds 2 to 5 frames", predictor, random_latents(1, 6), random_motion(1, 5))
    refused("the latents ask for", predictor, random_latents(1, 4), random_motion(1, 2))
