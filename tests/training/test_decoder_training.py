"""The pixel decoder in training: it learns pictures and goes on bit by bit."""

import json

import pytest
import torch

from dexworld.data.windows import Window
from dexworld.models.decoder import DecoderConfig, PixelDecoder, PixelDecoderConfig, from_pixels
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import open_decoder
from dexworld.models.latent_space import LatentSpace
from dexworld.track import Track
from dexworld.training.train_decoder import DecoderRunConfig, DecoderTask, DecoderTrainConfig, train_decoder

NETWORK = DecoderConfig(dim=32, depth=1, heads=2, mlp_ratio=2)


@pytest.fixture
def make_run(disc_data, world_model, tmp_path):
    def make(output="run", latents="cached", **changes):
        settings = {"steps": 4, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "validation_pictures": 20}
        places = {"data": (disc_data,), "checkpoint": str(world_model), "output": tmp_path / output, "latents": latents}
        training = DecoderTrainConfig(**(settings | changes))
        return DecoderRunConfig(**places, validation_fraction=0.2, workers=0, device="cpu", training=training)

    return make


def one_picture():
    torch.manual_seed(0)
    space = LatentSpace(dim=8, grid=(2, 3), image_size=(16, 24), encoder="any")
    decoder = PixelDecoder(PixelDecoderConfig(space, NETWORK))
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    image = torch.stack([rows * 15, columns * 10, (rows + columns) * 6], dim=-1).to(torch.uint8)[None]
    track, none = Track(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 3)), torch.zeros(1, dtype=torch.long)
    return decoder, Window(track, none, none, none[None], torch.randn(1, 1, 6, 8), image[None])


@torch.no_grad()
def psnr(decoder, pictures):
    error = (decoder(pictures.latents[:, 0]) - from_pixels(pictures.frames[:, 0])) / 2
    return float(-10 * error.square().mean().log10())


def test_a_decoder_learns_one_picture_by_heart():
    decoder, pictures = one_picture()
    task = DecoderTask(decoder, DecoderTrainConfig(), None)
    optimiser = torch.optim.Adam(decoder.parameters(), 3e-3)
    before = psnr(decoder, pictures)
    for _ in range(60):
        optimiser.zero_grad()
        task.losses(pictures, 0)["loss"].backward()
        optimiser.step()
    assert before < 12
    assert psnr(decoder, pictures) > 22


def test_a_run_leaves_a_decoder_with_figures_and_provenance_for_its_own_encoder(make_run, world_model, tmp_path):
    folder = train_decoder(make_run(), NETWORK)
    decoder, model = PixelDecoder.from_pretrained(folder), DexWM.from_pretrained(world_model)
    assert decoder.provenance["figures"].keys() == {"psnr", "l1", "ssim", "gradient_distance"}
    assert decoder.provenance["finished"] is True
    assert decoder.provenance["training_seeds"] == [[0, 11]]
    assert decoder.provenance["encoder"] == decoder.config.latents.encoder
    assert str(tmp_path) not in json.dumps(decoder.provenance)
    assert open_decoder(folder, model.encoder).decode(torch.zeros(1, 16, 16)).shape == (1, 56, 56, 3)
    model.encoder.scale *= 1.01
    with pytest.raises(ValueError, match="Train one for this model's encoder"):
        open_decoder(folder, model.encoder)


def test_a_residual_run_starts_from_the_best_linear_pictures_and_is_stopped_and_resumed_alike(make_run, tmp_path):
    residual = DecoderConfig(dim=32, depth=1, heads=2, mlp_ratio=2, output="linear", residual=True)
    start = PixelDecoder.from_pretrained(train_decoder(make_run("start", steps=1, learning_rate=1e-12), residual))
    plain = PixelDecoder.from_pretrained(train_decoder(make_run("plain", steps=1, learning_rate=1e-12), NETWORK))
    assert start.provenance["figures"]["psnr"] > plain.provenance["figures"]["psnr"] + 5
    train_decoder(make_run("whole"), residual)
    for seconds in (1e-9, 1e-9, None):  # two sittings of one step each, then the rest
        train_decoder(make_run("parts", max_seconds=seconds), residual)
        (tmp_path / "parts" / "checkpoints" / "latest").unlink()  # a sitting goes on without it
    for file in ("model/model.safetensors", "checkpoints/step-00000004/training.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()
    whole = PixelDecoder.from_pretrained(tmp_path / "whole/model")
    assert torch.equal(whole.linear.weight, start.linear.weight)


def test_latents_made_while_training_are_those_that_were_kept(make_run, tmp_path):
    for latents in ("cached", "online"):
        train_decoder(make_run(latents, latents=latents, steps=1), NETWORK)
    curves = [(tmp_path / name / "metrics.jsonl").read_text().splitlines()[0] for name in ("cached", "online")]
    first = [json.loads(line)["loss"] for line in curves]
    assert first[0] == pytest.approx(first[1], rel=1e-3)  # the cache holds float16


def test_options_that_make_no_sense_are_named(tmp_path):
    with pytest.raises(ValueError, match="data names no dataset folder"):
        train_decoder(DecoderRunConfig(output=tmp_path))
    with pytest.raises(ValueError, match="size is 'huge'; choose from debug"):
        DecoderRunConfig(size="huge")
