"""Pictures of latents come from a trained decoder when one is given, and only from one that fits."""

import json

import numpy as np
import pytest
import torch

from dexworld import cli
from dexworld.evaluation.atomic import AtomicConfig, atomic_motions
from dexworld.hands import NUM_KEYPOINTS, RIGHT
from dexworld.models import latent_readers
from dexworld.models.decoder import DECODER_PRESETS, PixelDecoder, PixelDecoderConfig
from dexworld.models.latent_readers import OWN, drawing_of, encoder_fingerprint, open_decoder
from dexworld.models.latent_space import LatentSpace
from dexworld.models.reference import DECODER
from dexworld.report import play_demo as demo
from dexworld.report.demo import DemoResults, write_demo_report
from dexworld.report.imagine import imagine, write_imagine_report
from dexworld.track import ArrayFrames, Track


@pytest.fixture(scope="module")
def decoder(model, tmp_path_factory):
    """The folder of an untrained decoder for the model's encoder."""
    torch.manual_seed(1)
    space = LatentSpace.of(model.config, encoder_fingerprint(model.encoder))
    folder = tmp_path_factory.mktemp("decoder")
    PixelDecoder(PixelDecoderConfig(space, DECODER_PRESETS["debug"])).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def episode():
    world, valid = np.zeros((2, NUM_KEYPOINTS, 3)), np.zeros((2, NUM_KEYPOINTS), dtype=bool)
    world[:, RIGHT], valid[:, RIGHT] = np.random.default_rng(0).normal([0.0, 0.0, 1.0], 0.05, (21, 3)), True
    columns = {"keypoints_world": world, "keypoints_valid": valid}
    intrinsics = np.array([[250.0, 0, 196], [0, 250.0, 112], [0, 0, 1]])
    frames = ArrayFrames(np.random.default_rng(1).integers(0, 255, (2, 224, 392, 3), dtype=np.uint8))
    return Track(np.tile(np.eye(4), (2, 1, 1)), intrinsics, columns, 5.0, frames, "noise")


@pytest.fixture
def motions(model, episode):
    return {"up": atomic_motions(episode, 0, AtomicConfig(steps=1), model.condition)["up"]}


@pytest.fixture
def shipped(decoder, monkeypatch):
    """As if the decoder above were the one in the package."""
    monkeypatch.setattr(latent_readers, "checkpoint_path", lambda name: decoder if name == DECODER else name)


def test_a_demonstration_draws_with_the_decoder_or_the_encoders_own_way_back(checkpoint, decoder, model):
    latents = torch.randn(2, 28, 16)
    own, drawn = (demo._loaded(str(checkpoint), each)[1].decode(latents) for each in (OWN, decoder))
    assert torch.equal(own, model.decode(latents))
    assert torch.equal(drawn, open_decoder(decoder, model.encoder).decode(latents))
    assert not torch.equal(own, drawn)


def test_the_shipped_decoder_draws_where_it_fits_unless_another_is_named(model, decoder, shipped, tmp_path):
    latents, drawing, own = torch.randn(2, 28, 16), drawing_of(model), drawing_of(model, OWN)
    assert drawing.by == "the pixel decoder that dexworld ships"
    assert torch.equal(drawing.decode(latents), open_decoder(decoder, model.encoder).decode(latents))
    assert own.by == "the pca encoder's own way back"
    assert torch.equal(own.decode(latents), model.decode(latents))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(decoder)
    assert drawing_of(model, str(tmp_path / "run" / "model")).by == "the decoder run/model"


def test_the_shipped_decoder_leaves_models_of_other_encoders_alone(shipped, other_model):
    drawing = drawing_of(other_model)
    assert drawing.by == "the pca encoder's own way back"
    latents = torch.randn(1, 28, 16)
    assert torch.equal(drawing.decode(latents), other_model.decode(latents))
    other_model.encoder.can_decode = False
    assert drawing_of(other_model).decode is None


def test_an_installation_without_a_decoder_draws_with_the_encoder(model, monkeypatch):
    def nothing(name):
        raise FileNotFoundError(name)

    monkeypatch.setattr(latent_readers, "checkpoint_path", nothing)
    assert drawing_of(model).by == "the pca encoder's own way back"


def test_pages_say_who_drew_their_pictures(model, decoder, episode, motions, make_episode, tmp_path):
    drawing = drawing_of(model, decoder)
    imagined = imagine(model, episode, motions, decode=drawing.decode, drawn_by=drawing.by)
    assert drawing.by in write_imagine_report(tmp_path, imagined).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["drawn_by"] == drawing.by
    page = write_demo_report(tmp_path, DemoResults((make_episode(),), drawn_by=drawing.by)).read_text(encoding="utf-8")
    assert page.count(drawing.by) == 2  # beside the pictures, and under what ran


@pytest.mark.parametrize("verb", ["imagine", "plan"])
def test_a_decoder_of_another_encoder_is_refused_before_anything_is_played(
    verb, decoder, other_model, tmp_path, capsys
):
    other_model.save_pretrained(tmp_path / "other", {"training_seeds": [0, 99]})
    options = ["--output", str(tmp_path / "out"), "--checkpoint", str(tmp_path / "other"), "--decoder", decoder]
    with pytest.raises(SystemExit) as stopped:
        cli.main([verb, *options])
    assert stopped.value.code == 2
    assert "reads the latents of encoder" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()
