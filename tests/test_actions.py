"""Hand motion: the paper's actions and the release's, defects included, against results worked out by hand."""

import math

import pytest
import torch

from dexworld.actions import ACTION_ROWS, MIN_DEPTH, OFFICIAL, ActionConvention, HandMotion, hand_motion
from dexworld.geometry import rigid, rotation_from_euler_xyz
from dexworld.hands import NUM_KEYPOINTS, RIGHT, TRACKED

INTRINSICS = torch.tensor([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]], dtype=torch.float64)
ROW = RIGHT.start  # the right wrist
TRACKED_ROW = TRACKED.index(ROW)
STEP, WINDOW = ActionConvention(), ActionConvention(frame="window")


def still_cameras(frames: int) -> torch.Tensor:
    return torch.eye(4, dtype=torch.float64).expand(frames, 4, 4).clone()


def turning_cameras(*yaws: float) -> torch.Tensor:
    """Cameras at the origin, turned about the world's z axis."""
    angles = torch.tensor([[0.0, 0.0, yaw] for yaw in yaws], dtype=torch.float64)
    return rigid(rotation_from_euler_xyz(angles), torch.zeros(len(yaws), 3, dtype=torch.float64))


def one_keypoint(*path: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """The right wrist goes along a path; nothing else is annotated."""
    keypoints = torch.zeros(len(path), NUM_KEYPOINTS, 3, dtype=torch.float64)
    keypoints[:, ROW] = torch.tensor(path, dtype=torch.float64)
    valid = torch.zeros(len(path), NUM_KEYPOINTS, dtype=torch.bool)
    valid[:, ROW] = True
    return keypoints, valid


def test_with_a_still_camera_deltas_are_displacements_and_the_camera_rows_are_zero():
    keypoints, valid = one_keypoint((0, 0, 1), (0.1, 0, 1), (0.1, -0.2, 1))
    motion = hand_motion(keypoints, valid, still_cameras(3), INTRINSICS)
    assert motion.deltas.shape == (2, ACTION_ROWS, 3)
    assert torch.allclose(motion.deltas[:, ROW], torch.tensor([[0.1, 0, 0], [0, -0.2, 0]], dtype=torch.float64))
    assert (motion.deltas[:, NUM_KEYPOINTS:] == 0).all()


def test_step_actions_use_each_pairs_first_camera_and_window_actions_the_windows_first():
    keypoints, valid = one_keypoint((0, 0, 1), (0, 0, 1), (0.1, 0, 1))  # moves along world x in the second step
    cameras = turning_cameras(0, math.pi / 2, math.pi / 2)
    by_step = hand_motion(keypoints, valid, cameras, INTRINSICS, STEP).deltas[1, ROW]
    by_window = hand_motion(keypoints, valid, cameras, INTRINSICS, WINDOW).deltas[1, ROW]
    assert torch.allclose(by_step, torch.tensor([0, -0.1, 0], dtype=torch.float64))  # world x is the camera's -y
    assert torch.allclose(by_window, torch.tensor([0.1, 0, 0], dtype=torch.float64))


def test_the_camera_delta_is_the_later_camera_in_the_earlier_one():
    cameras = turning_cameras(math.pi / 2, math.pi / 2 + 0.3)
    cameras[1, :3, 3] = torch.tensor([0.2, 0, 0])
    deltas = hand_motion(*one_keypoint((0, 0, 1), (0, 0, 1)), cameras, INTRINSICS).deltas[0, NUM_KEYPOINTS:]
    assert torch.allclose(deltas[0], torch.tensor([0, -0.2, 0], dtype=torch.float64))  # world x in the turned camera
    assert torch.allclose(deltas[1], torch.tensor([0, 0, 0.3], dtype=torch.float64))


def test_the_relative_rotation_is_wrapped_where_the_world_angle_jumps():
    cameras = turning_cameras(math.pi - 0.1, -math.pi + 0.1)
    delta = hand_motion(*one_keypoint((0, 0, 1), (0, 0, 1)), cameras, INTRINSICS).deltas[0, -1]
    assert torch.allclose(delta, torch.tensor([0, 0, 0.2], dtype=torch.float64))


def test_the_releases_last_angle_turns_a_small_step_back_into_almost_a_whole_turn():
    delta = hand_motion(*one_keypoint((0, 0, 1), (0, 0, 1)), turning_cameras(0.3, 0.2), INTRINSICS, OFFICIAL).deltas
    assert delta[0, -1, 2].item() == pytest.approx(2 * math.pi - 0.1)


def test_a_keypoint_missing_in_either_frame_of_a_pair_has_a_zero_delta_whatever_its_row_holds():
    keypoints, valid = one_keypoint((0, 0, 1), (0.1, 0, 1), (0.3, 0, 1))
    keypoints[1, ROW], valid[1, ROW] = math.nan, False
    motion = hand_motion(keypoints, valid, still_cameras(3), INTRINSICS)
    assert (motion.deltas == 0).all()
    assert motion.visible[:, TRACKED_ROW].tolist() == [True, False, True]
    assert (motion.pixels[1] == 0).all()


def test_nan_in_a_valid_keypoint_or_a_camera_is_refused():
    keypoints, valid = one_keypoint((0, 0, 1), (0, math.nan, 1))
    with pytest.raises(ValueError, match="NaN or Inf"):
        hand_motion(keypoints, valid, still_cameras(2), INTRINSICS)
    cameras = still_cameras(2)
    cameras[0, 0, 3] = math.inf
    with pytest.raises(ValueError, match="NaN or Inf"):
        hand_motion(*one_keypoint((0, 0, 1), (0, 0, 1)), cameras, INTRINSICS)


def test_pixels_hold_where_the_keypoint_is_in_each_frames_own_camera():
    motion = hand_motion(*one_keypoint((0.5, 0.1, 2), (0, 0, 1)), still_cameras(2), INTRINSICS)
    assert motion.pixels[:, TRACKED_ROW].tolist() == [[75.0, 55.0, 2.0], [50.0, 50.0, 1.0]]


def test_a_keypoint_close_to_the_camera_plane_or_behind_it_is_not_visible():
    motion = hand_motion(*one_keypoint((0, 0, -1), (0, 0, 0.9 * MIN_DEPTH)), still_cameras(2), INTRINSICS)
    assert not motion.visible.any()
    assert (motion.pixels == 0).all()


def test_slices_joined_again_are_the_whole_motion():
    motion = hand_motion(*one_keypoint((0, 0, 1), (0.1, 0, 1), (0.2, 0.1, 1)), still_cameras(3), INTRINSICS)
    joined = motion.slice(0, 1).then(motion.slice(1, 2))
    for name in ("deltas", "pixels", "visible"):
        assert torch.equal(getattr(joined, name), getattr(motion, name))


def test_padding_repeats_the_first_frame_with_zero_actions():
    motion = hand_motion(*one_keypoint((0, 0, 1), (0.1, 0, 1)), still_cameras(2), INTRINSICS)
    for padded in (motion.pad_left(2), motion.slice(0, 0).pad_left(2)):
        assert (padded.deltas[:2] == 0).all()
        assert torch.equal(padded.pixels[:3], motion.pixels[:1].expand(3, -1, -1))
    assert motion.pad_left(2).steps == 3
    assert motion.pad_left(0) is motion


def test_motions_are_cast_selected_and_expanded_and_parts_of_different_lengths_refused():
    motion = hand_motion(*one_keypoint((0, 0, 1), (0, 0, 1)), still_cameras(2), INTRINSICS)
    cast = motion.to(torch.float32)
    assert cast.deltas.dtype == cast.pixels.dtype == torch.float32
    assert cast.visible.dtype == torch.bool
    many = motion.expand(5)
    assert many.deltas.shape == (5, 1, ACTION_ROWS, 3)
    assert torch.equal(many.index(3).pixels, motion.pixels)
    with pytest.raises(ValueError, match=r"HandMotion\.pixels has shape"):
        HandMotion(motion.deltas, motion.pixels[:1], motion.visible)


@pytest.mark.parametrize("wrong", [{"frame": "camera"}, {"camera": "absolute"}])
def test_an_unknown_convention_is_refused_with_the_choices(wrong):
    with pytest.raises(ValueError, match="choose"):
        ActionConvention(**wrong)
