"""Windows: constant stride within one episode, short histories, the same batch whenever it is asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.data.sampling import StrideSampling
from dexworld.data.windows import WindowSampler

CONFIG = StrideSampling(frames=6, history=3, stride_weights=(1.0, 1.0, 1.0), short_history=0.5)


def frame_times(window):
    """(B, F) frame numbers within the episode, as the keypoints say."""
    return window.track.keypoints_world[:, :, 5, 1].long()


def test_frames_of_a_window_lie_one_stride_apart_in_one_episode(make_cache):
    window = WindowSampler([make_cache([40, 30])], CONFIG, seed=0).batch(0, 500)
    times, episodes = frame_times(window), window.track.keypoints_world[:, :, 5, 0]
    assert (episodes == episodes[:, :1]).all()
    slots = torch.arange(6)
    expected = times[:, :1] + (slots - window.repeats[:, None]).clamp(min=0) * window.stride[:, None]
    assert torch.equal(times, expected)
    assert set(window.stride.tolist()) == {1, 2, 3}


def test_the_configured_share_of_windows_has_a_short_history(make_cache):
    cache = make_cache([40])
    window = WindowSampler([cache], CONFIG, seed=0).batch(0, 2000)
    counts = torch.bincount(window.repeats, minlength=3) / 2000
    torch.testing.assert_close(counts, torch.tensor([0.5, 0.25, 0.25]), atol=0.04, rtol=0)
    never = WindowSampler([cache], replace(CONFIG, short_history=0.0), seed=0).batch(0, 200)
    assert (never.repeats == 0).all()


@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 9, 14])
def test_short_episodes_shorten_history_then_stride_and_never_leave_the_episode(make_cache, length):
    sampler = WindowSampler([make_cache([length, 40])], CONFIG, seed=0, episodes=[np.array([0])])
    window = sampler.batch(0, 100)
    times = frame_times(window)
    assert (window.track.keypoints_world[:, :, 5, 0] == 0).all()
    assert times.min() >= 0
    assert times.max() < length
    if length >= 4:  # 3 transitions after the history fit, so no slot behind it repeats
        assert (times.diff(dim=1)[:, 2:] > 0).all()


def test_long_strides_are_kept_by_repeating_the_first_frame(make_cache):
    config = replace(CONFIG, stride_weights=(0.0, 0.0, 1.0), short_history=0.0)
    window = WindowSampler([make_cache([12])], config, seed=0).batch(0, 50)  # 5 steps of 3 would need 16 frames
    assert (window.stride == 3).all()
    assert (window.repeats == 2).all()


def test_every_frame_can_be_drawn_including_the_last_and_moving_objects_more_often(make_cache):
    cache = make_cache([40], moving_from=30)
    plain = frame_times(WindowSampler([cache], CONFIG, seed=0).batch(0, 1000))
    assert set(plain.flatten().tolist()) == set(range(40))
    weighted = frame_times(WindowSampler([cache], replace(CONFIG, moving_object_weight=5.0), seed=0).batch(0, 1000))
    assert weighted.float().mean() > plain.float().mean() + 4
