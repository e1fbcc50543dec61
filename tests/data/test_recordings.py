"""Recordings on disk: nothing lost, nothing half written, nothing skipped in silence."""

import numpy as np
import prepare_fixtures
import pytest

from dexworld.data.datasets import open_dataset
from dexworld.data.recordings import CorruptEpisodeError, EpisodeWriter
from dexworld.track import Track

SETTINGS = {"strategy": "random targets", "fps": 5.0, "objects": [1, 5]}


def make_episode(seed: int = 3) -> Track:
    generator = np.random.default_rng(seed)
    joints = {name: generator.normal(size=(13, 23)) for name in ("joint_positions", "joint_targets")}
    extras = {"contact": generator.random(13) > 0.5, "object_positions": generator.normal(size=(13, 2, 3))}
    return prepare_fixtures.make_episode(seed, 13).with_columns(**joints, **extras)


def write_one(folder, seed):
    EpisodeWriter(folder, SETTINGS).write(f"episode-{seed:06d}", make_episode(seed))


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        write_one(tmp_path / "data", seed)
    EpisodeWriter(tmp_path / "data", SETTINGS).finish({"rejected": 4})
    return tmp_path / "data"


def test_an_episode_comes_back_as_it_was_written(folder):
    expected, read = (dict(vars(episode)) for episode in (make_episode(1), open_dataset(folder)[1]))
    frames, written = read.pop("frames"), expected.pop("frames").array
    assert np.abs(frames.read(list(range(13))).astype(int) - written).mean() < 8
    expected |= expected.pop("columns")
    read |= read.pop("columns")
    assert set(expected) == set(read)
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value)
        assert np.asarray(read[name]).dtype == np.asarray(value).dtype


def test_the_index_keeps_settings_counts_and_seeds(folder):
    dataset = open_dataset(folder, verify=True)
    assert (len(dataset), dataset.lengths, dataset.seeds) == (3, (13, 13, 13), (0, 1, 2))
    assert dataset.settings == SETTINGS
    assert dataset.counts == {"episodes": 3, "frames": 39, "quarantined": 0, "rejected": 4}
    assert dataset.quarantined == ()


def test_a_resumed_collection_sees_what_is_complete_and_only_that(folder):
    (folder / "episodes" / "episode-000001.npz").unlink()  # as after a kill between video and labels
    (folder / "episodes" / ".episode-000009.npz.77.tmp").write_bytes(b"half")
    writer = EpisodeWriter(folder, SETTINGS)
    assert [writer.has(f"episode-{seed:06d}") for seed in (0, 1, 2, 9)] == [True, False, True, False]
    write_one(folder, 1)
    assert len(writer.finish()) == 3


@pytest.mark.parametrize("suffix", [".npz", ".mp4"])
@pytest.mark.parametrize("damage", ["truncated", "flipped byte", "empty", "missing"])
def test_a_corrupt_file_is_quarantined_with_its_name_and_the_rest_is_read(folder, suffix, damage):
    path = folder / "episodes" / f"episode-000001{suffix}"
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "flipped byte":
        content[len(content) // 2] ^= 0xFF
    if damage != "missing":
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b""}.get(damage, content))
    dataset = open_dataset(folder)
    assert dataset.ids == ("episode-000000", "episode-000002")
    [(file, reason)] = dataset.quarantined
    assert file == "episodes/episode-000001"
    assert f"episode-000001{suffix}" in reason


def test_what_can_not_be_stored_is_refused(tmp_path):
    episode, writer = make_episode(), EpisodeWriter(tmp_path, SETTINGS)
    for episode_id in ("", "../escape", ".hidden", "a/b"):
        with pytest.raises(ValueError, match="episode id"):
            writer.write(episode_id, episode)
    with pytest.raises(ValueError, match="contact"):
        writer.write("episode", episode.with_columns(contact=np.array([{}] * len(episode), dtype=object)))


def test_pickled_labels_are_quarantined_and_an_episode_damaged_after_opening_raises_its_name(folder):
    np.savez(folder / "episodes" / "episode-000001.npz", keypoints_world=np.array([{}], dtype=object))
    dataset = open_dataset(folder)
    [(_, reason)] = dataset.quarantined
    assert "allow_pickle" in reason
    (folder / "episodes" / "episode-000002.npz").write_bytes(b"PK")
    with pytest.raises(CorruptEpisodeError, match=r"episode-000002\.npz"):
        dataset[1]


def test_a_folder_of_other_settings_or_another_version_or_no_dataset_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="strategy"):
        EpisodeWriter(folder, SETTINGS | {"strategy": "replay"})
    with pytest.raises(FileNotFoundError, match="collect"):
        open_dataset(tmp_path)
    index = folder / "dataset.json"
    index.write_text(index.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(ValueError, match="version 99"):
        open_dataset(folder)
    index.write_text("{")
    with pytest.raises(ValueError, match=r"dataset\.json.*JSON"):
        open_dataset(folder)
