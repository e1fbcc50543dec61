"""The models that are shipped with the package: a world model, a keypoint evaluator and a pixel decoder."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dexworld.evaluation.guard import SeedError, check_seeds
from dexworld.models.decoder import PixelDecoder, from_pixels
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import chosen_evaluator, drawing_of, open_evaluator
from dexworld.models.perceptual import GradientDistance
from dexworld.models.picture_metrics import psnr
from dexworld.models.reference import DECODER, EVALUATOR, HANDS, REFERENCE, checkpoint_path
from dexworld.sim.kitchen.explore import ExploreConfig, record_exploration


@pytest.fixture(scope="module")
def reference():
    return DexWM.from_pretrained(checkpoint_path(REFERENCE)).eval()


@pytest.fixture(scope="module")
def evaluator(reference):
    return open_evaluator(EVALUATOR, reference.encoder)


def test_loading_it_leaves_torchs_compiler_alone_which_takes_a_second_to_import():
    load = "import sys\nfrom dexworld.models.world_model import load_world_model\nload_world_model('reference')\n"
    script = load + "assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "size", "headings"),
    [
        (REFERENCE, 25e6, ["## Commands"]),
        (EVALUATOR, 5e6, ["## Commands"]),
        (DECODER, 8e6, ["Licence", "## Command", "## Curve", "## Figures", "## Limits"]),
    ],
)
def test_a_shipped_model_is_small_and_has_a_model_card(name, size, headings):
    folder = Path(checkpoint_path(name))
    assert sum(path.stat().st_size for path in folder.iterdir()) < size
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert [heading for heading in headings if heading not in card] == []


def test_it_records_what_it_was_trained_on_so_that_nobody_evaluates_it_there(reference, evaluator):
    decoder = PixelDecoder.from_pretrained(checkpoint_path(DECODER))
    seen = evaluator.provenance["training_seeds"][0][0]
    for model, seed in ((reference, 5), (evaluator, seen), (decoder, 5)):
        with pytest.raises(SeedError, match="training seeds"):
            check_seeds([seed], model.provenance, "validation")
        check_seeds([1_000_000], model.provenance)
    assert evaluator.provenance["finished"] is True


def test_the_evaluator_reads_the_references_latents_unless_the_own_head_is_asked_for(reference):
    evaluator, reader = chosen_evaluator("auto", reference.encoder)
    assert evaluator is not None
    assert evaluator.config.latents.image_size == reference.config.image_size
    assert reader == "the evaluator that dexworld ships"


def test_the_evaluator_is_no_copy_of_the_references_own_head(reference, evaluator):
    first_stage = evaluator.provenance["initial_provenance"]
    assert first_stage["command"].startswith("dexworld train evaluator")
    assert "initial" not in first_stage  # it began with new weights
    own = reference.keypoint_head.state_dict()
    assert not any(weight.equal(own[name]) for name, weight in evaluator.head.state_dict().items())


def test_the_decoder_draws_the_reference_and_no_model_of_another_encoder(reference):
    assert drawing_of(reference).by == "the pixel decoder that dexworld ships"
    assert "own way back" in drawing_of(DexWM.from_pretrained(checkpoint_path(HANDS))).by


def test_the_decoders_pictures_are_closer_and_their_edges_better_than_the_encoders(reference):
    pictures = torch.from_numpy(record_exploration(900_000, config=ExploreConfig(frames=2)).frames.read([0]))
    latents, distance = reference.encode(pictures), GradientDistance()
    own, drawn = reference.decode(latents), drawing_of(reference).decode(latents)
    assert psnr(drawn.numpy(), pictures.numpy()) > psnr(own.numpy(), pictures.numpy())
    drawn_distance, own_distance = (float(distance(from_pixels(each), from_pixels(pictures))) for each in (drawn, own))
    assert drawn_distance < own_distance
