"""Robot datasets through the prepared store: whatever groups and B-frames their videos have, the labels stay true."""

import droid_fixtures
import droid_lerobot_fixtures
import numpy as np
import pytest
import robocasa_fixtures

from dexworld.data.datasets import open_dataset
from dexworld.data.prepare.job import PrepareConfig, prepare
from dexworld.data.readers import open_source
from dexworld.data.store.store_settings import PrepareSettings


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
    prepare(PrepareConfig(tmp_path / "source", tmp_path / "store", settings=PrepareSettings(height=36), workers=1))
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
