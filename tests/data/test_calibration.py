"""Calibration finds the camera that drew the pictures, and where it is mounted."""

import json

import numpy as np
import pytest
from PIL import Image

cv2 = pytest.importorskip("cv2", reason="the extra `camera` is not installed")

from board_fixtures import before_camera, drawn, rays_of, turned  # noqa: E402

from dexworld import cli  # noqa: E402
from dexworld.cli.calibrate_camera import read_poses  # noqa: E402
from dexworld.data.camera.board import BoardConfig  # noqa: E402
from dexworld.data.camera.calibration import BoardView, built_board, calibrated, find_boards, hand_eye  # noqa: E402
from dexworld.data.camera.camera import Camera  # noqa: E402
from dexworld.data.camera.camera_files import read_camera, read_hand_eye  # noqa: E402
from dexworld.data.rigid_poses import poses_of  # noqa: E402

TRUE = Camera(
    np.array([[430.0, 0, 325.3], [0, 428.0, 238.7], [0, 0, 1]]),
    (480, 640),
    "plumb_bob",
    (-0.18, 0.06, 1e-3, -5e-4, 0.0),
)
BASE_FROM_CAMERA = poses_of(turned([1.0, 0.2, 0.1], 160), np.array([0.6, 0.1, 0.7]))
FLANGE_FROM_BOARD = poses_of(turned([0.3, 1.0, 0.2], 40), np.array([0.02, -0.05, 0.12]))


def taken(folder, camera, board, count=9):
    """Pictures of a board on the robot's flange before a camera that stands, and the robot's poses."""
    rng, rays, poses = np.random.default_rng(0), rays_of(camera), {}
    for number in range(count):
        camera_from_board = before_camera(rng, board)
        Image.fromarray(drawn(camera, board, camera_from_board, rays)).save(folder / f"{number}.png")
        pose = BASE_FROM_CAMERA @ camera_from_board @ np.linalg.inv(FLANGE_FROM_BOARD)
        poses[f"{number}.png"] = pose.tolist()
    (folder / "poses.json").write_text(json.dumps(poses))


@pytest.fixture(scope="module")
def charuco(tmp_path_factory):
    folder = tmp_path_factory.mktemp("charuco")
    taken(folder, TRUE, BoardConfig())
    Image.fromarray(np.full((480, 640), 200, np.uint8)).save(folder / "empty.png")
    return folder


def test_the_command_recovers_the_camera_and_its_mount_from_charuco_pictures(charuco, tmp_path, capsys):
    cli.main(["camera", "calibrate", str(charuco), "--output", str(tmp_path)])
    said = capsys.readouterr().out
    assert "left out: empty.png: 0 corners" in said
    found = read_camera(tmp_path / "camera.yaml")
    np.testing.assert_allclose(np.diag(found.intrinsics), np.diag(TRUE.intrinsics), rtol=3e-3)
    np.testing.assert_allclose(found.intrinsics[:2, 2], TRUE.intrinsics[:2, 2], atol=1.5)
    mounted = read_hand_eye(tmp_path / "hand_eye.yaml")
    assert not mounted.on_hand
    assert np.linalg.norm(mounted.parent_from_camera[:3, 3] - BASE_FROM_CAMERA[:3, 3]) < 1e-3
    np.testing.assert_allclose(mounted.parent_from_camera[:3, :3], BASE_FROM_CAMERA[:3, :3], atol=3e-3)
    figures = json.loads((tmp_path / "results.json").read_text())
    assert figures["rms_px"] < 0.2
    assert figures["spread_mm"] < 1.0


def test_the_corners_of_a_grid_of_apriltags_are_found_where_they_are(tmp_path):
    board, pose = BoardConfig("apriltag", 6, 4), before_camera(np.random.default_rng(1), BoardConfig())
    Image.fromarray(drawn(TRUE, board, pose)).save(tmp_path / "tags.png")
    (view,), left_out, size = find_boards([tmp_path / "tags.png"], board)
    assert (left_out, size, view.corners.shape) == ({}, (480, 640), (4 * 24, 3))
    seen = view.corners @ pose[:3, :3].T + pose[:3, 3]
    off = view.pixels + 0.5 - TRUE.shown(seen[:, :2] / seen[:, 2:])
    assert np.abs(off).mean() < 0.3


LENSES = {
    "plumb_bob": (-0.18, 0.06, 1e-3, -5e-4, 0.0),
    "rational_polynomial": (0.4, 0.1, 1e-3, -5e-4, 0.02, 0.6, 0.2, 0.03),
    "equidistant": (0.02, -0.01, 0.004, -0.001),
}


@pytest.mark.parametrize("model", LENSES)
def test_every_lens_model_is_recovered_from_exact_corners(model):
    true = Camera(TRUE.intrinsics, TRUE.size, model, LENSES[model])
    rng, board = np.random.default_rng(2), BoardConfig()
    corners, views = built_board(board).getChessboardCorners(), []
    for number in range(10):
        pose = before_camera(rng, board)
        seen = corners @ pose[:3, :3].T + pose[:3, 3]
        views.append(BoardView(str(number), corners, true.shown(seen[:, :2] / seen[:, 2:]) - 0.5))
    found = calibrated(views, true.size, model)
    assert max(found.rms_by_picture.values()) < 0.01
    np.testing.assert_allclose(found.camera.intrinsics, true.intrinsics, rtol=2e-3, atol=0.5)


@pytest.mark.parametrize("on_hand", [False, True])
def test_the_mount_follows_from_poses_exactly(on_hand):
    rng, parent_from_camera = np.random.default_rng(3), BASE_FROM_CAMERA
    boards = [before_camera(rng, BoardConfig()) for _ in range(5)]
    flange = [parent_from_camera @ board @ np.linalg.inv(FLANGE_FROM_BOARD) for board in boards]
    robot = [np.linalg.inv(pose) for pose in flange] if on_hand else flange  # the board stands at FLANGE_FROM_BOARD
    found = hand_eye(boards, robot, on_hand)
    np.testing.assert_allclose(found.parent_from_camera, parent_from_camera, atol=1e-6)
    assert found.spread_mm < 1e-3


def test_pictures_that_tell_nothing_are_refused_with_what_to_do(charuco, tmp_path):
    still = [BASE_FROM_CAMERA] * 5
    with pytest.raises(ValueError, match="Turn the hand by 20 degrees"):
        hand_eye(still, still, False)
    with pytest.raises(ValueError, match="4 are needed"):
        hand_eye(still[:2], still[:2], False)
    with pytest.raises(ValueError, match="found in 0 pictures, 6 are needed"):
        calibrated([], (480, 640), "plumb_bob")
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="pictures of one size"):
        find_boards([charuco / "empty.png", tmp_path / "small.png"], BoardConfig())
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"no\.png can't be read as a picture"):
        find_boards([tmp_path / "no.png"], BoardConfig())
    for text, why in (('{"a.png": [1]}', "not x, y, z"), ('{"a.png": "up"}', "holds no numbers")):
        (tmp_path / "poses.json").write_text(text)
        with pytest.raises(ValueError, match=why):
            read_poses(tmp_path / "poses.json")
    (tmp_path / "poses.json").write_text('{"a.png": [700, 0, 0, 0, 0, 0, 1]}')
    with pytest.raises(ValueError, match="give metres"):
        read_poses(tmp_path / "poses.json")
    with pytest.raises(ValueError, match="no dictionary 'DICT_NONE'"):
        built_board(BoardConfig(dictionary="DICT_NONE"))
    with pytest.raises(ValueError, match="millimetres"):
        BoardConfig(square_m=40.0, marker_m=30.0)
