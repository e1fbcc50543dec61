"""Rollouts in bfloat16."""

import torch

from dexworld.actions import HandMotion
from dexworld.models.config import preset
from dexworld.models.dexwm import DexWM
from dexworld.models.precision import BFloat16Rollouts


def test_bfloat16_rollouts_are_float32_and_close_to_the_models_own():
    torch.manual_seed(0)
    model = DexWM(preset("debug")).eval()
    for parameter in model.parameters():  # a fresh model predicts no change at all, and anything would agree with it
        torch.nn.init.normal_(parameter, std=0.05)
    rows, columns = model.config.grid
    latents = torch.randn(1, rows * columns, model.config.encoder.dim)
    pixels = torch.rand(5, 4, 12, 3) * torch.tensor([392.0, 224.0, 0.5]) + torch.tensor([0.0, 0.0, 0.5])
    motion = HandMotion(0.05 * torch.randn(5, 3, 44, 3), pixels, torch.ones(5, 4, 12, dtype=torch.bool))
    still = motion.index(0).slice(0, 0)
    with torch.no_grad():
        exact = model.rollout(model.start(latents, still), motion)
        fast = BFloat16Rollouts(model)
        rounded = fast.rollout(fast.start(latents, still), motion)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    change = (exact - latents).square().mean()
    assert change > 1e-4
    assert (rounded - exact).square().mean() < 0.01 * change
