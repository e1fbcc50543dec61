import pytest
import torch

from dexworld.video.model.pca_codec import PCACodec


@pytest.fixture(scope="module")
def video():
    torch.manual_seed(0)
    coarse = torch.rand(3, 9, 4, 6, 3)
    return (coarse.repeat_interleave(8, 2).repeat_interleave(8, 3) * 255).to(torch.uint8)


def test_the_latents_have_the_causal_geometry_of_the_video_vaes(video):
    codec = PCACodec(12).fit([video])
    assert codec.encode(video).shape == (3, 3, 12, 4, 6)


def test_video_within_the_components_comes_back_exactly(video):
    # one colour per 8 x 8 cell and frame: 3 numbers in the first frame's patches, 12 in those of four frames
    codec = PCACodec(12).fit([video])
    assert (codec.decode(codec.encode(video)).int() - video.int()).abs().max() <= 1


def test_the_first_frame_depends_on_nothing_after_it(video):
    codec = PCACodec(8).fit([video])
    changed = video.clone()
    changed[:, 1:] = 0
    torch.testing.assert_close(codec.encode(changed)[:, 0], codec.encode(video)[:, 0])


def test_a_standing_picture_has_latents_of_one_size(video):
    still = video[:, :1].expand(-1, 9, -1, -1, -1)
    codec = PCACodec(3).fit([still])
    first, rest = codec.encode(still)[:, 0], codec.encode(still)[:, 1]
    assert 0.8 < first.std() / rest.std() < 1.25


def test_latents_have_unit_mean_variance(video):
    latents = PCACodec(8).fit([video]).encode(video)
    assert 0.7 < float(latents.var(dim=(0, 1, 3, 4)).mean()) < 1.4


def test_fitting_twice_gives_the_same_components(video):
    left, right = PCACodec(8).fit([video]), PCACodec(8).fit([video])
    assert all(torch.equal(value, right.state_dict()[name]) for name, value in left.state_dict().items())


def test_an_unfitted_codec_says_so(video):
    with pytest.raises(RuntimeError, match="not fitted"):
        PCACodec(8).encode(video)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 8, 32, 48, 3), "frames must be 1"), ((1, 9, 30, 48, 3), "multiples of 8"), ((9, 32, 48, 3), "B, F, H, W")],
)
def test_videos_that_do_not_fit_are_refused(video, shape, message):
    codec = PCACodec(8).fit([video])
    with pytest.raises(ValueError, match=message):
        codec.encode(torch.zeros(shape, dtype=torch.uint8))


def test_too_few_patches_are_refused():
    with pytest.raises(ValueError, match="more or longer videos"):
        PCACodec(16).fit([torch.zeros(1, 5, 16, 16, 3, dtype=torch.uint8)])


def test_an_error_of_latents_has_the_same_size_in_pixels(video):
    codec = PCACodec(12).fit([video])
    error = torch.randn(3, 3, 12, 4, 6)
    pixels = codec.pixel_error(error)
    weighted = error.square() * codec.metric.view(1, 1, -1, 1, 1)
    assert pixels.shape == (3, 9, 32, 48)
    torch.testing.assert_close(pixels[:, 0].mean(), weighted[:, 0].mean())
    torch.testing.assert_close(pixels[:, 1:].mean(), weighted[:, 1:].mean())
