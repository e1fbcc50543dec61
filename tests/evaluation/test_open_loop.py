"""Closed-form checks on a world that writes its keypoints into its own pixels.

Frames are 32x56. The first row of a frame holds the twelve tracked keypoints, (u, v, 0) a pixel; everything below has
one brightness. Latents are the raw pixels of 8x8 patches, so every error is known.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.actions import hand_motion
from dexworld.evaluation.open_loop import OpenLoopConfig, clip_of, derangement, evaluate_open_loop, transplanted
from dexworld.evaluation.open_loop_metrics import (
    keypoint_sums,
    keypoint_views,
    moving_tokens,
    object_pixels,
    token_grid,
)
from dexworld.forecast import Forecast
from dexworld.hands import NUM_KEYPOINTS, TRACKED
from dexworld.track import ArrayFrames, Track

HEIGHT, WIDTH, PATCH = 32, 56, 8
INTRINSICS = np.array([[50.0, 0.0, WIDTH / 2], [0.0, 50.0, HEIGHT / 2], [0.0, 0.0, 1.0]])
FAST = OpenLoopConfig(resamples=50)


def make_episode(seed: int, frames: int = 21, brightness_step: int = 4, extras: dict | None = None) -> Track:
    """Keypoints wander over whole pixels at 1 m; brightness grows by `brightness_step` a frame from a seeded start."""
    generator = np.random.default_rng(seed)
    pixels = np.stack([generator.integers(6, side - 6, (frames, 12)) for side in (WIDTH, HEIGHT)], axis=-1)
    images = np.zeros((frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    images[:, 1:] = (10 + seed + brightness_step * np.arange(frames))[:, None, None, None]
    images[:, 0, :12, :2] = pixels
    world, valid = np.zeros((frames, NUM_KEYPOINTS, 3)), np.zeros((frames, NUM_KEYPOINTS), dtype=bool)
    world[:, TRACKED, :2] = (pixels + 0.5 - INTRINSICS[:2, 2]) / 50.0
    world[:, TRACKED, 2], valid[:, TRACKED] = 1.0, True
    return Track(
        frames=ArrayFrames(images),
        fps=5.0,
        world_from_camera=np.tile(np.eye(4), (frames, 1, 1)),
        intrinsics=INTRINSICS,
        source=f"toy {seed}",
        seed=seed,
        columns={"keypoints_world": world, "keypoints_valid": valid, **(extras or {})},
    )


def motion_of(track):
    return hand_motion(track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)


class ToyModel:
    """Knows the truth of the frames it encoded last and goes a share of the way to it; with other actions, nowhere."""

    def __init__(self, share: float) -> None:
        self.share = share

    def encode(self, images):
        frames = len(images)
        patches = images.reshape(frames, HEIGHT // PATCH, PATCH, WIDTH // PATCH, PATCH, 3).transpose(2, 3)
        self.truth = patches.reshape(frames, -1, PATCH * PATCH * 3).float()
        return self.truth

    def condition(self, track):
        return motion_of(track)

    def start(self, latents, motion):
        assert latents.shape[0] == 1
        assert motion.steps == 0
        return latents[0]

    def rollout(self, context, motion):
        still = context.expand(motion.steps, *context.shape)
        moved = still + self.share * (self.truth[1 : motion.steps + 1] - still)
        return torch.stack([moved, still])

    def keypoints(self, latents):
        first_row = latents[..., :2, : PATCH * 3].reshape(*latents.shape[:-2], 16, 3)
        return first_row[..., :12, :2] + 0.5, torch.ones(*latents.shape[:-2], 12)


def figures_of(share: float, **options) -> dict:
    return evaluate_open_loop(ToyModel(share), [make_episode(seed, **options) for seed in range(4)], FAST)


def test_a_perfect_model_has_no_error_and_all_keypoints():
    figures = figures_of(1.0)
    for key in ("mse_ratio_1s", "mse_ratio_4s", "mae_avg", "mae_4s"):
        assert figures[key] == figures[f"{key}_low"] == figures[f"{key}_high"] == 0.0
    for key in ("pck20_avg", "pck20_visible_avg", "pck2_5_visible_4s", "pck20_true_latents"):
        assert figures[key] == pytest.approx(100.0)
    assert figures["shuffled_mse_ratio_1s"] == pytest.approx(1.0)
    assert figures["episodes"] == 4


def test_going_half_the_way_leaves_a_quarter_of_the_squared_error_and_half_the_absolute():
    figures = figures_of(0.5)
    assert figures["mse_ratio_1s"] == pytest.approx(0.25)
    assert figures["mse_ratio_4s"] == pytest.approx(0.25)
    assert figures["mae_avg"] == pytest.approx(figures["copy_last_mae_avg"] / 2)
    assert figures["curves"]["mse_ratio"] == pytest.approx([0.25] * 20)
    assert figures["curves"]["seconds"][4] == 1.0


def test_copy_last_error_is_the_change_since_the_first_frame():
    rest = 31 / 32  # the first row of a frame holds keypoints
    episodes = [make_episode(seed, brightness_step=4) for seed in range(3)]
    figures = evaluate_open_loop(ToyModel(0.0), episodes, FAST)
    first_row = np.mean([np.abs(np.diff(e.frames.array[[0, 20], 0].astype(float), axis=0)).mean() for e in episodes])
    assert figures["copy_last_mae_4s"] == pytest.approx(rest * 80 + first_row / 32, rel=1e-5)
    assert figures["mse_ratio_4s"] == pytest.approx(1.0)


def test_figures_do_not_depend_on_the_run():
    assert figures_of(0.5) == figures_of(0.5)


def test_frames_are_taken_at_five_a_second_from_a_faster_recording():
    episode = replace(make_episode(0, frames=121), fps=30.0)
    assert clip_of(episode, FAST).frames.indices == list(range(0, 121, 6))


def test_short_episodes_are_left_out_and_counted():
    episodes = [make_episode(0), make_episode(1), make_episode(2, frames=20)]
    figures = evaluate_open_loop(ToyModel(1.0), episodes, FAST)
    assert (figures["episodes"], figures["episodes_too_short"]) == (2, 1)
    with pytest.raises(ValueError, match="at least 2 episodes"):
        evaluate_open_loop(ToyModel(1.0), episodes[1:], FAST)


def test_a_prediction_with_nan_names_its_episode():
    with pytest.raises(ValueError, match=r"toy 0.*NaN"):
        figures_of(float("nan"))


def test_the_shuffled_control_starts_at_this_hand_and_moves_like_the_other():
    here, there = (clip_of(make_episode(seed), FAST) for seed in (0, 1))
    turned = torch.eye(4, dtype=torch.float64)
    turned[:3, :3] = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    there_turned = replace(
        there.with_columns(keypoints_world=there.keypoints_world @ turned[:3, :3].T),
        world_from_camera=turned @ there.world_from_camera,
    )
    for other in (there, there_turned):  # what the camera sees counts, not the world's axes
        mixed = transplanted(here, other)
        torch.testing.assert_close(mixed.keypoints_world[0], here.keypoints_world[0])
        moved, wanted = motion_of(mixed), motion_of(there)
        torch.testing.assert_close(moved.deltas, wanted.deltas)
        torch.testing.assert_close(moved.pixels[0], motion_of(here).pixels[0])


def test_the_shuffled_control_has_the_others_body_and_sentence():
    bodies = [np.random.default_rng(seed).normal(size=(21, 18, 3)) for seed in (0, 1)]
    both = [
        make_episode(seed, extras={"body_world": body, "body_valid": np.ones((21, 18), bool)})
        for seed, body in enumerate(bodies)
    ]
    mixed = transplanted(*(clip_of(replace(each, task=f"task {each.seed}"), FAST) for each in both))
    assert bytes(mixed["task_utf8"][-1]).startswith(b"task 1\0")
    np.testing.assert_allclose(mixed["body_world"], bodies[0][0] + bodies[1] - bodies[1][0])


def test_partners_are_never_oneself():
    for count in (2, 3, 17):
        partners = derangement(count, np.random.default_rng(count))
        assert sorted(partners) == list(range(count))
        assert all(partner != index for index, partner in enumerate(partners))


def test_released_pck_divides_by_twelve_and_drops_the_border():
    pixels = torch.full((1, 12, 2), 16.0, dtype=torch.float64)
    pixels[0, 0] = torch.tensor([3.9, 16.0])  # in view, but its heatmap does not fit
    pixels[0, 1] = torch.tensor([-5.0, 16.0])  # outside the image
    visible = torch.ones(1, 12, dtype=torch.bool)
    visible[0, 2] = False  # behind the camera
    views = keypoint_views(pixels, visible, (HEIGHT, WIDTH))
    assert (views["in_view"].sum(), views["drawn"].sum()) == (10, 9)
    predicted = pixels + torch.tensor([3.0, 4.0])  # five pixels off
    counts = keypoint_sums("", predicted, pixels, views)
    assert (counts["pck2_5_visible"], counts["pck5_visible"]) == (0, 10)
    assert counts["pck5_released"] == 9


def test_tokens_form_a_grid_of_square_patches_or_are_refused():
    for tokens, size, grid in ((112, (224, 392), (8, 14)), (448, (224, 392), (16, 28)), (64, (100, 100), (8, 8))):
        assert token_grid(tokens, size) == grid
    for tokens in (113, 64):
        with pytest.raises(ValueError, match=f"{tokens} tokens form no grid"):
            token_grid(tokens, (224, 392))


def test_moving_tokens_are_those_around_the_old_and_the_new_place_of_a_moved_object():
    objects = np.full((3, 2, 2), np.nan)
    objects[:, 0] = [[12.0, 12.0], [13.0, 12.0], [44.0, 12.0]]  # moves 1 px, then 32 px
    unmoved = np.broadcast_to(objects[:1], objects[1:].shape)
    covered = moving_tokens(objects[1:], unmoved, 28, (HEIGHT, WIDTH)).reshape(2, 4, 7)
    assert not covered[0].any()
    expected = np.zeros((4, 7), dtype=bool)
    expected[0:3, 0:3] = True
    expected[0:3, 4:7] = True
    np.testing.assert_array_equal(covered[1], expected)


def test_a_camera_that_moves_moves_no_object():
    positions = np.tile([[[0.0, 0.0, 1.0], [0.1, 0.0, 2.0], [0.0, 0.0, -1.0], [np.nan] * 3]], (3, 1, 1))
    positions[2, 1] = [0.5, 0.0, 2.0]
    cameras = np.tile(np.eye(4), (3, 1, 1))
    cameras[:, 0, 3] = [0.0, 0.1, 0.2]
    clip = replace(make_episode(0, frames=3, extras={"object_positions": positions}), world_from_camera=cameras)
    now, unmoved = object_pixels(clip.tensors())
    np.testing.assert_allclose(now[:, 0], [[28.0, 16.0], [23.0, 16.0], [18.0, 16.0]])
    np.testing.assert_array_equal(unmoved[:, 0], now[:, 0])
    np.testing.assert_allclose(now[:, 1, 0] - unmoved[:, 1, 0], [0.0, 0.0, 50 * 0.4 / 2.0])
    assert np.isnan(now[:, 2:]).all()


def test_object_error_is_reported_where_objects_are_known_and_null_elsewhere():
    objects = np.tile(np.array([-0.32, -0.08, 1.0]), (21, 1, 1))
    objects[1:, 0, 0] += 0.4
    known = figures_of(0.5, extras={"object_positions": objects})
    assert known["object_mse_ratio_1s"] == pytest.approx(0.25)
    assert known["episodes_with_moving_objects"] == 4
    unknown = figures_of(0.5)
    assert unknown["object_mse_ratio_1s"] is None
    assert unknown["episodes_with_moving_objects"] == 0


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="positive"):
        OpenLoopConfig(steps=0)


def test_the_toy_motion_projects_to_the_pixels_written_into_the_frame():
    episode = make_episode(5)
    motion = motion_of(episode.tensors())
    written = torch.as_tensor(episode.frames.array[:, 0, :12, :2].astype(float)) + 0.5
    torch.testing.assert_close(motion.pixels[..., :2], written)


class Pictures:
    """Draws the toy's latents, which are its pixels."""

    def __init__(self, off: int = 0) -> None:
        self.off = off

    def __call__(self, latents):
        tiles = latents.reshape(len(latents), HEIGHT // PATCH, WIDTH // PATCH, PATCH, PATCH, 3).transpose(2, 3)
        return (tiles.reshape(-1, HEIGHT, WIDTH, 3) + self.off).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(("share", "ratio"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.25)])
def test_decoded_pictures_are_compared_with_the_true_ones(share, ratio):
    episodes = [make_episode(seed) for seed in range(3)]
    figures = evaluate_open_loop(ToyModel(share), episodes, FAST, decode=Pictures())
    for moment in ("1s", "4s"):
        assert figures[f"picture_mse_ratio_{moment}"] == pytest.approx(ratio, abs=0.02)  # uint8 cuts off halves
        assert figures[f"picture_mse_ratio_true_latents_{moment}"] == 0.0


def test_what_a_decoder_loses_counts_and_is_told_apart():
    """Pictures that are off by 8 of 255 everywhere; copying is off by 20 at 1 s, almost everywhere."""
    episodes = [make_episode(seed) for seed in range(3)]
    figures = evaluate_open_loop(ToyModel(1.0), episodes, FAST, decode=Pictures(8))
    assert figures["picture_mse_ratio_1s"] == figures["picture_mse_ratio_true_latents_1s"]
    assert figures["picture_mse_ratio_1s"] == pytest.approx(64 / 400, rel=0.1)


@pytest.mark.parametrize(("share", "ratio"), [(1.0, 0.0), (0.0, 1.0)])
def test_distances_of_keypoints_are_divided_by_how_far_they_went(share, ratio):
    figures = figures_of(share)
    for moment in ("1s", "4s"):
        assert figures[f"keypoint_px_ratio_{moment}"] == pytest.approx(ratio, abs=1e-6)
        assert figures[f"keypoint_px_ratio_true_latents_{moment}"] == pytest.approx(0.0, abs=1e-6)


def test_what_cannot_be_measured_is_absent():
    assert not [key for key in figures_of(1.0) if key.startswith(("picture", "found_point", "followed_point", "moved"))]


class ToyPoints:
    """Reads the one point from the frame's brightness, and follows every point `gain` pixels to the right a step."""

    image_size = (HEIGHT, WIDTH)

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def maps(self, latents):
        return latents[:, -1, -1, None, None, None]  # (F, 1, 1, 1)

    def look(self, maps, pixels):
        return pixels

    def find(self, looks, maps):
        change = maps[:, :, 0] - 10  # the first frame's brightness of seed 0
        return torch.stack([looks[:, None, :, 0] + change[..., 0], looks[:, None, :, 1] + 0 * change[..., 0]], -1), None

    def read(self, logits):
        return logits

    def follow(self, looks, pixels, motion):
        steps = torch.arange(1, motion.steps + 1)[None, :, None, None]
        right = torch.tensor([self.gain, 0.0])
        return Forecast(pixels[:, None, None] + steps[..., None] * right, torch.ones(1, motion.steps, 1, 1))


def test_points_that_move_are_found_in_predictions_and_followed_until_they_leave():
    """A point goes 4 pixels a frame to the right, as brightness grows, and leaves the picture after the tenth."""
    points = np.stack([[[10.0 + 4.0 * frame, 5.0], [np.nan, np.nan]] for frame in range(21)])
    extras = {"points": points, "points_visible": np.tile([True, False], (21, 1))}
    episodes = [make_episode(0, extras=extras) for _ in range(2)]
    model = ToyModel(1.0)
    model.points = ToyPoints(3.0)
    figures = evaluate_open_loop(model, episodes, FAST)
    assert (figures["moved_points_1s"], figures["moved_points_4s"]) == (2, 0)
    assert figures["found_point_px_ratio_1s"] == pytest.approx(0.0, abs=1e-6)
    assert figures["followed_point_px_1s"] == pytest.approx(5.0)  # 20 px, of which 15 were foreseen
    assert figures["followed_point_px_ratio_1s"] == pytest.approx(0.25)
    assert figures["followed_point_px_ratio_4s"] is None
    model.share = 0.0
    assert evaluate_open_loop(model, episodes, FAST)["found_point_px_ratio_1s"] == pytest.approx(1.0)


def test_stretches_lie_behind_each_other_and_make_one_episode():
    config = OpenLoopConfig(steps=10, resamples=50, stretches=2)
    episode = make_episode(0)
    assert [clip_of(episode, config, stretch).frames.indices[0] for stretch in (0, 1)] == [0, 10]
    figures = evaluate_open_loop(ToyModel(0.5), [episode, make_episode(1), make_episode(2, frames=20)], config)
    assert (figures["episodes"], figures["episodes_too_short"]) == (2, 1)
    assert figures["mse_ratio_2s"] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="stretches"):
        OpenLoopConfig(stretches=0)
