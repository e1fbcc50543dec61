"""The pixel decoder and the keypoint evaluator: any grid, a picture for its latents, and checkpoints that keep both."""

import pytest
import torch

from dexworld.models.decoder import (
    DecoderConfig,
    PixelDecoder,
    PixelDecoderConfig,
)
from dexworld.models.latent_space import LatentSpace
from dexworld.models.perceptual import GradientDistance

SPACE = LatentSpace(dim=6, grid=(2, 5), image_size=(28, 40), encoder="a" * 64)
SMALL = DecoderConfig(dim=32, depth=1, heads=2)
RESIDUAL = DecoderConfig(dim=32, depth=1, heads=2, output="linear", residual=True)
REFINED = DecoderConfig(dim=32, depth=1, heads=2, output="linear", residual=True, refine=8)


def decoder_of(network=SMALL, space=SPACE):
    torch.manual_seed(0)
    return PixelDecoder(PixelDecoderConfig(space, network)).eval()


def linear_pictures(count):
    """Latents of twice the spread, and pictures that are exactly linear in each token; the last component is noise."""
    latents = 2 * torch.randn(count, 10, 6, generator=torch.Generator().manual_seed(3))
    weight = torch.randn(14 * 8 * 3, 6, generator=torch.Generator().manual_seed(4)) * 0.05
    weight[:, 5] = 0.0
    cells = latents @ weight.T + 0.1
    images = cells.view(count, 2, 5, 3, 14, 8).permute(0, 3, 1, 4, 2, 5).reshape(count, 3, 28, 40)
    return images, latents


@pytest.fixture
def residual():
    return decoder_of(RESIDUAL).fit([linear_pictures(8)])


def changes_of_a_token(decoder):
    """How much each pixel (28, 40) changes with the token in row 1, column 2, without attention between tokens."""
    for block in decoder.blocks:
        torch.nn.init.zeros_(block.out.weight)
    latents = torch.randn(1, 10, 6)
    changed = latents.clone()
    changed[0, 7] += 1.0
    return (decoder(changed) - decoder(latents)).abs().sum(dim=(0, 1))


def test_pictures_have_the_encoders_size_on_a_grid_of_any_shape():
    decoder = decoder_of()
    assert decoder(torch.randn(3, 10, 6)).shape == (3, 3, 28, 40)
    images = decoder.decode(torch.randn(2, 4, 10, 6))
    assert images.shape == (2, 4, 28, 40, 3)
    assert images.dtype == torch.uint8
    many = torch.randn(70, 10, 6)  # more than are decoded at once
    assert torch.equal(decoder.decode(many)[:5], decoder.decode(many[:5]))


def test_a_token_is_drawn_where_it_lies():
    difference = changes_of_a_token(decoder_of(DecoderConfig(dim=32, depth=1, heads=2, output="linear"))) > 0
    assert difference[14:28, 16:24].float().mean() > 0.9
    difference[14:28, 16:24] = False
    assert not difference.any()


def test_a_residual_decoder_starts_as_the_best_linear_one():
    decoder = decoder_of(RESIDUAL).fit(linear_pictures(count) for count in (8, 5))
    images, latents = linear_pictures(3)
    torch.testing.assert_close(decoder(latents), images, atol=2e-4, rtol=0)
    torch.testing.assert_close(decoder.spread, torch.full((6,), 2.0), atol=0.2, rtol=0)
    frozen = [name for name, each in decoder.named_parameters() if not each.requires_grad]
    assert frozen == ["linear.weight", "linear.bias"]


def test_only_what_has_a_linear_part_is_fitted_and_not_on_too_little():
    with pytest.raises(ValueError, match="only a residual decoder"):
        decoder_of().fit([linear_pictures(8)])
    images, latents = linear_pictures(1)
    wide = decoder_of(RESIDUAL, LatentSpace(12, (2, 5), (28, 40), "a" * 64))
    with pytest.raises(ValueError, match="10 tokens can't fit a linear decoder of 12 dims"):
        wide.fit([(images, latents.repeat(1, 1, 2))])


@pytest.mark.parametrize("network", [SMALL, RESIDUAL], ids=["plain", "residual"])
def test_a_checkpoint_gives_back_the_decoder_and_its_provenance(network, tmp_path):
    decoder, latents = decoder_of(network), linear_pictures(2)[1]
    if network.residual:
        decoder.fit([linear_pictures(8)])
    decoder.save_pretrained(tmp_path, {"steps": 3})
    again = PixelDecoder.from_pretrained(tmp_path)
    assert again.config == decoder.config
    assert again.provenance == {"steps": 3}
    assert torch.equal(again(latents), decoder(latents))
    assert torch.equal(again.decode(latents), decoder.decode(latents))


def test_a_checkpoint_in_half_precision_is_half_as_large_and_draws_the_same(residual, tmp_path):
    residual.save_pretrained(tmp_path / "whole")
    residual.save_pretrained(tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    again = PixelDecoder.from_pretrained(tmp_path / "half")
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
    latents = linear_pictures(2)[1]
    assert (again.decode(latents).float() - residual.decode(latents).float()).abs().max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: decoder_of().decode(torch.zeros(1, 8, 6)), r"takes \(\.\.\., 10, 6\)"),
        (lambda: SPACE.check_encoder("b" * 64, "the decoder x"), "the decoder x reads .* encoder aaaaaaaaaaaa"),
        (lambda: LatentSpace(6, (3, 5), (28, 40), "a"), "doesn't tile"),
        (lambda: DecoderConfig(residual=True), "its output must be 'linear'"),
        (lambda: DecoderConfig(refine=-1), "refine is -1"),
        (lambda: decoder_of(REFINED, LatentSpace(6, (2, 5), (14, 35), "a")), "no even sides"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_weight_free_distance_is_zero_for_equal_pictures_and_can_be_descended():
    torch.manual_seed(0)
    true, distance = torch.rand(2, 3, 32, 40) * 2 - 1, GradientDistance()
    assert torch.equal(distance(true, true), torch.zeros(2))
    picture = torch.zeros_like(true).requires_grad_()
    before = distance(picture, true)
    before.sum().backward()
    assert torch.isfinite(picture.grad).all()
    with torch.no_grad():
        assert (distance(picture - 100 * picture.grad, true) < before).all()


def test_a_refined_decoder_goes_over_the_whole_picture_and_starts_by_changing_nothing():
    decoder = decoder_of(REFINED).fit([linear_pictures(8)])
    images, latents = linear_pictures(1)
    torch.testing.assert_close(decoder(latents), images, atol=2e-4, rtol=0)
    torch.nn.init.normal_(decoder.refine[-2].weight, std=0.1)
    assert changes_of_a_token(decoder)[14:28, 14:16].max() > 0  # the last columns of the token before


def test_a_residual_decoder_is_not_coarser_in_bfloat16(residual):
    latents = linear_pictures(2)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coarse = residual(latents)
    torch.testing.assert_close(coarse, residual(latents), atol=1e-5, rtol=0)
