"""The pixel decoder in training: it learns pictures, deceives its judge, and goes on bit by bit."""

import json

import pytest
import torch

from dexworld.data.windows import Window
from dexworld.models.decoder import DecoderConfig, PixelDecoder, PixelDecoderConfig, from_pixels
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import open_decoder
from dexworld.models.latent_space import LatentSpace
from dexworld.models.perceptual import LPIPS, GradientDistance
from dexworld.track import Track
from dexworld.training.checkpoints import ResumeError
from dexworld.training.decoder_objective import (
    AdversarialDecoder,
    DecoderTask,
    DecoderTrainConfig,
    PatchDiscriminator,
    adaptive_weight,
    hinge_loss,
)
from dexworld.training.train_decoder import DecoderRunConfig, train_decoder

NETWORK = DecoderConfig(dim=32, depth=1, heads=2, mlp_ratio=2)


@pytest.fixture
def make_run(disc_data, world_model, tmp_path):
    def make(output="run", **changes):
        settings = {"steps": 8, "batch_size": 4, "warmup_steps": 1, "log_every": 1, "checkpoint_every": 3}
        settings |= {"discriminator_channels": 8, "discriminator_start": 0.25, "adversarial_start": 0.5}
        settings |= {"validation_pictures": 20}
        run = {name: changes.pop(name) for name in ("latents", "lpips_vgg", "checkpoint") if name in changes}
        return DecoderRunConfig(
            **({"data": (disc_data,), "checkpoint": str(world_model), "latents": "cached"} | run),
            output=tmp_path / output,
            validation_fraction=0.2,
            workers=0,
            device="cpu",
            training=DecoderTrainConfig(**(settings | changes)),
        )

    return make


def one_picture():
    torch.manual_seed(0)
    space = LatentSpace(dim=8, grid=(2, 3), image_size=(16, 24), encoder="any")
    decoder = PixelDecoder(PixelDecoderConfig(space, NETWORK))
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(24), indexing="ij")
    image = torch.stack([rows * 15, columns * 10, (rows + columns) * 6], dim=-1).to(torch.uint8)[None]
    track, none = Track(torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 3)), torch.zeros(1, dtype=torch.long)
    return decoder, Window(track, none, none, none[None], torch.randn(1, 1, 6, 8), image[None])


def psnr(decoder, pictures):
    with torch.no_grad():
        return float(
            -10 * ((decoder(pictures.latents[:, 0]) - from_pixels(pictures.frames[:, 0])) / 2).square().mean().log10()
        )


def test_a_decoder_learns_one_picture_by_heart():
    decoder, pictures = one_picture()
    config = DecoderTrainConfig(adversarial=0.0, discriminator_start=0.0)
    task = DecoderTask(AdversarialDecoder(decoder, None), config, None, GradientDistance(), "gradient_distance")
    optimiser = torch.optim.Adam(decoder.parameters(), 3e-3)
    before = psnr(decoder, pictures)
    for _ in range(60):
        optimiser.zero_grad()
        task.losses(pictures, 0)["loss"].backward()
        optimiser.step()
    assert before < 12
    assert psnr(decoder, pictures) > 22


def test_each_side_of_the_game_gets_the_gradient_of_its_own_loss():
    decoder, pictures = one_picture()
    judge = PatchDiscriminator(8)
    config = DecoderTrainConfig(steps=10, discriminator_channels=8, perceptual=0.0)
    model = AdversarialDecoder(decoder, judge)
    task = DecoderTask(model, config, None, GradientDistance(), "gradient_distance")

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}

    early, middle, late = (gradients(task.losses(pictures, index)["loss"]) for index in (0, 4, 6))
    assert not any(name.startswith("discriminator") for name in early)
    weight = "decoder.project_out.weight"
    assert torch.equal(early[weight], middle[weight])  # the judge learns, nobody listens to it yet
    assert not torch.allclose(early[weight], late[weight])
    # what the decoder gains by deceiving the judge, the judge's own weights don't feel
    made, true = decoder(pictures.latents[:, 0]).detach(), from_pixels(pictures.frames[:, 0])
    judge.zero_grad()
    hinge_loss(judge(true), judge(made)).backward()
    for name, each in judge.named_parameters():
        torch.testing.assert_close(late[f"discriminator.{name}"], each.grad)
    # the adaptive weight makes the adversarial gradient 0.75 times as long as the other one
    extra = late[weight] - early[weight]
    assert float(extra.norm() / early[weight].norm()) == pytest.approx(0.75, rel=0.02)


def test_lpips_teaches_the_decoder_and_stays_as_it_is():
    torch.manual_seed(0)
    lpips = LPIPS()
    with torch.no_grad():
        for head in lpips.heads:
            head.fill_(1.0)
    decoder, pictures = one_picture()
    config = DecoderTrainConfig(adversarial=0.0, perceptual=2.0)
    losses = DecoderTask(AdversarialDecoder(decoder, None), config, None, lpips, "lpips").losses(pictures, 0)
    assert torch.equal(losses["loss"], losses["l1"] + 2.0 * losses["lpips"])
    (alone,) = torch.autograd.grad(losses["lpips"], decoder.project_out.weight)
    assert alone.abs().sum() > 0
    assert not any(each.requires_grad for each in lpips.parameters())


def test_the_adaptive_weight_is_the_ratio_of_gradient_lengths():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)
    assert float(adaptive_weight((3 * weight).sum(), (0.5 * weight).sum(), weight, torch.clone)) == pytest.approx(
        6.0, rel=1e-3
    )
    assert float(adaptive_weight((3 * weight).sum(), (1e-12 * weight).sum(), weight, torch.clone)) == 1e4


def test_a_run_leaves_a_decoder_with_figures_a_curve_and_provenance(make_run, world_model, tmp_path):
    folder = train_decoder(make_run(), NETWORK)
    decoder = PixelDecoder.from_pretrained(folder)
    figures = decoder.provenance["figures"]
    assert figures.keys() == {"psnr", "l1", "ssim", "gradient_distance"}
    assert decoder.provenance["perceptual"] == "gradient_distance"
    assert decoder.provenance["finished"] is True
    assert decoder.provenance["training_seeds"] == [[0, 11]]
    assert decoder.provenance["encoder"] == decoder.config.latents.encoder
    assert str(tmp_path) not in json.dumps(decoder.provenance)
    curve = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    names = {row["step"]: set(row) for row in curve if "loss" in row}
    assert "discriminator" not in names[2]
    assert "discriminator" in names[3]
    assert "adversarial" not in names[4]
    assert {"adversarial", "adversarial_weight", "l1", "gradient_distance"} <= names[5]
    images = open_decoder(folder, DexWM.from_pretrained(world_model).encoder).decode(torch.zeros(1, 16, 16))
    assert images.shape == (1, 56, 56, 3)


def test_a_residual_run_starts_from_the_best_linear_pictures_and_is_stopped_and_resumed_alike(make_run, tmp_path):
    residual = DecoderConfig(dim=32, depth=1, heads=2, mlp_ratio=2, output="linear", residual=True)
    start = PixelDecoder.from_pretrained(train_decoder(make_run("start", steps=1, learning_rate=1e-12), residual))
    plain = PixelDecoder.from_pretrained(train_decoder(make_run("plain", steps=1, learning_rate=1e-12), NETWORK))
    assert start.provenance["figures"]["psnr"] > plain.provenance["figures"]["psnr"] + 5
    train_decoder(make_run("whole"), residual)
    for seconds in (1e-9, None):
        train_decoder(make_run("parts", max_seconds=seconds), residual)
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    whole = PixelDecoder.from_pretrained(tmp_path / "whole/model")
    assert torch.equal(whole.linear.weight, start.linear.weight)


def test_a_stopped_run_ends_with_the_same_bits_discriminator_included(make_run, tmp_path):
    whole = make_run("whole")
    train_decoder(whole, NETWORK)
    for seconds in (1e-9, 1e-9, None):  # two sittings of one step each, then the rest
        train_decoder(make_run("parts", max_seconds=seconds), NETWORK)
    states = [
        (tmp_path / name / "checkpoints/step-00000008/training.safetensors").read_bytes() for name in ("whole", "parts")
    ]
    assert states[0] == states[1]
    assert b"optimiser/exp_avg/discriminator.layers.0.weight" in states[0]
    assert b"average/decoder.project_out.weight" in states[0]
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    assert b"discriminator" not in weights[0]


def test_latents_made_while_training_are_those_that_were_kept(make_run, tmp_path):
    for latents in ("cached", "online"):
        train_decoder(make_run(latents, latents=latents, steps=3), NETWORK)
    curves = [(tmp_path / name / "metrics.jsonl").read_text().splitlines()[0] for name in ("cached", "online")]
    first = [json.loads(line)["loss"] for line in curves]
    assert first[0] == pytest.approx(first[1], rel=1e-3)  # the cache holds float16


def test_another_encoder_is_refused(make_run, world_model, model_config):
    folder = train_decoder(make_run(steps=1), NETWORK)
    other = DexWM.from_pretrained(world_model)
    other.encoder.scale *= 1.01
    with pytest.raises(ValueError, match="Train one for this model's encoder"):
        open_decoder(folder, other.encoder)


def test_going_on_with_other_losses_is_refused(make_run):
    train_decoder(make_run(steps=4), NETWORK)
    with pytest.raises(ResumeError, match=r"training\.adversarial is 0\.5, it was 0\.75"):
        train_decoder(make_run(steps=4, adversarial=0.5), NETWORK)


def test_options_that_make_no_sense_are_named(make_run, tmp_path):
    with pytest.raises(ValueError, match=r"adversarial_start is 0\.1, before discriminator_start 0\.25"):
        make_run(adversarial_start=0.1)
    with pytest.raises(ValueError, match="multiple of 8"):
        make_run(discriminator_channels=12)
    with pytest.raises(ValueError, match="data names no dataset folder"):
        train_decoder(DecoderRunConfig(output=tmp_path))
    with pytest.raises(ValueError, match="size is 'huge'; choose from debug"):
        DecoderRunConfig(size="huge")
    with pytest.raises(ValueError, match="lpips_heads is missing"):
        train_decoder(make_run(lpips_vgg=tmp_path / "vgg.npz"), NETWORK)
