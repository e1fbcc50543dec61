"""Datasets in LeRobot's v3 layout, written by an independent writer, become Episodes."""

import numpy as np
import pytest
import torch
from droid_fixtures import check_refused
from lerobot_fixtures import change_info, number_of, write_dataset, write_video

from dexworld.data.camera.camera import Camera, PinholeView
from dexworld.data.camera.camera_files import HandEye, write_camera, write_hand_eye
from dexworld.data.lerobot.layout import is_lerobot
from dexworld.data.readers import lerobot
from dexworld.data.readers.lerobot import KeypointMapping, LeRobotOptions, PoseMapping, open_lerobot
from dexworld.data.source import Source
from dexworld.data.video import VideoError
from dexworld.geometry import rigid, rotation_from_euler_xyz
from dexworld.hands import KEYPOINT_NAMES

LENGTHS = (20, 13, 27, 18)
TOTAL = sum(LENGTHS)
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])


def shown(frames, indices):
    return [number_of(frame) for frame in frames.read(indices)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot") / "plain"
    return folder, write_dataset(folder, LENGTHS)


@pytest.mark.parametrize("codec", ["h264-bframes", "av1"])
def test_every_episode_of_every_camera_has_its_own_frames(tmp_path, codec):
    write_dataset(tmp_path, LENGTHS, codec=codec)
    for number, key in enumerate(("observation.images.top", "observation.images.wrist")):
        source = open_lerobot(tmp_path, LeRobotOptions(image_key=key))
        for index, length in enumerate(LENGTHS):
            order = [length - 1, 0, length // 2]
            assert shown(source[index].frames, order) == [1000 * number + STARTS[index] + i for i in order]


def test_rows_rates_tasks_and_ids_are_those_of_the_dataset_and_hands_unknown_without_a_mapping(plain):
    folder, columns = plain
    source = open_lerobot(folder)
    assert isinstance(source, Source)
    assert is_lerobot(folder)
    assert (len(source), source.kind, source.quarantined) == (4, "lerobot", ())
    assert source.ids == ("episode_000000", "episode_000001", "episode_000002", "episode_000003")
    for index in range(4):
        episode, span = source[index], slice(STARTS[index], STARTS[index + 1])
        task = ["pick the cup", "place the cup"][index % 2]
        assert (len(episode), episode.fps, episode.task) == (LENGTHS[index], 30.0, task)
        assert set(episode.columns) == {"observation.state", "action", "keypoints_world", "keypoints_valid"}
        assert not episode.keypoints_valid.any()
        np.testing.assert_array_equal(episode.world_from_camera, np.tile(np.eye(4), (LENGTHS[index], 1, 1)))
        np.testing.assert_allclose(episode.intrinsics, [[96, 0, 48], [0, 96, 32], [0, 0, 1]])
        for name in ("observation.state", "action"):
            np.testing.assert_array_equal(episode.columns[name], columns[name][span])
        assert [path.suffix for path in source.files(index)] == [".mp4", ".parquet"]


@pytest.mark.parametrize("changes", [{"file_word": "file_"}, {"row_groups": False}], ids=str)
def test_other_names_and_row_groups_are_read(tmp_path, changes):
    columns = write_dataset(tmp_path, LENGTHS, cameras=("observation.images.top",), **changes)
    source = open_lerobot(tmp_path)
    assert source.quarantined == ()
    assert [source[index].task for index in range(2)] == ["pick the cup", "place the cup"]
    for index in range(4):
        assert shown(source[index].frames, [0]) == [STARTS[index]]
        expected = columns["action"][STARTS[index] : STARTS[index + 1]]
        np.testing.assert_array_equal(source[index].columns["action"], expected)


def test_other_versions_are_refused_with_the_way_out(tmp_path):
    write_dataset(tmp_path, (5,), version="v2.1")
    assert is_lerobot(tmp_path)
    with pytest.raises(ValueError, match=r"v2\.1.*convert_dataset_v21_to_v30"):
        open_lerobot(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"info\.json"):
        open_lerobot(tmp_path / "nothing")


def test_one_feature_per_hand_in_the_camera_frame_becomes_world_points(tmp_path):
    generator = np.random.default_rng(2)
    hands = generator.normal((0, 0, 0.5), 0.03, size=(2, TOTAL, 21, 3)).astype(np.float32)
    hands[0, 3, 1] = np.nan
    angles = torch.from_numpy(generator.normal(size=(TOTAL, 3)))
    poses = rigid(rotation_from_euler_xyz(angles), torch.from_numpy(generator.normal(size=(TOTAL, 3)))).numpy()
    valid = np.ones((TOTAL, 21), dtype=np.float32)
    valid[7, 5] = 0
    more = np.concatenate([np.ones((TOTAL, 1, 3), np.float32), hands[0, :, ::-1]], axis=1)  # and an elbow in front
    columns = {"left": 1000 * more.reshape(TOTAL, 66), "right": hands[1], "right_seen": valid}
    columns["camera"] = poses.reshape(TOTAL, 16).astype(np.float32)
    write_dataset(tmp_path, LENGTHS, columns=columns)
    left = KeypointMapping("left", points=("", *KEYPOINT_NAMES[20::-1]), unit=0.001, frame="camera")
    right = KeypointMapping("right", points=KEYPOINT_NAMES[21:], frame="camera", valid="right_seen")
    camera, intrinsics = PoseMapping("camera"), (50.0, 51.0, 48.0, 32.0)
    options = LeRobotOptions(keypoints=(left, right), camera_pose=camera, intrinsics=intrinsics)
    episode = open_lerobot(tmp_path, options)[0]
    both = np.concatenate([hands[0], hands[1]], axis=1)[:20]
    expected = both @ poses[:20, :3, :3].transpose(0, 2, 1) + poses[:20, None, :3, 3]
    valid = episode.keypoints_valid
    np.testing.assert_allclose(episode.keypoints_world[valid], expected[valid], atol=1e-5)
    assert np.argwhere(~valid).tolist() == [[3, 1], [7, 26]]
    assert "left" not in episode.columns
    np.testing.assert_allclose(episode.world_from_camera, poses[:20], atol=1e-6)
    np.testing.assert_allclose(episode.intrinsics, [[50, 0, 48], [0, 51, 32], [0, 0, 1]])


def test_a_cameras_files_give_intrinsics_and_pose_and_take_the_lens_out(plain, tmp_path):
    folder, _ = plain
    matrix = np.array([[120.0, 0, 96], [0, 120, 64], [0, 0, 1]])
    lens = Camera(matrix, (128, 192), "plumb_bob", (-0.3, 0.1, 0.0, 0.0))  # twice the frames' size
    pose = np.array([[0.0, 0, 1, 0.5], [-1, 0, 0, 0], [0, -1, 0, 0.4], [0, 0, 0, 1]])
    write_camera(tmp_path / "camera.yaml", lens)
    write_hand_eye(tmp_path / "mount.yaml", HandEye(False, pose))
    options = LeRobotOptions(camera=tmp_path / "camera.yaml", hand_eye=tmp_path / "mount.yaml")
    episode, before = open_lerobot(folder, options)[0], open_lerobot(folder)[0]
    view = PinholeView(lens.of_size((64, 96)), (64, 96))
    np.testing.assert_allclose(episode.intrinsics, view.intrinsics)
    np.testing.assert_allclose(episode.world_from_camera, np.tile(pose, (len(episode), 1, 1)), atol=1e-6)
    (frame,), (raw,) = episode.frames.read([3]), before.frames.read([3])
    np.testing.assert_array_equal(frame, view.undistorted(raw))
    assert np.abs(frame.astype(int) - raw).mean() > 1
    write_hand_eye(tmp_path / "mount.yaml", HandEye(True, pose))
    with pytest.raises(ValueError, match="camera_pose"):
        open_lerobot(folder, options)
    with pytest.raises(ValueError, match="not both"):
        LeRobotOptions(camera=tmp_path / "camera.yaml", intrinsics=(1.0, 1.0, 1.0, 1.0))


def test_the_forms_of_a_camera_pose_agree():
    angles = torch.tensor([[0.3, -0.4, 1.1], [2.0, 0.1, -0.7]], dtype=torch.float64)
    shift = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 0.0]], dtype=torch.float64)
    poses = rigid(rotation_from_euler_xyz(angles), shift)
    # R = Rz(c) Ry(b) Rx(a) as the product of three quaternions x, y, z, w
    half = angles / 2
    (a, b, c), (sa, sb, sc) = half.cos().unbind(-1), half.sin().unbind(-1)
    quaternion = torch.stack(
        [sa * b * c - a * sb * sc, a * sb * c + sa * b * sc, a * b * sc - sa * sb * c, a * b * c + sa * sb * sc], dim=-1
    )
    columns = {
        "matrix": poses.numpy(),
        "inverse": np.linalg.inv(poses.numpy()),
        "euler": torch.cat([shift, angles], dim=-1).numpy(),
        "quaternion": torch.cat([shift, 2 * quaternion], dim=-1).numpy(),
    }
    forms = [PoseMapping("euler", "xyz-euler"), PoseMapping("quaternion", "xyz-quaternion")]
    for mapping in (PoseMapping("matrix"), PoseMapping("inverse", inverse=True), *forms):
        found = lerobot.mapped_poses(columns, mapping, 2)
        np.testing.assert_allclose(found, poses.numpy(), atol=1e-9, err_msg=mapping.feature)
    with pytest.raises(ValueError, match="no rigid transform"):
        lerobot.mapped_poses({"matrix": 2 * poses.numpy()}, PoseMapping("matrix"), 2)
    with pytest.raises(ValueError, match=r"matrix, read as matrix, mirrors at row 0"):
        lerobot.mapped_poses({"matrix": poses.numpy() @ np.diag([1.0, -1.0, 1.0, 1.0])}, PoseMapping("matrix"), 2)


def test_options_that_name_what_is_not_there_are_refused(plain):
    with pytest.raises(ValueError, match="no feature nowhere; it has action"):
        open_lerobot(plain[0], LeRobotOptions(joint_positions="nowhere"))
    with pytest.raises(ValueError, match=r"no camera 'front'; it has observation\.images\.top"):
        open_lerobot(plain[0], LeRobotOptions(image_key="front"))


def test_points_of_another_number_than_the_mapping_names_are_refused(tmp_path):
    write_dataset(tmp_path, (6,), columns={"points": np.zeros((6, 21, 3), dtype=np.float32)})
    source = open_lerobot(tmp_path, LeRobotOptions(keypoints=(KeypointMapping("points"),)))
    check_refused(source, "points has 63 numbers a frame; its 42 `points`")


def test_missing_files_are_quarantined_and_the_rest_is_read(tmp_path):
    write_dataset(tmp_path, LENGTHS)
    (tmp_path / "videos" / "observation.images.top" / "chunk-000" / "file-001.mp4").unlink()
    source = open_lerobot(tmp_path)
    assert source.ids == ("episode_000000", "episode_000001", "episode_000002")
    assert [name for name, _ in source.quarantined] == ["episode_000003"]
    assert "chunk-000/file-001.mp4 is missing" in source.quarantined[0][1]


def test_a_video_that_is_too_short_or_of_another_rate_is_no_frame_of_the_episode(tmp_path):
    write_dataset(tmp_path, LENGTHS, cameras=("observation.images.top",))
    path = tmp_path / "videos" / "observation.images.top" / "chunk-000" / "file-001.mp4"
    write_video(path, [np.zeros((64, 96, 3), dtype=np.uint8)] * 10)
    with pytest.raises(VideoError, match="half a frame"):
        open_lerobot(tmp_path)[3].frames.read([17])
    change_info(tmp_path, lambda info: info.update(fps=20))
    check_refused(open_lerobot(tmp_path), "frame 2 is not that of 20")
