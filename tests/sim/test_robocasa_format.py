"""RoboCasa's HDF5 layout, written and read back: equal to the truth, through the release's own camera constants."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from sim_recordings import pixels_of

from dexworld.data.readers.robocasa import open_robocasa
from dexworld.hands import RIGHT
from dexworld.sim.kitchen.explore import ExploreConfig, record_exploration
from dexworld.sim.robocasa_format import redraw, release_keypoints, write_robocasa


@pytest.fixture(scope="module")
def episode():
    return record_exploration(900_007, config=ExploreConfig(frames=4))


@pytest.fixture(scope="module")
def written(episode, tmp_path_factory):
    return write_robocasa(tmp_path_factory.mktemp("robocasa") / "random.hdf5", [episode, episode], masks={"train": [1]})


def test_what_is_written_reads_back_as_the_truth_without_a_warning(written, episode, caplog):
    source = open_robocasa(written.parent)
    read = source[0]
    assert source.ids == ("random.hdf5:demo_0", "random.hdf5:demo_1")
    assert (source.quarantined, caplog.text) == ((), "")
    assert np.abs(read.world_from_camera - episode.world_from_camera).max() < 1e-6
    ours, theirs = (points[:, RIGHT] for points in (episode.keypoints_world, read.keypoints_world))
    assert np.abs(theirs[:, 0] - ours[:, 0]).max() < 1e-6  # the wrist
    # The release's points are the origins of all four links: ours without the fingertip, one place on.
    links, joints = theirs[:, 1:].reshape(4, 5, 4, 3), ours[:, 1:].reshape(4, 5, 4, 3)
    assert np.abs(links[:, :, 1:] - joints[:, :, :3]).max() < 1e-6
    assert np.array_equal(read["joint_positions"], episode["joint_positions"])
    assert np.array_equal(read.columns["action"], episode["joint_targets"])
    assert (read.task, read.fps, read.seed) == (episode.task, 5.0, 900_007)
    assert read.frames.size == (224, 392)


def test_keypoints_fall_on_the_same_spots_of_the_redrawn_picture(written, episode):
    read = open_robocasa(written)[0]
    there, here = pixels_of(read)[0], pixels_of(episode.with_columns(keypoints_world=read.keypoints_world))[0]
    zoom = read.intrinsics[0, 0] / episode.intrinsics[0, 0]
    assert abs(zoom - 1) < 0.004  # the same picture to half a pixel in 200
    centre = np.array([196.0, 112.0])
    assert np.abs((there - centre) - zoom * (here - centre))[:, RIGHT].max() < 0.1
    error = np.abs(read.frames.read([2])[0].astype(float) - episode.frames.read([2])[0])
    assert error.mean() < 3.0


def test_the_file_has_the_layout_of_robomimic(written, episode):
    with h5py.File(written) as file:
        assert file["data"].attrs["total"] == 8
        assert json.loads(file["data"].attrs["env_args"])["env_kwargs"]["control_freq"] == 5.0
        demo = file["data/demo_1"]
        assert demo.attrs["num_samples"] == 4
        assert json.loads(demo.attrs["ep_meta"])["dexworld_seed"] == 900_007
        assert demo["obs/robot0_robotview_2_image"].shape == (4, 246, 392, 3)
        assert demo["obs/robot0_right_gripper_keypoint_pose"].shape == (4, 48)
        assert demo["actions"].shape == (4, 23)
        assert demo["dones"][()].tolist() == [0, 0, 0, 1]
        quaternion = demo["obs/robot0_base_quat"][()]
        assert np.allclose(np.linalg.norm(quaternion, axis=1), 1)
        later = demo["next_obs/robot0_joint_pos"][()]
        assert np.array_equal(later[:-1], demo["obs/robot0_joint_pos"][1:])
        assert file["mask/train"][()].tolist() == [b"demo_1"]


def test_flange_and_first_joints_are_where_an_allegro_has_them(episode):
    flange, sites = release_keypoints(episode)
    fingers = sites.reshape(4, 4, 4, 3)
    bones = np.linalg.norm(np.diff(fingers, axis=2), axis=-1)
    assert np.allclose(bones[:, :3], [0.0164, 0.054, 0.0384], atol=1e-7)
    middle = (fingers[:, 1, 0] - flange[:, :3, 3])[:, None] @ flange[:, :3, :3]
    assert np.allclose(middle[:, 0], [0, 0, 0.0957], atol=1e-7)  # palm 0.095 above the flange, joint 0.0007 above that


def test_a_redrawn_gradient_keeps_its_slope_and_repeats_its_edge():
    columns = np.arange(40, dtype=np.uint8) * 6
    frames = np.broadcast_to(columns[None, None, :, None], (1, 20, 40, 3)).copy()
    source, target = np.diag([10.0, 10.0, 1.0]), np.diag([20.0, 20.0, 1.0])
    source[:2, 2], target[:2, 2] = (20, 10), (30, 20)
    drawn = redraw(frames, source, (40, 60), target)[0, 20, :, 0].astype(float)
    places = (np.arange(60) + 0.5 - 30) / 2 + 20 - 0.5
    assert np.abs(drawn - 6 * places).max() <= 0.5
    wide = redraw(frames, source, (20, 60), np.array([[10.0, 0, 30], [0, 10.0, 10], [0, 0, 1]]))[0, 5, :, 0]
    assert (wide[:10] == 0).all()
    assert (wide[50:] == columns[-1]).all()


def test_the_full_size_of_the_release_reads_back_too(episode, tmp_path):
    columns = {name: values[:1] for name, values in episode.columns.items() if name != "object_positions"}
    frames, cameras = type(episode.frames)(episode.frames.array[:1]), episode.world_from_camera[:1]
    short = replace(episode, frames=frames, world_from_camera=cameras, columns=columns)
    read = open_robocasa(write_robocasa(tmp_path / "a.hdf5", [short], size=(600, 960)))[0]
    assert read.frames.size == (548, 960)
    assert read.intrinsics[0, 0] == pytest.approx(357.526, abs=1e-3)


def test_writing_twice_gives_the_same_bytes(written, episode, tmp_path):
    again = write_robocasa(tmp_path / "again.hdf5", iter([episode, episode]), masks={"train": [1]})
    assert again.read_bytes() == written.read_bytes()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda e: e.with_columns(joint_positions=None), "has no joint_positions"),
        (lambda e: e.with_columns(keypoints_world=e.keypoints_world + 0.05), "from where the joints put them"),
    ],
)
def test_an_episode_of_another_robot_is_refused_and_leaves_no_file(episode, tmp_path, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        write_robocasa(tmp_path / "a.hdf5", [change(episode)])
    assert list(tmp_path.iterdir()) == []


def test_episodes_of_different_rates_and_no_episodes_are_refused(episode, tmp_path):
    with pytest.raises(ValueError, match="frames a second, others in the file have"):
        write_robocasa(tmp_path / "a.hdf5", [episode, replace(episode, fps=10.0)])
    with pytest.raises(ValueError, match="no episodes to write"):
        write_robocasa(tmp_path / "a.hdf5", [])
