import re
from dataclasses import replace

import numpy as np
import pytest

from dexworld.models.picture_metrics import psnr
from dexworld.report.films import film, films, region_overlay
from dexworld.report.interval_plot import Dot, interval_plot
from dexworld.report.video_demo import write_video_demo
from dexworld.report.video_results import results_page, write_video_results
from dexworld.report.video_selection import ordinal, scene_card, write_ranking_report, write_selection_report
from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge.evaluate_videos import EvaluateConfig, evaluate_methods
from dexworld.video.judge.gallery import picked, shown_clip, shown_clips
from dexworld.video.judge.references import reference_methods
from dexworld.video.judge.select_actions import Ranking
from dexworld.video.judge.select_figures import Judged, ShownScene, figures


def clip(number: int) -> TripletClip:
    """A light square that is carried to the right by a hand."""
    static = np.full((5, 32, 48, 3), 90, np.uint8)
    static[:, 8:16, 4:12] = 220
    truth, hands = np.full_like(static, 90), np.zeros_like(static)
    for frame in range(5):
        left = 4 + 6 * frame
        truth[frame, 8:16, left : left + 8] = 220
        hands[frame, 14:18, left : left + 4] = (90, 200, 90)
    return TripletClip(f"group/clip_{number}", truth, static, hands, "carry <the> square")


class Noisy:
    """The truth with noise, stronger for clips of a higher number."""

    def __init__(self, name: str) -> None:
        self.name = name

    def generate(self, clips, seeds):
        return [self.noisy(*pair) for pair in zip(clips, seeds, strict=True)]

    def noisy(self, one, seed):
        noise = np.random.default_rng(seed).normal(0, 3 + 4 * int(one.name.split("_")[1]), one.interaction.shape)
        return (one.interaction + noise).round().clip(0, 255).astype(np.uint8)


CLIPS = [clip(number) for number in range(7)]
METHODS = [Noisy("dwm"), Noisy("my_model")]


@pytest.fixture(scope="module")
def evaluation():
    return evaluate_methods(CLIPS, METHODS, EvaluateConfig(samples=2, compare_with=("my_model",)))


@pytest.fixture(scope="module")
def shown(evaluation):
    return shown_clips(evaluation, CLIPS, METHODS, "dwm", each=1)


@pytest.fixture(scope="module")
def judged():
    clips = tuple(CLIPS[:4])
    videos = {"dwm": tuple(one.interaction for one in clips)}
    scores = {"dwm": np.array([-0.4, -0.1, -0.3, -0.2]), "oracle": np.array([-0.3, -0.2, -0.1, -0.4])}
    distances = np.array([0.1, 0.2, 0.0, 0.3])
    scene = ShownScene(clips, clips[0].interaction[-1], videos)
    return [Judged(900_001, 2, "goal", distances, scores, 1.0, 0.1, shown=scene)]


def text_of(page: str) -> str:
    """What a reader sees: no tags, no data."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"<(style|script)>.*?</\1>", " ", page, flags=re.DOTALL))


def test_best_median_and_worst_clips_are_picked_and_not_the_best_only(evaluation):
    assert picked(evaluation, "dwm", each=1) == [(0, "best"), (3, "median"), (6, "worst")]
    everything = picked(evaluation, "dwm", each=3)
    assert [index for index, _ in everything] == list(range(7))
    assert [place for _, place in everything] == ["best"] * 3 + ["median"] * 2 + ["worst"] * 2


def test_a_single_pair_of_clips_is_the_best_and_the_worst():
    result = evaluate_methods(CLIPS[:2], METHODS[:1], EvaluateConfig(samples=1))
    assert picked(result, "dwm") == [(0, "best"), (1, "worst")]


def test_shown_videos_are_those_that_were_measured(evaluation, shown):
    assert [(each.clip.name, each.place) for each in shown] == [
        ("group/clip_0", "best"),
        ("group/clip_3", "median"),
        ("group/clip_6", "worst"),
    ]
    for each in shown:
        assert each.figures["dwm"]["psnr"] == psnr(each.videos["dwm"], each.clip.interaction)
    assert set(shown[0].videos) == {"static_copy", "dwm", "my_model"}


def test_the_page_holds_everything_and_loads_nothing(evaluation, shown, tmp_path):
    page = write_video_results(tmp_path, evaluation, shown, "dwm", about={"Command": "dexworld video evaluate"})
    content = page.read_text()
    assert page.name == "report.html"
    assert not re.findall(r"""(?:src|href|poster)=["'](?!data:)""", content)
    assert "http" not in text_of(content)
    assert content.count("<video") == 3 * (5 + 2)  # static, hands, two models and truth; two overlays
    assert "dexworld video evaluate" in content


def test_the_page_gives_figures_with_intervals_and_says_what_is_not_measured(evaluation, shown):
    text = text_of(results_page(evaluation, shown, "dwm", names={"my_model": "Mine & yours"}))
    own = evaluation.summary("dwm")
    assert f"{own['psnr_inside']:.2f}" in text
    assert f"{own['psnr_inside_low']:.2f} to {own['psnr_inside_high']:.2f}" in text
    assert "LPIPS inside, LPIPS outside, LPIPS, DreamSim, X-CLIP, with the prompt: n/a (weights not given)." in text
    assert "Mine &amp; yours" in text
    assert "carry &lt;the&gt; square" in text
    for place in ("among the best", "in the middle", "among the worst"):
        assert place in text


def test_the_page_of_a_codec_shows_its_ceiling(judged):
    class Same:
        def encode(self, video):
            return video

        decode = encode

    result = evaluate_methods(CLIPS[:2], METHODS[:1], EvaluateConfig(samples=1), codec=Same())
    text = text_of(results_page(result, [], "dwm"))
    assert "Truth (codec): the ceiling" in text
    assert "Static copy (codec)" in text


class Blocks:
    """A codec that keeps every 8 x 8 block's mean colour."""

    def encode(self, video):
        return video.float().unflatten(2, (-1, 8)).unflatten(4, (-1, 8)).mean(dim=(3, 5))

    def decode(self, latents):
        return latents.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).round().byte()


def test_the_headline_compares_like_with_like():
    methods = [Noisy("dwm"), Noisy("dwm_codec"), Noisy("mine_codec")]
    config = EvaluateConfig(samples=1, decoded=("dwm_codec", "mine_codec"))
    result = evaluate_methods(CLIPS[:2], methods, config, codec=Blocks())
    text = text_of(results_page(result, [], "dwm", names={"mine": "Mine"}))
    for name, reference, said in (
        ("dwm_codec", "static_copy_codec", "model and static copy both through the codec"),
        ("dwm", "static_copy", "World model against the static video itself"),
    ):
        gain = result.difference(name, reference)["psnr_inside"]
        assert f"{gain:+.1f} dB inside: {said}".replace("-", "−") in " ".join(text.split())
    through_codec, itself = text.split("Compared clip by clip with “Static copy”.")
    assert through_codec.rindex("Mine (codec)") > through_codec.index("Static copy (codec)”.")
    assert "World model  " in itself.split("The figures")[0]
    assert "Mine" not in itself.split("The figures")[0]


def test_a_page_of_clips_in_which_nothing_happens_has_no_gain_and_no_clips():
    still = [replace(clip(0), interaction=clip(0).static, hands=np.zeros_like(clip(0).hands))]
    result = evaluate_methods(still, METHODS[:1], EvaluateConfig(samples=1))
    assert picked(result, "dwm") == []
    assert "– dB" in text_of(results_page(result, shown_clips(result, still, METHODS[:1], "dwm"), "dwm"))


def test_the_demo_compares_kept_detail_with_the_static_video_itself(tmp_path):
    shown = shown_clip(CLIPS[0], [*reference_methods(Blocks()), *METHODS[:1]])
    text = text_of(write_video_demo(tmp_path, [shown], "dwm").read_text())
    gain = shown.figures["dwm"]["psnr_inside"] - shown.figures["static_copy"]["psnr_inside"]
    assert f"{gain:+.1f} dB" in text
    assert "against the static video itself" in text


def test_the_overlay_is_dark_outside_and_outlined():
    video, region = np.full((1, 20, 20, 3), 200, np.uint8), np.zeros((1, 20, 20), bool)
    region[0, 5:15, 5:15] = True
    overlay = region_overlay(video, region)
    assert overlay[0, 10, 10].tolist() == [200] * 3
    assert overlay[0, 0, 0].tolist() == [60] * 3
    assert overlay[0, 5, 10].tolist() == [255, 196, 0]
    assert (video == 200).all()


def test_videos_of_a_clip_share_one_group_with_a_slider(moving_disc):
    markup = films([film(moving_disc, 5, "one", own=True), film(moving_disc, 5, "two", "a note")])
    assert markup.count("<video") == 2
    assert markup.count("data-films") == 1
    assert 'class="own"' in markup
    assert 'type="range"' in markup


def test_dots_lie_where_their_values_are_and_zero_is_marked():
    markup = interval_plot([Dot("a", 1.0, 0.0, 2.0, own=True), Dot("b", -1.0, -2.0, 0.0)], "dB")
    first, second = (float(x) for x in re.findall(r'cx="([\d.]+)"', markup))
    assert first > second
    assert markup.count('class="axis"') == 1
    assert "a: 1.00 (0.00 to 2.00)" in markup


@pytest.mark.parametrize("dots", [lambda: [], lambda: [Dot("a", 3.0, 0.0, 2.0)]])
def test_a_plot_of_nothing_or_of_nonsense_is_refused(dots):
    with pytest.raises(ValueError, match=r"nothing to draw|not within"):
        interval_plot(dots(), "dB")


def test_the_demo_page_shows_clips_figures_and_timings(evaluation, shown, tmp_path):
    timings = {"Rendering": 30.0, "Generating": 61.0}
    page = write_video_demo(
        tmp_path, shown, "dwm", figures=evaluation.figures(), timings=timings, command="dexworld video demo"
    )
    text = text_of(page.read_text())
    gains = [each.figures["dwm"]["psnr_inside"] - each.figures["static_copy"]["psnr_inside"] for each in shown]
    assert f"+{np.mean(gains):.1f} dB" in text
    assert "1 min 31 s" in text
    assert "7 clips" in text
    assert "dexworld video demo" in text


def test_a_demo_of_one_clip_needs_no_evaluation(tmp_path):
    page = write_video_demo(tmp_path, [shown_clip(CLIPS[0], METHODS[:1])], "dwm")
    assert page.read_text().count("<article") == 1
    with pytest.raises(ValueError, match="at least one clip"):
        write_video_demo(tmp_path, [], "dwm")


def test_the_selection_page_ranks_candidates_and_says_which_is_right(judged, tmp_path):
    page = write_selection_report(tmp_path, figures(judged, chance=0.25), judged, about={"Scenes": "1"})
    text = text_of(page.read_text())
    order = [text.index(f"{place}. Motion {number}") for place, number in enumerate((2, 4, 3, 1), start=1)]
    assert order == sorted(order)
    assert "Wrong: the right one came 3rd" in text
    assert "really ends 20.0 cm from the goal" in text
    assert "25.0 %" in text
    assert page.read_text().count("<video") == 3 * 4


def test_a_scene_without_videos_has_no_card(judged):
    bare = Judged(1, 0, "", np.zeros(2), {"dwm": np.zeros(2)}, 1.0, 0.0)
    with pytest.raises(ValueError, match="scene 1 was judged without keeping its videos"):
        scene_card(bare, "dwm")


def test_a_ranking_of_ones_own_scene_knows_no_right_answer(tmp_path):
    videos = tuple(one.interaction for one in CLIPS[:3])
    names = ("left", "right", "up")
    ranking = Ranking(names, np.array([-0.3, -0.1, -0.2]), np.array([1, 2, 0]), "-changed (union)", videos)
    page = write_ranking_report(tmp_path, ranking, CLIPS[:3], "put it <there>").read_text()
    text = text_of(page)
    assert "Chosen: right" in text
    assert "“put it &lt;there&gt;”" in text
    assert "badge good" not in page
    order = [text.index(f"{place}. {name}") for place, name in enumerate(("right", "up", "left"), start=1)]
    assert order == sorted(order)


def test_ranks_are_written_as_people_say_them():
    assert [ordinal(rank) for rank in (1, 2, 3, 4, 11, 12, 21)] == ["1st", "2nd", "3rd", "4th", "11th", "12th", "21st"]
