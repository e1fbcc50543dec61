"""RoboCasa episodes, written by an independent writer, read back: the hand, the camera, the crop, and every refusal."""

import pickle

import h5py
import numpy as np
import pytest
import robocasa_fixtures as fixtures
from droid_fixtures import change, check_refused, pixels_of, placed
from robocasa_fixtures import HEIGHT, WIDTH, pictures, write_file

from dexworld.data.readers.arrays import pinhole
from dexworld.data.readers.robocasa import BASE_FROM_CAMERA, RoboCasaOptions, intrinsics, open_robocasa, recognises
from dexworld.data.source import Source
from dexworld.data.video import VideoError
from dexworld.hands import KEYPOINT_NAMES, LEFT, RIGHT

CROP = 3  # of 60 rows: 26 of 600 in proportion
OBS = "data/demo_0/obs"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robocasa")
    return folder, write_file(folder / "random" / "exploratory.hdf5")


@pytest.fixture
def damaged(tmp_path):
    write_file(tmp_path / "lift.hdf5", (6,))
    return tmp_path / "lift.hdf5"


def test_an_episode_holds_the_hand_the_camera_and_the_joints_as_they_were_written(written):
    folder, told = written
    source = open_robocasa(folder)
    assert isinstance(source, Source)
    assert source.ids == ("random/exploratory.hdf5:demo_0", "random/exploratory.hdf5:demo_1")
    episode, truth = source[0], told["demo_0"]
    assert (len(episode), episode.fps) == (6, 20.0)
    rows = {name: index for index, name in enumerate(KEYPOINT_NAMES)}
    for name, expected in (
        ("rightHand", truth.wrist[:, :3, 3]),
        ("rightThumbKnuckle", truth.sites[:, 12]),
        ("rightThumbTip", truth.sites[:, 15]),
        ("rightIndexFingerKnuckle", truth.sites[:, 0]),
        ("rightMiddleFingerTip", truth.sites[:, 7]),
        ("rightRingFingerIntermediateTip", truth.sites[:, 10]),
        ("rightLittleFingerIntermediateTip", truth.sites[:, 10]),  # the ring finger stands in
    ):
        np.testing.assert_allclose(episode.keypoints_world[:, rows[name]], expected, atol=1e-6)
    assert episode.keypoints_valid[:, RIGHT].all()
    assert not episode.keypoints_valid[:, LEFT].any()
    camera = placed(fixtures.rotation(*fixtures.CAMERA_QUATERNION) @ np.diag([1, -1, -1]), fixtures.CAMERA_AT)
    np.testing.assert_allclose(episode.world_from_camera, truth.base @ camera, atol=1e-6)
    np.testing.assert_allclose(episode["joint_positions"], truth.joints, atol=1e-9)
    np.testing.assert_allclose(episode.columns["hand_poses_world"][:, 1], truth.wrist, atol=1e-9)
    assert np.isnan(episode.columns["hand_poses_world"][:, 0]).all()
    np.testing.assert_allclose(episode.columns["action"], truth.actions, atol=1e-9)
    assert episode.task == "pick the apple from the counter"


def test_keypoints_project_to_where_the_simulator_sees_them_less_the_cropped_rows(written):
    folder, told = written
    episode, truth = open_robocasa(folder)[0], told["demo_0"]
    shown = pixels_of(episode)[:, RIGHT]
    for row in (0, 5):
        expected = fixtures.seen_at(truth, episode.keypoints_world[row, RIGHT], row) - (0.0, CROP)
        np.testing.assert_allclose(shown[row], expected, atol=0.01)
        assert (expected > 0).all()
        assert (expected < (WIDTH, HEIGHT - 2 * CROP)).all()  # inside the picture: the test means something


def test_the_release_image_of_600_rows_gives_the_matrix_of_its_scene():
    np.testing.assert_allclose(intrinsics((548, 960), 26), pinhole(357.526, 357.526, 480.0, 274.0), atol=1e-3)
    np.testing.assert_allclose(BASE_FROM_CAMERA[:3, 2], (3**0.5 / 2, 0.0, -0.5))  # forward, 30 degrees down


def test_the_official_error_lifts_every_keypoint_by_the_crop_once_more(written):
    folder, _ = written
    right, wrong = open_robocasa(folder)[0], open_robocasa(folder, RoboCasaOptions(official_heatmap_error=True))[0]
    lifted = (pixels_of(wrong) - pixels_of(right))[2, RIGHT]
    np.testing.assert_allclose(lifted, np.tile((0.0, -CROP), (21, 1)), atol=1e-9)
    lifted = intrinsics((548, 960), 26)[1, 2] - intrinsics((548, 960), 26, official_error=True)[1, 2]
    assert 224 * lifted / 548 == pytest.approx(10.6, abs=0.05)


def test_frames_are_cropped_and_read_lazily_in_any_order(written):
    folder, _ = written
    frames = pickle.loads(pickle.dumps(open_robocasa(folder)))[0].frames
    assert frames.size == (HEIGHT - 2 * CROP, WIDTH)
    np.testing.assert_array_equal(frames.read([5, 0, 3, 3]), pictures(6)[[5, 0, 3, 3], CROP:-CROP])
    assert frames.read([]).shape == (0, HEIGHT - 2 * CROP, WIDTH, 3)
    with pytest.raises(IndexError, match="frames 2 to 6 asked for"):
        frames.read([2, 6])


def test_filter_keys_choose_episodes_and_an_unknown_one_is_refused_with_those_there_are(written):
    folder, _ = written
    assert open_robocasa(folder, RoboCasaOptions(split="train")).ids == ("random/exploratory.hdf5:demo_0",)
    assert open_robocasa(folder, RoboCasaOptions(split="valid")).ids == ("random/exploratory.hdf5:demo_1",)
    with pytest.raises(ValueError, match="no filter key 'test'; it has train, valid"):
        open_robocasa(folder, RoboCasaOptions(split="test"))


def test_an_episode_without_joints_or_instruction_still_has_its_hand(damaged):
    change(damaged, f"{OBS}/robot0_right_gripper_qpos", None)
    with h5py.File(damaged, "r+") as file:
        del file["data/demo_0"].attrs["ep_meta"]
    episode = open_robocasa(damaged.parent)[0]
    assert "joint_positions" not in episode.columns
    assert episode.task == "PnPCounterTop"


def test_the_rate_is_that_of_the_file_else_the_usual_one(damaged):
    def write(text):
        with h5py.File(damaged, "r+") as file:
            file["data"].attrs["env_args"] = text

    write('{"env_kwargs": {"control_freq": 5}}')
    assert open_robocasa(damaged)[0].fps == 5.0
    write('{"env_kwargs": {"control_freq": 0}}')
    check_refused(open_robocasa(damaged), "control frequency of 0")
    write('{"env')
    check_refused(open_robocasa(damaged), "env_args is no JSON")
    write("")
    assert open_robocasa(damaged)[0].fps == 20.0


def test_missing_episodes_and_broken_files_are_quarantined_by_name(damaged):
    change(damaged, "mask/train", np.array([b"demo_0", b"demo_7"]))
    (damaged.parent / "broken.hdf5").write_bytes(damaged.read_bytes()[:500])
    source = open_robocasa(damaged.parent, RoboCasaOptions(split="train"))
    assert source.ids == ("lift.hdf5:demo_0",)
    assert [name for name, _ in source.quarantined] == ["broken.hdf5", "lift.hdf5:demo_7"]
    assert source.files(0) == (damaged,)
    assert recognises(damaged)
    assert not recognises(damaged.parent / "broken.hdf5")
    with pytest.raises(FileNotFoundError, match=r"no \*\.hdf5"):
        open_robocasa(damaged.parent / "nothing")


SITES = "robot0_right_gripper_keypoint_pose"
WRIST = "robot0_right_hand_T_world_pose_mat"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("robot0_robotview_2_image", pictures(5), r"has shape \(6, 4\), expected \(5, 4\)"),
        ("robot0_robotview_2_image", pictures(6).astype(np.float32), "expected .* uint8"),
        ("robot0_robotview_2_image", pictures(6)[:0], "nothing is left"),
        ("robot0_base_pos", np.full((6, 3), 1e8), "values beyond 100"),
        ("robot0_base_quat", np.zeros((6, 4)), "base_quat is no rotation"),
        (WRIST, np.tile(2 * np.eye(4), (6, 1, 1)), "no rigid transform"),
        (WRIST, np.tile(np.diag([1.0, 1.0, -1.0, 1.0]), (6, 1, 1)), "mirrors at row 0"),
        (WRIST, np.tile(np.eye(4), (6, 1, 1)), "wrist is not where"),
        (SITES, np.zeros((6, 12)), "holds 12 numbers a row"),
        (SITES, np.zeros((6, 66)), "bones are not an Allegro's"),
        ("robot0_right_gripper_qpos", np.zeros((6, 15)), "gripper_qpos has shape"),
        ("robot0_joint_pos", np.zeros((6, 3)), "has 3 joints"),
    ],
)
def test_damaged_numbers_make_a_corrupt_episode_that_says_which(damaged, key, value, complaint):
    change(damaged, f"{OBS}/{key}", value)
    check_refused(open_robocasa(damaged), complaint)


def test_fingers_in_another_order_are_refused_unless_the_check_is_off(damaged):
    with h5py.File(damaged) as file:
        values = file[f"{OBS}/{SITES}"][:].reshape(6, 22, 3)
    swapped = np.concatenate([values[:, :6], values[:, 18:22], values[:, 6:18]], axis=1)  # the thumb first
    change(damaged, f"{OBS}/{SITES}", swapped.reshape(6, -1))
    check_refused(open_robocasa(damaged), "in the order index, middle, ring, thumb")
    assert len(open_robocasa(damaged, RoboCasaOptions(check_hand=False))[0]) == 6


def test_a_frame_that_is_gone_when_it_is_read_is_named(damaged):
    frames = open_robocasa(damaged)[0].frames
    assert len(frames) == 6
    change(damaged, f"{OBS}/robot0_robotview_2_image", None)
    with pytest.raises(VideoError, match=r"lift\.hdf5"):
        frames.read([2])
