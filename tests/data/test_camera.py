"""Cameras from the files that people have, pictures without their lens, and what is wrong with such files."""

import numpy as np
import pytest
from PIL import Image

from dexworld import cli
from dexworld.data.camera.camera import Camera, PinholeView
from dexworld.data.camera.camera_files import HandEye, read_camera, read_hand_eye, write_camera, write_hand_eye
from dexworld.data.camera.camera_findings import camera_findings, hand_eye_findings
from dexworld.data.camera.lens import distorted, folds_at, undistorted
from dexworld.data.rigid_poses import poses_of

MATRIX = np.array([[610.0, 0, 322.5], [0, 612.0, 244.5], [0, 0, 1]])
LENSES = {
    "plumb_bob": (-0.28, 0.07, 1e-3, -5e-4, 0.01),
    "rational_polynomial": (0.4, 0.1, 1e-3, -5e-4, 0.02, 0.6, 0.2, 0.03),
    "equidistant": (0.02, -0.01, 0.004, -0.001),
}
ROS = """image_width: 640
image_height: 480
camera_name: wrist
camera_matrix:
  rows: 3
  cols: 3
  data: [610., 0., 322., 0., 612., 244., 0., 0., 1.]
distortion_model: {model}
distortion_coefficients:
  rows: 1
  cols: {count}
  data: {data}
"""
OPENCV = """%YAML:1.0
---
calibration_time: "Sat 28 Nov 2026"
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 610., 0., 322., 0., 612.,
       244., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ -0.28, 0.07, 1e-3, -5e-4, 0.01 ]
"""
JSON = """{"cameraMatrix": {"type_id": "opencv-matrix", "rows": 3, "cols": 3, "dt": "d",
 "data": [610, 0, 322, 0, 612, 244, 0, 0, 1]}, "distCoeffs": {"type_id": "opencv-matrix", "rows": 1, "cols": 5,
 "dt": "d", "data": [-0.28, 0.07, 1e-3, -5e-4, 0.01]}, "image_size": [640, 480]}"""
ON_BASE = """parameters:
  eye_on_hand: false
  robot_base_frame: panda_link0
  robot_effector_frame: panda_link8
  tracking_base_frame: camera_color_optical_frame
transformation: {x: 1.1, y: 0.1, z: 0.8, qx: 0.6, qy: 0.6, qz: -0.3741657, qw: -0.3741657}
"""
IN_HAND_2 = """parameters: {calibration_type: eye_in_hand, robot_base_frame: base, robot_effector_frame: tool0}
transform:
  translation: {x: 0.05, y: 0.0, z: 0.03}
  rotation: {x: 0.0, y: 0.0, z: 0.0, w: 1.0}
"""


def ros(model):
    return ROS.format(model=model, count=len(LENSES[model]), data=list(LENSES[model]))


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    return path


FILES = {f"{model}.yaml": (ros(model), model) for model in LENSES}
FILES |= {"opencv.yml": (OPENCV, "plumb_bob"), "opencv.json": (JSON, "plumb_bob")}


@pytest.mark.parametrize("name", FILES)
def test_a_camera_is_read_from_what_ros_and_opencv_write(tmp_path, name):
    text, model = FILES[name]
    camera = read_camera(written(tmp_path, name, text))
    np.testing.assert_allclose(camera.intrinsics, MATRIX)  # half a pixel from OpenCV's count
    assert (camera.size, camera.model, camera.distortion) == ((480, 640), model, LENSES[model])
    write_camera(tmp_path / "again.yaml", camera)
    again = read_camera(tmp_path / "again.yaml")
    np.testing.assert_allclose(again.intrinsics, camera.intrinsics)
    assert (again.size, again.model, again.distortion) == (camera.size, camera.model, camera.distortion)


def test_an_npz_has_no_size_until_pictures_give_it(tmp_path):
    np.savez(tmp_path / "c.npz", mtx=MATRIX, dist=np.array([LENSES["plumb_bob"]]))
    camera = read_camera(tmp_path / "c.npz")
    assert camera.size is None
    assert camera.of_size((480, 640)).size == (480, 640)
    np.savez(tmp_path / "d.npz", mtx=MATRIX, dist=np.array([*LENSES["rational_polynomial"], *[0.0] * 6]))
    assert read_camera(tmp_path / "d.npz").model == "rational_polynomial"


@pytest.mark.parametrize("model", LENSES)
def test_a_lens_is_inverted_exactly(model):
    places = np.stack(np.meshgrid(np.linspace(-0.6, 0.6, 13), np.linspace(-0.5, 0.5, 11)), axis=-1)
    bent = distorted(places, model, LENSES[model])
    assert np.abs(bent - places).max() > 0.01
    np.testing.assert_allclose(undistorted(bent, model, LENSES[model]), places, atol=1e-7)


def test_lens_models_are_those_of_opencv():
    """Golden values: cv2.projectPoints and cv2.fisheye.projectPoints of OpenCV 5.0 for these lenses."""
    place = np.array([0.3, -0.2])
    golden = {"plumb_bob": (0.289166491, -0.192690994), "rational_polynomial": (0.2920375226, -0.1946050151)}
    golden |= {"equidistant": (0.2885786610, -0.1923857740)}
    for model, wanted in golden.items():
        np.testing.assert_allclose(distorted(place, model, LENSES[model]), wanted, atol=1e-9)


@pytest.mark.parametrize("model", LENSES)
@pytest.mark.parametrize("sign", [1, -1])
def test_lines_are_straight_without_the_lens_and_no_edge_is_black(model, sign):
    """A white line in space, drawn through the lens: its undistorted picture lies where the new intrinsics say."""
    coefficients = LENSES[model] if sign > 0 or model == "equidistant" else tuple(-each for each in LENSES[model])
    camera = Camera(MATRIX, (480, 640), model, coefficients).of_size((240, 320))
    pixels = np.stack(np.meshgrid(np.arange(320) + 0.5, np.arange(240) + 0.5), axis=-1)
    x, y = np.moveaxis(camera.places(pixels), -1, 0)
    line = (255 * np.exp(-(((y - 0.1 * x - 0.2) * 150) ** 2))).astype(np.uint8)
    image = np.maximum(np.repeat(line[..., None], 3, -1), 20)
    view = PinholeView(camera, (224, 298))
    plain = view.image(image)
    assert plain.shape == (224, 298, 3)
    assert plain.min() >= 19
    for column in (20.5, 150.5, 280.5):
        row = (
            view.intrinsics[1, 1] * (0.1 * (column - view.intrinsics[0, 2]) / view.intrinsics[0, 0] + 0.2)
            + view.intrinsics[1, 2]
        )
        weights = plain[:, int(column), 0].astype(float) - 20
        assert abs((weights * (np.arange(224) + 0.5)).sum() / weights.sum() - row) < 0.3
    places = np.array([[0.1, 0.05], [-0.3, 0.2]])
    wanted = places @ view.intrinsics[:2, :2].T + view.intrinsics[:2, 2]
    np.testing.assert_allclose(view.pixels(camera.shown(places)), wanted, atol=1e-4)


def test_another_resolution_scales_and_another_aspect_is_refused():
    camera = Camera(MATRIX, (480, 640))
    np.testing.assert_allclose(camera.of_size((240, 320)).intrinsics[:2], MATRIX[:2] / 2)
    with pytest.raises(ValueError, match="calibrated at 640 x 480"):
        camera.of_size((360, 640))
    with pytest.raises(ValueError, match="expected \\(480, 640, 3\\)"):
        PinholeView(camera, (224, 300)).image(np.zeros((8, 8, 3), np.uint8))


def test_mounts_are_read_from_easy_handeye_and_written_again(tmp_path):
    mounted = read_hand_eye(written(tmp_path, "a.yaml", ON_BASE))
    assert (mounted.on_hand, mounted.base, mounted.camera) == (False, "panda_link0", "camera_color_optical_frame")
    np.testing.assert_allclose(mounted.parent_from_camera[:3, 3], [1.1, 0.1, 0.8])
    write_hand_eye(tmp_path / "b.yaml", mounted)
    again = read_hand_eye(tmp_path / "b.yaml")
    np.testing.assert_allclose(again.parent_from_camera, mounted.parent_from_camera, atol=1e-6)
    second = read_hand_eye(written(tmp_path, "c.yaml", IN_HAND_2))
    assert (second.on_hand, second.effector) == (True, "tool0")
    np.testing.assert_array_equal(second.parent_from_camera[:3, :3], np.eye(3))


WRONG = {
    "no camera matrix": "image_width: 640\n",
    "has 6 numbers, not 9": ROS.replace("0., 0., 1.]", "]"),
    "model 'thin' is unknown": ROS.format(model="thin", count=0, data=[]),
    "4 or 5 finite": ROS.format(model="plumb_bob", count=2, data=[1, 2]),
    "is it rational_polynomial": ROS.format(model="plumb_bob", count=8, data=[0.1] * 8),
    "thin prism": ROS.format(model="rational_polynomial", count=12, data=[0.1] * 12),
    "no list of numbers": "K: [a, b]\n",
    "it is a hand-eye file": ON_BASE,
    "can't be read": "a: [1\n",
    "is XML": "<?xml version='1.0'?>",
    "no values by name": "- 1\n",
    "picture size": ros("plumb_bob").replace("640", "wide"),
    "must be \\[\\[fx": "K: [0, 0, 0, 0, 0, 0, 0, 0, 1]\n",
}
WRONG_MOUNTS = {
    "is no hand-eye file": ros("plumb_bob"),
    "doesn't say where the camera is": ON_BASE.replace("  eye_on_hand: false\n", ""),
    "no unit quaternion": ON_BASE.replace("qx: 0.6", "qx: 90.0"),
}


@pytest.mark.parametrize("why", WRONG)
def test_a_file_that_is_no_camera_is_refused_with_its_name_and_why(tmp_path, why):
    path = written(tmp_path, "wrong.yaml", WRONG[why])
    with pytest.raises(ValueError, match=why) as told:
        read_camera(path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize("why", WRONG_MOUNTS)
def test_a_file_that_is_no_mount_is_refused_with_its_name_and_why(tmp_path, why):
    with pytest.raises(ValueError, match=why):
        read_hand_eye(written(tmp_path, "wrong.yaml", WRONG_MOUNTS[why]))


IMPLAUSIBLE = {
    "height and width are exchanged": Camera(MATRIX, (640, 480)),
    "is it in millimetres": Camera(np.array([[4.2, 0, 320], [0, 4.2, 240], [0, 0, 1]]), (480, 640)),
    "those of pictures of about 645 x 489": Camera(MATRIX, (1080, 1920)),
    "times as high as wide": Camera(MATRIX * [[1], [1.5], [1]] - [[0, 0, 0], [0, 0, 122], [0, 0, 0]], (480, 640)),
    "turns back": Camera(MATRIX, (480, 640), "plumb_bob", (-0.9, 0.0, 0.0, 0.0)),
    "field of view is": Camera(np.array([[9e3, 0, 320], [0, 9e3, 240], [0, 0, 1]]), (480, 640)),
}


@pytest.mark.parametrize("why", IMPLAUSIBLE)
def test_an_implausible_camera_is_found_with_what_to_change(why):
    assert [finding.kind for finding in camera_findings(IMPLAUSIBLE[why]) if why in finding.text] == ["problem"]


def test_a_good_camera_and_mount_have_no_findings_and_wrong_mounts_have():
    camera = Camera(MATRIX, (480, 640), "plumb_bob", LENSES["plumb_bob"])
    forward, down = np.array([-0.6, 0.0, -0.8]), np.array([-0.8, 0.0, 0.6])
    pose = poses_of(np.stack([np.cross(down, forward), down, forward], axis=-1), np.array([1.0, 0.0, 0.9]))
    pose[:3, :3] = pose[:3, :3] @ np.diag([1, 1, np.linalg.det(pose[:3, :3])])
    assert not camera_findings(camera)
    assert not hand_eye_findings(HandEye(False, pose), camera)
    (inverted,) = hand_eye_findings(HandEye(False, np.linalg.inv(pose)), camera)
    assert "give its inverse" in inverted.text
    scaled = pose.copy()
    scaled[:3, 3] *= 1000
    (unit,) = hand_eye_findings(HandEye(False, scaled), camera)
    assert "millimetres" in unit.text
    link = hand_eye_findings(HandEye(True, poses_of(np.eye(3), np.array([0.05, 0, 0])), camera="camera_link"), camera)
    assert [finding.kind for finding in link] == ["note"]
    up = poses_of(np.eye(3), pose[:3, 3] + np.array([0.0, 0.0, 1.0]))
    (away,) = hand_eye_findings(HandEye(False, up), camera)
    assert "x right, y down, z forward" in away.text


def test_a_fold_is_found_where_it_is():
    assert folds_at("plumb_bob", (-1 / 3, 0, 0, 0), 0.9) is None
    assert folds_at("plumb_bob", (-1 / 3, 0, 0, 0), 2.0) == pytest.approx(1.0, abs=0.01)


def test_the_command_shows_a_camera_and_draws_its_picture_without_the_lens(tmp_path, capsys):
    files = [written(tmp_path, "c.yaml", ros("plumb_bob")), written(tmp_path, "h.yaml", IN_HAND_2)]
    Image.fromarray(np.full((480, 640, 3), 90, np.uint8)).save(tmp_path / "p.png")
    words = ["camera", "check", str(files[0]), "--hand-eye", str(files[1]), "--image", str(tmp_path / "p.png")]
    cli.main([*words, "--output", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "640 x 480 pixels" in said
    assert "degrees horizontal" in said
    assert "(0.050, 0.000, 0.030) m from the flange" in said
    assert np.asarray(Image.open(tmp_path / "out" / "undistorted.png")).shape == (480, 640, 3)
    np.savez(tmp_path / "bad.npz", mtx=np.array([[4.2, 0, 320], [0, 4.2, 240], [0, 0, 1]]), dist=np.zeros(5))
    with pytest.raises(SystemExit) as ended:
        cli.main(["camera", "check", str(tmp_path / "bad.npz"), "--image", str(tmp_path / "p.png")])
    assert ended.value.code == 1
    assert "millimetres" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(["camera", "check", str(tmp_path / "bad.npz")])
    assert ended.value.code == 2
    assert "give one by --image" in capsys.readouterr().err
