from dataclasses import replace

import numpy as np
import pytest
import torch

from dexworld.evaluation.guard import SeedError
from dexworld.models.picture_metrics import psnr
from dexworld.pictures import MAX_PSNR
from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge.detail_measures import sharpness
from dexworld.video.judge.evaluate_videos import (
    EvaluateConfig,
    Truth,
    check_scenes,
    evaluate_methods,
    sample_seed,
)
from dexworld.video.judge.references import reference_methods, through_codec
from dexworld.video.judge.video_measures import NO_WEIGHTS, Perceptual, preservation

FRAMES, HEIGHT, WIDTH = 5, 32, 48


def clip(number: int, seed: int | None = None) -> TripletClip:
    """A light square on a smooth ground that leaves its place from the third frame on, with a hand on it."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    ground = np.stack([60 + columns, 80 + rows, 100 + 0 * rows], axis=-1).astype(np.uint8)
    static = np.repeat(ground[None], FRAMES, axis=0)
    static[:, 8:16, 8:16] = 220
    truth, hands = static.copy(), np.zeros_like(static)
    for frame in range(2, FRAMES):
        truth[frame, 8:16, 8:16] = ground[8:16, 8:16]
        left = 12 + 4 * frame + number % 5
        truth[frame, 8:16, left : left + 8] = 220
        hands[frame, 14:18, left : left + 4] = (90, 200, 90)
    return TripletClip(f"clip_{number}", truth, static, hands, "a square moves", seed=seed)


class NoisyTruth:
    """The truth with noise of a given strength drawn from the seed: a method of known quality."""

    def __init__(self, name: str, strength: float) -> None:
        self.name, self.strength, self.asked = name, strength, []

    def generate(self, clips, seeds):
        self.asked += [(one.name, seed) for one, seed in zip(clips, seeds, strict=True)]
        return [self.noisy(one.interaction, seed) for one, seed in zip(clips, seeds, strict=True)]

    def noisy(self, video, seed):
        noise = np.random.default_rng(seed).normal(0, self.strength, video.shape)
        return (video + noise).round().clip(0, 255).astype(np.uint8)


class Coarse:
    """A codec that keeps every 8 x 8 block's mean colour."""

    def encode(self, video):
        blocks = video.float().unflatten(2, (-1, 8)).unflatten(4, (-1, 8))
        return blocks.mean(dim=(3, 5))

    def decode(self, latents):
        return latents.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).round().to(torch.uint8)


CLIPS = [clip(number) for number in range(4)]


def test_a_figure_is_the_mean_over_clips_of_the_mean_over_samples():
    method = NoisyTruth("model", 20)
    result = evaluate_methods(CLIPS, [method], EvaluateConfig(samples=3, seed=5))
    expected = [
        np.mean([psnr(method.noisy(one.interaction, sample_seed(5, one.name, k)), one.interaction) for k in range(3)])
        for one in CLIPS
    ]
    assert result.of("model", "psnr") == pytest.approx(expected)
    summary = result.summary("model")
    assert summary["psnr"] == pytest.approx(np.mean(expected))
    assert summary["psnr_low"] <= summary["psnr"] <= summary["psnr_high"]
    assert (summary["psnr_n"], summary["n"], summary["k"]) == (4, 4, 3)


def test_spread_is_the_standard_deviation_over_samples():
    result = evaluate_methods(CLIPS[:1], [NoisyTruth("model", 6)], EvaluateConfig(samples=12))
    for side in ("inside", "outside"):
        assert result.of("model", f"spread_{side}")[0] == pytest.approx(6, rel=0.05)
    assert result.of("static_copy", "spread_inside") == [None]


def test_a_blurred_video_is_less_sharp_than_the_truth_and_noise_is_sharper():
    truth = CLIPS[0].interaction
    mask = np.zeros(truth.shape[:3], dtype=bool)
    assert sharpness(truth, truth, mask) is None
    mask[:, 4:20, 4:40] = True
    blurred = Coarse().decode(Coarse().encode(torch.from_numpy(truth)[None]))[0].numpy()
    assert sharpness(truth, truth, mask) == 1
    assert sharpness(blurred, truth, mask) < 0.9
    assert sharpness(NoisyTruth("model", 20).noisy(truth, 0), truth, mask) > 1.5
    assert sharpness(truth, np.zeros_like(truth), mask) is None


def test_the_first_frame_can_be_left_out_of_every_figure():
    video = NoisyTruth("model", 20).noisy(CLIPS[0].interaction, 3)
    whole, later = (Truth(CLIPS[0], each).measure(video, Perceptual()) for each in (False, True))
    assert later["psnr"] == pytest.approx(psnr(video[1:], CLIPS[0].interaction[1:]))
    assert all(later[name] != whole[name] for name in ("psnr_outside", "ssim", "gradient_distance"))


def test_every_clip_and_sample_has_a_seed_of_its_own_that_does_not_depend_on_the_batch():
    one, other = NoisyTruth("model", 5), NoisyTruth("model", 5)
    large = evaluate_methods(CLIPS, [one], EvaluateConfig(samples=2, batch=8))
    told = []
    config = EvaluateConfig(samples=2, batch=1)
    small = evaluate_methods(CLIPS[::-1], [other], config, progress=lambda *step: told.append(step))
    assert told[-1] == ("model", 4, 4)
    assert sorted(one.asked) == sorted(other.asked)
    assert len({seed for _, seed in one.asked}) == 8
    assert large.of("model", "ssim") == pytest.approx(small.of("model", "ssim")[::-1])


def test_static_copy_is_always_in_the_table_and_right_outside_the_region():
    result = evaluate_methods(CLIPS, [NoisyTruth("model", 20)], EvaluateConfig(samples=1))
    static = result.summary("static_copy")
    assert static["psnr_outside"] == MAX_PSNR
    assert static["psnr_inside"] < 15
    assert static["kept"] == 1.0
    assert static["acted"] == 0.0
    assert static["k"] == 1  # its seed doesn't matter
    assert result.references == ("static_copy",)


def test_with_a_codec_static_copy_and_truth_stand_beside_as_the_codec_shows_them():
    codec = Coarse()
    result = evaluate_methods(CLIPS, [], EvaluateConfig(samples=1, compare_with=("codec_truth",)), codec=codec)
    assert list(result.values) == ["static_copy", "static_copy_codec", "codec_truth"]
    expected = psnr(through_codec(codec, CLIPS[0].interaction), CLIPS[0].interaction)
    assert result.of("codec_truth", "psnr")[0] == pytest.approx(expected)
    assert result.references == ("static_copy_codec", "static_copy", "codec_truth")
    assert result.summary("static_copy_codec")["psnr_outside"] < result.summary("static_copy")["psnr_outside"]


def test_differences_are_paired_by_clip():
    methods = [NoisyTruth("good", 4), NoisyTruth("bad", 16)]
    result = evaluate_methods(CLIPS, methods, EvaluateConfig(samples=2, compare_with=("bad",)))
    gain = result.difference("good", "bad")
    pairs = zip(result.of("good", "psnr_inside"), result.of("bad", "psnr_inside"), strict=True)
    assert gain["psnr_inside"] == pytest.approx(np.mean([ours - theirs for ours, theirs in pairs]))
    assert gain["psnr_inside_low"] > 9  # four times the noise is 12 dB
    assert gain["lpips"] == NO_WEIGHTS
    differences = result.figures()["differences"]
    assert set(differences) == {"static_copy", "bad"}
    assert set(differences["bad"]) == {"static_copy", "good"}


def test_what_has_no_weights_says_so_and_is_no_number():
    summary = evaluate_methods(CLIPS, [], EvaluateConfig()).summary("static_copy")
    for measure in ("lpips", "lpips_inside", "lpips_outside", "dreamsim", "xclip"):
        assert summary[measure] == NO_WEIGHTS == "n/a (weights not given)"
        assert summary[f"{measure}_low"] is None
        assert summary[f"{measure}_n"] == 0
    assert isinstance(summary["gradient_distance_inside"], float)


def test_a_clip_in_which_nothing_happens_counts_outside_only():
    still = replace(CLIPS[0], name="still", interaction=CLIPS[0].static, hands=np.zeros_like(CLIPS[0].hands))
    result = evaluate_methods([*CLIPS, still], [NoisyTruth("model", 9)], EvaluateConfig(samples=1))
    summary = result.summary("model")
    assert (summary["psnr_inside_n"], summary["psnr_outside_n"], summary["n"]) == (4, 5, 5)
    alone = evaluate_methods([still], [], EvaluateConfig()).summary("static_copy")
    assert alone["psnr_inside"] == "n/a (nothing to measure in any clip)"


def test_clips_that_a_method_trained_on_are_refused_before_anything_is_computed():
    method = NoisyTruth("model", 1)
    method.provenance = {"training_seeds": [0, 1_000_500]}
    seeded = [clip(number, seed=1_000_000 + number) for number in range(2)]
    for clips in (seeded, [seeded[0], clip(1)]):  # one clip without a seed doesn't disable the guard for others
        with pytest.raises(SeedError, match="training seeds"):
            evaluate_methods(clips, [method], EvaluateConfig())
    assert not method.asked
    assert evaluate_methods([clip(0), clip(1)], [method], EvaluateConfig(samples=1)).simulated == 0
    method.provenance = {"training_seeds": [0, 899_999]}
    result = evaluate_methods(seeded, [method], EvaluateConfig())
    assert (result.clips, result.simulated) == (("clip_0", "clip_1"), 2)
    with pytest.raises(SeedError, match="outside the evaluation range"):
        evaluate_methods([clip(0, seed=900_000), clip(1)], [], EvaluateConfig())


def test_a_trained_model_that_does_not_say_on_what_is_refused_and_an_untrained_one_is_not():
    method = NoisyTruth("model", 1)
    method.provenance = None
    check_scenes([1_000_000], [method])
    method.provenance = {}
    with pytest.raises(SeedError, match="doesn't record its training seeds"):
        check_scenes([1_000_000], [method])
    check_scenes([], [method])


def test_like_is_compared_with_like():
    methods = [NoisyTruth(name, 9) for name in ("dwm", "dwm_codec", "sdedit_0.5")]
    config = EvaluateConfig(samples=1, decoded=("dwm_codec", "sdedit_0.5"))
    result = evaluate_methods(CLIPS, methods, config, codec=Coarse())
    assert result.headline("dwm") == [("dwm_codec", "static_copy_codec"), ("dwm", "static_copy")]
    decoded = dict.fromkeys(("codec_truth", "dwm_codec", "sdedit_0.5"), "static_copy_codec")
    assert result.figures()["like_for_like"] == {"dwm": "static_copy", **decoded}
    plain = evaluate_methods(CLIPS, methods, config)  # no codec: nothing but the static video itself
    assert plain.headline("dwm") == [("dwm_codec", "static_copy"), ("dwm", "static_copy")]


class Wrong(NoisyTruth):
    """Videos that lost their last frame."""

    def noisy(self, video, seed):
        return video[:-1]


@pytest.mark.parametrize(
    ("clips", "methods", "config", "said"),
    [
        ([], [], EvaluateConfig(), "no clips"),
        (CLIPS, [NoisyTruth("a", 1), NoisyTruth("a", 2)], EvaluateConfig(), "a stands for more than one"),
        (CLIPS, reference_methods(), EvaluateConfig(), "static_copy stands for more than one"),
        (CLIPS, [], EvaluateConfig(compare_with=("no_hand",)), "compare_with or decoded names no_hand"),
        (CLIPS, [Wrong("short", 1)], EvaluateConfig(), r"short: the video of clip_0 is \(4, 32, 48, 3\)"),
    ],
)
def test_what_would_mislead_is_refused(clips, methods, config, said):
    with pytest.raises(ValueError, match=said):
        evaluate_methods(clips, methods, config)


def test_preservation_counts_what_is_kept_and_what_is_done():
    static = CLIPS[0].static
    region = np.zeros(static.shape[:3], bool)
    region[:, :, :24] = True
    changed = np.zeros_like(region)
    changed[:, 4:28, 4:20] = True
    prediction = static.copy()
    prediction[:, :16] = 255 - prediction[:, :16]  # the upper half, whatever it is
    found = preservation(prediction, static, region, changed)
    assert found["kept"] == pytest.approx(0.5, abs=0.05)
    assert found["acted"] == pytest.approx(0.5, abs=0.1)
    assert found["psnr_static_outside"] == pytest.approx(psnr(prediction, static, ~region))
