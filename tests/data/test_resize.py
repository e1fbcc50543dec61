"""Sizes: the release's numbers, and points that stay on the feature they were on."""

import numpy as np
import pytest
import torch

from dexworld.data.resize import Fit, resized_episode
from dexworld.geometry import project
from dexworld.track import ArrayFrames, Track

EGODEX = Fit.cover((1080, 1920), (224, 392))


def test_the_sizes_of_the_release_come_out():
    assert EGODEX.scaled == (224, 398)
    assert EGODEX.corner == (0, 3)
    assert Fit.cover((720, 1280), (224, 384)).corner == (0, 7)
    assert Fit.cover((180, 320), (224, 392)).scaled == (224, 398)
    np.testing.assert_allclose(EGODEX.pixels(np.array([1920.0, 1080.0])), [395, 224])
    np.testing.assert_allclose(EGODEX.pixels(np.array([0.0, 0.0])), [-3, 0])


@pytest.mark.parametrize("size", [(90, 160), (45, 60), (20, 31)])
@pytest.mark.parametrize("target", [(42, 70), (56, 56)])
def test_a_projected_point_lands_on_the_same_image_feature(size, target):
    """A soft spot drawn where the camera sees a point has its centre where the new intrinsics say."""
    fit = Fit.cover(size, target)
    intrinsics = torch.tensor([[size[1] * 0.7, 0, size[1] * 0.5], [0, size[1] * 0.7, size[0] * 0.5], [0, 0, 1.0]])
    point = torch.tensor([[0.031, -0.022, 0.5]])
    before, _ = project(point, intrinsics)
    after, _ = project(point, fit.intrinsics(intrinsics))
    torch.testing.assert_close(after, fit.pixels(before))

    rows, columns = (torch.arange(side) + 0.5 for side in size)
    spot = torch.exp(-((columns - before[0, 0]) ** 2 + (rows[:, None] - before[0, 1]) ** 2) / (2 * 2.0**2))
    image = fit.images(spot[None, ..., None].expand(-1, -1, -1, 3))[0, ..., 0]
    rows, columns = (torch.arange(side) + 0.5 for side in target)
    centre = torch.stack([(image * columns).sum(), (image * rows[:, None]).sum()]) / image.sum()
    torch.testing.assert_close(centre, after[0], atol=0.06, rtol=0)


def test_numpy_and_torch_agree_and_a_crop_alone_keeps_every_pixel():
    matrix = np.array([[700.0, 0, 960], [0, 710, 540], [0, 0, 1]])
    np.testing.assert_allclose(EGODEX.intrinsics(matrix), EGODEX.intrinsics(torch.from_numpy(matrix)).numpy())
    pixels = np.array([[12.5, 80.0], [1900, 3]])
    np.testing.assert_allclose(EGODEX.pixels(pixels), EGODEX.pixels(torch.from_numpy(pixels)).numpy())
    images = torch.randint(0, 256, (2, 3, 224, 398, 3), dtype=torch.uint8)
    fit = Fit.cover((224, 398), (224, 392))
    assert torch.equal(fit.images(images), images[..., 3:395, :])
    assert not fit.is_identity
    assert Fit.cover((5, 7), (5, 7)).is_identity


def test_scaling_down_averages_and_keeps_the_kind_of_number():
    board = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).mul(255).to(torch.uint8)
    images = board[None, ..., None].expand(3, -1, -1, 3)
    small = Fit.cover((64, 64), (8, 8)).images(images)
    assert small.dtype == torch.uint8
    assert small.shape == (3, 8, 8, 3)
    assert (small.int() - 128).abs().max() <= 1  # without antialiasing this would be 0 or 255
    half = Fit.cover((64, 64), (8, 8)).images(images.float())
    torch.testing.assert_close(half, small.float(), atol=0.51, rtol=0)
    assert Fit.cover((64, 64), (8, 8)).images(images[:0]).shape == (0, 8, 8, 3)


def test_images_of_another_size_and_empty_sizes_are_refused():
    with pytest.raises(ValueError, match="expected"):
        EGODEX.images(torch.zeros(1, 224, 398, 3))
    with pytest.raises(ValueError, match="positive"):
        Fit.cover((0, 5), (2, 2))


def test_tracked_points_and_objects_move_with_the_picture():
    """Points of a wider picture are those of its cropped middle, minus what was cut off on the left."""
    frames = ArrayFrames(np.zeros((2, 224, 392, 3), np.uint8))
    spots = np.array([[[196.0, 112.0], [np.nan, np.nan]]] * 2)
    columns = {"points": spots, "object_pixels": spots, "points_visible": np.ones((2, 2), bool)}
    track = Track(np.tile(np.eye(4), (2, 1, 1)), np.eye(3), columns, 5.0, frames)
    shown = resized_episode(track, (224, 384))
    for name in ("points", "object_pixels"):
        np.testing.assert_array_equal(shown[name][:, 0], [[192.0, 112.0]] * 2)
        assert np.isnan(shown[name][:, 1]).all()
    assert shown["points_visible"].all()
