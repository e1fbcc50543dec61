"""Patch PCA in closed form, and what every encoder refuses."""

import torch
from model_fixtures import refused

from dexworld.models.config import EncoderConfig
from dexworld.models.encoders.pca import PCAEncoder

SIZE = (56, 84)


def images(count: int = 40, seed: int = 0) -> torch.Tensor:
    """Random smooth images: few directions explain their patches."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    return (255 * fine).round().to(torch.uint8).permute(0, 2, 3, 1)


def pca(dim: int, **changes: int) -> PCAEncoder:
    return PCAEncoder(EncoderConfig(dim=dim, **changes), SIZE)


def test_pca_latents_have_unit_std_zero_mean_and_decode_back():
    frames = images()
    encoder = pca(40).fit(frames.split(7))
    latents = encoder.encode(frames)
    assert latents.shape == (40, 6, 40)
    assert latents.mean().abs() < 1e-3
    assert abs(latents.std() - 1.0) < 1e-3
    assert encoder.explained_variance > 0.95
    assert (encoder.decode(latents).float() - frames.float()).abs().mean() < 6.0  # of 255


def test_pca_is_the_projection_on_the_leading_eigenvectors():
    frames = images(60)
    encoder = pca(5).fit([frames])
    small = frames.view(60, 28, 2, 42, 2, 3).double().mean(dim=(2, 4)) / 255
    patches = small.view(60, 2, 14, 3, 14, 3).transpose(2, 3).reshape(360, 588)
    centred = patches - patches.mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    expected = centred @ directions[:5].T / (singular[:5].square().sum() / 360 / 5).sqrt()
    actual = encoder.encode(frames).reshape(360, 5).double()
    assert torch.allclose(actual.abs(), expected.abs(), atol=1e-4)


def test_leading_dimensions_and_single_images_are_kept():
    encoder = pca(4).fit([images()])
    frames = images(6).view(2, 3, *SIZE, 3)
    assert encoder.encode(frames).shape == (2, 3, 6, 4)
    assert torch.allclose(encoder.encode(frames[1, 2]), encoder.encode(frames)[1, 2], atol=1e-5)
    assert encoder.decode(encoder.encode(frames)).shape == frames.shape
    assert encoder.decode(encoder.encode(frames[0, 0])).shape == frames.shape[2:]


def test_merged_tokens_are_the_latents_of_smaller_patches_side_by_side():
    frames = images(20)
    fine, coarse = pca(8, patch=7).fit([frames]), pca(32, merge=2).fit([frames])
    cells = fine.encode(frames).unflatten(1, (4, 6))  # rows and columns of patches half as wide
    rows = [cells[:, 2 * row + down, right::2] for row in (0, 1) for down in (0, 1) for right in (0, 1)]
    expected = torch.cat([torch.cat(rows[:4], dim=-1), torch.cat(rows[4:], dim=-1)], dim=1)
    assert torch.equal(coarse.encode(frames), expected)
    assert torch.equal(coarse.decode(expected), fine.decode(fine.encode(frames)))
    assert coarse.config.identity() == pca(32).config.identity() | {"merge": 2}
    refused("must be multiples of merge and of its square: 2 and 4", pca, 30, merge=2)


def test_encoders_refuse_what_they_were_not_made_for():
    encoder = pca(4)
    refused("not fitted", encoder.encode, images(1))
    refused(r"this model takes \(..., 56, 84, 3\) uint8", encoder.encode, torch.zeros(1, 56, 80, 3, dtype=torch.uint8))
    refused("float32", encoder.encode, torch.zeros(1, *SIZE, 3))
    refused("can't fit a pca encoder of 40 dims", pca(40).fit, [images(1)])
    refused("all patches are alike", pca(4).fit, [torch.zeros(2, *SIZE, 3, dtype=torch.uint8)])
    refused("not a multiple of patch x downsample = 28", PCAEncoder, EncoderConfig(dim=4), (56, 90))
