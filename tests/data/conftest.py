import pytest
from numbered_fixtures import encode_brightness, make_numbered_episode, write_numbered_dataset

from dexworld.data.latent_cache import latent_cache


@pytest.fixture
def numbered_episode():
    return make_numbered_episode


@pytest.fixture
def brightness_encoder():
    return encode_brightness


@pytest.fixture
def write_dataset():
    return write_numbered_dataset


@pytest.fixture
def make_cache(tmp_path):
    def make(lengths, name="data", moving_from=None):
        dataset = write_numbered_dataset(tmp_path / name, lengths, moving_from)
        return latent_cache(dataset, encode_brightness, "brightness")

    return make
