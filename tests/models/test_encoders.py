"""Encoders: patch PCA in closed form, and the transformers path on a tiny random DINOv2."""

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from dexworld.models.config import EncoderConfig
from dexworld.models.encoders import PCAEncoder, TransformersEncoder

SIZE = (56, 84)


def images(count: int = 40, seed: int = 0) -> torch.Tensor:
    """Random smooth images: few directions explain their patches."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    return (255 * fine).round().to(torch.uint8).permute(0, 2, 3, 1)


def test_pca_latents_have_unit_std_zero_mean_and_decode_back() -> None:
    frames = images()
    encoder = PCAEncoder(EncoderConfig(dim=40), SIZE).fit(frames.split(7))
    latents = encoder.encode(frames)
    assert latents.shape == (40, 6, 40)
    assert latents.mean().abs() < 1e-3
    assert abs(latents.std() - 1.0) < 1e-3
    assert encoder.explained_variance > 0.95
    difference = (encoder.decode(latents).float() - frames.float()).abs().mean()
    assert difference < 6.0  # of 255


def test_pca_is_the_projection_on_the_leading_eigenvectors() -> None:
    frames = images(60)
    encoder = PCAEncoder(EncoderConfig(dim=5), SIZE).fit([frames])
    small = frames.view(60, 28, 2, 42, 2, 3).double().mean(dim=(2, 4)) / 255
    patches = small.view(60, 2, 14, 3, 14, 3).transpose(2, 3).reshape(360, 588)
    centred = patches - patches.mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    expected = centred @ directions[:5].T / (singular[:5].square().sum() / 360 / 5).sqrt()
    actual = encoder.encode(frames).reshape(360, 5).double()
    assert torch.allclose(actual.abs(), expected.abs(), atol=1e-4)


def test_pca_fitted_on_drawn_patches_repeats_with_its_generator() -> None:
    fits = [
        PCAEncoder(EncoderConfig(dim=4), SIZE).fit(
            [images()], patches_per_image=2, generator=torch.Generator().manual_seed(s)
        )
        for s in (1, 1, 2)
    ]
    assert torch.equal(fits[0].basis, fits[1].basis)
    assert not torch.equal(fits[0].basis, fits[2].basis)


def test_leading_dimensions_and_single_images_are_kept() -> None:
    encoder = PCAEncoder(EncoderConfig(dim=4), SIZE).fit([images()])
    frames = images(6).view(2, 3, *SIZE, 3)
    assert encoder.encode(frames).shape == (2, 3, 6, 4)
    assert torch.allclose(encoder.encode(frames[1, 2]), encoder.encode(frames)[1, 2], atol=1e-5)
    assert encoder.decode(encoder.encode(frames)).shape == frames.shape
    assert encoder.decode(encoder.encode(frames[0, 0])).shape == frames.shape[2:]


def test_encoders_refuse_what_they_were_not_made_for() -> None:
    encoder = PCAEncoder(EncoderConfig(dim=4), SIZE)
    with pytest.raises(ValueError, match="not fitted"):
        encoder.encode(images(1))
    with pytest.raises(ValueError, match=r"this model takes \(..., 56, 84, 3\) uint8"):
        encoder.encode(torch.zeros(1, 56, 80, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="float32"):
        encoder.encode(torch.zeros(1, *SIZE, 3))
    with pytest.raises(ValueError, match="can't fit a pca encoder of 40 dims"):
        PCAEncoder(EncoderConfig(dim=40), SIZE).fit([images(1)])
    with pytest.raises(ValueError, match="all patches are alike"):
        PCAEncoder(EncoderConfig(dim=4), SIZE).fit([torch.zeros(2, *SIZE, 3, dtype=torch.uint8)])
    with pytest.raises(ValueError, match="not a multiple of patch x downsample = 28"):
        PCAEncoder(EncoderConfig(dim=4), (56, 90))


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    """A tiny DINOv2 with random weights, made for square images as the real one is."""
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=70, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path / "dinov2")
    return tmp_path / "dinov2"


def dinov2_config(folder: Path, **changes) -> EncoderConfig:
    return EncoderConfig(**{"kind": "transformers", "dim": 16, "downsample": 1, "source": str(folder), **changes})


def test_a_transformers_encoder_gives_the_patch_tokens_of_the_papers_grid(dinov2: Path) -> None:
    encoder = TransformersEncoder(dinov2_config(dinov2), (224, 392))
    frames = torch.randint(0, 256, (2, 224, 392, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    latents = encoder.encode(frames)
    assert encoder.grid == (16, 28)
    assert latents.shape == (2, 448, 16)
    normalised = (frames / 255.0 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        tokens = encoder.model(pixel_values=normalised.permute(0, 3, 1, 2)).last_hidden_state
    assert torch.allclose(latents, tokens[:, 1:], atol=1e-5)
    assert not encoder.train().model.training
    with pytest.raises(ValueError, match="can't decode"):
        encoder.decode(latents)


def test_a_transformers_encoder_says_what_is_wrong_with_its_source(dinov2: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has \(dim, patch\) \(16, 14\), config says \(32, 14\)"):
        TransformersEncoder(dinov2_config(dinov2, dim=32), (224, 392))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"can't load encoder weights from .*empty.* taken as a folder"):
        TransformersEncoder(dinov2_config(tmp_path / "empty"), (224, 392))
