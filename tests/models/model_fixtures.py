"""Random weights and motion for model tests."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dexworld.actions import ACTION_ROWS, HandMotion
from dexworld.hands import NUM_KEYPOINTS, NUM_TRACKED
from dexworld.models.config import DexWMConfig, EncoderConfig, PredictorConfig
from dexworld.models.predictor import Predictor
from dexworld.track import Track
from kind_fixtures import body_and_sentence

GRID, IMAGE_SIZE, LATENT_DIM = (2, 3), (56, 84), 10

PAPER_LIKE = PredictorConfig(
    dim=16, depth=2, heads=2, num_context=8, residual=False, embed_actions=False, pixel_aligned=False
)
TINY_LIKE = PredictorConfig(dim=16, depth=2, heads=2, num_context=4)
SMALL_MODEL = DexWMConfig(image_size=IMAGE_SIZE, encoder=EncoderConfig(dim=LATENT_DIM), predictor=TINY_LIKE)


def refused(message: str, call: Callable, *arguments: Any, error: type = ValueError, **options: Any) -> None:
    """Assert that a call raises an error with a message that matches."""
    with pytest.raises(error, match=message):
        call(*arguments, **options)


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Non-zero weights everywhere, of a size that keeps activations lively: a fresh model would pass any test."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype) * 0.5 / value.shape[-1] ** 0.5)
    return module


def random_predictor(config: PredictorConfig, seed: int = 0) -> Predictor:
    """A float64 predictor on a 2 x 3 grid with non-zero random weights."""
    return randomise(Predictor(config, LATENT_DIM, GRID, IMAGE_SIZE, (0.05, 0.05, 0.05)).double(), seed)


def random_motion(batch: int, steps: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> HandMotion:
    """Motion in which hands move about the image and some keypoints are out of sight."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype)

    deltas = 0.1 * (uniform(batch, steps, ACTION_ROWS, 3) - 0.5)
    size = torch.tensor([IMAGE_SIZE[1], IMAGE_SIZE[0]], dtype=dtype)
    shape = (batch, steps + 1, NUM_TRACKED)
    pixels = torch.cat([uniform(*shape, 2) * size, 0.5 + uniform(*shape, 1)], -1)
    return HandMotion(deltas, pixels, uniform(*shape) > 0.2)


def random_track(batch: int, frames: int, seed: int = 0) -> Track:
    """Hands and upper body that move about before a moving camera, a sentence for each window; float32."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return 0.1 * (torch.rand(batch, frames, *shape, generator=generator) - 0.5)

    poses = torch.eye(4).repeat(batch, frames, 1, 1)
    poses[..., :3, 3] = uniform(3)
    matrix = torch.tensor([[60.0, 0, IMAGE_SIZE[1] / 2], [0, 60.0, IMAGE_SIZE[0] / 2], [0, 0, 1]])
    keypoints = uniform(NUM_KEYPOINTS, 3) + torch.tensor([0.0, 0, 1])
    columns = {"keypoints_world": keypoints, "keypoints_valid": uniform(NUM_KEYPOINTS) > -0.03}
    columns |= {"keypoints_shown": columns["keypoints_valid"]} | body_and_sentence((batch,), frames, seed)
    return Track(poses, matrix.expand(batch, 3, 3), columns)


def random_latents(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal latents (*shape, 6, 10)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, GRID[0] * GRID[1], LATENT_DIM, generator=generator, dtype=dtype)


def shared_start(observed: HandMotion, candidates: HandMotion) -> HandMotion:
    """Candidates whose first frame is the last observed one, as planning has it."""
    pixels, visible = candidates.pixels.clone(), candidates.visible.clone()
    pixels[:, 0], visible[:, 0] = observed.pixels[..., -1, :, :], observed.visible[..., -1, :]
    return HandMotion(candidates.deltas, pixels, visible)
