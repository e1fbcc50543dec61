"""Pixel-aligned features and the action embedding, against direct formulas."""

import math

import torch
from model_fixtures import GRID, IMAGE_SIZE, PAPER_LIKE, TINY_LIKE, random_motion

from dexworld.models.conditioning import ActionEmbedding, PixelAlignment
from dexworld.models.config import PredictorConfig


def alignment(**changes) -> PixelAlignment:
    return PixelAlignment(PredictorConfig(dim=8, heads=2, depth=1, **changes), GRID, IMAGE_SIZE).double()


def test_features_are_gaussians_offsets_and_depth_around_the_keypoint():
    motion = random_motion(1, 0, seed=5)
    features = alignment().features(motion.pixels, motion.visible)
    assert features.shape == (1, 1, 6, 12 * 2 * 4)
    for keypoint, sigma_index, token in ((0, 0, 0), (3, 1, 4), (11, 0, 5)):
        sigma, (row, column) = (1.0, 3.0)[sigma_index], divmod(token, GRID[1])
        u, v, depth = motion.pixels[0, 0, keypoint].tolist()
        dx, dy = (column + 0.5 - u / 28) / sigma, (row + 0.5 - v / 28) / sigma
        gaussian = math.exp(-0.5 * (dx**2 + dy**2)) * float(motion.visible[0, 0, keypoint])
        expected = torch.tensor([gaussian, gaussian * dx, gaussian * dy, gaussian * (depth - 0.8)]).double()
        first = (keypoint * 2 + sigma_index) * 4
        assert torch.allclose(features[0, 0, token, first : first + 4], expected, atol=1e-12)


def test_keypoints_out_of_sight_give_zeros_whatever_their_pixels_say():
    motion = random_motion(1, 0)
    pixels = torch.full_like(motion.pixels, float("nan"))
    features = alignment().features(pixels, torch.zeros_like(motion.visible))
    assert torch.equal(features, torch.zeros_like(features))


def test_a_subset_of_keypoints_costs_only_its_own_channels():
    motion = random_motion(2, 1)
    right = alignment(tracked=(6, 7, 8, 9, 10, 11)).features(motion.pixels, motion.visible)
    everything = alignment().features(motion.pixels, motion.visible)
    assert torch.equal(right, everything[..., 48:])


def test_raw_actions_are_silu_of_the_132_numbers_and_groups_scale_apart():
    deltas = random_motion(1, 1).deltas
    raw = ActionEmbedding(PAPER_LIKE, (1.0, 1.0, 1.0)).double()
    assert torch.equal(raw(deltas), torch.nn.functional.silu(deltas.flatten(2)))
    scaled = ActionEmbedding(PAPER_LIKE, (0.1, 0.2, 0.5)).double()(deltas)
    expected = torch.cat([deltas[..., :42, :] / 0.1, deltas[..., 42:43, :] / 0.2, deltas[..., 43:, :] / 0.5], dim=-2)
    assert torch.allclose(scaled, torch.nn.functional.silu(expected.flatten(2)), atol=1e-6)
    assert ActionEmbedding(TINY_LIKE, (0.1, 0.1, 0.1)).double()(deltas).shape == (1, 1, TINY_LIKE.dim)
