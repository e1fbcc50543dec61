"""DexWM's verbs and its checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_fixtures import IMAGE_SIZE, SMALL_MODEL, random_motion, randomise, shared_start
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import PRESETS, DexWMConfig, EncoderConfig, from_dict, preset
from dexworld.models.dexwm import DexWM


def frames(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*shape, *IMAGE_SIZE, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def model() -> DexWM:
    result = DexWM(SMALL_MODEL, {"training_seeds": [0, 9]})
    randomise(result.predictor)
    randomise(result.keypoint_head)
    result.encoder.fit([frames(20)])
    return result.eval()


def test_the_verbs_have_the_shapes_they_promise(model: DexWM) -> None:
    latents = model.encode(frames(2, 4))
    motion = random_motion(2, 3, dtype=torch.float32)
    assert latents.shape == (2, 4, 6, 10)
    assert model.predict(latents, motion).shape == (2, 3, 6, 10)
    assert model.unroll(latents[:, :2], motion).shape == (2, 2, 6, 10)
    pixels, confidence = model.keypoints(latents)
    assert pixels.shape == (2, 4, 12, 2)
    assert confidence.shape == (2, 4, 12)
    assert model.keypoint_logits(latents).shape == (2, 4, 12, 14, 21)
    assert model.decode(latents).shape == (2, 4, *IMAGE_SIZE, 3)


def test_planning_continues_what_was_observed_as_unrolling_does(model: DexWM) -> None:
    latents = model.encode(frames(3))
    observed, future = random_motion(1, 2, dtype=torch.float32), random_motion(5, 4, seed=1, dtype=torch.float32)
    future = shared_start(observed.index(0), future)
    with torch.no_grad():
        planned = model.rollout(model.start(latents, observed.index(0)), future)
        unrolled = model.unroll(latents.expand(5, -1, -1, -1), observed.index([0] * 5).then(future))
    assert planned.shape == (5, 4, 6, 10)
    assert (planned - unrolled).abs().max() < 1e-4


def test_unrolling_nothing_is_refused(model: DexWM) -> None:
    with pytest.raises(ValueError, match="leave nothing to predict"):
        model.unroll(model.encode(frames(1, 2)), random_motion(1, 1, dtype=torch.float32))


def test_a_goal_image_of_another_size_is_refused(model: DexWM) -> None:
    with pytest.raises(ValueError, match=r"this model takes \(..., 56, 84, 3\)"):
        model.encode(torch.zeros(64, 84, 3, dtype=torch.uint8))


def test_a_saved_model_loads_the_same(model: DexWM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    loaded = DexWM.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    assert loaded.provenance == {"training_seeds": [0, 9]}
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    assert not loaded.training


def test_every_preset_survives_json() -> None:
    from dataclasses import asdict

    for name in PRESETS:
        config = preset(name)
        assert from_dict(DexWMConfig, json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(ValueError, match="choose from paper-s"):
        preset("huge")


def test_a_checkpoint_with_a_named_encoder_leaves_its_weights_out(tmp_path: Path) -> None:
    Dinov2Model(
        Dinov2Config(hidden_size=10, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    ).save_pretrained(tmp_path / "dinov2")
    encoder = EncoderConfig(kind="transformers", dim=10, downsample=1, source=str(tmp_path / "dinov2"))
    model = DexWM(replace(SMALL_MODEL, encoder=encoder))
    model.save_pretrained(tmp_path / "model", {"training_seeds": [1, 2]})
    assert not any(name.startswith("encoder.") for name in load_file(tmp_path / "model" / "model.safetensors"))
    loaded = DexWM.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.encode(frames(1)), model.encode(frames(1)))


def test_a_truncated_checkpoint_is_named(model: DexWM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or corrupt"):
            DexWM.from_pretrained(tmp_path)


def test_checkpoints_that_do_not_fit_say_why(model: DexWM, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        DexWM.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        DexWM.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()

    def expect(change: str, message: str) -> None:
        (tmp_path / "config.json").write_text(change)
        with pytest.raises(CheckpointError, match=message):
            DexWM.from_pretrained(tmp_path)

    expect(text[: len(text) // 2], "not valid JSON")
    expect(
        text.replace('"format_version": 1', '"format_version": 99'), "format version 99, this dexworld reads version 1"
    )
    expect(text.replace('"depth": 2', '"depht": 2'), "unknown fields depht")
    expect(text.replace('"num_context": 4', '"num_context": 5'), "wrong shape .*positions")
    (tmp_path / "config.json").write_text(text)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["predictor.final.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing \['predictor\.final\.weight'\]"):
        DexWM.from_pretrained(tmp_path)


def test_the_summary_counts_every_part(model: DexWM) -> None:
    counts = model.parameter_counts()
    assert counts["predictor"] == sum(value.numel() for value in model.predictor.parameters())
    assert counts["total"] == counts["encoder"] + counts["predictor"] + counts["keypoint_head"]
    assert "2 x 3 grid of 10-d pca latents" in model.summary()


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("predictor", {"dim": 10, "heads": 3}, "not a multiple of its 3 heads"),
        ("predictor", {"tracked": [12]}, "index the 12"),
        ("predictor", {"num_context": 0}, "must be positive"),
        ("encoder", {"kind": "vae"}, "choose 'pca' or 'transformers'"),
        ("encoder", {"kind": "transformers"}, "needs `source`"),
        ("encoder", {"dim": 1000}, "at most 588 dims"),
        ("keypoint_head", {"loss": "l1"}, "choose 'mse' or 'cross_entropy'"),
    ],
)
def test_contradicting_configs_are_refused(part: str, values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(DexWMConfig, {part: values})
