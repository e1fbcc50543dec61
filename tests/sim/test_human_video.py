"""Videos of human hands: what is said happens, keypoints lie on the drawn hands, and the camera watches."""

from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
import pytest
from sim_recordings import pixels_of

from dexworld.hands import BODY_KEYPOINTS, LEFT, RIGHT
from dexworld.sim.gripper.gripper_recording import GripperConfig
from dexworld.sim.hands import human_video
from dexworld.sim.hands.hand_clips import HandClipConfig
from dexworld.sim.hands.hand_motion import Motion
from dexworld.sim.hands.hand_scene import HandScene, random_hand_layout
from dexworld.sim.hands.human_acts import ALLOWED_DEPTHS, act_out, depths
from dexworld.sim.hands.human_hands import FOREARM_GROUP, HAND_GROUP
from dexworld.sim.hands.human_video import CONFIDENCE, FOREARM, UPPER_ARM, HumanVideoConfig, film
from dexworld.sim.render import make_renderer
from dexworld.track import Track

SEEDS = (900_101, 900_102, 900_104)
SMALL = HumanVideoConfig(seconds=4.0, fps=8, height=144, width=256)
TINY = HumanVideoConfig(seconds=1.0, fps=6, height=32, width=64, act_seconds=1.0)


class LabelledVideo(NamedTuple):
    """An episode, and what was drawn (T, H, W): 1 the left hand, 2 the right hand, 3 and 4 the arms behind them."""

    episode: Track
    labels: np.ndarray


def labelled(seed) -> LabelledVideo:
    """The recording of a seed, whose renderer also segments every picture."""
    labels = []

    class Watched:
        def __init__(self, model, height, width, backend):
            self.renderer = make_renderer(model, height, width, backend)
            owner = [model.body(body).name for body in model.geom_bodyid]
            self.label = np.zeros(model.ngeom + 1, np.uint8)  # the last entry stands for -1, nothing
            for geom, (body, group) in enumerate(zip(owner, model.geom_group, strict=True)):
                if group in (HAND_GROUP, FOREARM_GROUP):
                    self.label[geom] = 1 + body.startswith("right") + 2 * (group == FOREARM_GROUP)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.renderer.close()

        def rgb(self, data, camera, view):
            labels.append(self.label[self.renderer.segmentation(data, camera, view)])
            return self.renderer.rgb(data, camera, view)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(human_video, "make_renderer", Watched)
        return LabelledVideo(film(seed, SMALL).episode, np.stack(labels))


@pytest.fixture(scope="module")
def videos():
    return [labelled(seed) for seed in SEEDS]


def drawn_at(labels, pixels, values, margin=0):
    """Which pixels (N, 2) have one of the values in the picture `labels`, or at most `margin` pixels beside them."""
    wanted = np.pad(np.isin(labels, values), margin)
    grown = np.lib.stride_tricks.sliding_window_view(wanted, (2 * margin + 1,) * 2).any(axis=(-1, -2))
    u, v = np.floor(pixels).astype(int).T
    inside = (u >= 0) & (v >= 0) & (u < labels.shape[1]) & (v < labels.shape[0])
    return inside & grown[v.clip(0, labels.shape[0] - 1), u.clip(0, labels.shape[1] - 1)]


def rated(video, name):
    """(T, 42) bool: keypoints of that confidence."""
    return video.episode.columns["keypoint_confidence"] == np.float32(CONFIDENCE[name])


def test_a_recording_is_an_episode_with_the_extras_that_it_promises(videos):
    for seed, video in zip(SEEDS, videos, strict=True):
        episode = video.episode
        assert (len(episode), episode.fps, episode.seed) == (32, 8, seed)
        assert episode.frames.size == (144, 256)
        shapes = {name: (array.shape, array.dtype.name) for name, array in episode.columns.items()}
        assert shapes == {
            "keypoints_world": ((32, 42, 3), "float32"),
            "keypoints_valid": ((32, 42), "bool"),
            "keypoint_confidence": ((32, 42), "float32"),
            "hand_poses_world": ((32, 2, 4, 4), "float32"),
            "hand_metacarpals_world": ((32, 8, 3), "float32"),
            "body_world": ((32, 18, 3), "float32"),
            "object_positions": ((32, 4, 3), "float32"),
            "object_motion": ((32,), "float32"),
        }
        assert (episode.task[:3], episode.task[-1]) == ("My ", ".")
        assert episode.keypoints_valid.all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_video():
    first, again, other = (film(seed, TINY).episode for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.frames.array, again.frames.array)
    for field in fields(first):
        if field.name not in ("frames", "columns"):
            np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name), err_msg=field.name)
    for name in first.columns:
        np.testing.assert_array_equal(first.columns[name], again.columns[name], err_msg=name)
    assert not np.array_equal(first.frames.array, other.frames.array)


def test_visible_keypoints_lie_on_the_drawn_hand_of_their_side(videos):
    """Visible by a ray from the camera; drawn by segmentation, widened by one pixel. A wrist may lie on the forearm."""
    seen = hit = 0
    for video in videos:
        pixels, _ = pixels_of(video.episode)
        for labels, places, sure in zip(video.labels, pixels, rated(video, "visible"), strict=True):
            for label, rows in ((1, LEFT), (2, RIGHT)):
                on_hand = drawn_at(labels, places[rows], label, margin=1)
                on_hand[:1] |= drawn_at(labels, places[rows][:1], (label, label + 2), margin=1)
                seen += int(sure[rows].sum())
                hit += int(on_hand[sure[rows]].sum())
    assert seen > 1000
    assert hit / seen >= 0.98


def test_a_keypoint_outside_the_picture_has_the_least_confidence(videos):
    for video in videos:
        pixels, depth = pixels_of(video.episode)
        inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels < [256, 144]).all(-1)
        edge = (np.abs(pixels) < 0.01).any(-1) | (np.abs(pixels - [256, 144]) < 0.01).any(-1)
        np.testing.assert_array_equal(rated(video, "out_of_view")[~edge], ~inside[~edge])


def test_hands_are_mostly_seen_and_where_a_keypoint_is_occluded_something_else_than_its_hand_is_drawn(videos):
    assert np.mean([(video.labels == label).any(axis=(1, 2)) for video in videos for label in (1, 2)]) > 0.9
    drawn = []
    for video in videos:
        pixels, _ = pixels_of(video.episode)
        for frame, row in zip(*np.nonzero(rated(video, "occluded")), strict=True):
            hand_and_arm = (1, 3) if row < 21 else (2, 4)
            drawn.append(drawn_at(video.labels[frame], pixels[frame, row][None], hand_and_arm)[0])
    assert len(drawn) > 50
    assert np.mean(drawn) < 0.1  # pixels at edges: a finger is two to three wide


@pytest.mark.parametrize("skill", ["push", "grasp", "drawer", "door"])
def test_what_the_sentence_says_really_happens_and_hands_stay_out_of_what_is_solid(skill):
    found = 0
    for seed in range(900_200, 900_203):
        fixtures = (skill,) if skill in ("drawer", "door") else ("none",)
        scene = HandScene(random_hand_layout(seed, fixtures), 16, 32)
        motion, acts = act_out(scene, np.random.default_rng(seed), 61, 30.0, 2.0, (skill, "reach"))
        for act in acts:
            frames = slice(act.first, act.last + 1)
            found_depths = depths(scene, Motion(motion.states[frames], motion.hands[frames]))
            assert all(depth <= ALLOWED_DEPTHS[name] for name, depth in found_depths.items()), found_depths
        done = [(act, script) for act in acts for script in act.acting if script.skill == skill]
        found += len(done)
        for act, script in done:
            states = motion.states[act.first : act.last + 1]
            if script.target < 0:
                assert states[-1].opening > states[0].opening + 0.08
                continue
            way = np.array([state.positions[script.target] for state in states])
            if skill == "push":
                assert np.linalg.norm(way[-1] - way[0]) > 0.05
                assert np.ptp(way[:, 2]) < 1e-6
                continue
            rest = scene.start.positions[script.target, 2]
            assert way[:, 2].max() - rest > 0.03
            assert way[-1, 2] == pytest.approx(rest, abs=1e-6)
            if "puts it down" in script.text:
                assert np.linalg.norm(way[-1] - way[0]) > 0.06
    assert found >= 2


def test_nothing_jumps_and_without_head_motion_the_camera_of_egodex_stands_still():
    video = film(SEEDS[0], replace(TINY, seconds=2.0, fps=30.0, act_seconds=2.0))
    speed = np.linalg.norm(np.diff(video.episode.keypoints_world, axis=0), axis=2) * 30
    assert speed.max() < 3.0  # metres a second; a quick human reach is 1 to 2, fingers that open add to it
    head = np.linalg.norm(np.diff(video.episode.world_from_camera[:, :3, 3], axis=0), axis=1) * 30
    assert 0.005 < head.max() < 0.4
    still = film(SEEDS[0], replace(TINY, head_motion=0.0))
    assert np.ptp(still.episode.world_from_camera, axis=0).max() < 1e-12
    full_size = HumanVideoConfig(height=1080, width=1920).intrinsics
    np.testing.assert_allclose(full_size, [[736.6339, 0, 960], [0, 736.6339, 540], [0, 0, 1]], atol=1e-3)


def test_arms_have_an_adults_measures_and_elbows_stay_above_the_counter(videos):
    names = {name: row for row, name in enumerate(BODY_KEYPOINTS)}
    for video in videos:
        body, wrists = video.episode.columns["body_world"], video.episode.keypoints_world[:, [0, 21]]
        for side, wrist in zip(("left", "right"), (0, 1), strict=True):
            shoulder, elbow = body[:, names[f"{side}Arm"]], body[:, names[f"{side}Forearm"]]
            np.testing.assert_allclose(np.linalg.norm(elbow - shoulder, axis=1), UPPER_ARM, atol=1e-5)
            np.testing.assert_allclose(np.linalg.norm(wrists[:, wrist] - elbow, axis=1), FOREARM, atol=1e-5)
            assert (elbow[elbow[:, 0] > 0.3, 2] > 0.95).all()
        assert (body[:, names["neck4"], 2] > body[:, names["spine7"], 2]).all()
        assert (body[:, names["leftArm"], 1] > body[:, names["rightArm"], 1]).all()


@pytest.mark.parametrize(
    ("config", "name", "value", "complaint"),
    [
        (HumanVideoConfig, "skills", ("juggle",), "juggle"),
        (HumanVideoConfig, "height", 217, "even"),
        (HumanVideoConfig, "antialias", 3, "antialias"),
        (HumanVideoConfig, "seconds", 0.01, "two frames"),
        (HandClipConfig, "skills", ("juggle",), "juggle"),
        (HandClipConfig, "frames", 1, "frames >= 2"),
        (GripperConfig, "max_frames", 9, "min_frames"),
        (GripperConfig, "cameras", ("ext1", "ext1"), "cameras"),
        (GripperConfig, "weights", (1.0,), "weights"),
        (GripperConfig, "tremor", -0.1, "tremor"),
    ],
)
def test_settings_that_record_nothing_sensible_are_refused(config, name, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        config(**{name: value})
