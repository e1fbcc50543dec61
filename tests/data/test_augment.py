"""Augmentation: each operation against values worked out by hand, one draw for a whole clip, the release's odds."""

import colorsys

import numpy as np
import pytest
import torch

from dexworld.data.augment import AugmentDraw, adjust_hue, augment, draw_augmentation, gaussian_blur


def nothing(clips, **changes):
    values = {name: np.zeros(clips, bool) for name in ("jitter", "grayscale", "blur")}
    values |= {"factors": np.tile([1.0, 1.0, 1.0, 0.0], (clips, 1)), "order": np.tile(np.arange(4), (clips, 1))}
    values["sigma_px"] = np.ones(clips)
    return AugmentDraw(**(values | changes))


def jittered(frames, *, order=(0, 1, 2, 3), **factors):
    names = ("brightness", "contrast", "saturation", "hue")
    values = [[factors.get(name, 0.0 if name == "hue" else 1.0) for name in names]] * len(frames)
    changes = {"factors": np.array(values), "order": np.array([order] * len(frames))}
    return augment(frames, nothing(len(frames), jitter=np.ones(len(frames), bool), **changes))


@pytest.fixture
def frames():
    return torch.randint(0, 256, (2, 3, 6, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_brightness_multiplies_and_saturates(frames):
    expected = (frames.float() * 1.4).clamp(max=255).round()
    torch.testing.assert_close(jittered(frames, brightness=1.4).float(), expected)


def test_contrast_moves_every_frame_towards_its_own_mean_luma(frames):
    luma = frames.double() @ torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64)
    mean = luma.mean(dim=(-2, -1))[..., None, None, None]
    expected = (0.6 * frames + 0.4 * mean).round()
    torch.testing.assert_close(jittered(frames, contrast=0.6).double(), expected, atol=1.0, rtol=0)
    assert (jittered(frames, contrast=0.6).double() == expected).double().mean() > 0.99


def test_saturation_zero_is_gray_and_one_changes_nothing(frames):
    gray = jittered(frames, saturation=0.0)
    assert (gray == gray[..., :1]).all()
    expected = 0.2989 * frames[..., 0] + 0.587 * frames[..., 1] + 0.114 * frames[..., 2]
    torch.testing.assert_close(gray[..., 0].float(), expected.round(), atol=1.0, rtol=0)
    assert torch.equal(jittered(frames), frames)
    assert torch.equal(augment(frames, nothing(2, grayscale=np.array([True, False])))[0], gray[0])


@pytest.mark.parametrize("turns", [-0.1, 0.07, 0.5])
def test_hue_turns_as_in_the_standard_librarys_hsv(turns):
    colours = torch.rand(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    colours[:6] = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 0]])
    expected = []
    for colour in colours.tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        expected.append(colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value))
    moved = adjust_hue(colours, torch.full((200, 1), turns, dtype=torch.float64))
    torch.testing.assert_close(moved, torch.tensor(expected, dtype=torch.float64))


def test_the_blur_is_a_normalised_three_by_three_gaussian_with_reflected_borders():
    image = torch.zeros(1, 5, 5, 1, dtype=torch.float64)
    image[0, 2, 2] = 1.0
    blurred = gaussian_blur(image, torch.tensor(0.8, dtype=torch.float64))[0, ..., 0]
    weights = torch.exp(-0.5 * (torch.arange(-1, 2, dtype=torch.float64) / 0.8) ** 2)
    weights /= weights.sum()
    torch.testing.assert_close(blurred[1:4, 1:4], weights[:, None] * weights)
    assert blurred.sum().item() == pytest.approx(1.0)
    ramp = torch.arange(5.0, dtype=torch.float64)[None, None, :, None].expand(1, 4, 5, 1)
    edge = gaussian_blur(ramp, torch.tensor(0.8, dtype=torch.float64))[0, 0, :, 0]
    assert edge[0].item() == pytest.approx(2 * weights[0].item())  # its neighbours are 1 and, reflected, 1
    torch.testing.assert_close(edge[1:4], ramp[0, 0, 1:4, 0])


def test_the_order_of_operations_is_the_one_drawn(frames):
    first = jittered(frames, brightness=1.4, saturation=0.6, order=(0, 1, 2, 3))
    second = jittered(frames, brightness=1.4, saturation=0.6, order=(2, 1, 0, 3))
    bright = jittered(frames, brightness=1.4)
    torch.testing.assert_close(first.int(), jittered(bright, saturation=0.6).int(), atol=1, rtol=0)
    assert not torch.equal(first, second)


def test_all_frames_of_a_clip_share_a_draw_and_clips_do_not():
    frames = torch.full((2, 4, 6, 6, 3), 100, dtype=torch.uint8)
    factors = np.array([[0.6, 1, 1, 0], [1.2, 1, 1, 0.0]])
    result = augment(frames, nothing(2, factors=factors, jitter=np.ones(2, bool)))
    assert (result[0] == 60).all()
    assert (result[1] == 120).all()


def test_draws_have_the_configured_odds_and_ranges():
    draw = draw_augmentation(np.random.default_rng(0).random((20_000, 12)))
    for mask, odds in ((draw.jitter, 0.5), (draw.grayscale, 0.2), (draw.blur, 0.5)):
        assert mask.mean() == pytest.approx(odds, abs=0.02)
    np.testing.assert_allclose(draw.factors.min(axis=0), [0.6, 0.6, 0.6, -0.1], atol=0.001)
    np.testing.assert_allclose(draw.factors.max(axis=0), [1.4, 1.4, 1.4, 0.1], atol=0.001)
    assert len(np.unique(draw.order @ [1000, 100, 10, 1])) == 24
    assert 0.1 <= draw.sigma_px.min() < 0.11
    assert 1.99 < draw.sigma_px.max() <= 2.0
    joint = np.corrcoef([draw.jitter, draw.grayscale, draw.blur]) - np.eye(3)
    assert np.abs(joint).max() < 0.03


def test_a_large_batch_is_augmented_clip_by_clip():
    frames = torch.randint(0, 256, (40, 1, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    chances = np.random.default_rng(1).random((40, 12))
    whole = augment(frames, draw_augmentation(chances))
    alone = [augment(frames[i : i + 1], draw_augmentation(chances[i : i + 1])) for i in range(40)]
    assert torch.equal(whole, torch.cat(alone))


def test_wrong_numbers_and_shapes_are_refused(frames):
    with pytest.raises(ValueError, match="expected"):
        augment(frames.float(), nothing(2))
    with pytest.raises(ValueError, match="chances"):
        draw_augmentation(np.zeros((2, 3)))
