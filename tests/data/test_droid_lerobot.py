"""DROID's LeRobot edition, written by an independent writer, read back."""

import json
import pickle
import shutil

import numpy as np
import pytest
from droid_fixtures import EXT2, check_refused
from droid_lerobot_fixtures import CAMERAS, GREEN, change_column, write_dataset

from dexworld.data.readers.droid_episode import DroidOptions
from dexworld.data.readers.droid_lerobot import open_droid_lerobot, recognises
from dexworld.data.source import Source
from dexworld.hands import LEFT, RIGHT

POSITION = "observation.state.cartesian_position"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("droid-lerobot") / "droid_1.0.1"
    return folder, write_dataset(folder)


@pytest.fixture
def copied(written, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(written[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_episodes_hold_the_gripper_the_dummy_hand_and_the_left_camera_as_they_were_written(written):
    folder, told = written
    source = open_droid_lerobot(folder)
    assert isinstance(source, Source)
    assert source.ids == ("000000", "000001")
    for index, truth in enumerate(told):
        episode = source[index]
        assert (len(episode), episode.fps) == (truth.rows, 15.0)
        np.testing.assert_allclose(episode.columns["gripper_pose_world"], truth.gripper, atol=1e-6)
        np.testing.assert_allclose(episode.columns["gripper_opening"], truth.opening, atol=1e-6)
        np.testing.assert_allclose(episode.world_from_camera, truth.cameras[EXT2], atol=1e-6)  # +y is left
        np.testing.assert_allclose(episode.keypoints_world[:, RIGHT.start], truth.gripper[:, :3, 3], atol=1e-6)
        assert episode.keypoints_valid[:, RIGHT].all()
        assert not episode.keypoints_valid[:, LEFT].any()
        np.testing.assert_allclose(episode.columns["action"][:, :7], truth.action_joints, atol=1e-6)
        assert episode.columns["action"].shape[1] == 8
        assert episode.task == f"stack cup {index}"


def test_frames_of_an_episode_in_the_middle_of_a_video_are_its_own(written):
    folder, _ = written
    frames = pickle.loads(pickle.dumps(open_droid_lerobot(folder)))[1].frames
    pictures = frames.read([11, 0, 5])[:, 8, 8].astype(int)
    assert np.abs(pictures[:, 0] - (60 + 4 * np.array([11, 0, 5]))).max() <= 3
    assert np.abs(pictures[:, 1] - GREEN["exterior_2_left"]).max() <= 3


@pytest.mark.parametrize(
    ("choice", "name"),
    [("right", "exterior_1_left"), ("ext1", "exterior_1_left"), ("ext2", "exterior_2_left"), ("wrist", "wrist_left")],
)
def test_every_camera_can_be_chosen_and_the_wrist_camera_is_carried_by_the_gripper(written, choice, name):
    folder, told = written
    source = open_droid_lerobot(folder, DroidOptions(camera=choice))
    episode = source[1]
    np.testing.assert_allclose(episode.world_from_camera, told[1].cameras[CAMERAS[name]], atol=1e-6)
    assert abs(int(episode.frames.read([0])[0, 8, 8, 1]) - GREEN[name]) <= 3
    assert name in str(source.files(1)[0])


def test_intrinsics_are_given_or_estimated_and_a_warning_says_so(written, caplog):
    folder, _ = written
    source = open_droid_lerobot(folder)
    assert "nominal focal length" in caplog.text
    np.testing.assert_allclose(source[0].intrinsics, [[26.5, 0.0, 32.0], [0.0, 26.5, 18.0], [0.0, 0.0, 1.0]])
    given = open_droid_lerobot(folder, DroidOptions(intrinsics=(27.0, 27.0, 32.0, 18.0)))
    assert given[0].intrinsics[0, 0] == 27.0
    check_refused(open_droid_lerobot(folder, DroidOptions(estimate_intrinsics=False)), "no intrinsics")
    with pytest.raises(ValueError, match="episode ids"):
        open_droid_lerobot(folder, DroidOptions(annotations=folder))


def test_outcomes_are_told_by_the_rows(written):
    folder, _ = written
    assert open_droid_lerobot(folder, DroidOptions(outcome="success")).ids == ("000000",)
    assert open_droid_lerobot(folder, DroidOptions(max_episodes=1)).ids == ("000000",)
    failed = open_droid_lerobot(folder, DroidOptions(outcome="failure"))
    assert failed.ids == ("000001",)
    assert failed[0].task == "stack cup 1"


def test_only_a_dataset_with_the_columns_of_droid_is_recognised(copied):
    assert recognises(copied)
    path = copied / "meta/info.json"
    info = json.loads(path.read_text())
    del info["features"]["camera_extrinsics.wrist_left"]
    path.write_text(json.dumps(info))
    assert not recognises(copied)
    with pytest.raises(ValueError, match=r"lacks camera_extrinsics\.wrist_left"):
        open_droid_lerobot(copied)
    path.write_text("{")
    assert not recognises(copied)
    assert not recognises(copied.parent)


def spoilt(value):
    return lambda values: [value, *values[1:]]


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        (POSITION, spoilt([float("nan")] * 6), "cartesian_position holds NaN or Inf"),
        (POSITION, spoilt([3.0] * 6), "further than the arm reaches"),
        (POSITION, lambda values: [value[:5] for value in values], "has 5 numbers a row, expected 6"),
        ("observation.state.gripper_position", spoilt(7.0), "beyond 1.1"),
        ("camera_extrinsics.exterior_2_left", lambda values: [[0.0] * 6] * len(values), "not calibrated"),
        ("episode_index", lambda values: [5] * len(values), "no row of episode 0 is there"),
    ],
)
def test_damaged_rows_make_a_corrupt_episode_that_says_which(copied, name, change, complaint):
    change_column(copied, name, change)
    check_refused(open_droid_lerobot(copied), complaint)
