"""Shards: they index as one array does, add up from shares, and say what is missing or damaged."""

import json
import zlib

import numpy as np
import pytest
import torch

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
from dexworld.data.resize import resized

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


def test_a_file_is_claimed_by_one_writer_and_a_failed_one_leaves_it_to_the_next(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(IsADirectoryError), claimed(path) as part:
        part.write_bytes(tmp_path.read_bytes())
    assert not path.exists()
    with claimed(path) as part:
        part.write_text("whole")
        with claimed(path, wait=False) as other:
            assert other is None
    with claimed(path) as part:
        assert part is None
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "whole")]


def test_shares_add_up_to_what_one_process_writes(tmp_path, write_dataset, brightness_encoder):
    dataset = write_dataset(tmp_path / "data", [7, 3, 12])
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert compute_latents(dataset, brightness_encoder, "b", alone, frames_per_shard=4)
    finished = [
        compute_latents(dataset, brightness_encoder, "b", shared, shard=Shard(index, 3), frames_per_shard=4)
        for index in (2, 0, 1)
    ]
    assert finished == [False, False, True]
    files = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(shared) for path in shared.rglob("*") if path.is_file())
    assert all((alone / name).read_bytes() == (shared / name).read_bytes() for name in files)


def test_shards_hold_the_latents_that_one_pass_over_the_episodes_makes(tmp_path, write_dataset, brightness_encoder):
    dataset = write_dataset(tmp_path / "data", [7, 3, 12])
    compute_latents(dataset, brightness_encoder, "b", tmp_path / "cache", frames_per_shard=5)
    cache = open_cache(dataset, "b", tmp_path / "cache")
    images = [dataset[index].frames.read(list(range(length))) for index, length in enumerate((7, 3, 12))]
    expected = brightness_encoder(torch.from_numpy(np.concatenate(images))).half().numpy()
    np.testing.assert_array_equal(cache.latents[np.arange(22)], expected)


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
    assert told[0] == (16, 16) or told[0][0] > 12
    assert len(cache) == 16


def test_an_unfinished_build_of_another_dataset_and_an_unknown_version_are_refused(
    tmp_path, write_dataset, brightness_encoder
):
    folder, dataset = tmp_path / "cache", write_dataset(tmp_path / "one", [8])
    compute_latents(dataset, brightness_encoder, "b", folder, shard=Shard(1, 2))
    with pytest.raises(StaleCacheError, match=r"another state of the dataset.*delete that folder"):
        compute_latents(write_dataset(tmp_path / "two", [9]), brightness_encoder, "b", folder)
    folder = cache_folder(dataset, "b")
    folder.mkdir(parents=True)
    header = {"format_version": 1, "encoder": "b", "dataset": dataset.fingerprint}
    (folder / "cache.json").write_text(json.dumps(header))
    with pytest.raises(StaleCacheError, match=r"another version of dexworld; delete that folder"):
        latent_cache(dataset, brightness_encoder, "b")


def test_a_truncated_shard_is_named_when_the_cache_is_opened(tmp_path, write_dataset, brightness_encoder):
    dataset = write_dataset(tmp_path / "data", [5])
    path = shard_path(latent_cache(dataset, brightness_encoder, "b").folder, 0)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(StaleCacheError, match=r"1 of 1 shards are missing or truncated \(shards/00000.npy first\)"):
        latent_cache(dataset, brightness_encoder, "b")


def test_frames_of_another_size_are_resized_and_the_intrinsics_with_them(tmp_path, write_dataset):
    dataset = write_dataset(tmp_path / "data", [3])
    sizes = []

    def note_size(images):
        sizes.append(tuple(images.shape[1:3]))
        return images.float().mean(dim=(1, 2))[:, None]

    view = resized(dataset, (16, 8))
    cache = latent_cache(view, note_size, "b")
    assert set(sizes) == {(16, 8)}
    np.testing.assert_allclose(cache.labels.intrinsics[0], [[0.5, 0, -4], [0, 0.5, 0], [0, 0, 1]])
    assert (len(view), view.ids, view.lengths, view.seeds) == (1, dataset.ids, dataset.lengths, dataset.seeds)
    with pytest.raises(StaleCacheError, match="another state of the dataset"):
        latent_cache(dataset, note_size, "b")
    assert resized(dataset, (32, 32)) is dataset


def test_a_disk_that_is_too_small_is_refused_before_anything_is_encoded(
    tmp_path, write_dataset, brightness_encoder, monkeypatch
):
    dataset = write_dataset(tmp_path / "data", [5])
    usage = caches.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(ValueError, match=r"need 0.0 GB more, the disk has 0.0 GB left"):
        compute_latents(dataset, brightness_encoder, "b", tmp_path / "cache")
