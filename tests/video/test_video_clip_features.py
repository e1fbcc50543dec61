from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.models.frechet import frechet_distance
from dexworld.models.perceptual import Lite0Distance
from dexworld.video.judge.clip_features import DIRECTIONS, FEWEST_CLIPS, clip_features, clips_frechet
from dexworld.video.judge.evaluate_videos import evaluate_methods
from dexworld.video.judge.video_measures import Perceptual


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Lite0Distance().eval().requires_grad_(False)


def test_a_clip_is_told_by_what_it_shows_and_by_how_it_changes(network, square_clips):
    video = square_clips[0].interaction
    region = np.zeros(video.shape[:3], bool)
    region[1:, 8:24, 8:40] = True
    whole, inside = clip_features(network, video, region)
    assert whole.shape == (DIRECTIONS,)
    assert not np.allclose(whole, inside)
    backwards = clip_features(network, video[::-1], region)[0]
    np.testing.assert_allclose(backwards, whole, rtol=1e-4)  # the same pictures, and changes of the same size
    slower = clip_features(network, video[[0, 0, 2, 2, 4]], region)[0]
    assert not np.allclose(slower, whole, rtol=1e-2)
    nothing = clip_features(network, video, region & False)
    np.testing.assert_array_equal(nothing[0], whole)
    assert np.isnan(nothing[1]).all()


def test_outside_of_the_region_nothing_counts_inside(network, square_clips):
    video = np.zeros((2, 96, 96, 3), np.uint8)
    region = np.zeros(video.shape[:3], bool)
    region[:, :16, :16] = True  # far from the other corner for every cell's surroundings
    other = video.copy()
    other[:, 80:, 80:] = 255
    before, after = (clip_features(network, each, region) for each in (video, other))
    assert np.abs(after[0] - before[0]).max() > 10 * np.abs(after[1] - before[1]).max()


def features(seed, count=FEWEST_CLIPS, samples=1, shift=0.0):
    return shift + np.random.default_rng(seed).standard_normal((count, samples, DIRECTIONS))


def test_the_distance_of_clips_is_that_of_all_samples_and_its_difference_is_paired():
    truth, near, far = features(0), features(1, samples=2), features(2, shift=1.0)
    expected = [frechet_distance(each.reshape(-1, DIRECTIONS), truth[:, 0]) for each in (near, far)]
    found = clips_frechet(truth, far)
    assert found.value == pytest.approx(expected[1])
    assert found.low < found.value < found.high
    gain = clips_frechet(truth, near, far)
    assert gain.value == pytest.approx(expected[0] - expected[1])
    assert gain.high < 0
    assert clips_frechet(truth, truth).high == pytest.approx(0.0, abs=1e-6)


def test_too_few_clips_are_counted_without_those_that_have_no_region():
    truth = features(0)
    truth[3] = np.nan
    wanted = f"n/a (needs {FEWEST_CLIPS} clips, there are {FEWEST_CLIPS - 1})"
    assert clips_frechet(truth, features(1)) == wanted
    assert clips_frechet(features(0), truth) == wanted


def test_an_evaluation_says_how_many_clips_the_distance_needs(network, square_clips):
    perceptual = Perceptual()
    perceptual.lite0 = network
    clips = [replace(clip, seed=None) for clip in square_clips[:2]]
    result = evaluate_methods(clips, [], perceptual=perceptual)
    assert result.features["static_copy"].shape == (2, 1, 2, DIRECTIONS)
    summary = result.summary("static_copy")
    assert summary["lite0_frechet"] == f"n/a (needs {FEWEST_CLIPS} clips, there are 2)"
    assert (summary["lite0_frechet_inside_low"], summary["lite0_frechet_inside_n"]) == (None, 0)
    without = evaluate_methods(clips[:1], []).summary("static_copy")
    assert without["lite0_frechet"] == "n/a (without --lite0-distance)"
