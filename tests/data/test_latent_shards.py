"""Shards: they index as one array does, add up from shares, and say what is missing or damaged."""

import json
import zlib

import numpy as np
import pytest
import torch
from prepare_fixtures import content_of

from dexworld.data import latent_cache as caches
from dexworld.data import latent_shards
from dexworld.data.files import Shard
from dexworld.data.latent_cache import (
    StaleCacheError,
    cache_folder,
    compute_latents,
    latent_cache,
    open_cache,
)
from dexworld.data.latent_shards import LatentShards, shard_path, write_shard
from dexworld.data.locks import claimed
from dexworld.data.recordings import EpisodeWriter

SHAPE = (2, 3)


def make_shards(folder, rows, rows_per_shard):
    """The array and its values; row i holds numbers around i."""
    values = (np.arange(rows)[:, None, None] + np.arange(6).reshape(SHAPE) / 8).astype(np.float16)
    shards = LatentShards(folder, (rows, *SHAPE), rows_per_shard)
    (folder / "shards").mkdir(parents=True)
    for number, path in enumerate(shards.paths):
        first, last = shards.rows_of(number)
        with claimed(path) as part:
            write_shard(path, part, last - first, SHAPE, np.array_split(values[first:last], 2))
    return shards, values


@pytest.mark.parametrize("rows", [[0, 3, 4, 10], [10, 0, 10, 5], [], list(range(11))], ids=str)
def test_rows_in_any_order_are_those_of_one_array(tmp_path, rows):
    shards, values = make_shards(tmp_path, 11, 4)
    assert (len(shards), shards.shape, len(shards.paths)) == (11, (11, 2, 3), 3)
    found = shards[np.array(rows, dtype=int)]
    np.testing.assert_array_equal(found, values[rows] if rows else values[:0])
    assert found.dtype == np.float16


def test_no_more_files_stay_open_than_allowed_and_rows_outside_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(latent_shards, "OPEN_SHARDS", 2)
    shards, values = make_shards(tmp_path, 11, 1)
    for row in (11, -1):
        with pytest.raises(IndexError, match="it holds 11"):
            shards[np.array([row])]
    np.testing.assert_array_equal(shards[np.arange(11)], values)
    assert list(shards._maps) == [9, 10]


def test_a_shard_is_an_ordinary_npy_file_with_its_checksum_beside_it(tmp_path):
    _, values = make_shards(tmp_path, 11, 4)
    path = shard_path(tmp_path, 2)
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), values[8:])
    assert json.loads(path.with_suffix(".json").read_text()) == {"rows": 3, "crc32": zlib.crc32(path.read_bytes())}


def test_a_flipped_bit_and_a_missing_file_are_found(tmp_path):
    shards, _ = make_shards(tmp_path, 11, 4)
    assert shards.missing() == []
    assert not any(wrong for _, wrong in shards.damaged())
    path = shard_path(tmp_path, 1)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert list(shards.damaged()) == [(f"shards/0000{number}.npy", number == 1) for number in range(3)]
    path.write_bytes(content[:-1])
    shard_path(tmp_path, 2).unlink()
    assert shards.missing() == ["shards/00001.npy", "shards/00002.npy"]


def test_shares_add_up_to_the_latents_of_one_pass_over_the_episodes(tmp_path, write_dataset, brightness_encoder):
    dataset = write_dataset(tmp_path / "data", [7, 3, 12])
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert compute_latents(dataset, brightness_encoder, "b", alone, frames_per_shard=5)
    shares = [Shard(index, 3) for index in (2, 0, 1)]
    finished = [compute_latents(dataset, brightness_encoder, "b", shared, "cpu", None, each, 5) for each in shares]
    assert finished == [False, False, True]
    assert content_of(alone) == content_of(shared)
    images = [dataset[index].frames.read(list(range(length))) for index, length in enumerate((7, 3, 12))]
    expected = brightness_encoder(torch.from_numpy(np.concatenate(images))).half().numpy()
    cache = open_cache(dataset, "b", shared)
    np.testing.assert_array_equal(cache.latents[np.arange(22)], expected)
    path = shard_path(shared, 0)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(StaleCacheError, match=r"1 of 5 shards are missing or truncated \(shards/00000.npy first\)"):
        open_cache(dataset, "b", shared)


def test_a_stopped_build_goes_on_with_the_shards_that_are_missing(tmp_path, write_dataset, brightness_encoder):
    dataset = write_dataset(tmp_path / "data", [8, 8])
    seen = []

    def breaks_down(images):
        seen.append(len(images))
        if len(seen) == 5:  # the first call measures the shape
            raise RuntimeError("out of memory")
        return brightness_encoder(images)

    folder = cache_folder(dataset, "b")
    with pytest.raises(RuntimeError, match="out of memory"):
        compute_latents(dataset, breaks_down, "b", folder, frames_per_shard=4)
    assert not (folder / "cache.json").exists()
    with pytest.raises(FileNotFoundError, match=r"no complete latents.*cache-latents"):
        open_cache(dataset, "b")
    told = []
    cache = latent_cache(dataset, breaks_down, "b", progress=lambda *counts: told.append(counts))
    assert seen == [1, 4, 4, 4, 4, 4]
    assert told == [(16, 16)]
    assert len(cache) == 16


def test_a_cache_of_another_encoder_dataset_or_version_is_refused(
    tmp_path, write_dataset, brightness_encoder, numbered_episode
):
    dataset = write_dataset(tmp_path / "data", [5, 6])
    folder = cache_folder(dataset, "b")
    compute_latents(dataset, brightness_encoder, "b", folder, shard=Shard(1, 2))  # not finished
    with pytest.raises(StaleCacheError, match=r"another state of the dataset.*delete that folder"):
        compute_latents(write_dataset(tmp_path / "other", [9]), brightness_encoder, "b", folder)
    latent_cache(dataset, brightness_encoder, "b")
    with pytest.raises(StaleCacheError, match="another encoder"):
        latent_cache(dataset, brightness_encoder, "other weights", folder)
    writer = EpisodeWriter(tmp_path / "data", {"made by": "tests"})
    writer.write("0007", numbered_episode(7, 4))
    with pytest.raises(StaleCacheError, match=r"another state of the dataset.*delete that folder"):
        latent_cache(writer.finish(), brightness_encoder, "b")
    header = json.loads((folder / "cache.json").read_text())
    (folder / "cache.json").write_text(json.dumps(header | {"format_version": 1}))
    with pytest.raises(StaleCacheError, match=r"another version of dexworld; delete that folder"):
        latent_cache(dataset, brightness_encoder, "b")


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_latents_that_float16_can_not_hold_are_refused_by_episode(tmp_path, value, write_dataset):
    dataset = write_dataset(tmp_path / "data", [5])
    with pytest.raises(ValueError, match=r"episode 0000.*NaN, Inf"):
        latent_cache(dataset, lambda images: torch.full((len(images), 2, 3), value), "broken")


def test_a_disk_that_is_too_small_is_refused_before_anything_is_encoded(
    tmp_path, write_dataset, brightness_encoder, monkeypatch
):
    dataset = write_dataset(tmp_path / "data", [5])
    usage = caches.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(ValueError, match=r"need 0.0 GB more, the disk has 0.0 GB left"):
        compute_latents(dataset, brightness_encoder, "b", tmp_path / "cache")
