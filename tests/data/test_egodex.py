import dataclasses
import itertools
import re
import shutil
from fractions import Fraction

import droid_fixtures
import h5py
import numpy as np
import pytest
from egodex_fixtures import HAND, MARKED, draw, make_clip, pixels_of, write_clip, write_hdf5
from video_fixtures import write_mp4

from dexworld.data.readers.egodex import EgoDexOptions, open_egodex, recognises
from dexworld.data.source import CorruptEpisodeError, Source
from dexworld.hands import BODY_KEYPOINTS, KEYPOINT_NAMES

CLIP = make_clip(seed=0)
LENGTH = len(CLIP.poses["camera"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """One good clip, opened as a task folder."""
    folder = tmp_path_factory.mktemp("egodex") / "part1" / "add_remove_lid"
    write_clip(folder, 0, CLIP)
    return folder.parent.parent


@pytest.fixture
def broken(tmp_path, dataset):
    """Changes a copy of the good clip by a function of its open HDF5 file; gives the copy's folder."""

    def damage(change=lambda file: None):
        folder = shutil.copytree(dataset / "part1" / "add_remove_lid", tmp_path / "task")
        with h5py.File(folder / "0.hdf5", "r+") as file:
            change(file)
        return folder

    return damage


def replace(key, value):
    def change(file):
        del file[key]
        file[key] = value

    return change


def without(key):
    return lambda file: file.__delitem__(key)


def with_entry(name, frame, entry, value):
    pose = CLIP.poses[name].copy()
    pose[(frame, *entry)] = value
    return replace(f"transforms/{name}", pose)


def joints_times(scale):
    """Every joint's pose with its last column multiplied, rows x, y, z and 1."""

    def change(file):
        for name, pose in CLIP.poses.items():
            if name != "camera":
                scaled = np.concatenate([pose[..., :3], pose[..., 3:] * np.reshape(scale, (4, 1))], axis=-1)
                replace(f"transforms/{name}", scaled.astype(np.float32))(file)

    return change


def positions(clip, names):
    return np.stack([clip.poses[name][:, :3, 3] for name in names], axis=1)


@pytest.mark.parametrize(("rate", "read"), [(Fraction(30000, 1001), 30.0), (25, 25.0)])
def test_a_rate_that_is_almost_the_official_one_is_the_official_one(tmp_path, rate, read):
    clip = make_clip(seed=1, length=6)
    write_clip(tmp_path, 0, clip)
    write_mp4(tmp_path / "0.mp4", draw(clip), rate)
    episode = open_egodex(tmp_path)[0]
    assert episode.fps == read
    assert episode.frames.fps == pytest.approx(float(rate))


def test_an_episode_equals_what_was_written(dataset):
    source = open_egodex(dataset)
    episode = source[0]
    assert isinstance(source, Source)
    assert (source.kind, source.ids, source.quarantined) == ("egodex", ("part1.add_remove_lid.0",), ())
    assert (len(episode), episode.fps, episode.frames.size, episode.seed) == (LENGTH, 30.0, (180, 320), None)
    assert episode.source == "egodex part1/add_remove_lid/0"
    np.testing.assert_allclose(episode.keypoints_world, positions(CLIP, KEYPOINT_NAMES), atol=1e-6)
    np.testing.assert_allclose(episode.world_from_camera, CLIP.poses["camera"], atol=1e-6)
    np.testing.assert_allclose(episode.intrinsics, CLIP.intrinsic, rtol=1e-6)
    assert episode.keypoints_valid.all()


def test_extras_hold_wrist_poses_metacarpals_the_upper_body_and_confidences(dataset):
    extras = open_egodex(dataset)[0].columns
    metacarpals = [f"{side}{name}" for side in ("left", "right") for name in HAND if name.endswith("Metacarpal")]
    hands = np.stack([CLIP.poses["leftHand"], CLIP.poses["rightHand"]], axis=1)
    confidences = np.stack([CLIP.confidences[name] for name in KEYPOINT_NAMES], axis=1)
    np.testing.assert_allclose(extras["hand_poses_world"], hands, atol=1e-6)
    np.testing.assert_allclose(extras["hand_metacarpals_world"], positions(CLIP, metacarpals), atol=1e-6)
    np.testing.assert_allclose(extras["body_world"], positions(CLIP, BODY_KEYPOINTS), atol=1e-6)
    np.testing.assert_allclose(extras["keypoint_confidence"], confidences, atol=1e-6)
    assert extras["keypoint_confidence"].dtype == np.float32
    assert extras["body_valid"].all()
    assert extras["body_valid"].shape == (LENGTH, 18)


def test_keypoints_land_on_the_pixels_that_show_them(dataset):
    """Once by the writer's own projection (0.01 px), once by the centre of the blob in the decoded video (0.1 px)."""
    episode = open_egodex(dataset)[0]
    pixels = droid_fixtures.pixels_of(episode)
    frames = episode.frames.read(list(range(LENGTH))).mean(axis=-1)
    for name, frame in itertools.product(MARKED, range(LENGTH)):
        u, v = pixels[frame, KEYPOINT_NAMES.index(name)].tolist()
        np.testing.assert_allclose((u, v), pixels_of(CLIP, name)[frame], atol=0.01)
        left, top = int(u) - 9, int(v) - 9
        patch = frames[frame, top : top + 19, left : left + 19]
        weight = (patch - np.median(frames[frame])).clip(3.0) - 3.0
        columns, rows = np.meshgrid(np.arange(19) + left + 0.5, np.arange(19) + top + 0.5)
        centre = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose(centre, (u, v), atol=0.1, err_msg=f"{name} in frame {frame}")


def test_intrinsics_of_the_full_video_are_scaled_to_a_smaller_one(tmp_path):
    official = np.array([[736.6339, 0, 960], [0, 736.6339, 540], [0, 0, 1]], dtype=np.float32)
    write_clip(tmp_path / "task", 0, dataclasses.replace(CLIP, intrinsic=official))
    np.testing.assert_allclose(open_egodex(tmp_path)[0].intrinsics, CLIP.intrinsic, rtol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({}, "Take the lid off the pot."),
        ({"which_llm_description": "1"}, "Put the lid on the pot."),
        ({"which_llm_description": 2}, "Take the lid off the pot."),
        ({"llm_description2": None}, "Put the lid on the pot."),
        ({"llm_description": None, "llm_description2": None, "description": "Move a lid."}, "Move a lid."),
        ({"llm_description": None, "llm_description2": None}, "add remove lid"),
    ],
)
def test_the_task_is_the_sentence_that_was_acted(broken, attributes, sentence):
    folder = broken()
    write_hdf5(folder / "0.hdf5", CLIP, **attributes)
    named = folder.rename(folder.with_name("add_remove_lid"))
    assert open_egodex(named)[0].task == sentence


def test_confidence_can_decide_what_is_valid_and_nan_counts_as_none(broken):
    folder = broken(replace("confidences/leftHand", np.full(LENGTH, np.nan)))
    assert open_egodex(folder)[0].keypoints_valid.all()  # ignored by default
    strict = open_egodex(folder, EgoDexOptions(min_confidence=0.6))[0]
    confidences = np.stack([CLIP.confidences[name] for name in KEYPOINT_NAMES], axis=1)
    confidences[:, 0] = 0.0
    np.testing.assert_array_equal(strict.columns["keypoint_confidence"], confidences)
    np.testing.assert_array_equal(strict.keypoints_valid, confidences >= np.float32(0.6))


def test_a_file_without_confidences_keeps_every_keypoint_and_claims_none(broken):
    episode = open_egodex(broken(without("confidences")), EgoDexOptions(min_confidence=0.9))[0]
    assert episode.keypoints_valid.all()
    assert "keypoint_confidence" not in episode.columns


@pytest.mark.parametrize(
    ("entry", "value"),
    [((0, 3), np.nan), ((0, 0), np.inf), ((slice(None), slice(None)), 0.0), ((1, 1), 3.0), ((2, 3), 50.0)],
    ids=["NaN position", "Inf rotation", "all zero", "no rotation", "50 m away"],
)
def test_a_joint_that_is_not_tracked_is_invalid_at_that_frame_only(broken, entry, value):
    episode = open_egodex(broken(with_entry("rightHand", 4, entry, value)))[0]
    expected = np.ones((LENGTH, 42), dtype=bool)
    expected[4, 21] = False
    np.testing.assert_array_equal(episode.keypoints_valid, expected)
    assert np.isfinite(episode.keypoints_world).all()
    np.testing.assert_array_equal(np.isnan(episode.columns["hand_poses_world"]).any((1, 2, 3)), np.arange(LENGTH) == 4)


@pytest.mark.parametrize(("name", "row"), [("leftHand", 0), ("rightIndexFingerTip", 29)])
def test_a_joint_that_has_left_its_hand_is_invalid(broken, name, row):
    episode = open_egodex(broken(with_entry(name, 2, (0, 3), CLIP.poses[name][2, 0, 3] + 0.7)))[0]
    expected = np.ones((LENGTH, 42), dtype=bool)
    expected[2, row] = False
    np.testing.assert_array_equal(episode.keypoints_valid, expected)


def test_a_hand_that_is_lost_for_a_while_is_invalid_as_a_whole(broken):
    def lose(file):
        for name in KEYPOINT_NAMES[:21]:
            file[f"transforms/{name}"][3:5] = 0.0

    valid = open_egodex(broken(lose))[0].keypoints_valid
    assert not valid[3:5, :21].any()
    assert valid[:, 21:].all()
    assert valid[[2, 5], :21].all()


def test_a_hand_and_a_body_that_are_absent_as_a_whole_are_invalid(tmp_path):
    kept = {name: pose for name, pose in CLIP.poses.items() if name == "camera" or name.startswith("right")}
    confidences = {name: value for name, value in CLIP.confidences.items() if name in kept}
    write_clip(tmp_path / "task", 0, CLIP)
    write_hdf5(tmp_path / "task" / "0.hdf5", dataclasses.replace(CLIP, poses=kept, confidences=confidences))
    episode = open_egodex(tmp_path)[0]
    np.testing.assert_array_equal(episode.keypoints_valid, np.tile(np.arange(42) >= 21, (LENGTH, 1)))
    present = np.array([name.startswith("right") for name in BODY_KEYPOINTS])
    np.testing.assert_array_equal(episode.columns["body_valid"], np.tile(present, (LENGTH, 1)))
    assert np.isnan(episode.columns["hand_metacarpals_world"][:, :4]).all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("transforms/camera"), "transforms/camera is missing"),
        (without("transforms/leftRingFingerTip"), "transforms/leftRingFingerTip is missing"),
        (replace("transforms/hip", np.zeros((12, 3))), r"transforms/hip has shape \(12, 3\), expected \(12, 4, 4\)"),
        (replace("transforms/camera", np.zeros((0, 4, 4))), "transforms/camera holds no frames"),
        (replace("transforms/camera", CLIP.poses["camera"][:-1]), r"0\.mp4: 12 frames, but 11 poses in .*0\.hdf5"),
        (with_entry("camera", 5, (0, 0), np.nan), "transforms/camera is no rigid transform at frame 5"),
        (with_entry("camera", 5, (slice(0, 3), slice(0, 3)), 2 * np.eye(3)), "no rigid transform at frame 5"),
        (with_entry("camera", 3, (slice(0, 3), 0), -CLIP.poses["camera"][3, :3, 0]), "no rigid transform at frame 3"),
        (
            with_entry("camera", np.s_[7:], (0, 3), CLIP.poses["camera"][7:, 0, 3] + 2),
            r"transforms/camera jumps by 2.* m to frame 7",
        ),
        (joints_times([1000, 1000, 1000, 1]), r"no joint is nearer to the camera than \S+ m; .*in metres"),
        (joints_times([1, 1, 1, 1000]), "no joint is rigid"),
        (replace("camera/intrinsic", np.full((3, 3), np.nan)), "camera/intrinsic: .* is no pinhole matrix"),
        (replace("camera/intrinsic", np.eye(3)), "camera/intrinsic: .* is no pinhole matrix for frames of 180 x 320"),
    ],
)
def test_what_is_broken_is_named(broken, change, reason):
    source = open_egodex(broken(change))
    with pytest.raises(CorruptEpisodeError, match=reason) as caught:
        source[0]
    assert re.search(r"0\.(mp4|hdf5)", str(caught.value))


@pytest.fixture
def tree(tmp_path):
    """Two training parts, the additional data and the test set, of empty files; and what does not belong there."""
    root = tmp_path / "EgoDex"
    for place, count in {"part1/fold": 3, "part2/fold": 1, "part2/pour tea": 2, "extra/cut": 1, "test/fold": 2}.items():
        (root / place).mkdir(parents=True)
        for number in range(count):
            (root / place / f"{number}.mp4").touch()
            (root / place / f"{number}.hdf5").touch()
    for place in ("part1/fold/7.mp4", "test/fold/9.hdf5", "test/fold/._0.mp4", "README.md"):
        (root / place).touch()
    return root


def test_splits_are_the_official_ones(tree):
    def ids(split, folder=tree):
        return open_egodex(folder, EgoDexOptions(split=split)).ids

    assert len(ids(None)) == 9
    assert list(ids(None)) == sorted(ids(None))
    assert ids("test") == ("test.fold.0", "test.fold.1")
    assert ids("extra") == ("extra.cut.0",)
    assert ids("part1") == ("part1.fold.0", "part1.fold.1", "part1.fold.2")
    training = ("part1.fold.0", "part1.fold.1", "part1.fold.2")
    assert ids("train") == (*training, "part2.fold.0", "part2.pour-x20tea.0", "part2.pour-x20tea.1")
    assert ids("train", tree / "part2") == ("fold.0", "pour-x20tea.0", "pour-x20tea.1")
    assert ids("test", tree / "test" / "fold") == ("0", "1")


def test_a_file_without_its_partner_is_quarantined_at_opening(tree):
    assert open_egodex(tree).quarantined == (
        ("part1/fold/7.mp4", "there is no 7.hdf5 beside it"),
        ("test/fold/9.hdf5", "there is no 9.mp4 beside it"),
    )
    assert open_egodex(tree, EgoDexOptions(split="part2")).quarantined == ()


def test_a_number_of_episodes_can_be_chosen(tree):
    few = open_egodex(tree, EgoDexOptions(max_episodes=3))
    assert few.ids == ("extra.cut.0", "part1.fold.2", "part2.pour-x20tea.1")
    video, poses = few.files(1)
    assert (video, poses) == (tree / "part1" / "fold" / "2.mp4", tree / "part1" / "fold" / "2.hdf5")
    assert len(open_egodex(tree, EgoDexOptions(max_episodes=100))) == 9


def test_choices_that_select_nothing_say_what_there_is(tree, tmp_path):
    with pytest.raises(ValueError, match=r"nothing is of split 'part5'; found \['extra', 'part1', 'part2', 'test'\]"):
        open_egodex(tree, EgoDexOptions(split="part5"))
    with pytest.raises(ValueError, match="nothing is of split 'train'"):
        open_egodex(tree / "extra", EgoDexOptions(split="train"))
    with pytest.raises(FileNotFoundError, match="no folder"):
        open_egodex(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="no clips of EgoDex"):
        open_egodex(tmp_path / "bare")


def test_the_layout_is_recognised_by_a_pair_of_files(tree, tmp_path):
    assert all(recognises(folder) for folder in (tree, tree / "test", tree / "test" / "fold"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "demo.hdf5").touch()
    assert not recognises(tmp_path / "other")
    assert not recognises(tree / "part1" / "fold" / "0.mp4")
