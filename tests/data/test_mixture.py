"""The order of clips: every one once per epoch, exact proportions, and nothing to save but the step."""

import numpy as np
import pytest

from dexworld.data.mixture import Clips, EpochSampler, MixConfig, StrideSampler, make_sampler
from dexworld.data.sampling import PaperSampling, StrideSampling

LENGTHS = [[40, 30, 1, 55, 60], [200, 90, 150]]
CLIPS = Clips.of(LENGTHS, [5.0, 15.0])
PAPER = PaperSampling(frames=4, history=3, segments=5)
STRIDE = StrideSampling(frames=5, history=3, rate_hz=5.0)
MIXES = {"by size": MixConfig(), "weighted": MixConfig((1.0, 3.0), block=100)}


def parts_of(picks):
    """(clip, segment) of each window."""
    segment = picks.drawn.frames[:, -1] * PAPER.segments // CLIPS.lengths[picks.clips]
    return list(zip(picks.clips.tolist(), segment.tolist(), strict=True))


def test_every_part_of_every_clip_comes_once_per_epoch_in_another_order_each_time():
    sampler = EpochSampler(CLIPS, PAPER, seed=1)
    assert sampler.sizes.tolist() == [5 * 7]
    assert sampler.left_out.tolist() == [2]  # a clip of one frame
    epochs = [parts_of(sampler.draw(0, 35, first=35 * epoch)) for epoch in range(3)]
    everything = {(clip, segment) for clip in (0, 1, 3, 4, 5, 6, 7) for segment in range(5)}
    for epoch in epochs:
        assert len(epoch) == len(set(epoch))
        assert {clip for clip, _ in epoch} == {clip for clip, _ in everything}
        assert set(epoch) == everything
    assert epochs[0] != epochs[1] != epochs[2]


def test_with_weights_each_dataset_has_epochs_of_its_own_and_every_block_the_exact_proportions():
    sampler = EpochSampler(CLIPS, PAPER, 1, MIXES["weighted"])
    picks = sampler.draw(0, 2000)
    dataset = CLIPS.dataset[picks.clips]
    for block in dataset.reshape(20, 100):
        assert np.bincount(block).tolist() == [25, 75]
    assert len({tuple(block) for block in dataset.reshape(20, 100)}) == 20
    for index, size in ((0, 20), (1, 15)):
        counts: dict = {}
        for part, where in zip(parts_of(picks), dataset, strict=True):
            if where == index:
                counts[part] = counts.get(part, 0) + 1
        drawn = 500 if index == 0 else 1500
        assert len(counts) == size
        assert set(counts.values()) <= {drawn // size, -(-drawn // size)}


def test_proportions_are_rounded_to_whole_samples_and_nobody_is_forgotten():
    assert MixConfig((1.0, 1.0, 1.0), block=100).counts(3).tolist() == [34, 33, 33]
    assert MixConfig((0.7, 0.3), block=10).counts(2).tolist() == [7, 3]
    with pytest.raises(ValueError, match="raise the block"):
        MixConfig((1.0, 1e-6), block=10).counts(2)
    with pytest.raises(ValueError, match="2 mixing weights were given for 3"):
        MixConfig((1.0, 1.0)).counts(3)
    with pytest.raises(ValueError, match="positive"):
        MixConfig((1.0, 0.0))


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
@pytest.mark.parametrize("strategy", [PAPER, STRIDE], ids=["paper", "stride"])
def test_a_batch_depends_on_seed_and_number_alone_and_ranks_share_it(strategy, mix):
    whole = make_sampler(CLIPS, strategy, 7, mix)
    whole.draw(3, 8)
    picks, again = whole.draw(11, 8), make_sampler(CLIPS, strategy, 7, mix).draw(11, 8)
    np.testing.assert_array_equal(picks.clips, again.clips)
    np.testing.assert_array_equal(picks.drawn.frames, again.drawn.frames)
    assert not np.array_equal(picks.drawn.frames, make_sampler(CLIPS, strategy, 8, mix).draw(11, 8).drawn.frames)
    for world in (1, 2, 4):
        shares = [whole.draw(11, 8).share(rank, world) for rank in range(world)]
        together = np.stack([share.drawn.frames for share in shares], axis=1).reshape(8, -1)
        np.testing.assert_array_equal(together, picks.drawn.frames)
        assert (np.stack([share.clips for share in shares], axis=1).ravel() == picks.clips).all()
    with pytest.raises(ValueError, match="multiple"):
        picks.share(0, 3)


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_a_sample_is_the_same_in_batches_of_any_size(mix):
    sampler = EpochSampler(CLIPS, PAPER, 5, mix)
    whole = sampler.draw(0, 120)
    parts = [sampler.draw(step, 24) for step in range(5)]
    np.testing.assert_array_equal(np.concatenate([part.drawn.frames for part in parts]), whole.drawn.frames)
    np.testing.assert_array_equal(sampler.draw(0, 20, first=37).clips, whole.clips[37:57])


def test_strides_are_mixed_by_frames_or_by_weights():
    for mix, expected in ((MixConfig(), 440 / 626), (MIXES["weighted"], 0.75)):
        sampler = StrideSampler(CLIPS, STRIDE, 0, mix)
        share = np.mean(CLIPS.dataset[sampler.draw(0, 5000).clips])
        assert share == pytest.approx(expected, abs=0.03 if not mix.weights else 1e-9)


def test_held_out_episodes_are_never_drawn():
    clips = Clips.of(LENGTHS, [5.0, 15.0], [np.array([0, 4]), np.array([1])])
    for strategy in (PAPER, STRIDE):
        for mix in MIXES.values():
            assert set(make_sampler(clips, strategy, 0, mix).draw(0, 300).clips) == {0, 4, 6}
    nothing = Clips.of(LENGTHS, [5.0, 15.0], [np.array([0]), np.array([], dtype=int)])
    for strategy in (PAPER, STRIDE):
        with pytest.raises(ValueError, match="no episode"):
            make_sampler(nothing, strategy, 0, MIXES["weighted"])
    with pytest.raises(ValueError, match="no episode"):
        make_sampler(Clips.of([[1, 1]], [5.0]), PAPER, 0)


@pytest.mark.parametrize("strategy", [PAPER, STRIDE], ids=["paper", "stride"])
def test_a_replacement_comes_from_the_same_dataset_and_is_always_the_same(strategy):
    sampler = make_sampler(CLIPS, strategy, 7)
    drawn = [sampler.redraw(40, 1, attempt) for attempt in range(1, 30)]
    assert {int(CLIPS.dataset[each.clips[0]]) for each in drawn} == {1}
    assert len({int(each.clips[0]) for each in drawn}) == 3
    np.testing.assert_array_equal(sampler.redraw(40, 1, 3).drawn.frames, drawn[2].drawn.frames)


def test_equal_weights_need_no_array_of_all_frames():
    generator = np.random.default_rng(0)
    for dataset_sizes in ([7], [4, 3]):
        lengths = [generator.integers(1, 50, size) for size in dataset_sizes]
        chosen = [np.arange(0, size, 2) for size in dataset_sizes]
        clips = Clips.of(lengths, [5.0] * len(lengths), chosen)
        ones = np.ones(int(clips.lengths.sum()))
        plain, weighted = StrideSampler(clips, STRIDE, 0), StrideSampler(clips, STRIDE, 0, weights=ones)
        total = (clips.lengths * clips.eligible).sum()
        edges = np.arange(total) / total
        chance = np.concatenate([generator.random(1000), edges, np.nextafter(edges[1:], 0), np.nextafter(edges, 1)])
        for mine, other in zip(plain._frame_at(chance), weighted._frame_at(chance), strict=True):
            np.testing.assert_array_equal(mine, other)
        assert len(plain._bounds) == len(clips.lengths) + 1
