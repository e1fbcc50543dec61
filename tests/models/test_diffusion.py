"""Denoising latents: exact for a network that knows the answer, and the same for all candidates."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import SMALL_MODEL, random_latents, random_track, randomise, refused

from dexworld.models.config import DiffusionConfig, PredictorConfig
from dexworld.models.diffusion import TIME_DIM, Diffusion, with_level
from dexworld.models.world_model import build_world_model
from kind_fixtures import config_of


def knowing(diffusion: Diffusion, clean: torch.Tensor):
    """A network that knows the latents: v = alpha n - sigma x0, with n = (x - alpha x0) / sigma."""

    def denoise(noisy, level):
        alpha, sigma = (each[level, None, None].to(noisy) for each in (diffusion.alpha, diffusion.sigma))
        return alpha * (noisy - alpha * clean) / sigma - sigma * clean

    return denoise


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_ddim_with_a_network_that_knows_the_latents_ends_at_them(steps):
    diffusion, clean = Diffusion(DiffusionConfig(sample_steps=steps)), random_latents(3)
    assert torch.allclose(diffusion.sample(clean, knowing(diffusion, clean), seed=1), clean, atol=1e-4)
    assert torch.allclose(diffusion.taught(clean, knowing(diffusion, clean)), clean, atol=1e-4)


def test_the_last_level_is_pure_noise_and_levels_are_told_apart():
    diffusion = Diffusion(DiffusionConfig())
    assert diffusion.alpha[-1] == 0
    assert diffusion.sigma[0] < 0.05
    told = with_level(torch.ones(3, 6 + TIME_DIM), torch.tensor([0, 1, 999]))
    assert torch.equal(told[:, :6], torch.ones(3, 6))
    assert torch.cdist(told, told).add(torch.eye(3)).min() > 0.5


def test_candidates_that_do_the_same_get_the_same_latents_and_others_get_others():
    model = build_world_model(config_of("peva-diffusion", SMALL_MODEL)).eval()
    randomise(model.predictor)
    track, latents = random_track(2, 4), random_latents(1, dtype=torch.float32)
    with torch.no_grad():
        context = model.start(latents, model.condition(track.at([0])).index(0))
        one, two, again = model.rollout(context, model.condition(track).index([0, 1, 0]))
    assert torch.allclose(one, again, atol=1e-4)
    assert (one - two).abs().max() > 1e-3


def test_a_residual_of_diffusion_and_more_passes_than_levels_are_refused():
    refused("set predictor.residual to False", replace, PredictorConfig(), diffusion=DiffusionConfig())
    refused("1 to train_steps", DiffusionConfig, train_steps=10)
