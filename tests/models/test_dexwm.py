"""DexWM's verbs and its checkpoints."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from model_fixtures import (
    IMAGE_SIZE,
    SMALL_MODEL,
    random_latents,
    random_motion,
    random_track,
    randomise,
    refused,
    shared_start,
)
from safetensors.torch import load_file, save_file

from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import DexWMConfig, EncoderConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import BFloat16Rollouts, build_world_model, kinds, load_world_model, preset
from dexworld.options import from_dict
from encoder_fixtures import save_tiny
from kind_fixtures import KINDS, config_of


def frames(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*shape, *IMAGE_SIZE, 3), dtype=torch.uint8, generator=generator)


def random_model(kind: str) -> DexWM:
    result = build_world_model(config_of(kind, SMALL_MODEL), {"training_seeds": [0, 9]})
    randomise(result.predictor)
    randomise(result.keypoint_head)
    result.encoder.fit([frames(20)])
    return result.eval()


@pytest.fixture
def model() -> DexWM:
    return random_model("dexwm")


@pytest.fixture(params=[*KINDS, "nwm-diffusion"])
def any_model(request) -> DexWM:
    return random_model(request.param)


def test_the_verbs_have_the_shapes_they_promise(any_model):
    model, latents = any_model, any_model.encode(frames(2, 4))
    motion = model.condition(random_track(2, 4))
    assert motion.deltas.shape[:2] == (2, 3)
    assert motion.deltas.shape[2:].numel() == model.config.action_dim
    assert latents.shape == (2, 4, 6, 10)
    assert model.predict(latents, motion).shape == (2, 3, 6, 10)
    assert model.unroll(latents[:, :2], motion).shape == (2, 2, 6, 10)
    pixels, confidence = model.keypoints(latents)
    assert pixels.shape == (2, 4, 12, 2)
    assert confidence.shape == (2, 4, 12)
    assert model.keypoint_logits(latents).shape == (2, 4, 12, 14, 21)
    assert model.decode(latents).shape == (2, 4, *IMAGE_SIZE, 3)


def test_planning_continues_what_was_observed_as_unrolling_does(any_model):
    model, latents = any_model, any_model.encode(frames(3))
    observed, future = model.condition(random_track(1, 3)), model.condition(random_track(5, 5, seed=1))
    future = shared_start(observed.index(0), future)
    with torch.no_grad():
        planned = model.rollout(model.start(latents, observed.index(0)), future, max_batch=3)
        unrolled = model.unroll(latents.expand(5, -1, -1, -1), observed.index([0] * 5).then(future))
    assert planned.shape == (5, 4, 6, 10)
    assert (planned - unrolled).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_frame_is_continued_as_the_teacher_forced_window_that_repeats_it(kind):
    model = random_model(kind)
    latents = model.encode(frames(1, 2))
    track = random_track(1, 2).at([0] * model.config.num_context + [1])
    with torch.no_grad():
        taught = model.predict(latents[:, [0] * model.config.num_context + [1]], model.condition(track))[:, -1:]
        unrolled = model.unroll(latents[:, :1], model.condition(track.at([0, -1])))
    assert (unrolled - latents[:, :1]).abs().max() > 0.1
    assert (unrolled - taught).abs().max() < 1e-4


def test_unrolling_nothing_is_refused(model):
    motion = random_motion(1, 1, dtype=torch.float32)
    refused("leave nothing to predict", model.unroll, model.encode(frames(1, 2)), motion)


def test_a_saved_model_loads_the_same(any_model, tmp_path):
    model = any_model
    model.save_pretrained(tmp_path / "model")
    loaded = load_world_model(tmp_path / "model")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert loaded.provenance == {"training_seeds": [0, 9]}
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    written = {path.name for path in (tmp_path / "model").iterdir()}
    assert written == {"README.md", "config.json", "model.safetensors"}
    assert not loaded.training


def test_every_preset_survives_json():
    for name in (name for kind in KINDS for name in kinds()[kind].presets):
        config = preset(name)
        assert from_dict(type(config), json.loads(json.dumps(asdict(config)))) == config
    refused("choose from paper-s", preset, "huge")


def test_a_checkpoint_with_a_named_encoder_leaves_its_weights_out(tmp_path):
    source = save_tiny("dinov2", tmp_path / "dinov2", hidden_size=10)
    encoder = EncoderConfig(kind="transformers", dim=10, downsample=1, source=str(source))
    model = DexWM(replace(SMALL_MODEL, encoder=encoder))
    model.save_pretrained(tmp_path / "model", {"training_seeds": [1, 2]})
    assert not any(name.startswith("encoder.") for name in load_file(tmp_path / "model" / "model.safetensors"))
    loaded = DexWM.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.encode(frames(1)), model.encode(frames(1)))


def test_a_truncated_checkpoint_is_named(model, tmp_path):
    model.save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        refused(
            r"model\.safetensors is missing, truncated or corrupt",
            DexWM.from_pretrained,
            tmp_path,
            error=CheckpointError,
        )


def test_checkpoints_that_do_not_fit_say_why(model, tmp_path):
    refused("no checkpoint folder", DexWM.from_pretrained, tmp_path / "nowhere", error=CheckpointError)
    refused(r"holds no config\.json", DexWM.from_pretrained, tmp_path, error=CheckpointError)
    model.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    for old, new, message in (
        (text[len(text) // 2 :], "", "not valid JSON"),
        ('"format_version": 1', '"format_version": 99', "format version 99, this dexworld reads version 1"),
        ('"depth": 2', '"depht": 2', "unknown fields depht"),
        ('"num_context": 4', '"num_context": 5', r"positions is \(5, 6, 16\), the model needs \(6, 6, 16\)"),
    ):
        (tmp_path / "config.json").write_text(text.replace(old, new))
        refused(message, DexWM.from_pretrained, tmp_path, error=CheckpointError)
    (tmp_path / "config.json").write_text(text)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["predictor.final.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    refused(r"missing 1 tensors: predictor\.final\.weight", DexWM.from_pretrained, tmp_path, error=CheckpointError)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("predictor", {"dim": 10, "heads": 3}, "not a multiple of its 3 heads"),
        ("predictor", {"tracked": [12]}, "index the 12"),
        ("predictor", {"num_context": 0}, "must be positive"),
        ("encoder", {"kind": "transformers"}, "needs `source`"),
        ("encoder", {"dim": 1000}, "at most 588 dims"),
        ("keypoint_head", {"loss": "l1"}, "choose 'mse' or 'cross_entropy'"),
    ],
)
def test_contradicting_configs_are_refused(part, values, message):
    refused(message, from_dict, DexWMConfig, {part: values})


def test_bfloat16_rollouts_are_float32_and_close_to_the_models_own():
    model = randomise(DexWM(SMALL_MODEL)).eval()
    latents, motion = random_latents(1, dtype=torch.float32), random_motion(5, 3, dtype=torch.float32)
    still, fast = motion.index(0).slice(0, 0), BFloat16Rollouts(model)
    with torch.no_grad():
        exact = model.rollout(model.start(latents, still), motion)
        rounded = fast.rollout(fast.start(latents, still), motion)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    change = (exact - latents).square().mean()
    assert change > 1e-4
    assert (rounded - exact).square().mean() < 0.01 * change
