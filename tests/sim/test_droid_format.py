"""DROID's layout, written and read back: equal to the truth; collected: resumable to the byte."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from sim_recordings import SEED, SHORT, bytes_of, short_recording, whole_recording

from dexworld.data.readers.droid import open_droid
from dexworld.data.readers.droid_episode import DroidOptions
from dexworld.data.readers.gripper_hand import GripperHand
from dexworld.sim import collect_scenes as collecting
from dexworld.sim.collect_scenes import SceneRange, collect_gripper
from dexworld.sim.gripper import droid_format as droid

KEYS = """action/cartesian_position action/cartesian_velocity action/gripper_position action/gripper_velocity
    action/joint_position action/joint_velocity action/target_cartesian_position action/target_gripper_position
    observation/robot_state/cartesian_position observation/robot_state/gripper_position
    observation/robot_state/joint_positions observation/robot_state/joint_position
    observation/robot_state/joint_velocities observation/robot_state/joint_torques_computed
    observation/controller_info/success observation/timestamp/control/step_start observation/timestamp/skip_action"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("droid")
    return folder, droid.write_droid(folder, short_recording())


@pytest.mark.parametrize("camera", ["ext1", "ext2", "wrist"])
def test_what_is_written_reads_back_as_the_truth(written, camera):
    truth = short_recording()
    keypoints, valid = GripperHand().keypoints(truth.state["cartesian_pose"], truth.state["opening"])
    source = open_droid(written[0], DroidOptions(camera=camera))
    episode = source[0]
    assert (len(source), source.quarantined) == (1, ())
    assert np.abs(episode.keypoints_world - keypoints).max() < 1e-6
    assert np.array_equal(episode.keypoints_valid, valid)
    assert np.abs(episode.world_from_camera - truth.camera_poses[camera]).max() < 1e-6
    assert np.abs(episode.intrinsics - truth.intrinsics[camera]).max() < 1e-4
    action = np.concatenate([truth.command["joint_positions"], 1.0 - truth.command["opening"][:, None]], axis=1)
    columns = {"gripper_pose_world": truth.state["cartesian_pose"], "gripper_opening": truth.state["opening"]}
    for name, values in (columns | {"action": action, "object_motion": truth.objects["object_motion"]}).items():
        assert np.abs(episode.columns[name] - values).max() < 1e-6
    assert (episode.fps, episode.task, episode.seed) == (15.0, truth.text, SEED)
    assert episode.frames.size == (90, 160)


def test_frames_are_those_that_were_drawn_in_their_order(written):
    truth = short_recording().frames["wrist"].astype(float)
    read = open_droid(written[0], DroidOptions(camera="wrist"))[0].frames.read(list(range(8))).astype(float)
    error = np.abs(read[:, None] - truth[None]).mean(axis=(2, 3, 4))
    assert (error.argmin(axis=1) == np.arange(8)).all()
    assert np.diag(error).max() < 4.0


def test_the_folder_names_lab_outcome_date_and_time_and_holds_every_field(written):
    folder, place = written
    outcome = "success" if short_recording().success else "failure"
    assert place.relative_to(folder).parts == ("SIM", outcome, "2025-09-17", "Wed_Sep_17_01:43:00_2025")
    metadata = json.loads(next(place.glob("metadata_*.json")).read_text())
    with h5py.File(place / "trajectory.h5") as file:
        for key in KEYS.split():
            assert len(file[key]) == 8, key
        for camera, serial in droid.serials(SEED).items():
            extrinsics = file[f"observation/camera_extrinsics/{serial}_left"]
            assert (file[f"observation/camera_type/{serial}"][()] == (0 if camera == "wrist" else 1)).all()
            assert extrinsics.shape == (8, 6)
            assert file[f"observation/camera_intrinsics/{serial}_left"].shape == (8, 3, 3)
            assert (place / "recordings" / "MP4" / f"{serial}.mp4").is_file()
            assert metadata[f"{camera}_cam_serial"] == serial
            assert np.allclose(metadata[f"{camera}_cam_extrinsics"], extrinsics[0])
        assert bool(file.attrs["success"]) is metadata["success"] is not bool(file.attrs["failure"])
        assert file.attrs["current_task"] == metadata["current_task"] == short_recording().text
        assert metadata["dexworld_seed"] == SEED
        assert metadata["ext1_cam_extrinsics"][1] > 0 > metadata["ext2_cam_extrinsics"][1]
        assert metadata["left_mp4_path"] == metadata["ext1_mp4_path"]


def test_a_camera_that_was_not_drawn_has_a_pose_but_no_video(tmp_path):
    recording = short_recording()
    only = replace(recording, frames={"ext2": recording.frames["ext2"]})
    place, metadata = droid.write_droid(tmp_path, only), droid.droid_metadata(only)
    assert [path.stem for path in (place / "recordings" / "MP4").iterdir()] == [droid.serials(SEED)["ext2"]]
    assert metadata["ext1_mp4_path"] is None
    assert len(metadata["ext1_cam_extrinsics"]) == 6
    assert metadata["left_mp4_path"] == metadata["ext2_mp4_path"]
    assert np.abs(open_droid(tmp_path)[0].world_from_camera - recording.camera_poses["ext2"]).max() < 1e-6


@pytest.mark.parametrize(("kind", "columns"), [("joint", slice(7)), ("cartesian", slice(3)), ("gripper", None)])
def test_velocities_add_up_to_the_commanded_positions(written, kind, columns):
    with h5py.File(written[1] / "trajectory.h5") as file:
        velocity, position = (file[f"action/{kind}_{name}"][()] for name in ("velocity", "position"))
    if columns is not None:
        velocity, position = velocity[:, columns], position[:, columns]
    assert np.allclose(position[0] + np.cumsum(velocity, axis=0) / 15.0, position)


def test_a_seed_has_one_outcome(tmp_path):
    for success in (True, False):
        droid.write_droid(tmp_path, replace(short_recording(), success=success))
    assert not droid.episode_folder(tmp_path, SEED, True).exists()
    assert droid.find_droid(tmp_path, SEED) == droid.episode_folder(tmp_path, SEED, False)
    assert len(open_droid(tmp_path)) == 1


@pytest.fixture
def replayed(monkeypatch):
    """Recording takes seconds: one recorded episode stands in for every seed. Returns what was asked for."""
    asked = []

    def record(seed, config, backend):
        asked.append(seed)
        recording = short_recording()
        return replace(recording, seed=seed, success=seed % 2 == 0, frames={"ext1": recording.frames["ext1"]})

    monkeypatch.setattr(collecting, "record_gripper", record)
    return asked


def scenes(folder, episodes=3) -> SceneRange:
    return SceneRange(folder, episodes, SEED, 1)


def test_a_collection_goes_on_where_it_was_killed_and_ends_with_the_same_bytes(tmp_path, replayed):
    collect_gripper(scenes(tmp_path / "whole"), SHORT)
    collect_gripper(scenes(tmp_path / "killed", 1), SHORT)
    half = tmp_path / "killed" / ".partial" / "00900104.77" / "recordings" / "MP4"
    half.mkdir(parents=True)
    (half / "20011007.mp4").write_bytes(b"cut off")
    assert len(open_droid(tmp_path / "killed")) == 1
    counts = collect_gripper(scenes(tmp_path / "killed"), SHORT)
    assert replayed == [SEED, SEED + 1, SEED + 2, SEED, SEED + 1, SEED + 2]
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")
    assert (counts["episodes"], counts["frames"], counts["successes"]) == (3, 24, 1)


def test_counts_are_those_of_the_episodes_and_the_progress_bar_sees_every_one(tmp_path, replayed):
    seen = []
    counts = collect_gripper(scenes(tmp_path), SHORT, lambda seeds: (seen.append(seed) or seed for seed in seeds))
    recording = short_recording()
    assert seen == [SEED, SEED + 1, SEED + 2]
    assert counts["moving"] == 3 * int((recording.objects["object_motion"] > 1e-3).sum())
    assert counts["grasp_attempts"] == 3 * recording.grasp_attempts
    assert counts["skills"][recording.skill] == 3
    assert json.loads((tmp_path / "dexworld.json").read_text())["counts"]["episodes"] == 3
    with pytest.raises(ValueError, match=r"begun with other settings: recording.tremor was .*, now 0.5; choose"):
        collect_gripper(scenes(tmp_path), replace(SHORT, tremor=0.5))


def test_a_real_recording_counts_its_grasps(tmp_path):
    droid.write_droid(tmp_path, whole_recording())
    counts = collecting.count_gripper(tmp_path)
    assert (counts["grasp_attempts"], counts["objects_carried"], counts["successes"]) == (1, 1, 1)
    assert 0.2 < counts["moving"] / counts["frames"] < 0.9
