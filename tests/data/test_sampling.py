"""Which frames make a window: the paper's segments and gaps, the release's edges, equal times at any frame rate."""

import numpy as np
import pytest

from dexworld.data.sampling import OfficialSampling, PaperSampling, StrideSampling, uniforms


def draw(strategy, length, fps=30.0, part=None, count=4000, seed=0):
    """Frames, repeats of `count` windows of clips of one length, part by part in turn."""
    parts = int(strategy.parts(np.array([length]), np.array([fps]))[0])
    part = np.arange(count) % parts if part is None else np.full(count, part)
    drawn = strategy.draw(
        np.full(count, length), np.full(count, fps), part, lambda n: uniforms(seed, np.arange(count), n)
    )
    return drawn.frames, drawn.repeats, part


def test_uniform_numbers_are_uniform_independent_and_functions_of_their_number_alone():
    values = uniforms(3, np.arange(20_000), 4)
    assert 0 <= values.min() < values.max() < 1
    np.testing.assert_allclose(values.mean(axis=0), 0.5, atol=0.01)
    np.testing.assert_allclose(values.var(axis=0), 1 / 12, atol=0.002)
    correlation = np.corrcoef(np.concatenate([values[:-1], values[1:]], axis=1).T) - np.eye(8)
    assert np.abs(correlation).max() < 0.03
    np.testing.assert_array_equal(uniforms(3, np.array([17, 5]), 2), values[[17, 5], :2])
    assert len(np.unique(values)) == values.size
    for other in (uniforms(4, np.arange(20_000), 4), uniforms(3, np.arange(20_000), 4, stream=1)):
        assert not np.intersect1d(other, values).size


def test_a_paper_window_is_nine_rising_frames_within_four_seconds_ending_in_its_segment():
    frames, repeats, part = draw(PaperSampling(), 1000)
    assert frames.shape == (4000, 9)
    assert ((frames[:, -1] * 10) // 1000 == part).all()
    full = repeats == 0
    assert full.mean() > 0.98
    assert (np.diff(frames[full], axis=1) > 0).all()
    for fps in (5.0, 15.0, 30.0):
        at_rate, _, _ = draw(PaperSampling(), int(40 * fps), fps)
        assert (at_rate[:, -1] - at_rate[:, 0]).max() == int(4 * fps)
    reach = frames[:, -1] - frames[:, 0]
    # The eldest of 8 out of 120 lies on average 8 / 9 of the way back.
    np.testing.assert_allclose(reach[frames[:, -1] >= 120].mean(), 8 / 9 * 121, rtol=0.02)


def test_the_gaps_of_paper_windows_are_those_of_a_uniform_random_subset():
    frames, _, _ = draw(PaperSampling(), 1000, part=5, count=8000)
    back = (frames[:, -1:] - frames[:, :-1]).ravel()
    counts = np.bincount(back, minlength=121)[1:]
    assert len(counts) == 120
    np.testing.assert_allclose(counts / counts.mean(), 1.0, atol=0.2)
    targets = np.bincount(frames[:, -1] - 500, minlength=100)
    assert len(targets) == 100
    np.testing.assert_allclose(targets / targets.mean(), 1.0, atol=0.5)


def test_paper_windows_at_the_beginning_repeat_the_first_frame_instead_of_inventing_some():
    frames, repeats, _ = draw(PaperSampling(), 100, part=0)
    assert frames.min() == 0
    assert frames[:, -1].min() == 1  # something moves in every window
    for row, repeat in zip(frames[:300], repeats[:300], strict=True):
        assert (row[: repeat + 1] == row[0]).all()
        assert (np.diff(row[repeat:]) > 0).all()
        assert len(set(row)) == 1 + min(8, row[-1])


@pytest.mark.parametrize("length", [2, 3, 5, 9])
def test_the_shortest_clips_give_windows_inside_them(length):
    frames, repeats, _ = draw(PaperSampling(frames=12, history=8), length, count=200)
    assert frames.min() >= 0
    assert frames.max() < length
    assert (np.diff(frames, axis=1) >= 0).all()
    assert repeats.max() <= 7
    assert PaperSampling().parts(np.array([1, 2]), np.array([30.0, 30.0])).tolist() == [0, 10]


def test_windows_to_unroll_start_from_a_single_frame_when_asked_to():
    frames, repeats, _ = draw(PaperSampling(frames=16, history=8, lead=7), 600)
    assert (repeats >= 7).all()
    assert (frames[:, :8] == frames[:, :1]).all()
    late = frames[:, -1] >= 120
    assert (np.diff(frames[late, 7:], axis=1) > 0).all()


@pytest.mark.parametrize(("length", "clipped"), [(150, 0.34), (200, 0.21), (265, 0.11), (400, 0.04)])
def test_official_windows_hold_as_many_copies_of_frame_zero_as_the_release(length, clipped):
    """Shares by direct simulation of the release's rule: frames before the beginning become frame 0."""
    strategy = OfficialSampling()
    frames, repeats, part = draw(strategy, length)
    generator = np.random.default_rng(0)
    expected = []
    for segment in part:
        share = (segment + 1) / 10
        earliest = int(np.floor(120 + share * (length - 120))) - 1 - 120
        last = generator.integers(earliest, earliest + 120)
        expected.append([*sorted(generator.choice(np.arange(last - 120, last), 8, replace=False)), last])
    expected = np.clip(expected, 0, length - 1)
    assert (frames == 0).mean() == pytest.approx((expected == 0).mean(), abs=0.01)
    assert (frames == 0).mean() == pytest.approx(clipped, abs=0.02)
    np.testing.assert_allclose(frames.mean(axis=0), expected.mean(axis=0), rtol=0.03, atol=0.5)
    assert frames.max() == expected.max() == length - 2
    assert (repeats == 0).all()  # the release counts a copy of frame 0 as "no action, no change"


def test_official_windows_of_short_clips_use_the_largest_eighth_of_the_reach():
    frames, _, _ = draw(OfficialSampling(), 100, count=400)  # 15, 30 ... 90 <= 99
    assert (frames[:, -1] == 90).all()
    assert (np.diff(frames, axis=1) > 0).all()
    frames, _, _ = draw(OfficialSampling(), 10, count=10)
    assert (frames == 0).all()
    frames, _, _ = draw(OfficialSampling(), 60, fps=15.0, count=10)
    assert (frames[:, -1] == 52).all()  # floor(7.5 * 7)


def test_the_official_multistep_phase_takes_whole_clips_from_a_single_frame():
    strategy = OfficialSampling(frames=16, whole_clip=True, lead=7)
    assert strategy.parts(np.array([500]), np.array([30.0])).tolist() == [1]
    frames, repeats, _ = draw(strategy, 500, count=2000)
    assert (frames[:, -1] == 499).all()
    assert (frames[:, :8] == frames[:, :1]).all()
    assert (np.diff(frames[:, 7:], axis=1) > 0).all()
    assert (repeats == 7).all()
    np.testing.assert_allclose(frames[:, 7].mean(), 499 / 9, rtol=0.1)


def test_strides_in_hertz_give_the_same_times_at_thirty_fifteen_and_five_frames_per_second():
    config = StrideSampling(frames=6, history=3, stride_weights=(1.0, 1.0), rate_hz=5.0)
    times = {}
    for fps in (30.0, 15.0, 5.0):
        length, count = int(20 * fps), 50
        stride = np.arange(count) % 2 + 1
        anchor = np.full(count, int(10 * fps))
        rates, slot = np.full(count, fps), np.linspace(0, 0.99, count)
        drawn = config.place(np.full(count, length), rates, anchor, stride, np.arange(count) % 3, slot)
        times[fps] = drawn.frames / fps
        assert (drawn.stride == stride).all()
    np.testing.assert_allclose(times[30.0], times[5.0])
    np.testing.assert_allclose(times[15.0], times[5.0])
    with pytest.raises(ValueError, match="3 frames per second"):
        config.base(np.array([5.0, 3.0]))


def test_numbers_that_make_no_sense_are_refused():
    for make, message in (
        (lambda: PaperSampling(history=9), "history"),
        (lambda: PaperSampling(seconds=0), "seconds"),
        (lambda: PaperSampling(lead=8), "lead"),
        (lambda: OfficialSampling(lead=8), "lead"),
        (lambda: StrideSampling(rate_hz=0.0), "rate_hz"),
        (lambda: StrideSampling(frames=6, history=6), "history"),
        (lambda: StrideSampling(history=0), "history"),
        (lambda: StrideSampling(stride_weights=()), "stride_weights"),
        (lambda: StrideSampling(stride_weights=(0.0, -1.0)), "stride_weights"),
        (lambda: StrideSampling(moving_object_weight=-1.0), "moving_object_weight"),
        (lambda: StrideSampling(short_history=1.5), "short_history"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
