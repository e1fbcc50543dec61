"""The pixel decoder that is shipped with the package: it draws the reference's latents, closer to the truth."""

from pathlib import Path

import pytest
import torch

from dexworld.evaluation.guard import SeedError, check_seeds
from dexworld.models.decoder import PixelDecoder, from_pixels
from dexworld.models.dexwm import DexWM
from dexworld.models.perceptual import GradientDistance
from dexworld.models.picture_metrics import psnr
from dexworld.models.reference import DECODER, HANDS, REFERENCE, checkpoint_path
from dexworld.sim.kitchen.explore import ExploreConfig, record_exploration
from dexworld.training.decoder_choice import drawing_of


@pytest.fixture(scope="module")
def reference():
    return DexWM.from_pretrained(checkpoint_path(REFERENCE)).eval()


def test_it_is_small_and_has_a_model_card():
    folder = Path(checkpoint_path(DECODER))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("Licence", "## Command", "## Curve", "## Figures", "## Limits"):
        assert heading in card, heading


def test_it_records_the_scenes_that_it_was_trained_on():
    decoder = PixelDecoder.from_pretrained(checkpoint_path(DECODER))
    with pytest.raises(SeedError, match="training seeds"):
        check_seeds([5], decoder.provenance, "validation")


def test_it_draws_the_reference_and_no_model_of_another_encoder(reference):
    assert drawing_of(reference).by == "the pixel decoder that dexworld ships"
    assert "own way back" in drawing_of(DexWM.from_pretrained(checkpoint_path(HANDS))).by


def test_its_pictures_are_closer_and_their_edges_better_than_the_encoders(reference):
    pictures = torch.from_numpy(record_exploration(900_000, config=ExploreConfig(frames=2)).frames.read([0]))
    latents = reference.encode(pictures)
    own, drawn = reference.decode(latents), drawing_of(reference).decode(latents)
    assert psnr(drawn.numpy(), pictures.numpy()) > psnr(own.numpy(), pictures.numpy())
    distance = GradientDistance()
    drawn_distance, own_distance = (float(distance(from_pixels(each), from_pixels(pictures))) for each in (drawn, own))
    assert drawn_distance < own_distance
