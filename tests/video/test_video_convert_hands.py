"""Results of hand trackers, written here in their published layouts, as hand files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dexworld import cli
from dexworld.data.hand_checks import ORDERS
from dexworld.data.video import write_video
from dexworld.video.clips.clip import ClipShape
from dexworld.video.real.convert_hands import ConvertHandsConfig, convert_hands
from dexworld.video.real.hand_file import hamer_intrinsics, read_hands
from dexworld.video.real.mano import TIP_VERTICES, read_mano, rotation_matrices
from dexworld.video.real.placement import place_hands
from dexworld.video.real.prepare_clips import VideosConfig, prepare_videos
from dexworld.video.real.source_video import ClipRules
from dexworld.video.real.tracker_output import Conventions
from hand_fixtures import curled_hands, pinhole_of

FRAMES, SIZE, FOCAL = 6, (96, 128), 100.0
HANDS = curled_hands(FRAMES)
BONES = ("global_orient", "hand_pose", "betas")


@pytest.fixture
def config(tmp_path) -> ConvertHandsConfig:
    noise = np.random.default_rng(0).integers(0, 255, (FRAMES, *SIZE, 3))
    write_video(tmp_path / "film.mp4", noise.astype(np.uint8), 8.0)
    return ConvertHandsConfig(tmp_path / "film.json", tmp_path / "film.mp4", tmp_path / "out")


def wilor_frames(hands=HANDS, focal=FOCAL, unmirrored=False) -> list[list[dict]]:
    """As WiLoR-mini's pipeline returns them for every frame: a hand's joints around its own origin, and its place.

    unmirrored: left hands as HaMeR's network sees them, as right ones.
    """
    signs = np.array([[-1.0 if unmirrored else 1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    return [
        [
            {
                "hand_bbox": [0.0, 0.0, 9.0, 9.0],
                "is_right": float(side),
                "wilor_preds": {
                    "pred_keypoints_3d": ((hand - hand.mean(axis=0)) * signs[side])[None].tolist(),
                    "pred_cam_t_full": hand.mean(axis=0)[None].tolist(),
                    "scaled_focal_length": focal,
                },
            }
            for side, hand in enumerate(pair)
        ]
        for pair in hands
    ]


def save(config: ConvertHandsConfig, content) -> ConvertHandsConfig:
    config.results.write_text(json.dumps(content))
    return config


def told(config: ConvertHandsConfig, **conventions) -> ConvertHandsConfig:
    return replace(config, conventions=Conventions(**{**vars(config.conventions), **conventions}))


def converted(config: ConvertHandsConfig):
    convert_hands(config)
    return read_hands(config.output / "film.npz", SIZE)


def reason(config: ConvertHandsConfig) -> str:
    with pytest.raises(ValueError, match="none of 1 could be converted") as raised:
        convert_hands(config)
    return str(raised.value)


def test_wilors_results_become_a_hand_file_that_prepare_takes(config, capsys):
    frames = wilor_frames()
    frames[2] = frames[2][1:]  # no left hand there
    frames[3] = []
    save(config, frames)
    words = ["--results", config.results, "--videos", config.videos, "--output", config.output]
    cli.main(["video", "convert-hands", *map(str, words)])
    hands = read_hands(config.output / "film.npz", SIZE)
    expected = np.ones((FRAMES, 2), bool)
    expected[2, 0] = expected[3] = False
    assert (hands.valid == expected[..., None]).all()
    np.testing.assert_allclose(hands.keypoints[expected], HANDS[expected], atol=1e-9)
    np.testing.assert_allclose(hands.intrinsics, [[FOCAL, 0, 64], [0, FOCAL, 48], [0, 0, 1]])
    figures = json.loads((config.output / "results.json").read_text())
    assert (figures["left_hands"], figures["right_hands"], figures["videos"]) == (4, 5, 1)

    rules = ClipRules(ClipShape(5, *SIZE))
    folder, _ = prepare_videos(
        VideosConfig(config.videos, config.output / "film.npz", config.output / "t", prompt="I push.", rules=rules)
    )
    assert len(folder) == 1


def test_the_true_focal_length_puts_hamers_hands_at_their_distance(config):
    far = hamer_intrinsics(*SIZE)[0, 0]
    moved = HANDS + np.array([0, 0, 0.5 * far / FOCAL - 0.5])  # where HaMeR sees hands that are half a metre away
    frames = [
        {"is_right": [0, 1], "pred_keypoints_3d": (pair - pair[:, :1]).tolist(), "cam_t": pair[:, 0].tolist()}
        for pair in moved
    ]
    save(config, frames)
    near = converted(told(config, focal=FOCAL)).keypoints
    np.testing.assert_allclose(near[..., 2].mean(), HANDS[..., 2].mean(), atol=0.06)
    assert converted(config).keypoints[..., 2].mean() > 5.0
    frames = [{**frame, "scaled_focal_length": FOCAL + row} for row, frame in enumerate(frames)]
    assert "scaled_focal_length goes from 100 to 105: track pictures of one size" in reason(save(config, frames))


def test_stacked_arrays_and_a_file_for_each_frame_say_the_same(config, tmp_path):
    expected = converted(save(config, wilor_frames())).keypoints
    pairs = HANDS.reshape(-1, 21, 3)
    arrays = {
        "is_right": np.tile([0, 1], FRAMES),
        "pred_keypoints_3d": pairs - pairs[:, :1],
        "pred_cam_t_full": pairs[:, 0],
        "scaled_focal_length": np.array(FOCAL),
    }
    stacked, folder = tmp_path / "all.npz", tmp_path / "frames"
    np.savez(stacked, frame=np.repeat(np.arange(FRAMES), 2), **arrays)
    np.testing.assert_allclose(converted(replace(config, results=stacked)).keypoints, expected, atol=1e-9)
    folder.mkdir()
    for frame, hands in enumerate(wilor_frames()):
        (folder / f"frame_{frame + 1:04d}.json").write_text(json.dumps(hands))
    (tmp_path / "results").mkdir()
    folder.rename(tmp_path / "results" / "film")
    found = replace(config, results=tmp_path / "results")
    assert "counted from 1: give --first-frame 1" in reason(found)
    np.testing.assert_allclose(converted(told(found, first_frame=1)).keypoints, expected, atol=1e-9)


def pinholed(points: np.ndarray) -> np.ndarray:
    return points[..., :2] / points[..., 2:] * FOCAL + [SIZE[1] / 2, SIZE[0] / 2]


def mediapipe_frames(python: bool = True, sides=("Left", "Right")) -> list[dict]:
    """As HandLandmarkerResult holds them in Python, or in the older interface."""

    def rows(points):
        named = [dict(zip("xyz", map(float, point), strict=True)) for point in points]
        return named if python else {"landmark": named}

    frames = []
    for pair in HANDS:
        image = np.concatenate([pinholed(pair) / SIZE[::-1], np.zeros((2, 21, 1))], axis=-1)
        parts = [[rows(hand) for hand in image], [rows(hand - hand.mean(axis=0)) for hand in pair]]
        if python:
            said = [[{"category_name": side, "score": 0.9}] for side in sides]
            frames.append({"handedness": said, "hand_landmarks": parts[0], "hand_world_landmarks": parts[1]})
        else:
            said = [{"classification": [{"label": side}]} for side in sides]
            names = ("multi_handedness", "multi_hand_landmarks", "multi_hand_world_landmarks")
            frames.append(dict(zip(names, [said, *parts], strict=True)))
    return frames


@pytest.mark.parametrize("python", [True, False])
def test_mediapipes_landmarks_are_put_where_the_camera_sees_them(config, python):
    hands = converted(told(save(config, mediapipe_frames(python)), focal=FOCAL))
    np.testing.assert_allclose(hands.keypoints, HANDS, atol=1e-6)
    assert "focal length in pixels with --focal" in reason(config)


def test_mediapipes_sides_can_be_exchanged(config):
    config = told(save(config, mediapipe_frames(sides=("Right", "Left"))), focal=FOCAL)
    assert reason(config).endswith("(--swap-sides True)")
    np.testing.assert_allclose(converted(told(config, swap_sides=True)).keypoints, HANDS, atol=1e-6)


def test_a_placed_hand_says_how_far_its_pixels_lie_off():
    shape = HANDS[:, 0] - HANDS[:, 0].mean(axis=1, keepdims=True)
    pixels = pinholed(HANDS[:, 0])
    _, error = place_hands(shape, pixels, pinhole_of(*SIZE) * [[100 / 102.4], [100 / 102.4], [1]])
    assert error.max() < 1.0
    rng = np.random.default_rng(0)
    _, worse = place_hands(shape, pixels + rng.normal(0, 5, pixels.shape), pinhole_of(*SIZE))
    assert worse.min() > 3.0


def mano_file(path: Path) -> Path:
    """A model of MANO's layout whose vertices sit rigidly on its joints: a hand at rest of our own proportions."""
    rest = HANDS[0, 1] - HANDS[0, 1, 0]
    order = np.argsort(ORDERS["mano"])  # MANO's row of each of ours, inverted
    joints = rest[order]
    parents = np.array([-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14])
    template, weights = np.zeros((778, 3)), np.zeros((778, 16))
    template[:16], weights[:16] = joints[:16], np.eye(16)
    weights[16:, 0] = 1.0
    for tip, vertex, joint in zip(joints[16:], TIP_VERTICES, (15, 3, 6, 12, 9), strict=True):
        template[vertex], weights[vertex] = tip, np.eye(16)[joint]
    np.savez(
        path,
        v_template=template,
        shapedirs=np.stack([template * (k == 0) for k in range(10)], axis=-1),  # the first makes it larger
        posedirs=np.zeros((135, 3 * 778)),
        J_regressor=np.eye(16, 778),
        lbs_weights=weights,
        parents=parents,
        faces=np.array([[0, 1, 2]]),
    )
    return path


def test_mano_bends_the_joints_below_the_one_that_turns_and_mirrors_left_hands(tmp_path):
    mano = read_mano(mano_file(tmp_path / "mano.npz"))
    turns = np.zeros((2, 16, 3))
    turns[:, 1] = [0.3, 0.2, -0.4]  # the index finger's knuckle
    turns[1, :, 1:] *= -1  # a left hand's own rotations
    betas = np.zeros((2, 10))
    betas[:, 0] = 0.1
    _, points = mano.hands(rotation_matrices(turns), betas, np.array([True, False]))
    rest = 1.1 * (HANDS[0, 1] - HANDS[0, 1, 0])
    expected = rest.copy()
    expected[5:9] = (rest[5:9] - rest[5]) @ rotation_matrices(turns[0, 1]).T + rest[5]
    np.testing.assert_allclose(points[0], expected, atol=1e-9)
    np.testing.assert_allclose(points[1], expected * [-1, 1, 1], atol=1e-9)


def test_hawors_folder_is_read_with_the_users_mano_file_and_its_camera(config, tmp_path):
    folder = tmp_path / "results" / "film"
    for side in (0, 1):
        (folder / "cam_space" / str(side)).mkdir(parents=True)
        eye = np.eye(3)
        content = {
            "init_root_orient": np.tile(eye, (1, 4, 1, 1)),
            "init_hand_pose": np.tile(eye, (1, 4, 15, 1, 1)),
            "init_trans": HANDS[None, 1:5, side, 0],
            "init_betas": np.zeros((1, 4, 10)),
        }
        lists = {name: value.tolist() for name, value in content.items()}
        (folder / "cam_space" / str(side) / "1_4.json").write_text(json.dumps(lists))
    (folder / "est_focal.txt").write_text(str(FOCAL))
    config = replace(config, results=tmp_path / "results")
    assert "give your MANO file with --mano" in reason(config)
    config = replace(config, mano=mano_file(tmp_path / "mano.npz"))
    path = np.tile([1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0], (FRAMES, 1))
    (folder / "SLAM").mkdir()
    np.savez(folder / "SLAM" / "hawor_slam_w_scale_0_6.npz", traj=path, scale=0.5)
    hands = converted(told(config, joint_order="mano"))  # which is of joints that are given
    assert hands.valid[:, :, 0].tolist() == [[False] * 2, *[[True] * 2] * 4, [False] * 2]
    np.testing.assert_allclose(hands.keypoints[1:5], HANDS[1:5], atol=1e-6)
    np.testing.assert_allclose(hands.world_from_camera[0, :3, 3], [0.5, 1.0, 1.5])
    assert hands.vertices.shape == (FRAMES, 2, 778, 3)
    np.savez(folder / "SLAM" / "hawor_slam_w_scale_0_6.npz", traj=path[:4], scale=0.5)
    assert "30 frames a second" in reason(config)


def changed(**values):
    """WiLoR's frames with other entries in the first hand of frame 1."""
    frames = wilor_frames()
    hand = frames[1][0]
    hand["wilor_preds"] |= values
    frames[1][0] = {**hand, **{name: value for name, value in values.items() if name == "is_right"}}
    return frames


WRONG_ORDER = np.zeros_like(HANDS)
WRONG_ORDER[:, :, list(ORDERS["mano"])] = HANDS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wilor_frames()[:5], "lists 5 frames, the video has 6: track every frame of this video"),
        ({str(frame + 1): hands for frame, hands in enumerate(wilor_frames())}, "counted from 1: give --first-frame 1"),
        ({str(frame + 9): hands for frame, hands in enumerate(wilor_frames())}, "frames 9 to 14, the video has 6"),
        ([[] for _ in HANDS], "holds no hands"),
        ({"a": 1}, "list with one entry for each frame"),
        (changed(pred_keypoints_3d=[[0.0] * 3] * 20), r"frame 1: pred_keypoints_3d is \(20, 3\)"),
        (changed(pred_cam_t_full=[float("nan")] * 3), "frame 1: pred_cam_t_full holds NaN or Inf; leave this hand out"),
        ([{"pred_keypoints_3d": HANDS[0, 1].tolist()}] * 6, "names no side of a hand; give is_right"),
        (changed(is_right=2), "frame 1: the side is '2'"),
        ([[{"is_right": 1, "pred_keypoints_3d": [[0] * 3] * 21, "pred_cam_t": [0] * 3}]] * 6, "save pred_cam_t_full"),
        (wilor_frames(1000 * HANDS), r"in millimetres; give metres \(--metres-per-unit 0.001\)"),
        (wilor_frames(HANDS * [1, -1, -1]), "the axes look like OpenGL's"),
        (wilor_frames(HANDS[:, ::-1]), r"left and right are exchanged.*\(--swap-sides True\)"),
        (wilor_frames(unmirrored=True), r"left hands not mirrored .*\(--mirror-left True\)"),
        (wilor_frames(WRONG_ORDER), r"in the order of mano.*\(--joint-order mano\)"),
    ],
)
def test_a_fault_is_refused_with_what_to_change(config, content, message):
    with pytest.raises(ValueError, match=r"film\.json: " + "(?s:.*)" + message):
        convert_hands(save(config, content))


def test_the_remedies_help(config):
    for content, remedy in (
        (wilor_frames(1000 * HANDS), {"metres_per_unit": 0.001}),
        (wilor_frames(HANDS[:, ::-1]), {"swap_sides": True}),
        (wilor_frames(WRONG_ORDER), {"joint_order": "mano"}),
        (wilor_frames(unmirrored=True), {"mirror_left": True}),
    ):
        found = converted(told(save(config, content), **remedy)).keypoints
        np.testing.assert_allclose(found, HANDS, atol=1e-6)


def test_results_that_are_nested_otherwise_are_refused(config):
    assert "laid out in another way than docs/video_data.md shows" in reason(save(config, [{"wilor_preds": 3}] * 6))


def test_pickles_and_missing_results_are_refused(config, tmp_path):
    (tmp_path / "film.pkl").write_bytes(b"x")
    assert "pickles (.pkl, .pth, .pt) aren't opened" in reason(replace(config, results=tmp_path / "film.pkl"))
    assert "isn't there" in reason(config)


def test_of_one_frame_the_first_hand_of_a_side_counts(config):
    frames = wilor_frames()
    frames[0].append(wilor_frames(HANDS + np.array([0, 0, 0.2]))[0][1])
    assert convert_hands(save(config, frames))["hands_left_out"] == 1
    np.testing.assert_allclose(converted(config).keypoints, HANDS, atol=1e-9)
