"""The predictor: parameter counts, causality, initialisation and its two options, in closed form."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from model_fixtures import (
    GRID,
    IMAGE_SIZE,
    LATENT_DIM,
    PAPER_LIKE,
    TINY_LIKE,
    random_latents,
    random_motion,
    random_predictor,
)

from dexworld.actions import HandMotion
from dexworld.models.config import PRESETS, PredictorConfig
from dexworld.models.predictor import Predictor


@pytest.mark.parametrize(
    ("name", "count"),
    [("paper-s", 30_611_968), ("paper-b", 103_985_152), ("paper-l", 343_665_664), ("paper-xl", 456_403_968)],
)
def test_paper_presets_have_the_parameter_counts_of_table_5(name: str, count: int) -> None:
    config = PRESETS[name]
    with torch.device("meta"):
        predictor = Predictor(config.predictor, config.encoder.dim, config.grid, config.image_size, config.action_scale)
    assert sum(value.numel() for value in predictor.parameters()) == count


@pytest.mark.parametrize("config", [PAPER_LIKE, TINY_LIKE], ids=["paper-like", "tiny-like"])
def test_a_prediction_depends_on_earlier_frames_and_on_actions_up_to_its_own(config: PredictorConfig) -> None:
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


def test_the_paper_form_equals_its_equations_written_out_with_a_mask() -> None:
    predictor = random_predictor(PAPER_LIKE)
    latents, motion = random_latents(2, 9), random_motion(2, 8)
    with torch.no_grad():
        actual = predictor(latents, motion)
        expected = written_out(predictor, latents, motion)
    assert (actual - expected).abs().max() < 1e-12


def written_out(predictor: Predictor, latents: torch.Tensor, motion: HandMotion) -> torch.Tensor:
    """All frames at once, as the paper draws it: block-diagonal self-attention, frame-causal cross-attention."""
    batch, frames, tokens, _ = latents.shape
    dim, heads = PAPER_LIKE.dim, PAPER_LIKE.heads
    scale = torch.tensor([0.05] * 132, dtype=torch.float64)
    actions = torch.cat([torch.zeros(batch, 1, 132, dtype=torch.float64), motion.deltas.flatten(2) / scale], dim=1)
    stream = predictor.project_in(latents) + predictor.positions[:frames]
    x = torch.cat([stream[:, :1], stream[:, :-1]], dim=1)
    frame = torch.arange(frames).repeat_interleave(tokens)

    def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part.reshape(batch, -1, heads, dim // heads).transpose(1, 2) for part in (query, key, value)
        )
        scores = (query @ key.transpose(-1, -2) / (dim // heads) ** 0.5).masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1).nan_to_num(0.0)  # frame 0 sees nothing
        return (weights @ value).transpose(1, 2).reshape(batch, frames, tokens, dim)

    def norm(value: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(value, (dim,), eps=1e-6)

    for block in predictor.layers:
        m = block.modulation(F.silu(actions))[:, :, None].chunk(11, dim=-1)
        query, key, value = block.self_qkv(norm(x) * (1 + m[1]) + m[0]).chunk(3, dim=-1)
        x = x + m[2] * block.self_out(attention(query, key, value, frame[:, None] == frame))
        query = block.cross_query(norm(x) * (1 + m[6]) + m[5])
        key, value = block.cross_key_value(norm(stream) * (1 + m[4]) + m[3]).chunk(2, dim=-1)
        x = x + m[7] * block.cross_out(attention(query, key, value, frame[:, None] > frame))
        x = x + m[10] * block.mlp(norm(x) * (1 + m[9]) + m[8])
    shift, gain = predictor.final_modulation(F.silu(actions))[:, :, None].chunk(2, dim=-1)
    return predictor.project_out(predictor.final(norm(x) * (1 + gain) + shift))[:, 1:]


def test_a_fresh_residual_model_predicts_that_nothing_changes_and_learns_at_once() -> None:
    predictor = Predictor(TINY_LIKE, LATENT_DIM, GRID, IMAGE_SIZE, (0.05, 0.05, 0.05)).double()
    latents = random_latents(2, 4)
    predicted = predictor(latents, random_motion(2, 3))
    assert torch.equal(predicted, latents[:, :-1])
    (predicted - latents[:, 1:]).square().mean().backward()
    assert predictor.project_out.weight.grad.abs().max() > 0


def test_a_fresh_paper_model_of_the_encoders_width_predicts_zero() -> None:
    config = replace(PAPER_LIKE, dim=LATENT_DIM, heads=2)
    predictor = Predictor(config, LATENT_DIM, GRID, IMAGE_SIZE, (1.0, 1.0, 1.0)).double()
    assert predictor(random_latents(1, 3), random_motion(1, 2)).abs().max() == 0


def test_windows_of_a_wrong_length_are_refused() -> None:
    predictor = random_predictor(TINY_LIKE)
    with pytest.raises(ValueError, match="a window holds 2 to 5 frames"):
        predictor(random_latents(1, 6), random_motion(1, 5))
    with pytest.raises(ValueError, match="the latents ask for"):
        predictor(random_latents(1, 4), random_motion(1, 2))
