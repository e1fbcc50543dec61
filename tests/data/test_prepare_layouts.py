"""Foreign layouts through their readers into the store: the labels stay true, and what is damaged is named."""

import droid_fixtures
import droid_lerobot_fixtures
import numpy as np
import pytest
import robocasa_fixtures
from egodex_fixtures import make_clip, write_clip
from prepare_fixtures import config_of

from dexworld.data.datasets import open_dataset
from dexworld.data.inspection import InspectConfig, account, inspect
from dexworld.data.prepare.job import prepare
from dexworld.data.readers import open_source
from dexworld.data.store.store_settings import PrepareSettings


def test_egodex_is_prepared_with_its_labels_and_splits_and_a_damaged_clip_is_named(tmp_path):
    for number, split in enumerate(("part1", "part1", "test", "test")):
        write_clip(tmp_path / "egodex" / split / "stack", number, make_clip(number, 4))
    damaged = tmp_path / "egodex" / "test" / "stack" / "3.hdf5"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    settings = PrepareSettings(height=90, pack_episodes=2, codec="jpeg")
    report = prepare(config_of(tmp_path / "egodex", tmp_path / "store", settings=settings))
    assert (report.counted, report.prepared, len(report.quarantined)) == (4, 3, 1)
    assert "3.hdf5" in report.quarantined[0][1]
    before, after = open_source(tmp_path / "egodex", "egodex"), open_dataset(tmp_path / "store", verify=True)
    assert after.splits == ("part1", "part1", "test")
    assert [name.split(".")[0] for name in after.ids] == list(after.splits)
    assert account(inspect(after, InspectConfig(decode="none")))["splits"] == {"part1": 2, "test": 1}
    for index, name in enumerate(after.ids):
        expected, found = before[before.ids.index(name)], after[index]
        np.testing.assert_allclose(found.world_from_camera, expected.world_from_camera, atol=1e-6)
        assert set(found.columns) == set(expected.columns)


def test_two_clips_of_one_id_are_refused_by_their_places(tmp_path):
    for folder in ("pour tea", "pour-x20tea"):
        write_clip(tmp_path / "egodex" / "part1" / folder, 0, make_clip(0, 4))
    with pytest.raises(ValueError, match=r"pour tea/0\.mp4 and .*pour-x20tea/0\.mp4 have the same id .*; rename one"):
        prepare(config_of(tmp_path / "egodex", tmp_path / "store"))


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
