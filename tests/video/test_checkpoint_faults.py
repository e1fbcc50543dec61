"""Nothing in a checkpoint is believed: every kind of model refuses bad numbers and configs, in one line and at once."""

import json
import math
import time

import numpy as np
import pytest
import torch
from pretrained_fixtures import save_published
from safetensors.torch import load_file, save_file

from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import PRESETS, KeypointHeadConfig
from dexworld.models.decoder import DecoderConfig, PixelDecoder, PixelDecoderConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import build_encoder, find_encoder
from dexworld.models.keypoint_head import EvaluatorConfig, KeypointEvaluator
from dexworld.models.latent_space import LatentSpace
from dexworld.models.perceptual import read_weights
from dexworld.models.world_model import BFloat16Rollouts, CheckedRollouts, load_world_model
from dexworld.video.model.dwm import DWM, load_base, load_model
from dexworld.video.model.generate import Generator
from dexworld.video.model.lora import LoRAConfig, add_lora
from dexworld.video.model.prompt_embeddings import load_text_encoder
from dexworld.video.model.video_config import BackboneConfig
from encoder_fixtures import save_tiny

SPACE = LatentSpace(16, (4, 7), (56, 98), "0" * 64)
T5 = {"d_model": 8, "d_ff": 16, "d_kv": 4, "num_heads": 2, "num_layers": 2, "vocab_size": 20}
SECONDS = 1.0  # for each refusal


def save_text_encoder(folder):
    from transformers import T5Config, T5EncoderModel

    T5EncoderModel(T5Config(**T5)).save_pretrained(folder / "text_encoder")
    return folder


def save_adapted(folder, make_dwm):
    base = load_base(save_published(folder / "base", "cogvideox", 9))
    base.backbone.transformer = add_lora(base.backbone.transformer, LoRAConfig(2, 2))
    base.save_pretrained(folder / "adapter")
    return folder / "adapter"


def untrained(model):
    def save(folder, _):
        torch.manual_seed(0)
        model().save_pretrained(folder)
        return folder

    return save


HEAD = KeypointHeadConfig(dim=16, depth=1, heads=2)
NETWORK = DecoderConfig(16, 1, 2, 1, "linear", residual=True)
TEXT = BackboneConfig(text_dim=8, text_tokens=4)
# How a model is saved, where its config and weights lie in that folder, and how it is loaded.
MODELS = {
    "dexwm": (untrained(lambda: DexWM(PRESETS["debug"])), "config.json", "model.safetensors", load_world_model),
    "evaluator": (
        untrained(lambda: KeypointEvaluator(EvaluatorConfig(SPACE, HEAD))),
        "config.json",
        "model.safetensors",
        KeypointEvaluator.from_pretrained,
    ),
    "decoder": (
        untrained(lambda: PixelDecoder(PixelDecoderConfig(SPACE, NETWORK))),
        "config.json",
        "model.safetensors",
        PixelDecoder.from_pretrained,
    ),
    "video": (
        lambda folder, make_dwm: make_dwm().save_pretrained(folder) or folder,
        "config.json",
        "model.safetensors",
        DWM.from_pretrained,
    ),
    "adapter": (save_adapted, "adapter.json", "pytorch_lora_weights.safetensors", load_model),
    "encoder": (
        lambda folder, _: save_tiny("dinov2", folder),
        "config.json",
        "model.safetensors",
        lambda folder: build_encoder(find_encoder(str(folder)), (56, 98)),
    ),
    "cogvideox": (
        lambda folder, _: save_published(folder, "cogvideox", 9),
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        load_base,
    ),
    "wan": (
        lambda folder, _: save_published(folder, "wan", 12),
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        load_base,
    ),
    "vae": (
        lambda folder, _: save_published(folder, "cogvideox", 9),
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        load_base,
    ),
    "text encoder": (
        lambda folder, _: save_text_encoder(folder),
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        lambda folder: load_text_encoder(folder, TEXT),
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def saved(request, tmp_path_factory, make_dwm):
    """A saved model: its folder, the files of its config and of its weights, and how it is loaded."""
    save, config, weights, load = MODELS[request.param]
    folder = save(tmp_path_factory.mktemp("saved"), make_dwm)
    return folder, folder / config, folder / weights, load


def refusal(load, folder) -> str | None:
    """What the CheckpointError of a load says; None where it loads. Neither takes long."""
    begin, said = time.process_time(), None
    try:
        load(folder)
    except CheckpointError as error:
        said = str(error)
    assert time.process_time() - begin < SECONDS, said
    return said


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(saved, value):
    folder, _, file, load = saved
    whole = file.read_bytes()
    weights = load_file(file)
    name = sorted(name for name, tensor in weights.items() if tensor.is_floating_point())[1]
    weights[name].view(-1)[-1] = value
    save_file(weights, file, {"format": "pt"})
    said = refusal(load, folder)
    file.write_bytes(whole)
    assert said is not None
    assert "holds NaN or Inf" in said
    assert name.removeprefix("transformer.") in said
    assert str(file.parent) in said


def leaves(settings, path=()):
    """Every number in nested settings, by the path to it."""
    for name, value in settings.items() if isinstance(settings, dict) else enumerate(settings):
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, name)


def changed(settings, path, value):
    """A copy of nested settings with another value at a path."""
    copy = json.loads(json.dumps(settings))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(copy)


FAULTS = {
    "huge": 10**9,
    "many": 5000,
    "zero": 0,
    "negative": -3,
    "fraction": 2.5,
    "nan": math.nan,
    "list": [],
    "map": {"a": 1},
    "text": "x",
    "null": None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_config_that_no_model_has_ends_in_one_error_at_once(saved, fault):
    folder, file, _, load = saved
    text = file.read_text()
    settings = json.loads(text)
    ours = "model" in settings and isinstance(settings["model"], dict)
    paths = [path for path in leaves(settings) if not ours or path[0] == "model"]
    if not ours and fault not in ("huge", "zero", "list"):
        paths = paths[::3]  # libraries have many settings, and take longer
    refused = []
    try:
        for path in paths:
            file.write_text(changed(settings, path, FAULTS[fault]))
            said = refusal(load, folder)
            if said is not None:
                refused.append(path)
                assert str(folder) in said
            assert said or fault not in ("huge", "nan"), path
    finally:
        file.write_text(text)
    assert refused


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 100_000, '{"a":' * 100_000, '{"model": [1]}', '{"model": null}', "1" * 5000, "\xff"]
)
def test_a_config_that_is_no_settings_by_name_is_refused(saved, text):
    folder, file, _, load = saved
    whole = file.read_text()
    file.write_bytes(text.encode("latin-1"))
    said = refusal(load, folder)
    file.write_text(whole)
    assert said is not None


@pytest.mark.parametrize(("kind", "name"), [("decoder", "spread"), ("video", "codec.scale")])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_scales_that_values_are_divided_by_must_be_positive(kind, name, value, tmp_path, make_dwm):
    save, _, weights, load = MODELS[kind]
    folder = save(tmp_path, make_dwm)
    tensors = load_file(folder / weights)
    tensors[name][1] = value
    save_file(tensors, folder / weights, {"format": "pt"})
    assert f"{name} must be positive" in str(refusal(load, folder))


@pytest.mark.parametrize("wrap", [CheckedRollouts, BFloat16Rollouts])
def test_rollouts_that_are_not_finite_name_what_was_asked_and_the_checkpoint(wrap):
    class Broken:
        source = "some/folder"

        def start(self, latents, condition):
            return None

        def rollout(self, context, condition, max_batch=None):
            return torch.full((2, 3, 4, 5), math.nan)

    model = wrap(Broken(), "reach 7")
    context = model.start(torch.zeros(1), None)
    with pytest.raises(ValueError, match="reach 7: the checkpoint some/folder predicts NaN or Inf"):
        model.rollout(context, None)


def test_videos_that_are_not_finite_name_clip_and_checkpoint(make_dwm, square_clips):
    model = make_dwm()
    model.source = "some/folder"
    torch.nn.init.constant_(model.backbone.transformer.proj_out.bias, math.inf)
    with pytest.raises(ValueError, match="clip000: the checkpoint some/folder predicts NaN or Inf"):
        Generator(model).generate(square_clips[:2], [0, 1])


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_perceptual_weights_must_be_finite(kind, tmp_path):
    tensors = {"features.0.weight": torch.full((2,), math.nan)}
    path = tmp_path / f"vgg.{kind}"
    if kind == "npz":
        np.savez(path, **{name: value.numpy() for name, value in tensors.items()})
    else:
        save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"features\.0\.weight holds NaN"):
        read_weights(path)
