"""Packs become a finished store, whatever happens in between; what is read is what was written."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_fixtures import number_of
from prepare_fixtures import content_of
from store_fixtures import SETTINGS, make_episode, prepare
from torch.utils.data import DataLoader

from dexworld.data.datasets import open_dataset
from dexworld.data.readers.lerobot import open_lerobot
from dexworld.data.source import CorruptEpisodeError, Dataset
from dexworld.data.store import packs as pack_module
from dexworld.data.store.assemble import assemble
from dexworld.data.store.packs import read_records, write_pack
from dexworld.data.store.prepared_dataset import open_prepared, problems
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.data.video import VideoError
from dexworld.track import ArrayFrames

CODECS = ["h264", "h264-444", "av1", "jpeg"]


class BreakingFrames(ArrayFrames):
    """Frames of which all from number 20 on are damaged."""

    def read(self, indices):
        if max(indices) >= 20:
            raise VideoError("source.mp4: frame 20 can't be decoded")
        return super().read(indices)


def refuse():
    raise CorruptEpisodeError("x.hdf5: no keypoints")


def packs_of(count: int, broken=()) -> list[list]:
    readers = [(f"e{n:02d}", refuse if n in broken else (lambda n=n: make_episode(n, 20 + n))) for n in range(count)]
    return [readers[start : start + 3] for start in range(0, count, 3)]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "store"
    prepare(folder, packs_of(8, broken=(4,)), quarantined=[("raw/9.mp4", "has no labels")])
    return folder


@pytest.mark.parametrize("codec", CODECS)
def test_labels_and_frames_come_back_as_the_source_gave_them(tmp_path, codec):
    dataset = prepare(tmp_path, packs_of(4), PrepareSettings(height=64, width=96, codec=codec, fps=10.0))
    assert isinstance(dataset, Dataset)
    assert dataset.ids == ("e00", "e01", "e02", "e03")
    assert dataset.lengths == (20, 21, 22, 23)
    assert dataset.seeds == dataset.episode_seeds == (0, 1, 2, 3)
    for number, episode in enumerate(dataset):
        truth = make_episode(number, 20 + number)
        np.testing.assert_allclose(episode.keypoints_world, truth.keypoints_world, atol=1e-6)
        np.testing.assert_array_equal(episode.keypoints_valid, truth.keypoints_valid)
        np.testing.assert_allclose(episode.world_from_camera, truth.world_from_camera, atol=1e-6)
        np.testing.assert_array_equal(episode.intrinsics, truth.intrinsics)
        assert (episode.fps, episode.task, episode.seed) == (10.0, truth.task, number)
        assert episode.source == truth.source
        assert episode.columns.keys() == truth.columns.keys()
        for name, value in truth.columns.items():
            np.testing.assert_allclose(episode.columns[name], value, atol=1e-7)
        order = [*np.random.default_rng(0).permutation(len(truth)).tolist(), 3, 3]
        assert [number_of(frame) for frame in episode.frames.read(order)] == [100 * number + index for index in order]


def test_a_store_opens_by_open_dataset_and_as_any_lerobot_dataset(store):
    own, foreign = open_dataset(store), open_lerobot(store)
    assert (own.kind, len(own), len(foreign)) == ("prepared", 7, 7)
    for index in range(7):
        mine, theirs = own[index], foreign[index]
        assert (mine.task, mine.seed) == (theirs.task, theirs.seed)
        for name, value in mine.columns.items():
            np.testing.assert_array_equal(theirs.columns[name], value, err_msg=name)
        np.testing.assert_allclose(theirs.intrinsics, mine.intrinsics, rtol=1e-6)
        np.testing.assert_array_equal(mine.frames.read([5, 0, 19]), theirs.frames.read([5, 0, 19]))


def test_what_was_left_out_is_named_and_leaves_no_gap(store, tmp_path):
    dataset = open_prepared(store)
    assert dataset.quarantined == (("raw/9.mp4", "has no labels"), ("e04", "x.hdf5: no keypoints"))
    assert "e04" not in dataset.ids
    table = pq.read_table(store / "data" / "chunk-000" / "file-001.parquet")
    assert sorted(set(table.column("episode_index").to_pylist())) == [3, 4]
    assert table.column("index").to_pylist() == list(range(20 + 21 + 22, 20 + 21 + 22 + 23 + 25))


def test_an_episode_that_breaks_halfway_leaves_no_trace_in_the_video(tmp_path):
    broken = ("e01", lambda: make_episode(9, frames=BreakingFrames(make_episode(9).frames.array)))
    good = [(f"e{n:02d}", lambda n=n: make_episode(n)) for n in (0, 2)]
    with_it = prepare(tmp_path / "with", [[good[0], broken, good[1]]])
    without = prepare(tmp_path / "without", [good])
    assert with_it.quarantined == (("e01", "source.mp4: frame 20 can't be decoded"),)
    assert with_it.ids == without.ids
    for one, other in zip(with_it.files(0), without.files(0), strict=True):
        assert one.read_bytes() == other.read_bytes()


class Killed(BaseException):
    """Stands for a kill -9: nothing in the library may catch it."""


def test_a_kill_at_any_rename_is_made_good_by_running_again(store, tmp_path, monkeypatch):
    real, left = os.replace, [0]

    def replace(source, target):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        real(source, target)

    packs, kills = packs_of(8, broken=(4,)), 0
    monkeypatch.setattr(os, "replace", replace)
    for survived in range(40):
        left[0] = survived % 12
        try:
            for number, items in enumerate(packs):
                if not (tmp_path / pack_module.MARK).exists():
                    write_pack(tmp_path, number, items, SETTINGS)
            assemble(tmp_path, read_records(tmp_path), {"source": "tests"}, [("raw/9.mp4", "has no labels")])
            break
        except Killed:
            kills += 1
    assert kills >= 5
    assert content_of(tmp_path) == content_of(store)


def test_a_finished_store_survives_a_kill_while_its_staging_is_removed(store, tmp_path):
    prepare(tmp_path, packs_of(8, broken=(4,)), quarantined=[("raw/9.mp4", "has no labels")])
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "pack-000002.json").write_text("{}")
    assemble(tmp_path, [], {})
    assert content_of(tmp_path) == content_of(store)
    with pytest.raises(ValueError, match="complete store"):
        write_pack(tmp_path, 9, [], SETTINGS)


def test_a_store_of_nothing_is_refused_with_the_reason(tmp_path):
    record = write_pack(tmp_path, 0, packs_of(2, broken=(0, 1))[0], SETTINGS)
    assert (record.episodes, record.video) == ([], None)
    with pytest.raises(ValueError, match=r"no episode is readable \(2 left out\).*no keypoints"):
        assemble(tmp_path, read_records(tmp_path), {})


def test_extras_keep_their_names_shapes_and_kinds(tmp_path):
    generator = np.random.default_rng(0)
    extras = [
        {
            "gripper_opening": generator.random(25).astype(np.float32),
            "hand_poses_world": generator.random((25, 2, 4, 4)).astype(np.float32),
            "body_valid": generator.random((25, 18)) > 0.5,
            "objects": generator.random((25, 2, 3)),
            "attempt": np.arange(25),
            "note": np.array([f"frame {time}" for time in range(25)]),
        },
        {"objects": generator.random((25, 5, 3)), "action": generator.random((25, 8)).astype(np.float32)},
    ]
    joints = generator.normal(size=(25, 23)).astype(np.float32)
    items = [
        ("a", lambda: make_episode(0, columns=extras[0] | {"joint_positions": joints, "joint_targets": 2 * joints})),
        ("b", lambda: make_episode(1, columns=extras[1])),
    ]
    dataset = prepare(tmp_path, [items])
    assert dataset.quarantined == ()
    extras[0] |= {"joint_positions": joints, "joint_targets": 2 * joints}
    for index in range(2):
        found = dataset[index].columns
        assert found.keys() == extras[index].keys() | {"keypoints_world", "keypoints_valid"}
        for name, value in extras[index].items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype.kind == value.dtype.kind
            assert found[name].dtype.kind == "U" or found[name].dtype == value.dtype
    assert dataset[1].get("joint_positions") is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fps": 12.0}, "12 frames per second in a store of 10"),
        ({"columns": {"pose": np.zeros((25, 2), dtype=complex)}}, "column 'pose' has shape (25, 2) complex128"),
    ],
)
def test_episodes_of_another_rate_or_without_plain_arrays_are_left_out(tmp_path, changes, reason):
    items = [("a", lambda: make_episode(0)), ("b", lambda: make_episode(1, **changes))]
    dataset = prepare(tmp_path, [items], PrepareSettings(height=64))
    assert dataset.ids == ("a",)
    assert reason in dataset.quarantined[0][1]


def test_the_layout_is_that_of_lerobot(store):
    info = json.loads((store / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_tasks"]) == ("v3.0", 10, 7, 2)
    assert info["total_frames"] == sum(open_prepared(store).lengths)
    episodes = pq.read_table(store / "meta" / "episodes" / "chunk-000" / "file-000.parquet").to_pylist()
    assert [row["episode_index"] for row in episodes] == list(range(7))
    key = "observation.images.main"
    for row in episodes:
        path = store / info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        columns = pq.ParquetFile(path)
        assert set(columns.schema_arrow.names) == set(info["features"]) - {key}
        rows = columns.read_row_group(row["dexworld/row_group"]).to_pydict()
        assert rows["episode_index"] == [row["episode_index"]] * row["length"]
        assert rows["index"] == list(range(row["dataset_from_index"], row["dataset_to_index"]))
        np.testing.assert_allclose(rows["timestamp"], np.arange(row["length"]) / 10, atol=1e-6)
        span = row[f"videos/{key}/to_timestamp"] - row[f"videos/{key}/from_timestamp"]
        np.testing.assert_allclose(span, row["length"] / 10)
        truth = make_episode(int(row["dexworld/id"][1:]), row["length"])
        motion = truth.columns["object_motion"]
        np.testing.assert_allclose(row["stats/track.object_motion/mean"], [motion.mean()], rtol=1e-5)
        np.testing.assert_allclose(row["stats/track.object_motion/std"], [motion.std()], rtol=1e-5)
    tasks = pq.read_table(store / "meta" / "tasks.parquet")
    assert b"__index_level_0__" in tasks.schema.metadata[b"pandas"]
    assert tasks.column("task_index").to_pylist() == [0, 1]
    stats = json.loads((store / "meta" / "stats.json").read_text())
    motions = [open_prepared(store)[index].columns["object_motion"] for index in range(7)]
    np.testing.assert_allclose(stats["track.object_motion"]["std"], [np.concatenate(motions).std()], rtol=1e-5)
    assert np.array(stats[key]["mean"]).shape == (3, 1, 1)


def test_several_processes_find_the_same_damage_in_the_same_order(tmp_path):
    dataset = prepare(tmp_path, packs_of(7))
    for path, place in ((dataset.files(0)[0], 100), (dataset.files(6)[1], -1)):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
    told = []
    found = list(problems(dataset, workers=2, progress=lambda done, total: told.append((done, total))))
    assert found == list(problems(dataset)) != []
    count = len(dataset) + len(dataset.mark["files"])
    assert told == [(done, count) for done in range(1, count + 1)]


def test_missing_and_truncated_files_are_quarantined_when_opening(tmp_path):
    dataset = prepare(tmp_path, packs_of(7))
    dataset.files(0)[0].unlink()
    path = dataset.files(3)[1]
    path.write_bytes(path.read_bytes()[:-7])
    opened = open_prepared(tmp_path)
    assert opened.ids == ("e06",)
    assert [name for name, _ in opened.quarantined] == ["e00", "e01", "e02", "e03", "e04", "e05"]
    assert opened[0].seed == 6


def test_a_damaged_index_is_named(tmp_path):
    prepare(tmp_path, packs_of(3))
    mark = tmp_path / "meta" / "dexworld.json"
    content = json.loads(mark.read_text())
    for text, message in (
        (json.dumps(content | {"format_version": 99}), "version 99"),
        (json.dumps(content | {"fingerprint": "0" * 32}), "checksum differs"),
        (json.dumps(content)[:100], r"dexworld\.json"),
    ):
        mark.write_text(text)
        with pytest.raises(ValueError, match=message):
            open_prepared(tmp_path)


def first_number(episode):
    return number_of(episode.frames.read([0])[0])


def test_forked_workers_and_pickled_copies_read_the_store_that_their_parent_has_open(store):
    dataset = open_prepared(store)
    numbers = [0, 100, 200, 300, 500, 600, 700]
    assert [first_number(episode) for episode in dataset] == numbers
    copy = pickle.loads(pickle.dumps(dataset))  # what a spawned worker gets
    assert [first_number(episode) for episode in copy] == numbers
    options = {"collate_fn": first_number, "num_workers": 2, "multiprocessing_context": "fork"}
    assert list(DataLoader(dataset, batch_size=None, **options)) == numbers
