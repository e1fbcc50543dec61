"""The latent cache: computed once, refused when it no longer fits."""

import numpy as np
import pytest
import torch

from dexworld.data.datasets import open_dataset
from dexworld.data.latent_cache import StaleCacheError, latent_cache
from dexworld.data.recordings import EpisodeWriter


def test_the_second_call_opens_what_the_first_computed(tmp_path, write_dataset, brightness_encoder):
    dataset = write_dataset(tmp_path / "data", [5, 6])
    seen = []
    first = latent_cache(dataset, brightness_encoder, "brightness", progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (11, 11)

    def must_not_run(images):
        raise AssertionError("encoded again")

    second = latent_cache(open_dataset(tmp_path / "data"), must_not_run, "brightness")
    np.testing.assert_array_equal(*(cache.latents[np.arange(11)] for cache in (first, second)))


def test_another_encoder_and_a_changed_dataset_are_refused(
    tmp_path, write_dataset, brightness_encoder, numbered_episode
):
    dataset = write_dataset(tmp_path / "data", [5, 6])
    cache = latent_cache(dataset, brightness_encoder, "brightness")
    with pytest.raises(StaleCacheError, match="another encoder"):
        latent_cache(dataset, brightness_encoder, "other weights", cache.folder)
    writer = EpisodeWriter(tmp_path / "data", {"made by": "tests"})
    writer.write("0007", numbered_episode(7, 4))
    with pytest.raises(StaleCacheError, match=r"another state of the dataset.*delete that folder"):
        latent_cache(writer.finish(), brightness_encoder, "brightness")


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_latents_that_float16_can_not_hold_are_refused_by_episode(tmp_path, value, write_dataset):
    dataset = write_dataset(tmp_path / "data", [5])
    with pytest.raises(ValueError, match=r"episode 0000.*NaN, Inf"):
        latent_cache(dataset, lambda images: torch.full((len(images), 2, 3), value), "broken")


def test_an_empty_dataset_is_refused(tmp_path, brightness_encoder):
    dataset = EpisodeWriter(tmp_path / "data", {}).finish()
    with pytest.raises(ValueError, match="no readable episode"):
        latent_cache(dataset, brightness_encoder, "brightness")
