"""The verbs `train decoder` and `train evaluator` at debug size, through their options."""

import json

import numpy as np
import pytest
import tyro

from dexworld import cli
from dexworld.cli.train_readers import TrainDecoder, TrainEvaluator
from dexworld.data.recordings import EpisodeWriter
from dexworld.models.decoder import PixelDecoder
from dexworld.models.encoders import EncoderChoice
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.training.train_decoder import DecoderRunConfig
from encoder_fixtures import DIM, save_tiny
from square_fixtures import episode_of

FLAGS = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff)
COMMON = "--latents online --encoder-preset debug --encoder-frames 16 --size debug --workers 0 --device cpu --steps 2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four episodes of four frames of 112 x 224 pixels, with a right hand in the middle."""
    folder = tmp_path_factory.mktemp("data")
    writer = EpisodeWriter(folder, {})
    generator = np.random.default_rng(0)
    keypoints = np.zeros((4, 42, 3))
    keypoints[..., 2] = 1.0
    valid = np.zeros((4, 42), dtype=bool)
    valid[:, 21:] = True
    for seed in range(4):
        coarse = generator.integers(0, 256, (4, 7, 14, 3), dtype=np.uint8)
        frames = coarse.repeat(16, axis=1).repeat(16, axis=2)
        writer.write(f"mosaic-{seed}", episode_of(f"mosaic {seed}", frames, 100.0, keypoints, valid, seed))
    writer.finish()
    return folder


def call(verb, data, output, more="", options=COMMON):
    folders = f"--data {data} --output {output} --validation-data {data}"
    tyro.cli(verb, args=f"{folders} {options} {more}".split(), config=FLAGS).run()
    return json.loads((output / "results.json").read_text())


def test_a_decoder_is_trained_from_the_command_line(data, tmp_path):
    results = call(TrainDecoder, data, tmp_path, "--batch-size 2 --validation-pictures 2")
    assert results["steps"] == 2
    assert results["finished"] is True
    assert results["validation"].keys() == {"psnr", "l1", "ssim", "gradient_distance"}
    assert PixelDecoder.from_pretrained(tmp_path / "model").provenance["encoder_of"] == "preset debug"


def test_an_evaluator_is_trained_from_the_command_line(data, tmp_path):
    results = call(TrainEvaluator, data, tmp_path, "--batch-size 2 --validation-frames 4")
    assert results["finished"] is True
    assert results["validation"]["visible"] == 6 * 32  # whole batches of frames
    assert KeypointEvaluator.from_pretrained(tmp_path / "model").config.head.dim == 32


def test_both_take_a_pretrained_encoder_of_which_there_is_no_world_model_yet(data, tmp_path):
    encoder = save_tiny("dinov2", tmp_path / "encoder")
    options = f"--latents online --encoder {encoder} --size debug --workers 0 --device cpu --steps 1 --batch-size 2"
    for verb, made, name in ((TrainDecoder, PixelDecoder, "decoder"), (TrainEvaluator, KeypointEvaluator, "evaluator")):
        call(verb, data, tmp_path / name, options=options)
        trained = made.from_pretrained(tmp_path / name / "model")
        assert trained.config.latents.dim == DIM
        assert trained.config.latents.image_size == (224, 392)  # the preset's
        assert trained.provenance["encoder_of"] == "encoder"
    with pytest.raises(ValueError, match=r"the encoder is that of a/model: leave out"):
        DecoderRunConfig(checkpoint="a/model", encoder=EncoderChoice(str(encoder)))


def test_they_are_verbs_of_two_words_beside_train_which_keeps_its_own_options(data, tmp_path, capsys):
    cli.main(["train", "evaluator", *f"--data {data} --output {tmp_path} {COMMON} --batch-size 2".split()])
    assert KeypointEvaluator.from_pretrained(tmp_path / "model").provenance["finished"] is True
    for words, shown in (
        ("", "train decoder"),
        ("train", "dexworld train evaluator"),
        ("train decoder", "--perceptual"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words.split(), "--help"])
        assert ended.value.code == 0
        assert shown in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["decoder", "evaluator"])
def test_a_dataset_may_have_the_name_of_a_verb(name, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--data", name])
    assert f"{name} is no dataset" in capsys.readouterr().err
