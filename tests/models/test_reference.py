"""The checkpoint that is shipped with the package."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dexworld.evaluation.guard import SeedError, check_seeds
from dexworld.models.dexwm import DexWM
from dexworld.models.reference import REFERENCE, checkpoint_path


@pytest.fixture(scope="module")
def reference():
    return DexWM.from_pretrained(checkpoint_path(REFERENCE)).eval()


def test_it_is_small_enough_to_ship_and_has_a_model_card():
    folder = Path(checkpoint_path(REFERENCE))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 25e6
    assert "## Commands" in (folder / "README.md").read_text(encoding="utf-8")


def test_it_records_what_it_was_trained_on_so_that_nobody_evaluates_it_there(reference):
    with pytest.raises(SeedError, match="training seeds"):
        check_seeds([5], reference.provenance, "validation")
    assert check_seeds([1_000_000], reference.provenance) == [1_000_000]


def test_its_latents_decode_back_to_the_picture(reference):
    rows, columns = np.mgrid[0:224, 0:392]
    picture = np.stack([rows % 200, columns % 200, (rows + columns) % 200], axis=-1).astype(np.uint8)
    smooth = torch.from_numpy(np.ascontiguousarray(picture // 4 + 60))
    decoded = reference.decode(reference.encode(smooth)).float()
    error = (decoded - smooth.float()).abs().mean()
    assert error < 0.25 * (smooth.float() - smooth.float().mean()).abs().mean()


def test_another_name_is_a_folder_or_a_hub_id():
    assert checkpoint_path("somebody/else") == "somebody/else"
