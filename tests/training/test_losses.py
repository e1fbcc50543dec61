"""Losses against their closed forms."""

import math

import pytest
import torch

from dexworld.training.losses import gaussian_maps, inside_image, keypoint_loss, latent_loss

IMAGE, MAP = (56, 84), (28, 42)  # two pixels a cell


def test_a_target_map_peaks_at_its_keypoint_and_falls_as_a_gaussian():
    maps = gaussian_maps(torch.tensor([[21.0, 11.0]]), MAP, IMAGE, sigma_px=4.0)  # the centre of cell (5, 10)
    assert maps.shape == (1, *MAP)
    assert maps[0].argmax() == 5 * MAP[1] + 10
    assert maps[0, 5, 10] == pytest.approx(1.0)
    assert maps[0, 5, 12] == pytest.approx(math.exp(-0.5 * (4 / 4) ** 2))
    assert maps[0, 6, 11] == pytest.approx(math.exp(-0.5 * (8 / 16)))


def test_cross_entropy_equals_its_definition():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, *MAP)
    pixels = torch.rand(2, 3, 4, 3) * torch.tensor([84.0, 56.0, 1.0])
    visible = torch.rand(2, 3, 4) > 0.3
    target = gaussian_maps(pixels[visible][:, :2], MAP, IMAGE, 4.0).flatten(1)
    target = target / target.sum(dim=1, keepdim=True)
    expected = -(target * logits[visible].flatten(1).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(keypoint_loss(logits, pixels, visible, IMAGE, 4.0, "cross_entropy"), expected)


def test_cross_entropy_is_least_at_its_target():
    pixels, visible = torch.tensor([[[40.0, 30.0, 1.0]]]), torch.ones(1, 1, dtype=torch.bool)
    logits = gaussian_maps(pixels[0, :, :2], MAP, IMAGE, 4.0).clamp(min=1e-12).log()[None].requires_grad_()
    loss = keypoint_loss(logits, pixels, visible, IMAGE, 4.0, "cross_entropy")
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().max() < 1e-6


def test_the_mean_squared_loss_of_an_empty_map_is_the_gaussian_s_own_energy():
    pixels, visible = torch.tensor([[[42.0, 28.0, 1.0]]]), torch.ones(1, 1, dtype=torch.bool)
    loss = keypoint_loss(torch.zeros(1, 1, *MAP), pixels, visible, IMAGE, 4.0, "mse")
    assert loss.item() == pytest.approx(math.pi * 2.0**2 / (28 * 42), rel=1e-3)  # sigma is 2 cells


@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_keypoints_that_are_hidden_or_outside_do_not_count(kind):
    torch.manual_seed(0)
    logits = torch.randn(1, 4, *MAP)
    pixels = torch.tensor([[[10.0, 10, 1], [20.0, 20, 1], [84.0, 10, 1], [10.0, -0.1, 1]]])
    visible = torch.tensor([[True, False, True, True]])
    loss = keypoint_loss(logits, pixels, visible, IMAGE, 4.0, kind)
    alone = keypoint_loss(logits[:, :1], pixels[:, :1], visible[:, :1], IMAGE, 4.0, kind)
    torch.testing.assert_close(loss, alone)
    assert inside_image(pixels, visible, IMAGE).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_a_batch_without_visible_keypoints_costs_nothing_and_can_be_differentiated(kind):
    logits = torch.randn(1, 2, *MAP, requires_grad=True)
    loss = keypoint_loss(logits, torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.bool), IMAGE, 4.0, kind)
    loss.backward()
    assert loss.item() == 0.0
    assert (logits.grad == 0).all()


def test_the_latent_loss_averages_counted_frames_alone():
    predicted, target = torch.zeros(2, 2, 3, 4), torch.ones(2, 2, 3, 4)
    target[0, 1] = 3.0
    counted = torch.tensor([[False, True], [True, False]])
    assert latent_loss(predicted, target, counted).item() == pytest.approx((9 + 1) / 2)
    assert latent_loss(predicted, target).item() == pytest.approx((1 + 9 + 1 + 1) / 4)
    assert latent_loss(predicted, target, torch.zeros(2, 2, dtype=torch.bool)).item() == 0.0
