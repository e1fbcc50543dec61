"""Published weights, from loading to a generated video, at a size that a CPU trains in a second."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretrained_fixtures import SCHEDULERS, save_original_wan, save_published, tiny_cogvideox, tiny_wan
from safetensors.torch import load_file, save_file

from dexworld import cli
from dexworld.models.checkpoint import CheckpointError
from dexworld.video.clips.clip import ClipShape, TripletClip
from dexworld.video.clips.triplet_files import write_triplet
from dexworld.video.clips.triplets import finish_triplets
from dexworld.video.model.dwm import load_base, load_model
from dexworld.video.model.generate import Generator, SampleConfig, sample
from dexworld.video.model.lora import LORA_FILE, LoRAConfig, add_lora, has_lora
from dexworld.video.model.noise import FIXED, diffusion_process, flow_process, noise_settings
from dexworld.video.model.patch_embedding import patch_embedding
from dexworld.video.model.published_weights import load_transformer

diffusers = pytest.importorskip("diffusers")
CLIP = ClipShape(9, 32, 48)
INPAINTING = [("cogvideox", 9, 13), ("wan", 12, 16)]
KINDS = pytest.mark.parametrize(("kind", "channels", "widened"), INPAINTING)
WEIGHTS = "diffusion_pytorch_model.safetensors"


def clip():
    """A clip of noise."""
    rng = np.random.default_rng(0)
    return TripletClip("noise", *(rng.integers(0, 256, (9, 32, 48, 3), dtype=np.uint8) for _ in range(3)), "")


def conditions(model):
    return model.conditions_of([clip()])


def generated(model, seed=5):
    latents = sample(model, conditions(model), SampleConfig(steps=2), [torch.Generator().manual_seed(seed)])
    return model.decode(latents)


def adapted(model, rank=2):
    add_lora(model.backbone.transformer, LoRAConfig(rank, rank))
    return model


def train_one_step(model):
    """One AdamW step on the velocity loss, with everything that is trainable."""
    clean, given = model.encode(clip().interaction[None]), conditions(model)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    timestep = torch.tensor([700])
    answer = model.denoise(model.process.noisy(clean, noise, timestep), timestep, given)
    weights = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=1e-2)
    (answer - clean).square().mean().backward()
    optimiser.step()


@KINDS
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_published_model_loads_widens_trains_saves_reloads_and_generates_the_same_video(
    kind, channels, widened, lora, tmp_path
):
    base = save_published(tmp_path / "base", kind, channels)
    model = adapted(load_base(base, CLIP, reference=True)) if lora else load_base(base, CLIP)
    assert patch_embedding(model.backbone.transformer).in_channels == widened + lora * model.config.codec.channels
    before = generated(model)
    train_one_step(model)
    after = generated(model)
    assert not torch.equal(after, before)
    model.save_pretrained(tmp_path / "trained")
    again = load_model(tmp_path / "trained")
    assert has_lora(again.backbone.transformer) == lora
    assert again.config == model.config
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    # tensors lie elsewhere in memory now, so that kernels may round otherwise: one grey level
    torch.testing.assert_close(generated(again).int(), after.int(), rtol=0, atol=1)
    # and a second generation of training can go on from there
    train_one_step(again)
    again.save_pretrained(tmp_path / "further")
    further = load_model(tmp_path / "further")
    torch.testing.assert_close(further.state_dict(), again.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(generated(further).int(), generated(again).int(), rtol=0, atol=1)


@KINDS
def test_an_adapter_is_saved_without_its_base(kind, channels, widened, tmp_path):
    base = save_published(tmp_path / "base", kind, channels)
    adapted(load_base(base, CLIP), 1).save_pretrained(tmp_path / "adapter")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert names == {"adapter.json", LORA_FILE, "non_lora_weights.safetensors", "README.md"}
    moved = base.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"adapter is an adapter of .*base, which is not there; .*adapter\.json"):
        load_model(tmp_path / "adapter")
    assert load_model(tmp_path / "adapter", base=moved).provenance["base"] == str(moved)


@KINDS
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_base_by_a_relative_path_is_found_from_another_directory(
    kind, channels, widened, lora, tmp_path, monkeypatch
):
    base = save_published(tmp_path / "base", kind, channels)
    monkeypatch.chdir(tmp_path)
    model = load_base("./base", CLIP)
    (adapted(model, 1) if lora else model).save_pretrained("trained")
    monkeypatch.chdir("/")
    again = load_model(tmp_path / "trained")
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    record = json.loads((tmp_path / "trained" / ("adapter.json" if lora else "config.json")).read_text())
    assert record["provenance"]["base"] == "base"  # a model card names no folder of a machine
    base.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=rf"{base}"):
        load_model(tmp_path / "trained")


def test_a_wan_base_trains_at_the_size_of_the_data(square_clips, tmp_path, monkeypatch):
    save_published(tmp_path / "wan", "wan", 12)
    for each in square_clips[:3]:
        write_triplet(tmp_path / "data", each)
    finish_triplets(tmp_path / "data", {}, {})
    monkeypatch.chdir(tmp_path)
    options = [
        "--data",
        "data",
        "--base",
        "./wan",
        "--lora-rank",
        2,
        "--steps",
        1,
        "--batch-size",
        1,
        "--device",
        "cpu",
    ]
    with pytest.raises(SystemExit):
        cli.main(["video", "train", "--output", "run", *map(str, options)])
    cli.main(["video", "train", "--output", "run", *map(str, options), "--clip-shape", "5", "32", "48"])
    monkeypatch.chdir("/")
    model = load_model(tmp_path / "run" / "model")
    assert model.config.clip == ClipShape(5, 32, 48)
    assert len(Generator(model).generate(square_clips[:1], [0])[0]) == 5


@KINDS
@torch.no_grad()
def test_a_widened_model_answers_what_its_base_answers_whatever_the_hands(kind, channels, widened, tmp_path):
    save_published(tmp_path, kind, channels)
    model, plain = load_base(tmp_path, CLIP), load_base(tmp_path, CLIP, condition="none")
    given, timestep = plain.conditions_of([clip()]), torch.tensor([500])
    noisy = torch.randn(given.static.shape, generator=torch.Generator().manual_seed(1))
    expected = plain.denoise(noisy, timestep, given)
    for hands in (clip().hands, np.zeros_like(clip().hands)):
        given = model.conditions_of([replace(clip(), hands=hands)])
        assert torch.equal(model.denoise(noisy, timestep, given), expected)


@pytest.mark.parametrize(("kind", "channels", "widened"), [("cogvideox", 4, 13), ("cogvideox", 8, 13), ("wan", 4, 16)])
def test_text_to_video_and_image_to_video_bases_widen_too(kind, channels, widened, tmp_path):
    save_published(tmp_path, kind, channels)
    narrow = patch_embedding(load_transformer(tmp_path)).weight
    wide = patch_embedding(load_base(tmp_path, CLIP).backbone.transformer).weight
    assert wide.shape[1] == widened
    assert torch.equal(wide[:, :4], narrow[:, :4])
    if channels == 8:  # the image's columns become those of the static video
        assert torch.equal(wide[:, 5:9], narrow[:, 4:])
        wide = torch.cat([wide[:, 4:5], wide[:, 9:]], dim=1)
    else:
        wide = wide[:, 4:]
    assert not wide.any()


@KINDS
def test_a_checkpoint_that_is_widened_already_keeps_its_columns(kind, channels, widened, tmp_path):
    save_published(tmp_path, kind, widened)
    loaded = patch_embedding(load_base(tmp_path, CLIP).backbone.transformer).weight
    assert torch.equal(loaded, patch_embedding(load_transformer(tmp_path)).weight)
    assert loaded[:, channels:].any()


def test_the_config_is_read_from_the_checkpoint(tmp_path):
    model = load_base(save_published(tmp_path / "cogvideox", "cogvideox", 9))
    backbone = model.config.backbone
    assert (backbone.heads, backbone.head_dim, backbone.depth, backbone.text_dim) == (2, 16, 2, 8)
    assert backbone.snr_shift == 3.0
    assert model.config.clip == ClipShape(9, 32, 48)
    assert torch.equal(conditions(model).mask, torch.full((1, 3, 1, 4, 6), 0.7))  # the VAE's scaling factor
    wan = load_base(save_published(tmp_path / "wan", "wan", 12), CLIP)
    assert (wan.config.backbone.flow_shift, wan.config.backbone.mlp_dim) == (3.0, 48)
    assert torch.equal(conditions(wan).mask, torch.ones(1, 3, 4, 4, 6))


def test_wan_in_its_original_layout_is_the_same_model(tmp_path):
    saved = tiny_wan()
    loaded = load_transformer(save_original_wan(tmp_path, saved))
    assert loaded.config.in_channels == 12
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert torch.equal(loaded.rope.freqs_cos, saved.rope.freqs_cos)


def test_a_wan_fun_folder_without_a_vae_takes_it_from_elsewhere_and_runs_end_to_end(tmp_path):
    save_original_wan(tmp_path / "fun", tiny_wan())
    save_published(tmp_path / "diffusers", "wan", 12)
    with pytest.raises(CheckpointError, match=r"fun holds no vae"):
        load_base(tmp_path / "fun", CLIP)
    model = adapted(load_base(tmp_path / "fun", CLIP, codec_source=str(tmp_path / "diffusers")))
    assert model.config.backbone.flow_shift == 5.0  # no scheduler in this layout either
    train_one_step(model)
    model.save_pretrained(tmp_path / "trained")
    assert torch.equal(generated(load_model(tmp_path / "trained")), generated(model))


@pytest.mark.parametrize("original", [False, True])
@torch.no_grad()
def test_wans_image_branch_becomes_a_bias_that_answers_like_an_empty_image(original, tmp_path):
    saved = tiny_wan(12, image_dim=1280, added_kv_proj_dim=32)
    for value in saved.parameters():  # norms and biases of a new model are ones and zeros, which would hide mistakes
        value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    if original:
        save_original_wan(tmp_path, saved)
    else:
        saved.save_pretrained(tmp_path / "transformer")
    loaded = load_transformer(tmp_path)
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 12, 3, 4, 6, generator=generator), torch.randn(1, 512, 8, generator=generator)
    timestep, image = torch.tensor([400]), torch.zeros(1, 257, 1280)
    expected = saved(latents, timestep, text, image, return_dict=False)[0]
    assert not torch.allclose(saved(latents, timestep, text, return_dict=False)[0], expected, atol=1e-3)
    torch.testing.assert_close(loaded(latents, timestep, text, return_dict=False)[0], expected, rtol=1e-4, atol=1e-5)
    assert not [name for name in loaded.state_dict() if "add_" in name or "image" in name]


@pytest.mark.parametrize("layout", ["cogvideox", "wan", "original"])
def test_every_missing_and_unexpected_tensor_is_named(layout, tmp_path):
    if layout == "original":
        path = save_original_wan(tmp_path, tiny_wan()) / WEIGHTS
    else:
        path = save_published(tmp_path, layout, 9 if layout == "cogvideox" else 12) / "transformer" / WEIGHTS
    weights = load_file(path)
    lost = {name for name in weights if name.endswith(("to_v.bias", "self_attn.v.bias"))}
    assert lost
    weights = {name: value for name, value in weights.items() if name not in lost} | {"strange": torch.zeros(1)}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        load_transformer(tmp_path)
    message = str(caught.value)
    assert f"missing {len(lost)} tensors" in message
    assert all(f"blocks.{block}.attn1.to_v.bias" in message for block in (0, 1))
    assert "unexpected 1 tensors: strange" in message


@KINDS
def test_a_wrong_channel_count_is_refused_with_the_counts_that_would_do(kind, channels, widened, tmp_path):
    save_published(tmp_path, kind, 7)
    with pytest.raises(CheckpointError, match=rf"has 7 input channels.*{channels} \(inpainting\) or {widened}"):
        load_base(tmp_path, CLIP)


@KINDS
def test_weights_whose_shape_contradicts_the_config_are_refused(kind, channels, widened, tmp_path):
    save_published(tmp_path, kind, channels)
    path = tmp_path / "transformer" / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"in_channels": widened}))
    with pytest.raises(CheckpointError, match=r"patch_embed"):
        load_transformer(tmp_path)


def test_variants_that_our_config_cannot_express_are_refused(tmp_path):
    save_published(tmp_path / "gelu", "cogvideox", 9, activation_fn="gelu")
    with pytest.raises(CheckpointError, match=r"activation_fn is gelu, ours gelu-approximate"):
        load_base(tmp_path / "gelu", CLIP)
    (tmp_path / "new").mkdir()
    settings = dict(tiny_cogvideox().config) | {"patch_size_t": 2, "_class_name": "CogVideoXTransformer3DModel"}
    (tmp_path / "new" / "config.json").write_text(json.dumps(settings, default=str))
    with pytest.raises(CheckpointError, match=r"CogVideoX 1\.5"):
        load_transformer(tmp_path / "new")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"_class_name": "LTXVideoTransformer3DModel"}))
    with pytest.raises(CheckpointError, match="describes LTXVideoTransformer3DModel; supported are"):
        load_transformer(tmp_path / "other")


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", ["CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"])
def test_the_declared_cogvideox_schedule_is_the_one_that_is_sampled(shift, name, tmp_path):
    settings = FIXED["cogvideox"] | {"snr_shift_scale": shift}
    getattr(diffusers, name).from_config(settings).save_pretrained(tmp_path / "scheduler")
    process = diffusion_process(noise_settings(tmp_path, "cogvideox")["snr_shift"])
    theirs = diffusers.CogVideoXDDIMScheduler.from_pretrained(tmp_path / "scheduler")
    torch.testing.assert_close(process.alpha.double() ** 2, theirs.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)
    assert process.alpha[-1] == 0  # nothing of the clip is left at the noisiest step
    for steps in (1, 7, 10, 50):
        theirs.set_timesteps(steps)
        assert process.timesteps(steps) == theirs.timesteps.tolist()
    # one whole step: DDIM from the same velocity gives the same less noisy latents
    generator = torch.Generator().manual_seed(0)
    noisy, velocity = torch.randn(2, 1, 3, 4, 4, 4, generator=generator)
    now, following = theirs.timesteps[20], theirs.timesteps[21]
    clean = process.clean(noisy, velocity, now[None])
    stepped = theirs.step(velocity, int(now), noisy, eta=0.0, return_dict=False)[0]
    torch.testing.assert_close(process.step(noisy, clean, now[None], following[None]), stepped, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_the_declared_wan_shift_is_the_one_that_is_sampled(shift, tmp_path):
    diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    ).save_pretrained(tmp_path / "scheduler")
    process = flow_process(noise_settings(tmp_path, "wan")["flow_shift"])
    theirs = diffusers.UniPCMultistepScheduler.from_pretrained(tmp_path / "scheduler")
    theirs.set_timesteps(50)
    sigmas = process.sigma[process.timesteps(50)]
    torch.testing.assert_close(sigmas, theirs.sigmas[:-1].float(), rtol=0, atol=0.005)


def test_a_shift_has_another_name_in_flow_matching_schedulers_and_the_published_value_without_a_file(tmp_path):
    assert noise_settings(tmp_path, "cogvideox") == {"snr_shift": 1.0}
    assert noise_settings(tmp_path, "wan") == {"flow_shift": 5.0}
    diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0).save_pretrained(tmp_path / "scheduler")
    assert noise_settings(tmp_path, "wan") == {"flow_shift": 7.0}


@pytest.mark.parametrize(
    ("kind", "change", "complaint"),
    [
        ("cogvideox", {"prediction_type": "epsilon"}, "prediction_type is 'epsilon', not 'v_prediction'"),
        ("cogvideox", {"clip_sample": True, "timestep_spacing": "leading"}, "clip_sample.*timestep_spacing"),
        ("wan", {"prediction_type": "epsilon"}, "not 'flow_prediction'"),
    ],
)
def test_a_schedule_that_we_do_not_sample_with_is_refused(kind, change, complaint, tmp_path):
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[kind] | change))
    with pytest.raises(CheckpointError, match=complaint):
        noise_settings(tmp_path, kind)
