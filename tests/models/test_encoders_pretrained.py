"""Five families of pretrained encoders, from tiny checkpoints in the real layouts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from model_fixtures import refused
from safetensors.torch import load_file, save_file
from torch import Tensor

from dexworld.models.config import ENCODERS, IMAGENET_MEAN, IMAGENET_STD, EncoderConfig, pretrained_encoder
from dexworld.models.encoders import EncoderChoice, TransformersEncoder, build_encoder, find_encoder
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.world_model import preset
from dexworld.training.latents import LatentsConfig
from dexworld.training.train_world_model import RunConfig
from encoder_fixtures import DIM, FAMILIES, SIZES, save_tiny, tiny_model

KINDS = list(FAMILIES)


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> dict[str, EncoderConfig]:
    """A checkpoint folder of every kind, as an encoder."""
    root = tmp_path_factory.mktemp("encoders")
    return {
        kind: pretrained_encoder(family, str(save_tiny(kind, root / kind)), DIM, patch)
        for kind, (family, patch) in FAMILIES.items()
    }


def frames(count: int, size: tuple[int, int]) -> Tensor:
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def normalised(images: Tensor, config: EncoderConfig) -> Tensor:
    """Images (N, 3, H, W) as the family wants them."""
    mean, std = (0.5, 0.5) if config.family == "siglip2" else map(torch.tensor, (IMAGENET_MEAN, IMAGENET_STD))
    return ((images / 255.0 - mean) / std).permute(0, 3, 1, 2)


def reference_tokens(kind: str, model: torch.nn.Module, pixels: Tensor) -> Tensor:
    """What the library itself gives for the patches of square or oblong images."""
    if "dino" in kind or kind == "webssl":
        return model(pixels).last_hidden_state[:, 5 if kind in ("dinov2-registers", "dinov3") else 1 :]
    if kind == "siglip2":
        return model.vision_model(pixels, interpolate_pos_encoding=True).last_hidden_state
    clip = torch.stack([pixels, pixels], dim=1)
    tokens = model(clip, skip_predictor=True).last_hidden_state
    return F.layer_norm(tokens, tokens.shape[-1:])


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_saved_ones_and_latents_are_the_librarys_patch_tokens(kind, configs):
    patch = FAMILIES[kind][1]
    # Only at the square that it was trained on does the library place V-JEPA 2's tokens right.
    size = (64, 64) if kind == "vjepa2" else SIZES[patch]
    config = configs[kind]
    encoder, model = TransformersEncoder(config, size), tiny_model(kind)
    tower = getattr(model, "vision_model", model).state_dict()
    for name, value in encoder.model.state_dict().items():
        assert torch.equal(value, tower[name]), name
    images = frames(2, size)
    latents = encoder.encode(images)
    with torch.no_grad():
        expected = reference_tokens(kind, model, normalised(images, config))
    assert latents.shape == (2, size[0] // patch * (size[1] // patch), DIM)
    assert latents.dtype == torch.float32
    assert (latents - expected).abs().max() < 1e-4 * expected.abs().max()
    assert not encoder.train().model.training
    refused("can't decode", encoder.decode, latents)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_vjepa2_places_tokens_by_row_and_column_where_the_grid_is_no_square(configs):
    encoder = TransformersEncoder(configs["vjepa2"], SIZES[16])
    images, token = frames(1, SIZES[16]), torch.arange(14 * 24)
    weights = load_file(Path(configs["vjepa2"].source) / "model.safetensors")
    places = torch.stack([0 * token, token // 24, token % 24], dim=1)
    square = torch.stack([token // 256, token % 256 // 16, token % 16], dim=1)  # as if they were 16 x 16
    pixels, latents = normalised(images, encoder.config), encoder.encode(images)
    expected, wrong = (vjepa2_by_hand(weights, pixels, each) for each in (places, square))
    assert (latents - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (latents - wrong).abs().max() > 0.01 * expected.abs().max()


def vjepa2_by_hand(weights: dict[str, Tensor], pixels: Tensor, places: Tensor) -> Tensor:
    """V-JEPA 2 on an image that stands still for two frames, its tokens at `places` (L, 3): frame, row and column."""
    weights = {name.removeprefix("encoder."): value for name, value in weights.items()}
    kernel = weights["embeddings.patch_embeddings.proj.weight"].sum(2)  # both frames are the same image
    tokens = F.conv2d(pixels, kernel, weights["embeddings.patch_embeddings.proj.bias"], stride=16).flatten(2).mT
    # Heads of 12 values: 4 each for frame, row and column, turned in neighbouring pairs. The two values of a pair turn
    # at different speeds, 1 and 1/100, as in the original's code.
    angles = places.repeat_interleave(4, dim=1) * torch.tensor([1.0, 0.01] * 6)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (DIM,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    def rotated(x: Tensor) -> Tensor:
        first, second = x[..., ::2], x[..., 1::2]
        return x * angles.cos() + torch.stack([-second, first], dim=-1).flatten(-2) * angles.sin()

    for layer in ("layer.0", "layer.1"):
        x = norm(tokens, f"{layer}.norm1")
        query, key, value = (
            linear(x, f"{layer}.attention.{part}").unflatten(-1, (2, 12)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = rotated(query) @ rotated(key).mT / 12**0.5
        x = (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)
        tokens = tokens + linear(x, f"{layer}.attention.proj")
        x = F.gelu(linear(norm(tokens, f"{layer}.norm2"), f"{layer}.mlp.fc1"))
        tokens = tokens + linear(x, f"{layer}.mlp.fc2")
    return F.layer_norm(norm(tokens, "layernorm"), (DIM,))


def test_images_that_patches_do_not_tile_are_refused_instead_of_losing_columns(configs):
    message = r"image size .* is not a multiple of patch x downsample = 1[46] pixels"
    for kind, size in (("dinov3", (224, 392)), ("vjepa2", (224, 392)), ("siglip2", (224, 384))):
        refused(message, TransformersEncoder, configs[kind], size)


def test_features_are_normalised_on_request_and_for_vjepa2_always(configs):
    images = frames(1, (56, 84))
    plain = TransformersEncoder(configs["dinov2"], (56, 84)).encode(images)
    changed = TransformersEncoder(replace(configs["dinov2"], feature_norm="layer"), (56, 84)).encode(images)
    deviation = plain.std(-1, correction=0, keepdim=True)
    assert torch.allclose(changed, (plain - plain.mean(-1, keepdim=True)) / (deviation**2 + 1e-5).sqrt(), atol=1e-5)
    assert ENCODERS["vjepa2-giant"].feature_norm == "layer"
    assert {name for name, each in ENCODERS.items() if each.feature_norm} == {"vjepa2-giant"}


@pytest.mark.parametrize("kind", ["dinov2", "dinov3", "vjepa2", "siglip2"])
def test_bfloat16_keeps_latents_within_a_few_percent_and_norms_in_float32(kind, configs):
    patch = FAMILIES[kind][1]
    size = (4 * patch, 6 * patch)
    exact = TransformersEncoder(configs[kind], size)
    rounded = TransformersEncoder(replace(configs[kind], precision="bfloat16"), size)
    for layer_type, dtype in ((torch.nn.Linear, torch.bfloat16), (torch.nn.LayerNorm, torch.float32)):
        layers = [layer for layer in rounded.model.modules() if type(layer) is layer_type]
        assert {layer.weight.dtype for layer in layers} == {dtype}
    images = frames(3, size)
    expected, latents = exact.encode(images), rounded.encode(images)
    assert latents.dtype == torch.float32
    assert 0 < (latents - expected).norm() / expected.norm() < 0.05
    assert encoder_fingerprint(rounded) != encoder_fingerprint(exact)


def test_the_named_encoders_are_those_of_the_paper():
    for name, source, patch, dim, mean in (
        ("dinov2-large", "facebook/dinov2-large", 14, 1024, IMAGENET_MEAN),
        ("dinov3-large", "facebook/dinov3-vitl16-pretrain-lvd1689m", 16, 1024, IMAGENET_MEAN),
        ("webssl-300m", "facebook/webssl-dino300m-full2b-224", 14, 1024, IMAGENET_MEAN),
        ("vjepa2-giant", "facebook/vjepa2-vitg-fpc64-256", 16, 1408, IMAGENET_MEAN),
        ("siglip2-so400m", "google/siglip2-so400m-patch14-384", 14, 1152, (0.5, 0.5, 0.5)),
    ):
        encoder = find_encoder(name)
        assert (encoder.source, encoder.patch, encoder.dim, encoder.mean) == (source, patch, dim, mean)
        model = EncoderChoice(name).applied(preset("paper-b"))
        assert model.image_size == SIZES[patch]
        assert model.grid == {14: (16, 28), 16: (14, 24)}[patch]
        assert model.keypoint_head.cell == patch  # heatmaps of one pixel per pixel, as the paper draws them
        assert model.predictor == preset("paper-b").predictor
    assert EncoderChoice().applied(preset("tiny")) == preset("tiny")
    assert EncoderChoice("dinov3-large").applied(preset("tiny")).keypoint_head.cell == 4  # 7 for 28 pixels before


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_says_itself_which_encoder_it_is(kind, configs):
    found = find_encoder(configs[kind].source)
    family = "dinov2" if kind == "webssl" else FAMILIES[kind][0]  # their files don't tell them apart
    assert found == replace(configs[kind], family=family)
    chosen = EncoderChoice(configs[kind].source, encoder_norm="layer", encoder_precision="bfloat16")
    encoder = chosen.applied(preset("debug")).encoder
    assert (encoder.feature_norm, encoder.precision) == ("layer", "bfloat16")
    plain = EncoderChoice(configs[kind].source, encoder_norm="none").applied(preset("debug")).encoder
    assert (plain.feature_norm, plain.precision) == (None, None)


def test_choices_that_make_no_sense_are_refused(tmp_path):
    for name in ("dinov9", "./nowhere", str(tmp_path / "nowhere")):
        refused(r"no encoder '.*choose from dinov2-small, .*or give a folder", find_encoder, name)
    rounded, normed = EncoderChoice(encoder_precision="bfloat16"), EncoderChoice(encoder_norm="layer")
    refused("a pca encoder has no precision", rounded.applied, preset("tiny"))
    for own in ({"encoder": EncoderChoice("dinov2-base")}, {"sentences": "hashed"}):
        refused("a model to start from keeps its encoders", RunConfig, initial="model", **own)
    refused("a checkpoint has its own encoder", LatentsConfig, (tmp_path,), checkpoint="model", encoder=normed)
    refused("encoder_norm is 'batch'", EncoderChoice, encoder_norm="batch")
    kind = "transformers"
    refused("encoder family is 'clip'; choose from dinov2", EncoderConfig, kind=kind, source="x", family="clip")
    small, coarse = replace(preset("debug"), image_size=(56, 56)), replace(ENCODERS["dinov2-large"], downsample=5)
    refused("smaller than a token of 70", small.with_encoder, coarse)


def test_an_encoder_of_another_family_patch_or_kind_is_named(configs, tmp_path):
    for kind, changes, message in (
        ("dinov2", {"family": "siglip2"}, r"is of family dinov2 or webssl, config says siglip2"),
        ("dinov3", {"patch": 14}, r"has \(dim, patch\) \(24, 16\), config says \(24, 14\)"),
        ("siglip2", {"dim": 32}, r"has \(dim, patch\) \(24, 14\), config says \(32, 14\)"),
    ):
        refused(message, TransformersEncoder, replace(configs[kind], **changes), SIZES[14])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 24, "patch_size": 14}))
    refused(r"is a 'vit' model; dexworld reads the types dinov2, .*vjepa2", find_encoder, str(tmp_path))


def test_weights_that_are_absent_incomplete_or_damaged_say_what_to_do(configs, tmp_path):
    def broken(kind: str, name: str) -> tuple[Path, EncoderConfig]:
        shutil.copytree(configs[kind].source, tmp_path / name)
        return tmp_path / name / "model.safetensors", replace(configs[kind], source=str(tmp_path / name))

    def changed(file: Path, missing: tuple[str, ...] = (), **values: Tensor) -> None:
        weights = {name: value for name, value in load_file(file).items() if name not in missing}
        save_file(weights | values, file, metadata={"format": "pt"})

    unreadable = "can't load encoder weights from .*"
    file, config = broken("dinov2", "no-weights")
    file.unlink()
    refused(f"{unreadable}no-weights', taken as a folder: .*safetens", build_encoder, config, SIZES[14])
    (file.parent / "config.json").unlink()
    refused(f"{unreadable}no-weights', taken as a folder", build_encoder, config, SIZES[14])

    file, config = broken("vjepa2", "truncated")
    file.write_bytes(file.read_bytes()[:-100])
    refused(f"{unreadable}truncated", build_encoder, config, SIZES[16])

    file, config = broken("siglip2", "incomplete")  # the probe is not used
    changed(file, ("vision_model.encoder.layers.1.mlp.fc1.weight", "vision_model.head.probe"))
    message = r"lacks 1 weights that its config.json promises, such as encoder.layers.1.mlp"
    refused(message, build_encoder, config, SIZES[14])

    file, config = broken("dinov3", "other-shape")
    changed(file, **{"norm.weight": torch.ones(DIM + 1)})
    refused(f"{unreadable}other-shape.*does not fit", build_encoder, config, SIZES[16])


def test_a_hub_id_without_a_network_tells_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    message = r"taken as a Hugging Face id .*hf download facebook/dinov3-vitl16.*pca"
    refused(message, build_encoder, ENCODERS["dinov3-large"], SIZES[16])


def test_a_copy_of_the_weights_has_the_same_fingerprint_and_a_pca_encoder_the_one_it_always_had(configs, tmp_path):
    copy = shutil.copytree(configs["dinov2"].source, tmp_path / "copy")
    here = build_encoder(configs["dinov2"], SIZES[14])
    there = build_encoder(replace(configs["dinov2"], source=str(copy)), SIZES[14])
    assert encoder_fingerprint(here) == encoder_fingerprint(there)
    assert encoder_fingerprint(here) != encoder_fingerprint(build_encoder(here.config, (56, 84)))
    pca = EncoderConfig()
    assert list(pca.identity()) == ["kind", "dim", "patch", "downsample", "source", "mean", "std"]
    assert pca.identity()["source"] is None
