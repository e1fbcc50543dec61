"""Labels of a cache: read on demand, in bounded memory, the same to the bit as those held in memory."""

import pickle
import zlib

import numpy as np
import pytest

from dexworld.data import frame_labels
from dexworld.data.frame_labels import EPISODES_FILE, FrameLabels, record_type, write_labels
from dexworld.data.latent_cache import StaleCacheError, latent_cache


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(frame_labels, "BLOCK", 8)


def in_memory(dataset) -> FrameLabels:
    """All labels in memory, put together without the code that is tested."""
    episodes = [dataset[index] for index in range(len(dataset))]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in episodes])])
    records = np.zeros(int(starts[-1]), record_type(episodes[0]))
    for episode, first in zip(episodes, starts.tolist(), strict=False):
        mine, valid = records[first : first + len(episode)], episode.keypoints_valid
        mine["keypoints_world"] = np.where(valid[..., None], episode.keypoints_world, 0)
        mine["keypoints_valid"] = mine["keypoints_shown"] = valid
        mine["world_from_camera"] = episode.world_from_camera
        mine["object_motion"] = episode.columns.get("object_motion", 0)
    intrinsics = np.stack([each.intrinsics for each in episodes]).astype(np.float32)
    return FrameLabels(records, starts, intrinsics, np.array([each.fps for each in episodes]))


def test_columns_that_not_all_episodes_have_alike_are_left_out_and_named_once(tmp_path, numbered_episode, caplog):
    columns = [
        {"gaze_world": np.ones((4, 3)), "phase": np.arange(4), "note": np.array(["a"] * 4), "odd": np.ones((4, 1))},
        {"gaze_world": np.ones((4, 3)), "phase": np.arange(4), "note": np.array(["b"] * 4), "odd": np.ones((4, 2))},
        {"gaze_world": np.ones((4, 3)), "phase": np.arange(4), "late": np.ones(4)},
        {"gaze_world": np.ones((4, 3))},
    ]
    episodes = [numbered_episode(number, 4).with_columns(**each) for number, each in enumerate(columns)]

    class Odd(list):
        lengths, ids, folder = (4,) * 4, ("",) * 4, tmp_path

    labels = FrameLabels.open(tmp_path, write_labels(Odd(episodes), tmp_path))
    assert "gaze_world" in labels.columns
    assert labels.records["gaze_world"].dtype == np.float32
    assert not {"phase", "note", "odd", "late"} & set(labels.columns)
    assert [record.message.split(": ", 1)[1] for record in caplog.records] == [
        "columns that not all episodes have alike are left out: late, odd, phase"
    ]
    assert labels.take(np.arange(16))["keypoints_valid"].shape == (16, 42)


def test_records_are_what_the_episodes_say_across_the_edges_of_blocks(tmp_path, small_blocks, write_dataset):
    dataset = write_dataset(tmp_path / "data", [5, 8, 1, 17, 3], 2)
    labels = FrameLabels.open(tmp_path, write_labels(dataset, tmp_path))
    rows = np.random.default_rng(0).permutation(34).reshape(2, 17)
    held = in_memory(dataset)
    expected = held.records
    for name in ("starts", "intrinsics", "fps"):
        np.testing.assert_array_equal(getattr(labels, name), getattr(held, name))
    assert labels.take(rows).tobytes() == expected[rows].tobytes()
    assert labels.take(rows).shape == (2, 17)
    assert np.load(tmp_path / "frame_labels.npy", allow_pickle=False).tobytes() == expected.tobytes()
    np.testing.assert_array_equal(labels.moved(1e-3), expected["object_motion"] > 1e-3)
    assert not labels.moved(1.0).any()
    copy = pickle.loads(pickle.dumps(labels))
    assert copy.take(rows).tobytes() == expected[rows].tobytes()
    with pytest.raises(IndexError, match="asked for of 34"):
        labels.take(np.array([34]))


def test_a_flipped_bit_is_found_by_whoever_looks_at_its_block(tmp_path, small_blocks, write_dataset):
    labels = FrameLabels.open(tmp_path, write_labels(write_dataset(tmp_path / "data", [20]), tmp_path))
    path = tmp_path / "frame_labels.npy"
    content = bytearray(path.read_bytes())
    content[-5 * labels.records.itemsize] ^= 4  # in row 15, of the second of three blocks
    path.write_bytes(content)
    labels = FrameLabels.open(tmp_path, zlib.crc32((tmp_path / EPISODES_FILE).read_bytes()))
    labels.take(np.array([0, 7, 16]))
    with pytest.raises(ValueError, match=r"damaged between rows 8 and 15; delete episode_labels.npz and cache.json"):
        labels.take(np.array([3, 9]))
    assert list(labels.damaged()) == [("frame_labels.npy", True)]


@pytest.mark.parametrize("damage", ["cut", "gone", "other head", "other arrays"])
def test_what_opening_finds_is_mended_by_reading_only_the_labels_anew(
    tmp_path, write_dataset, brightness_encoder, damage
):
    dataset = write_dataset(tmp_path / "data", [5, 6])
    cache = latent_cache(dataset, brightness_encoder, "b")
    written = {path: path.read_bytes() for path in cache.folder.rglob("*.*")}
    path = cache.folder / ("episode_labels.npz" if damage == "other arrays" else "frame_labels.npy")
    path.unlink()
    if damage != "gone":
        content = written[path]
        path.write_bytes({"cut": content[:-1], "other head": b"x" + content[1:]}.get(damage, content + b"x"))
    with pytest.raises(StaleCacheError, match=r"delete episode_labels.npz and cache.json, and only the labels"):
        latent_cache(dataset, brightness_encoder, "b")
    for name in ("episode_labels.npz", "cache.json"):
        (cache.folder / name).unlink()

    def must_not_run(images):
        raise AssertionError("encoded again")

    latent_cache(dataset, must_not_run, "b")
    assert {path: path.read_bytes() for path in cache.folder.rglob("*.*")} == written
