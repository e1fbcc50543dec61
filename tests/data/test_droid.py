"""Raw DROID episodes, written by an independent writer, read back: geometry, alignment, and every refusal."""

import json
import pickle
import shutil

import droid_fixtures as fixtures
import h5py
import numpy as np
import pytest
from droid_fixtures import EXT1, EXT2, LAB, UUID, WRIST, change, check_refused, write_episode

from dexworld.data.readers.arrays import pinhole
from dexworld.data.readers.droid import align, open_droid, recognises
from dexworld.data.readers.droid_episode import DroidOptions
from dexworld.data.source import Source
from dexworld.hands import LEFT, RIGHT

STATE = "observation/robot_state"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("droid")
    return root, write_episode(root, intrinsics=True)


@pytest.fixture
def copied(written, tmp_path):
    """A copy of the episode that a test may damage."""
    root, told = written
    shutil.copytree(root, tmp_path / "droid")
    return tmp_path / "droid", tmp_path / "droid" / told.folder.relative_to(root)


def test_an_episode_holds_the_gripper_the_dummy_hand_and_the_left_camera_as_they_were_written(written):
    root, told = written
    source = open_droid(root)
    assert isinstance(source, Source)
    assert (source.ids, source.quarantined) == ((str(told.folder.relative_to(root)),), ())
    episode = source[0]
    assert (len(episode), episode.fps, episode.seed) == (told.rows, 15.0, None)
    np.testing.assert_allclose(episode.columns["gripper_pose_world"], told.gripper, atol=1e-6)
    np.testing.assert_allclose(episode.columns["gripper_opening"], told.opening, atol=1e-6)
    np.testing.assert_allclose(episode.world_from_camera, told.cameras[EXT2], atol=1e-6)
    np.testing.assert_allclose(episode.intrinsics, fixtures.INTRINSICS, atol=1e-9)
    np.testing.assert_allclose(episode.columns["action"][:, :7], told.action_joints, atol=1e-6)
    np.testing.assert_allclose(episode.columns["action"][:, 7], 1.0 - told.opening, atol=1e-6)
    assert not episode.keypoints_valid[:, LEFT].any()
    assert episode.keypoints_valid[:, RIGHT].all()
    np.testing.assert_allclose(episode.keypoints_world[:, RIGHT.start], told.gripper[:, :3, 3], atol=1e-6)
    tip = told.gripper[0] @ (0.06, 0.0, 0.0, 1.0)  # the first finger of an open gripper, 6 cm along its x axis
    np.testing.assert_allclose(episode.keypoints_world[0, RIGHT.start + 4], tip[:3], atol=1e-6)
    assert episode.task == "Move object into or out of container"
    assert EXT2 in episode.source


@pytest.mark.parametrize(
    ("choice", "serial"), [("left", EXT2), ("right", EXT1), ("ext1", EXT1), ("ext2", EXT2), ("wrist", WRIST)]
)
def test_every_camera_can_be_chosen_and_the_wrist_camera_moves_with_the_gripper(written, choice, serial):
    root, told = written
    source = open_droid(root, DroidOptions(camera=choice))
    episode = source[0]
    np.testing.assert_allclose(episode.world_from_camera, told.cameras[serial], atol=1e-6)
    assert source.files(0)[0].name == f"{serial}.mp4"
    moves = np.abs(np.diff(episode.world_from_camera, axis=0)).max() > 1e-3
    assert moves == (choice == "wrist")


def test_frames_are_the_ones_of_the_video_and_are_read_lazily_in_any_order(written):
    root, _ = written
    episode = pickle.loads(pickle.dumps(open_droid(root)))[0]
    shades = episode.frames.read([19, 0, 7, 7])[:, 10, 10, 0].astype(int)
    assert np.abs(shades - 4 * np.array([19, 0, 7, 7])).max() <= 2
    assert episode.frames.size == (72, 128)


def test_without_intrinsics_the_nominal_focal_length_stands_in_and_is_called_an_estimate(copied, caplog):
    root, folder = copied
    change(folder / "trajectory.h5", "observation/camera_intrinsics", None)
    source = open_droid(root)
    assert "nominal focal length" in caplog.text
    np.testing.assert_allclose(source[0].intrinsics, pinhole(53.0, 53.0, 64.0, 36.0))  # 530 px at 1280
    np.testing.assert_allclose(open_droid(root, DroidOptions(camera="wrist"))[0].intrinsics[0, 0], 70.0)
    assert open_droid(root, DroidOptions(intrinsics=(50.0, 50.0, 64.0, 36.0)))[0].intrinsics[0, 0] == 50.0
    check_refused(open_droid(root, DroidOptions(estimate_intrinsics=False)), "no intrinsics")


def test_poses_intrinsics_and_language_published_later_take_precedence(copied, written, tmp_path):
    root, folder = copied
    change(folder / "trajectory.h5", "observation/camera_intrinsics", None)
    moved = fixtures.write_later(tmp_path / "later", written[1])
    left, ext1, wrist = (
        open_droid(root, DroidOptions(annotations=tmp_path / "later", camera=choice))[0]
        for choice in ("left", "ext1", "wrist")
    )
    np.testing.assert_allclose(left.world_from_camera[3], moved[EXT2], atol=1e-6)
    np.testing.assert_allclose(left.intrinsics, pinhole(52.3, 52.4, 64.1, 36.2))  # a tenth of 1280 x 720
    assert left.task == "put the marker in the pot"
    np.testing.assert_allclose(ext1.world_from_camera[0], moved[EXT1], atol=1e-6)
    assert ext1.intrinsics[0, 0] == 53.0  # estimated: its entry is filled with zeros
    np.testing.assert_allclose(wrist.world_from_camera, written[1].cameras[WRIST], atol=1e-6)
    with pytest.raises(FileNotFoundError, match="holds none of"):
        open_droid(root, DroidOptions(annotations=tmp_path))


def test_the_metadata_gives_an_outer_camera_when_the_trajectory_does_not_but_never_the_wrist(copied, written):
    root, folder = copied
    for serial in (EXT2, WRIST):
        change(folder / "trajectory.h5", f"observation/camera_extrinsics/{serial}_left", None)
    np.testing.assert_allclose(open_droid(root)[0].world_from_camera, written[1].cameras[EXT2], atol=1e-6)
    check_refused(open_droid(root, DroidOptions(camera="wrist")), "nothing else tells where this camera is")


@pytest.mark.parametrize(("frames", "length"), [(19, 19), (21, 20), (22, 20)])
def test_a_video_that_differs_by_a_frame_is_cut_to_what_it_shares(tmp_path, frames, length):
    told = write_episode(tmp_path, rows=20, frames=frames)
    episode = open_droid(tmp_path)[0]
    assert len(episode) == len(episode.frames) == len(episode.columns["action"]) == length
    np.testing.assert_allclose(episode.columns["gripper_pose_world"], told.gripper[:length], atol=1e-6)
    assert np.abs(episode.frames.read([length - 1])[0, 5, 5, 0] - 4.0 * (length - 1)) <= 2
    with pytest.raises(IndexError, match="asked for"):
        episode.frames.read([length])


def write_times(told, change):
    """The times of capture beside the left camera's video, from those that its rows were received at."""
    with h5py.File(told.folder / "trajectory.h5") as file:
        received = file[f"observation/timestamp/cameras/{EXT2}_frame_received"][:].tolist()
    beside = told.folder / "recordings" / "MP4" / f"{EXT2}_timestamps.json"
    beside.write_text(json.dumps(change(received)))
    return beside


def test_times_of_capture_tell_that_it_is_the_first_row_whose_frame_is_missing(tmp_path):
    told = write_episode(tmp_path, rows=20, frames=19)
    beside = write_times(told, lambda received: received[1:])
    source = open_droid(tmp_path)
    np.testing.assert_allclose(source[0].columns["gripper_pose_world"], told.gripper[1:], atol=1e-6)
    beside.write_text("[1, 2")
    check_refused(source, "times of the frames")


def test_cut_frames_read_in_order_are_the_frames_read_one_by_one(tmp_path):
    told = write_episode(tmp_path, rows=20, frames=21)
    write_times(told, lambda received: [received[0] - 67, *received])
    frames = open_droid(tmp_path)[0].frames
    assert (frames.first, len(frames)) == (1, 20)
    in_order = np.stack([picture.to_ndarray() for picture in frames.pictures()])
    np.testing.assert_array_equal(in_order, frames.read(list(range(20))))
    assert abs(int(in_order[0, 5, 5, 0]) - 4) <= 2  # the first frame, which has no row, is left out
    assert len(list(frames.pictures((36, 64)))) == 20


def test_rows_and_frames_match_by_order_when_their_times_do_not_agree():
    times = 100.0 + np.arange(10)
    assert align(10, 10, times, times + 0.5) == (0, 0, 10)
    assert align(10, 10, times, np.append(times[1:], 999.0)) == (1, 0, 9)


def test_labs_outcomes_and_single_episodes_can_be_opened_and_incomplete_ones_are_named(written, tmp_path):
    root, told = written
    shutil.copytree(root, tmp_path / "all")
    other = tmp_path / "all" / LAB / "failure" / "2023-07-08"
    shutil.copytree(told.folder, other / "Sat_Jul__8_10:00:00_2023")
    shutil.copytree(told.folder, other / "Sat_Jul__8_11:00:00_2023")
    (other / "Sat_Jul__8_11:00:00_2023" / f"metadata_{UUID}.json").unlink()
    (other / "Sat_Jul__8_12:00:00_2023").mkdir()
    source = open_droid(tmp_path / "all")
    assert len(source) == 2
    assert [name.split("/")[1] for name in source.ids] == ["failure", "success"]
    reasons = ["0 files metadata_*.json; complete episodes have one", "no trajectory.h5"]
    assert [reason for _, reason in source.quarantined] == reasons
    assert len(open_droid(tmp_path / "all", DroidOptions(outcome="failure"))) == 1
    assert open_droid(tmp_path / "all", DroidOptions(max_episodes=1)).ids == source.ids[:1]
    assert open_droid(tmp_path / "all", DroidOptions(max_episodes=9)).ids == source.ids
    assert len(open_droid(tmp_path / "all" / LAB)) == 2
    single = open_droid(told.folder)
    assert single.ids == (told.folder.name,)
    assert len(single[0]) == told.rows
    assert recognises(root)
    assert recognises(told.folder)
    assert not recognises(tmp_path / "all" / LAB / "failure")
    with pytest.raises(FileNotFoundError, match="holds no DROID episodes"):
        open_droid(tmp_path / "nothing")


NAN_POSITIONS = np.full((20, 6), np.nan)
FAR = np.tile([0.4, 3.0, 0.2, 0.0, 0.0, 0.0], (20, 1))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        (f"{STATE}/cartesian_position", NAN_POSITIONS, r"cartesian_position holds NaN or Inf \(first at row 0\)"),
        (f"{STATE}/cartesian_position", FAR, "further than the arm reaches"),
        (f"{STATE}/cartesian_position", np.zeros((0, 6)), "has 0 rows"),
        (f"{STATE}/cartesian_position", np.zeros((23, 6)), "20 frames, but .* has 23 rows"),
        (f"{STATE}/gripper_position", np.full(20, 1.5), "values beyond 1.1"),
        (f"{STATE}/gripper_position", np.full(20, -0.5), "goes down to -0.5"),
        (f"observation/camera_extrinsics/{EXT2}_left", np.zeros((20, 6)), "was not calibrated"),
        (f"observation/camera_intrinsics/{EXT2}_left", np.tile(np.eye(3), (20, 1, 1)), "no pinhole matrix"),
        ("action/joint_position", np.full((20, 7), np.inf), "action/joint_position holds NaN or Inf"),
    ],
)
def test_damaged_numbers_make_a_corrupt_episode_that_says_which(copied, key, value, complaint):
    root, folder = copied
    change(folder / "trajectory.h5", key, value)
    check_refused(open_droid(root), complaint)


def test_damaged_and_missing_files_make_a_corrupt_episode_that_names_them(copied):
    root, folder = copied
    source, video = open_droid(root), folder / "recordings" / "MP4" / f"{EXT2}.mp4"
    whole = video.read_bytes()
    video.unlink()
    fixtures.write_numbered(video, 20, size=(72, 256))
    check_refused(source, "side by side")
    video.unlink()
    check_refused(source, "video of camera left is missing")
    assert [path.name for path in source.files(0)] == ["trajectory.h5", f"metadata_{UUID}.json"]
    video.write_bytes(whole)
    metadata = folder / f"metadata_{UUID}.json"
    content = json.loads(metadata.read_text())
    for broken, complaint in (
        (json.dumps({**content, "left_mp4_path": None}), "no left_mp4_path"),
        (json.dumps({**content, "left_mp4_path": "somewhere/99.mp4"}), "names camera 99"),
        ("[]", "metadata can't be read"),
        (json.dumps(content)[:50], "metadata can't be read"),
    ):
        metadata.write_text(broken)
        check_refused(source, complaint)
