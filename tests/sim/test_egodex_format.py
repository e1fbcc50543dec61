"""Simulated hands in EgoDex's layout: read back they are what was recorded, and collecting survives a kill."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction

import av
import h5py
import numpy as np
import pytest
from sim_recordings import bytes_of, pixels_of

from dexworld.data.readers.egodex import open_egodex, recognises
from dexworld.hands import KEYPOINT_NAMES
from dexworld.sim import collect_scenes as collecting
from dexworld.sim.collect_scenes import SceneRange, collect_human, recorded
from dexworld.sim.hands import egodex_format as egodex
from dexworld.sim.hands.human_video import HumanVideoConfig, film

SEED = 900_301
SMALL = HumanVideoConfig(seconds=1.0, fps=30.0, height=72, width=128, act_seconds=1.0)
TINY = HumanVideoConfig(seconds=1.0, fps=6.0, height=32, width=64, act_seconds=1.0, skills=("reach",))


@pytest.fixture(scope="module")
def video():
    return film(SEED, SMALL)


@pytest.fixture(scope="module")
def truth(video):
    return egodex.in_arkit_world(video.episode)


@pytest.fixture(scope="module")
def written(tmp_path_factory, video):
    folder = tmp_path_factory.mktemp("egodex")
    return folder, egodex.write_egodex(folder, video)


def test_the_reader_of_the_real_dataset_reads_what_was_recorded_without_a_warning(written, truth, caplog):
    assert recognises(written[0])
    source = open_egodex(written[0])
    read = source[0]
    assert (len(source), source.quarantined) == (1, ())
    assert (len(read), read.fps, read.frames.size) == (30, 30.0, (72, 128))
    assert read.keypoints_valid.all()
    assert caplog.text == ""
    for name in ("keypoints_world", "world_from_camera"):
        np.testing.assert_allclose(getattr(read, name), getattr(truth, name), atol=1e-6)
    np.testing.assert_allclose(read.intrinsics, truth.intrinsics, atol=1e-4)
    np.testing.assert_allclose(pixels_of(read)[0], pixels_of(truth)[0], atol=0.1)
    for name in ("keypoint_confidence", "hand_poses_world", "hand_metacarpals_world", "body_world", "object_positions"):
        np.testing.assert_allclose(read.columns[name], truth.columns[name], atol=1e-6, err_msg=name)
    assert read.task == truth.task
    assert read.columns["body_valid"].all()
    forward, down = read.world_from_camera[:, :3, 2], read.world_from_camera[:, :3, 1]
    assert ((read.world_from_camera[:, 1, 3] > 1.2) & (read.world_from_camera[:, 1, 3] < 1.6)).all()  # y is up
    assert (forward[:, 1:] < -0.3).all()  # ahead is -z
    assert (down[:, 1] < -0.3).all()


def test_every_frame_of_the_video_is_the_drawn_one(written, truth):
    drawn = truth.frames.array.astype(float)
    read = open_egodex(written[0])[0].frames.read(list(range(30))).astype(float)
    error = np.abs(read - drawn).mean(axis=(1, 2, 3))
    assert error.max() < 6
    moving = np.flatnonzero(np.abs(drawn[3:] - drawn[:-3]).mean(axis=(1, 2, 3)) > 3)
    assert len(moving) > 8
    for frame in moving:  # nearer to the frame itself than to the one three later
        assert error[frame] < np.abs(read[frame] - drawn[frame + 3]).mean()


def test_the_video_has_long_groups_of_pictures_and_b_frames(written):
    with av.open(str(written[1].with_suffix(".mp4"))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", Fraction(30), 30)
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert sum(packet.is_keyframe for packet in packets) == 1
    shown = [packet.pts for packet in packets]
    assert shown != sorted(shown)  # B-frames are stored after the frames that they look forward to


def test_the_file_holds_every_name_of_the_layout_with_rigid_float32_poses(written):
    _, path = written
    assert len(egodex.JOINT_NAMES) == len(set(egodex.JOINT_NAMES)) == 68
    with h5py.File(path) as file:
        assert set(file) == {"camera", "transforms", "confidences", "dexworld"}
        assert set(file["transforms"]) == {"camera", *egodex.JOINT_NAMES}
        assert set(file["confidences"]) == set(egodex.JOINT_NAMES)
        assert file["camera/intrinsic"].shape == (3, 3)
        for name, poses in file["transforms"].items():
            assert (poses.shape, poses.dtype) == ((30, 4, 4), np.float32), name
            turn = poses[:, :3, :3].astype(float)
            identity = np.broadcast_to(np.eye(3), turn.shape)
            np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), identity, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(np.linalg.det(turn), 1.0, atol=1e-5, err_msg=name)
            np.testing.assert_array_equal(poses[:, 3], np.broadcast_to([0, 0, 0, 1], (30, 4)))
        for name, sure in file["confidences"].items():
            assert (sure.shape, sure.dtype) == ((30,), np.float32), name
            assert 0 <= sure[:].min() <= sure[:].max() <= 1
        attributes = dict(file.attrs)
    assert set(attributes) == {
        "task", "llm_description", "llm_description2", "which_llm_description", "llm_verbs", "llm_objects",
        "environment", "object", "session_name", "dexworld_synthetic", egodex.SEED_ATTRIBUTE,
    }  # fmt: skip
    assert attributes[egodex.SEED_ATTRIBUTE] == SEED
    assert attributes["session_name"] == f"dexworld-seed-{SEED}"
    assert path.parent.name == attributes["task"]
    assert path.parent.parent.name == "test"
    assert [egodex.split_of(seed) for seed in (0, 899_999, 900_000, 999_999)] == ["part1", "part1", "test", "test"]


def test_the_z_axis_of_a_joint_points_along_its_bone(truth):
    poses = egodex.joint_poses(truth)
    fingers = "leftIndexFingerMetacarpal leftIndexFingerKnuckle rightThumbIntermediateBase rightThumbIntermediateTip"
    bones = f"{fingers} rightForearm rightHand spine3 spine4 spine7 neck1".split()
    for start, end in zip(bones[::2], bones[1::2], strict=True):
        here, there = (poses[:, egodex.JOINT_NAMES.index(name)] for name in (start, end))
        bone = there[:, :3, 3] - here[:, :3, 3]
        bone /= np.linalg.norm(bone, axis=1, keepdims=True)
        np.testing.assert_allclose(here[:, :3, 2], bone, atol=1e-6, err_msg=start)
    tip, before = (poses[:, egodex.JOINT_NAMES.index(f"leftRingFinger{part}")] for part in ("Tip", "IntermediateTip"))
    np.testing.assert_array_equal(tip[:, :3, :3], before[:, :3, :3])
    for side, name in enumerate(("left", "right")):
        wrist = poses[:, egodex.JOINT_NAMES.index(f"{name}Hand")]
        np.testing.assert_array_equal(wrist, truth.columns["hand_poses_world"][:, side].astype(float))
        knuckle = truth.keypoints_world[:, KEYPOINT_NAMES.index(f"{name}MiddleFingerKnuckle")] - wrist[:, :3, 3]
        assert (np.einsum("ti,ti->t", knuckle, wrist[:, :3, 2]) > 0.08).all()  # z along the stretched fingers


def test_a_collection_goes_on_where_it_stopped_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    asked = []

    def counted(seed, *rest, **options):
        asked.append(seed)
        return film(seed, *rest, **options)

    monkeypatch.setattr(collecting, "film", counted)
    scenes = SceneRange(tmp_path, 2, SEED, 1)
    paths = collect_human(scenes, TINY)
    assert asked == [SEED, SEED + 1]
    before = bytes_of(tmp_path)
    paths[1].unlink()  # the poses come last: without them an episode doesn't count
    assert list(recorded(tmp_path)) == [SEED]
    assert collect_human(scenes, TINY) == paths
    assert asked == [SEED, SEED + 1, SEED + 1]
    assert bytes_of(tmp_path) == before
    with pytest.raises(ValueError, match=r"begun with other settings: video.fps was .*, now 7.0; choose"):
        collect_human(scenes, replace(TINY, fps=7.0))


def test_a_collection_that_was_killed_at_any_moment_leaves_only_whole_episodes(tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from dexworld.sim.collect_scenes import SceneRange, collect_human\n"
        "from dexworld.sim.hands.human_video import HumanVideoConfig\n"
        f"collect_human(SceneRange(Path(sys.argv[1]), 40, {SEED}, 1), {TINY!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(recorded(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    count = len(recorded(tmp_path))
    assert 2 <= count < 40
    source = open_egodex(tmp_path)
    assert all(len(source[index]) == 6 for index in range(count))
    collect_human(SceneRange(tmp_path, count + 1, SEED, 1), TINY)
    assert list(recorded(tmp_path)) == list(range(SEED, SEED + count + 1))
    assert open_egodex(tmp_path).quarantined == ()
