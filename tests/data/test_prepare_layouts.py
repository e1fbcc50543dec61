"""Foreign layouts through their readers into the store: the labels stay true, and what is damaged is named."""

import json

import droid_fixtures
import droid_lerobot_fixtures
import numpy as np
import pyarrow.parquet as pq
import pytest
import robocasa_fixtures
from egodex_fixtures import make_clip, write_clip
from prepare_fixtures import config_of

from dexworld.data.datasets import open_dataset
from dexworld.data.files import size_and_checksum, with_checksum
from dexworld.data.inspection import InspectConfig, account, inspect
from dexworld.data.prepare.job import prepare
from dexworld.data.readers import open_source
from dexworld.data.store.packs import MARK
from dexworld.data.store.prepared_dataset import open_prepared
from dexworld.data.store.store_settings import PrepareSettings


def test_egodex_is_prepared_with_its_labels_and_a_damaged_clip_is_named(tmp_path):
    task = tmp_path / "egodex" / "part1" / "stack"
    for number in range(3):
        write_clip(task, number, make_clip(number))
    damaged = task / "1.hdf5"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    settings = PrepareSettings(height=90, pack_episodes=2, codec="jpeg")
    report = prepare(
        config_of(tmp_path / "egodex", tmp_path / "store", settings=settings, check_frames=4, check_episodes=0)
    )
    assert (report.account.counted, report.account.prepared, len(report.account.quarantined)) == (3, 2, 1)
    assert "1.hdf5" in report.account.quarantined[0][1]
    assert report.quality["psnr_luma_median_db"] > 25
    assert report.quality["keypoint_max_px"] < 0.1
    before, after = open_source(tmp_path / "egodex", "egodex"), open_dataset(tmp_path / "store", verify=True)
    for index, name in enumerate(after.ids):
        expected, found = before[before.ids.index(name)], after[index]
        np.testing.assert_allclose(found.world_from_camera, expected.world_from_camera, atol=1e-6)
        assert set(found.columns) == set(expected.columns)


def test_a_store_knows_the_official_split_of_each_episode_and_one_of_old_opens_without(tmp_path):
    for number, split in enumerate(("part1", "part1", "test")):
        write_clip(tmp_path / "egodex" / split / "stack", number, make_clip(number, 4))
    settings = PrepareSettings(height=90, pack_episodes=2, codec="jpeg")
    prepare(config_of(tmp_path / "egodex", tmp_path / "store", settings=settings, check_frames=0))
    dataset = open_prepared(tmp_path / "store")
    assert dataset.splits == ("part1", "part1", "test")
    assert [name.split(".")[0] for name in dataset.ids] == list(dataset.splits)
    assert account(inspect(dataset, InspectConfig(decode="none")))["splits"] == {"part1": 2, "test": 1}

    mark = json.loads((tmp_path / "store" / MARK).read_text())
    (place,) = (name for name in mark["files"] if name.startswith("meta/episodes/"))
    path = tmp_path / "store" / place
    pq.write_table(pq.read_table(path).drop_columns(["dexworld/split"]), path, write_page_checksum=True)
    mark["files"][place] = size_and_checksum(path)
    (tmp_path / "store" / MARK).write_text(json.dumps(with_checksum(mark)))
    old = open_prepared(tmp_path / "store")
    assert old.splits == ("", "", "")
    assert old.ids == dataset.ids
    assert not account(inspect(old, InspectConfig(decode="none")))["splits"]


def reds(episode) -> np.ndarray:
    """Mean red of every frame's middle; the writers make it tell the frame."""
    return episode.frames.read(list(range(len(episode))))[:, 10:20, 10:20, 0].mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("droid", lambda folder: droid_fixtures.write_episode(folder, rows=20, intrinsics=True)),
        ("robocasa", lambda folder: robocasa_fixtures.write_file(folder / "a.hdf5")),
        ("droid-lerobot", droid_lerobot_fixtures.write_dataset),
    ],
)
def test_a_prepared_robot_dataset_holds_the_labels_of_its_source(kind, write, tmp_path):
    write(tmp_path / "source")
    source = open_source(tmp_path / "source")
    assert source.kind == kind
    prepare(config_of(tmp_path / "source", tmp_path / "store", settings=PrepareSettings(height=36)))
    store = open_dataset(tmp_path / "store")
    assert tuple(store.ids) == source.ids
    for index in range(len(source)):
        raw, stored = source[index], store[index]
        assert (stored.fps, stored.task) == (raw.fps, raw.task)
        np.testing.assert_allclose(stored.keypoints_world, raw.keypoints_world, atol=1e-6)
        np.testing.assert_allclose(stored.world_from_camera, raw.world_from_camera, atol=1e-6)
        np.testing.assert_array_equal(stored.keypoints_valid, raw.keypoints_valid)
        assert stored.columns.keys() == raw.columns.keys()
        shown, truth = reds(stored), reds(raw)
        np.testing.assert_allclose(shown, truth, atol=6)
        np.testing.assert_allclose(shown - shown.mean(), truth - truth.mean(), atol=3)  # frames differ by 4 or more
