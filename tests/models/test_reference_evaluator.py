"""The keypoint evaluator that is shipped with the package."""

from pathlib import Path

import pytest

from dexworld.evaluation.guard import SeedError, check_seeds
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import chosen_evaluator, open_evaluator
from dexworld.models.reference import EVALUATOR, REFERENCE, checkpoint_path


@pytest.fixture(scope="module")
def reference():
    return DexWM.from_pretrained(checkpoint_path(REFERENCE))


def test_it_is_small_enough_to_ship_and_has_a_model_card():
    folder = Path(checkpoint_path(EVALUATOR))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6
    assert "## Commands" in (folder / "README.md").read_text(encoding="utf-8")


def test_it_reads_the_latents_of_the_reference_checkpoint_unless_the_own_head_is_asked_for(reference):
    evaluator, reader = chosen_evaluator("auto", reference.encoder)
    assert evaluator is not None
    assert evaluator.config.latents.image_size == reference.config.image_size
    assert reader == "the evaluator that dexworld ships"


def test_it_is_no_copy_of_the_reference_checkpoints_own_head(reference):
    evaluator = open_evaluator(EVALUATOR, reference.encoder)
    first_stage = evaluator.provenance["initial_provenance"]
    assert first_stage["command"].startswith("dexworld train evaluator")
    assert "initial" not in first_stage  # it began with new weights
    own = reference.keypoint_head.state_dict()
    assert not any(weight.equal(own[name]) for name, weight in evaluator.head.state_dict().items())


def test_it_was_trained_on_scenes_that_are_not_evaluated(reference):
    provenance = open_evaluator(EVALUATOR, reference.encoder).provenance
    assert provenance["finished"] is True
    assert check_seeds([1_000_000], provenance) == [1_000_000]
    with pytest.raises(SeedError, match="training seeds"):
        check_seeds([provenance["training_seeds"][0][0]], provenance, "validation")
