"""Pretrained VAEs behind the codec interface: layout, scaling, sampling, and errors."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from vae_fixtures import save_vae, tiny_cogvideox_vae, tiny_wan_vae

from dexworld.models.checkpoint import CheckpointError
from dexworld.video.model.codecs import VAECodec, load_vae_codec
from dexworld.video.model.video_config import CodecConfig

pytest.importorskip("diffusers")
BUILD = {"cogvideox": tiny_cogvideox_vae, "wan": tiny_wan_vae}
KINDS = pytest.mark.parametrize("kind", ["cogvideox", "wan"])


def video(frames=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, frames, 32, 48, 3), dtype=torch.uint8, generator=generator)


def saved(kind, root, **config):
    return CodecConfig(kind=kind, channels=4, source=str(save_vae(BUILD[kind](), root)), **config)


@KINDS
def test_latents_have_frames_before_channels_and_videos_come_back_as_bytes(kind, tmp_path):
    codec = load_vae_codec(saved(kind, tmp_path))
    latents = codec.encode(video())
    assert latents.shape == (1, 3, 4, 4, 6)
    assert latents.dtype == torch.float32
    decoded = codec.decode(latents)
    assert decoded.shape == (1, 9, 32, 48, 3)
    assert decoded.dtype == torch.uint8


@torch.no_grad()
def test_cogvideox_latents_are_the_vaes_mode_times_the_configs_scaling_factor():
    vae = tiny_cogvideox_vae(scaling_factor=1.15258426)
    codec = VAECodec(vae)
    mode = vae.encode(video().permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist.mode()
    torch.testing.assert_close(codec.encode(video()), mode.transpose(1, 2) * 1.15258426)
    assert codec.mask_value == pytest.approx(1.15258426)


@torch.no_grad()
def test_wan_latents_are_standardised_per_channel_and_its_mask_is_plain():
    vae = tiny_wan_vae()
    codec = VAECodec(vae)
    mode = vae.encode(video().permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist.mode()
    mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    expected = (mode.transpose(1, 2) - mean.view(4, 1, 1)) / std.view(4, 1, 1)
    torch.testing.assert_close(codec.encode(video()), expected)
    assert codec.mask_value == 1.0


@KINDS
@torch.no_grad()
def test_decoding_undoes_the_scaling_before_the_vae_sees_it(kind):
    vae = BUILD[kind]()
    codec = VAECodec(vae)
    mode = vae.encode(video().permute(0, 4, 1, 2, 3) / 127.5 - 1).latent_dist.mode()
    pixels = ((vae.decode(mode).sample + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1)
    difference = (codec.decode(codec.encode(video())).int() - pixels.int()).abs()
    assert difference.max() <= 1  # the round trip through the scaling may move a value across a rounding border


@KINDS
def test_the_mode_is_the_same_every_time_and_samples_are_a_sequence_of_draws(kind):
    vae = BUILD[kind]()
    mode, sampling = VAECodec(vae), VAECodec(vae, sample=True)
    assert torch.equal(mode.encode(video()), mode.encode(video()))
    first, second = sampling.encode(video()), sampling.encode(video())
    assert not torch.equal(first, second)
    assert not torch.equal(first, mode.encode(video()))
    assert torch.equal(VAECodec(vae, sample=True).encode(video()), first)  # the same draws in every new codec


def test_cogvideox_clips_that_its_decoder_would_lengthen_are_refused():
    codec = VAECodec(tiny_cogvideox_vae())
    # the pretrained class itself makes 8 frames out of the two latent frames of a clip of 5
    assert codec.vae.decode(torch.zeros(1, 4, 2, 4, 6)).sample.shape[2] == 8
    with pytest.raises(ValueError, match=r"5 frames.*1 \+ 8 n"):
        codec.encode(video(5))
    with pytest.raises(ValueError, match=r"2 latent frames don't decode to 1 \+ 8 n"):
        codec.decode(torch.zeros(1, 2, 4, 4, 6))


@pytest.mark.parametrize(("kind", "group"), [("cogvideox", 8), ("wan", 4)])
def test_another_frame_count_or_size_or_type_is_refused(kind, group):
    codec = VAECodec(BUILD[kind]())
    with pytest.raises(ValueError, match=rf"7 frames.*1 \+ {group} n"):
        codec.encode(video(7))
    with pytest.raises(ValueError, match="uint8"):
        codec.encode(video().float())
    with pytest.raises(ValueError, match=r"latents must be \(B, f, 4, h, w\)"):
        codec.decode(torch.zeros(1, 2, 5, 4, 6))


def test_a_vae_of_another_kind_or_channel_count_is_refused(tmp_path):
    config = saved("wan", tmp_path)
    with pytest.raises(CheckpointError, match="describes AutoencoderKLWan, not AutoencoderKLCogVideoX"):
        load_vae_codec(CodecConfig("cogvideox", 4, config.source))
    with pytest.raises(CheckpointError, match="has 4 latent channels, the config says 16"):
        load_vae_codec(CodecConfig("wan", 16, config.source))


def test_a_vae_of_another_geometry_is_refused():
    with pytest.raises(ValueError, match="16 x in space"):
        VAECodec(tiny_wan_vae(scale_factor_spatial=16))


@KINDS
def test_missing_and_unexpected_tensors_are_named(kind, tmp_path):
    config = saved(kind, tmp_path)
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("conv_out.bias") or "conv_out" in name)
    tensors["decoder.strange"] = tensors.pop(name)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"missing 1 tensors: {name}; unexpected 1 tensors: decoder\.strange"):
        load_vae_codec(config)


def test_truncated_weights_and_a_folder_without_a_vae_are_named(tmp_path):
    config = saved("wan", tmp_path)
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"vae/diffusion_pytorch_model\.safetensors is missing, trunc"):
        load_vae_codec(config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"holds no vae: there is no vae/config\.json"):
        load_vae_codec(CodecConfig("wan", 4, str(tmp_path / "empty")))


def test_a_broken_config_is_named(tmp_path):
    config = saved("wan", tmp_path)
    (tmp_path / "vae" / "config.json").write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match=r"config\.json should hold settings"):
        load_vae_codec(config)
