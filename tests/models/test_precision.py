"""Rollouts in bfloat16."""

import torch
from model_fixtures import SMALL_MODEL, random_latents, random_motion, randomise

from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import BFloat16Rollouts


def test_bfloat16_rollouts_are_float32_and_close_to_the_models_own():
    model = randomise(DexWM(SMALL_MODEL)).eval()
    latents, motion = random_latents(1, dtype=torch.float32), random_motion(5, 3, dtype=torch.float32)
    still, fast = motion.index(0).slice(0, 0), BFloat16Rollouts(model)
    with torch.no_grad():
        exact = model.rollout(model.start(latents, still), motion)
        rounded = fast.rollout(fast.start(latents, still), motion)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    change = (exact - latents).square().mean()
    assert change > 1e-4
    assert (rounded - exact).square().mean() < 0.01 * change
