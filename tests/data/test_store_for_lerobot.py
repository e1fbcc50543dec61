"""What LeRobot's own tools do with a store: train policies on it, and rewrite it without what they don't know."""

import json
import shutil
from pathlib import Path

import droid_fixtures
import lerobot_fixtures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_fixtures import change_tables, number_of, set_column
from prepare_fixtures import config_of
from store_fixtures import make_episode, prepare

from dexworld.data.datasets import open_dataset
from dexworld.data.prepare.job import prepare as prepare_folder
from dexworld.data.readers import kind_of, open_source
from dexworld.data.readers.lerobot import LeRobotOptions, open_lerobot
from dexworld.data.store import assemble, labels
from dexworld.data.store.store_settings import PrepareSettings
from dexworld.hands import TRACKED

KEY = "observation.images.main"


def robot_episode(number: int):
    joints = np.random.default_rng(number).normal(size=(25, 23))
    known = make_episode(number).columns
    return make_episode(number, columns={**known, "joint_positions": joints, "joint_targets": joints + 1})


def scalar_episode(number: int):
    known = {name: values for name, values in make_episode(number).columns.items() if name.startswith("keypoints")}
    opening, pose = np.linspace(0, 1, 25)[:, None], np.tile(np.eye(4), (25, 1, 1))
    return make_episode(
        number, columns={**known, "action": opening, "gripper_opening": opening, "gripper_pose_world": pose}
    )


def write_store(folder: Path, make) -> Path:
    """A store of four episodes of our own, two to a pack."""
    prepare(folder / "store", [[(f"e{n}", lambda n=n: make(n)) for n in pack] for pack in ((0, 1), (2, 3))])
    return folder / "store"


def state_and_action(track, kind: str) -> list[np.ndarray]:
    """What a store should hold for an episode, worked out from its columns."""
    if kind in ("lerobot", "robot"):
        own = ("observation.state", "action") if kind == "lerobot" else ("joint_positions", "joint_targets")
        return [track[name] for name in own]
    if kind != "hands":
        pose = track["gripper_pose_world"]
        parts = pose[:, :3, 3], pose[:, :3, 0], pose[:, :3, 1], track["gripper_opening"].reshape(-1, 1)
        return [np.concatenate(parts, axis=1), track["action"]]
    points = np.where(track.keypoints_valid[..., None], track.keypoints_world, 0)[:, TRACKED]
    return [points, points[[*range(1, len(track)), -1]]]


FOREIGN = {
    "droid": lambda folder: droid_fixtures.write_episode(folder, rows=20, intrinsics=True),
    "lerobot": lambda folder: lerobot_fixtures.write_dataset(folder, (6, 5), ("observation.images.top",)),
}
OURS = {"robot": robot_episode, "hands": make_episode, "scalar": scalar_episode}


@pytest.mark.parametrize("kind", [*OURS, *FOREIGN])
def test_state_and_action_are_all_that_lerobot_normalises_and_predicts(tmp_path, kind):
    store = tmp_path / "store"
    if kind in OURS:
        write_store(tmp_path, OURS[kind])
    else:
        FOREIGN[kind](tmp_path / "source")
        prepare_folder(config_of(tmp_path / "source", store, settings=PrepareSettings(height=36)))
    features = json.loads((store / "meta" / "info.json").read_text())["features"]
    statistics = json.loads((store / "meta" / "stats.json").read_text())
    taken = {name for name in features if name.startswith(("observation", "action"))}
    assert taken == {KEY, "observation.state", "action"}
    rows = pa.concat_tables(pq.read_table(path) for path in sorted((store / "data").rglob("*.parquet")))
    for name in taken - {KEY}:
        (width,) = features[name]["shape"]
        assert (features[name]["dtype"], len(features[name]["names"])) == ("float32", width)
        values = rows[name].combine_chunks()
        assert np.isfinite(values.flatten() if width > 1 else values).all()
        for each in ("min", "max", "mean", "std", "q01", "q99"):
            assert np.shape(statistics[name][each]) == (width,)
    for name, feature in features.items():  # LeRobot reads a shape of [1] as a number and no list
        assert name == KEY or pa.types.is_fixed_size_list(rows.schema.field(name).type) == (feature["shape"] != [1])
    for index, track in enumerate(dataset := open_dataset(store)):
        own = rows.filter(pa.compute.equal(rows["episode_index"], index))
        for name, expected in zip(("observation.state", "action"), state_and_action(track, kind), strict=True):
            found = np.array(own[name].to_pylist()).reshape(len(track), -1)
            np.testing.assert_allclose(found, expected.reshape(len(track), -1), atol=1e-6)
    assert index + 1 == len(dataset)


@pytest.fixture
def version_1(tmp_path, monkeypatch):
    """A store with the names of format version 1."""
    old = {name: stored for stored, name in labels.VERSION_1.items()}
    monkeypatch.setattr(labels, "stored_name", lambda name: old.get(name, f"extras.{name}"))
    monkeypatch.setattr(labels, "CAMERA", "observation.camera_pose")
    monkeypatch.setattr(assemble, "FORMAT_VERSION", 1)
    store = write_store(tmp_path, robot_episode)
    monkeypatch.undo()
    return store


def check_same(track, truth, flat=()):
    """Labels, intrinsics, seed and pictures are those of the truth; single numbers lie flat."""
    assert (track.seed, track.task, track.columns.keys()) == (truth.seed, truth.task, truth.columns.keys())
    np.testing.assert_allclose(track.intrinsics, truth.intrinsics, rtol=1e-6)
    np.testing.assert_allclose(track.world_from_camera, truth.world_from_camera, atol=1e-6)
    for name, values in truth.columns.items():
        expected = np.squeeze(values) if name in flat else values
        np.testing.assert_allclose(track[name], expected, atol=1e-6, err_msg=name)
    assert number_of(track.frames.read([3])[0]) == number_of(truth.frames.read([3])[0])


def test_a_store_of_format_version_1_opens_and_gives_what_was_written(version_1):
    assert json.loads((version_1 / "meta" / "dexworld.json").read_text())["format_version"] == 1
    features = json.loads((version_1 / "meta" / "info.json").read_text())["features"]
    assert {"observation.keypoints", "observation.state", "action.joint_targets", "observation.camera_pose"} < set(
        features
    )
    dataset = open_dataset(version_1, verify=True)
    assert dataset.quarantined == ()
    for number, track in enumerate(dataset):
        check_same(track, robot_episode(number))


def without_an_episode(store: Path, folder: Path, gone: int = 1, lost=()) -> Path:
    """The store as LeRobot's `delete_episodes` leaves it: one file of rows, new numbers, our metadata gone."""
    shutil.copytree(store, folder)
    (folder / "meta" / "dexworld.json").unlink()
    rows = pa.concat_tables(pq.read_table(path) for path in sorted((folder / "data").rglob("*.parquet")))
    rows = rows.filter(pa.compute.not_equal(rows["episode_index"], gone)).drop_columns(list(lost))
    for place, field in enumerate(rows.schema):
        if pa.types.is_fixed_size_list(field.type):
            rows = rows.set_column(place, field.name, rows[field.name].cast(pa.list_(field.type.value_type)))
    numbers = rows["episode_index"].to_numpy()
    rows = set_column(set_column(rows, "episode_index", numbers - (numbers > gone)), "index", np.arange(len(rows)))
    shutil.rmtree(folder / "data")
    (folder / "data" / "chunk-000").mkdir(parents=True)
    pq.write_table(rows, folder / "data" / "chunk-000" / "file-000.parquet")

    def shorter(table):
        table = table.select([name for name in table.column_names if not name.startswith(("dexworld/", "stats/"))])
        table = table.filter(pa.compute.not_equal(table["episode_index"], gone))
        ends = np.cumsum(table["length"].to_numpy())
        table = set_column(table, "dataset_from_index", ends - table["length"].to_numpy())
        table = set_column(set_column(table, "dataset_to_index", ends), "episode_index", np.arange(len(table)))
        return set_column(table, "data/file_index", np.zeros(len(table), dtype=np.int64))

    change_tables(folder, "meta/episodes", shorter)
    lerobot_fixtures.change_info(folder, lambda info: [info["features"].pop(name) for name in lost])
    return folder


@pytest.mark.parametrize("make", [robot_episode, make_episode, scalar_episode])
def test_a_store_that_lerobot_rewrote_keeps_its_hands_camera_and_seeds(tmp_path, caplog, make):
    folder = without_an_episode(write_store(tmp_path, make), tmp_path / "rewritten")
    assert kind_of(folder) == "lerobot"
    source = open_source(folder)
    assert "a store of dexworld, without its ids and splits" in caplog.text
    for index, number in enumerate((0, 2, 3)):
        check_same(source[index], make(number), flat=("gripper_opening", "action"))


def test_what_a_rewritten_store_lost_is_refused_or_given_by_options(version_1, tmp_path):
    lost = [labels.INTRINSICS, labels.SEED]
    folder = without_an_episode(version_1, tmp_path / "rewritten", lost=lost)
    with pytest.raises(ValueError, match="its intrinsics are lost; give fx, fy, cx, cy"):
        open_source(folder)
    source = open_lerobot(folder, LeRobotOptions(intrinsics=(60.0, 61.0, 48.0, 32.0)))
    for index, number in enumerate((0, 2, 3)):
        truth = robot_episode(number)
        assert source[index].seed is None
        np.testing.assert_array_equal(source[index].intrinsics, truth.intrinsics)
        for name, values in truth.columns.items():
            np.testing.assert_allclose(source[index][name], values, atol=1e-6, err_msg=name)
    store = write_store(tmp_path / "new", make_episode)
    folder = without_an_episode(store, tmp_path / "no-validity", lost=["track.keypoints_valid"])
    with pytest.raises(ValueError, match="keypoints_world needs keypoints_valid"):
        open_source(folder)[0]


@pytest.mark.parametrize("make", [robot_episode, make_episode])
def test_act_trains_two_steps_on_a_store_and_deleting_an_episode_keeps_the_hands(tmp_path, make):
    datasets = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    import torch
    from lerobot.datasets.dataset_tools import delete_episodes
    from lerobot.datasets.factory import resolve_delta_timestamps
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.factory import make_policy, make_pre_post_processors

    store = write_store(tmp_path, make)
    meta = datasets.LeRobotDatasetMetadata("local/store", root=store)
    sizes = {"dim_model": 32, "n_heads": 2, "dim_feedforward": 32, "n_encoder_layers": 1, "n_vae_encoder_layers": 1}
    config = ACTConfig(chunk_size=4, n_action_steps=4, pretrained_backbone_weights=None, device="cpu", **sizes)
    policy = make_policy(config, ds_meta=meta)
    assert set(policy.config.input_features) == {KEY, "observation.state"}
    assert set(policy.config.output_features) == {"action"}
    before, _ = make_pre_post_processors(policy.config, dataset_stats=meta.stats)
    times = resolve_delta_timestamps(policy.config, meta)
    dataset = datasets.LeRobotDataset("local/store", root=store, delta_timestamps=times)
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-3)
    policy.train()
    for _, batch in zip(range(2), torch.utils.data.DataLoader(dataset, batch_size=4), strict=False):
        loss, _ = policy.forward(before(batch))
        assert torch.isfinite(loss)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    whole = datasets.LeRobotDataset("local/store", root=store)
    delete_episodes(whole, [1], output_dir=tmp_path / "shorter", repo_id="local/shorter")
    for index, number in enumerate((0, 2, 3)):
        check_same(open_source(tmp_path / "shorter")[index], make(number))
