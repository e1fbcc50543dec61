"""Hand clips: three aligned passes, keypoints that lie on the drawn hands, and sets of candidates."""

import math
from dataclasses import fields

import numpy as np
import pytest
from sim_recordings import pixels_of

from dexworld.hands import LEFT, RIGHT
from dexworld.sim.hands.hand_candidates import MIN_DISTANCE, record_candidates
from dexworld.sim.hands.hand_clips import HandClipConfig, camera_path, record_hand_clip

SEED = 900_007
SMALL = HandClipConfig(frames=6, height=48, width=72, supersample=1)
TINY = HandClipConfig(frames=5, height=16, width=24, supersample=1)


@pytest.fixture(scope="module")
def clip():
    return record_hand_clip(SEED)


@pytest.fixture(scope="module")
def hover():
    return record_hand_clip(900_002, HandClipConfig(skills=("reach",), frames=8))  # one hand acts, the other rests


@pytest.fixture(scope="module")
def candidates():
    return record_candidates(SEED, 6, SMALL)


def grown(mask, pixels):
    """A (F, H, W) mask widened by `pixels` in every direction."""
    padded = np.pad(mask, ((0, 0), (pixels, pixels), (pixels, pixels)))
    size = 2 * pixels + 1
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2)).any(axis=(-1, -2))


def keypoint_pixels(clip):
    """Whole pixels (F, 42, 2) of all keypoints."""
    pixels, depth = pixels_of(clip)
    assert (depth[clip.keypoints_valid] > 0).all()
    return np.floor(pixels).astype(int)


def differences(first, second):
    """(..., H, W): the largest difference of a pixel's channels."""
    return np.abs(first.astype(int) - second).max(axis=-1)


def ways(clip):
    """(n,) metres that each object moved."""
    return np.linalg.norm(clip.object_positions[-1] - clip.object_positions[0], axis=1)


def test_a_clip_has_the_shapes_that_it_promises(clip):
    for name in ("interaction", "static", "hands"):
        picture = getattr(clip, name)
        assert (picture.shape, picture.dtype) == ((17, 96, 144, 3), np.uint8), name
    shapes = {"keypoints_world": (42, 3), "keypoints_valid": (42,), "world_from_camera": (4, 4)}
    for name, shape in (shapes | {"object_positions": (len(clip.object_names), 3)}).items():
        assert getattr(clip, name).shape == (17, *shape), name
    assert clip.fps == 8.0
    assert clip.prompt.startswith("My ")
    assert clip.prompt.endswith(".")
    assert 58 < 2 * math.degrees(math.atan(72 / clip.intrinsics[0, 0])) < 70


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_clip():
    first, again, other = (record_hand_clip(seed, SMALL) for seed in (SEED, SEED, SEED + 1))
    for field in fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name), err_msg=field.name)
    assert not np.array_equal(first.static, other.static)


@pytest.mark.parametrize("which", ["clip", "hover"])
def test_projected_keypoints_lie_on_the_drawn_hands(which, request):
    clip = request.getfixturevalue(which)
    drawn = grown(clip.hands.max(axis=-1) > 0, 1)
    pixels = keypoint_pixels(clip)
    inside = clip.keypoints_valid & (pixels >= 0).all(axis=-1) & (pixels < [144, 96]).all(axis=-1)
    frames, _ = np.nonzero(inside)
    assert len(frames) > 80
    on_hand = drawn[frames, pixels[inside][:, 1], pixels[inside][:, 0]]
    assert on_hand.mean() >= 0.98


def test_the_hands_pass_is_black_with_a_green_left_and_a_red_right_hand(hover):
    pixels = keypoint_pixels(hover)
    valid = hover.keypoints_valid & (pixels >= 1).all(axis=-1) & (pixels < [143, 95]).all(axis=-1)
    assert (hover.hands[..., 2] <= np.maximum(hover.hands[..., 0], hover.hands[..., 1])).all()
    assert (hover.hands.max(axis=-1) == 0).mean() > 0.7
    for rows, strong, weak in ((LEFT, 1, 0), (RIGHT, 0, 1)):
        frames, points = np.nonzero(valid[:, rows])
        u, v = pixels[:, rows][frames, points].T
        colours = hover.hands[frames, v, u].astype(int)
        right_colour = colours[:, strong] > colours[:, weak]
        assert len(colours) > 20
        assert right_colour.mean() > 0.9  # the rest: one hand passes in front of the other, or a pixel at the rim
    bright = np.median(hover.hands[hover.hands[..., 0] > 150].astype(float), axis=0)
    assert bright[0] / bright[1] == pytest.approx(0.8 / 0.4, rel=0.15)  # the right hand's published red to green
    assert 0.8 * 0.7 * 255 - 3 <= hover.hands[..., 0].max() <= 255  # times ambient and diffuse light


def test_the_static_video_shows_the_first_state_throughout():
    clip = record_hand_clip(SEED, HandClipConfig(skills=("push",), moving_camera=False, frames=6, supersample=1))
    assert clip.touched
    assert (clip.static == clip.static[0]).all()
    assert (clip.world_from_camera == clip.world_from_camera[0]).all()
    assert ways(clip).max() > 0.05
    first, last = ((differences(clip.interaction[i], clip.static[i]) > 8).sum() for i in (0, -1))
    assert last > first + 20  # at the end the object, too, differs from the static scene


def test_the_camera_path_is_smooth_rigid_and_follows_from_the_seed():
    config = HandClipConfig()
    path = camera_path(SEED, config)
    np.testing.assert_array_equal(path, camera_path(SEED, config))
    rotation = path[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (17, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotation), 1.0)
    assert (rotation[:, 2, 1] < 0).all()  # image down is world down
    steps = np.linalg.norm(np.diff(path[:, :3, 3], axis=0), axis=1)
    assert 0 < steps.max() < 0.02
    assert (camera_path(SEED, HandClipConfig(moving_camera=False)) == path[0]).all()


def test_candidates_share_scene_camera_and_static_video(candidates):
    assert len(candidates.clips) == 6
    first = candidates.clips[0]
    for clip in candidates.clips[1:]:
        for name in ("static", "world_from_camera"):
            np.testing.assert_array_equal(getattr(clip, name), getattr(first, name))
        np.testing.assert_array_equal(clip.object_positions[0], first.object_positions[0])
    assert len({clip.prompt for clip in candidates.clips}) == 6


def test_the_goal_is_one_candidates_outcome_and_far_from_every_other(candidates):
    goal = candidates.clips[candidates.goal_index]
    assert goal.touched
    assert candidates.goal_text == goal.prompt
    assert candidates.final_distances[candidates.goal_index] == 0
    others = np.delete(candidates.final_distances, candidates.goal_index)
    assert (others >= MIN_DISTANCE - 1e-9).all()
    untouched = [i for i, clip in enumerate(candidates.clips) if not clip.touched]
    assert len(untouched) >= 1


def test_the_goal_picture_shows_the_goal_without_hands(candidates):
    goal = candidates.clips[candidates.goal_index]
    assert candidates.goal_image.shape == goal.static.shape[1:]
    hidden = differences(candidates.goal_image, goal.static[-1]) > 8
    assert 3 < hidden.sum() < 0.2 * hidden.size  # the object left one place and appeared at another, nothing else
    still = next(clip for clip in candidates.clips if not clip.touched)
    assert (differences(candidates.goal_image, still.interaction[-1]) > 8).sum() > 3


def test_rivals_are_all_about_one_object_and_end_apart():
    rivals = record_candidates(SEED, 6, TINY, rivals=True)
    assert len({clip.object_names[ways(clip).argmax()] for clip in rivals.clips if clip.touched}) == 1
    assert sum(not clip.touched for clip in rivals.clips) >= 1
    others = np.delete(rivals.final_distances, rivals.goal_index)
    assert (others >= MIN_DISTANCE - 1e-9).all()


def test_impossible_candidate_sets_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        record_candidates(SEED, 1)
    with pytest.raises(RuntimeError, match="fewer candidates or more skills"):
        record_candidates(SEED, 3, HandClipConfig(skills=("reach",), frames=3, height=16, width=24))
