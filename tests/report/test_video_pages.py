import re
from dataclasses import replace

import numpy as np
import pytest

from dexworld.models.picture_metrics import psnr
from dexworld.report.video_demo import write_video_demo
from dexworld.report.video_evaluation_page import tables, write_video_results
from dexworld.report.video_selection import scene_card, write_ranking_report, write_selection_report
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
        videos = []
        for one, seed in zip(clips, seeds, strict=True):
            noise = np.random.default_rng(seed).normal(0, 3 + 4 * int(one.name[-1]), one.interaction.shape)
            videos.append((one.interaction + noise).round().clip(0, 255).astype(np.uint8))
        return videos


class Blocks:
    """A codec that keeps every 8 x 8 block's mean colour."""

    def encode(self, video):
        return video.float().unflatten(2, (-1, 8)).unflatten(4, (-1, 8)).mean(dim=(3, 5))

    def decode(self, latents):
        return latents.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3).round().byte()


CLIPS = [clip(number) for number in range(7)]
METHODS = [Noisy("dwm"), Noisy("mine & yours")]


@pytest.fixture(scope="module")
def evaluation():
    return evaluate_methods(CLIPS, METHODS, EvaluateConfig(samples=2, compare_with=("mine & yours",)))


@pytest.fixture(scope="module")
def shown(evaluation):
    return shown_clips(evaluation, CLIPS, METHODS, "dwm", each=1)


@pytest.fixture(scope="module")
def judged():
    clips, videos = tuple(CLIPS[:4]), {"dwm": tuple(one.interaction for one in CLIPS[:4])}
    scores = {"dwm": np.array([-0.4, -0.1, -0.3, -0.2]), "oracle": np.array([-0.3, -0.2, -0.1, -0.4])}
    scene = ShownScene(clips, clips[0].interaction[-1], videos)
    return [Judged(900_001, 2, np.array([0.1, 0.2, 0.0, 0.3]), scores, shown=scene)]


@pytest.fixture
def page_text(text_of, tmp_path):
    """What a reader sees of an evaluation's page."""
    return lambda evaluation, shown=(): text_of(write_video_results(tmp_path, evaluation, shown, "dwm", {}))


def test_best_median_and_worst_clips_are_picked_and_not_the_best_only(evaluation):
    assert picked(evaluation, "dwm", each=1) == [(0, "best"), (3, "median"), (6, "worst")]
    everything = picked(evaluation, "dwm", each=3)
    assert [index for index, _ in everything] == list(range(7))
    assert [place for _, place in everything] == ["best"] * 3 + ["median"] * 2 + ["worst"] * 2
    pair = evaluate_methods(CLIPS[:2], METHODS[:1], EvaluateConfig(samples=1))
    assert picked(pair, "dwm") == [(0, "best"), (1, "worst")]


def test_shown_videos_are_those_that_were_measured(evaluation, shown):
    names = {each.place: each.clip.name for each in shown}
    assert names == {"best": "group/clip_0", "median": "group/clip_3", "worst": "group/clip_6"}
    for each in shown:
        assert each.figures["dwm"]["psnr"] == psnr(each.videos["dwm"], each.clip.interaction)
    assert set(shown[0].videos) == {"static_copy", "dwm", "mine & yours"}


def test_the_page_shows_figures_with_intervals_what_is_not_measured_and_all_videos(
    evaluation, shown, text_of, tmp_path
):
    about = {"Command": "dexworld video evaluate", "Clips": "short"}
    page = write_video_results(tmp_path, evaluation, shown, "dwm", about)
    content, text, own = page.read_text(encoding="utf-8"), text_of(page), evaluation.summary("dwm")
    for part in (f"{own['psnr_inside']:.2f}", f"{own['psnr_inside_low']:.2f} to {own['psnr_inside_high']:.2f}"):
        assert part in text
    assert "LPIPS inside, LPIPS outside, LPIPS, DreamSim, X-CLIP, with the prompt: n/a (weights not given)." in text
    for part in ("mine &amp; yours", "carry &lt;the&gt; square", "among the best", "in the middle", "among the worst"):
        assert part in text
    assert not re.findall(r"""(?:src|href|poster)=["'](?!data:)""", content)
    assert "http" not in text
    assert content.count("<video") == 3 * (5 + 2)  # static, hands, two models and truth; two overlays
    assert "dexworld video evaluate" in content
    assert content.count("<dt>Clips</dt>") == 2


def test_the_page_of_a_codec_compares_like_with_like_and_shows_the_ceiling(page_text):
    methods = [Noisy("dwm"), Noisy("dwm_codec"), Noisy("mesh_codec")]
    config = EvaluateConfig(samples=1, decoded=("dwm_codec", "mesh_codec"))
    result = evaluate_methods(CLIPS[:2], methods, config, codec=Blocks())
    text = page_text(result)
    assert "Truth (codec): the ceiling" in text
    through_codec, itself = text.split("Compared clip by clip with “Static copy” ")
    assert through_codec.rindex("Hand mesh (codec)") > through_codec.index("Static copy (codec)”")
    assert "World model " in itself.split("The figures")[0]
    assert "Hand mesh" not in itself.split("The figures")[0]


def test_a_page_of_clips_in_which_nothing_happens_has_no_gain_and_no_clips(page_text):
    still = [replace(clip(0), interaction=clip(0).static, hands=np.zeros_like(clip(0).hands))]
    result = evaluate_methods(still, METHODS[:1], EvaluateConfig(samples=1))
    assert picked(result, "dwm") == []
    assert "Clips Chosen" not in page_text(result, shown_clips(result, still, METHODS[:1], "dwm"))


def test_the_demo_page_shows_clips_figures_and_timings(evaluation, shown, text_of, tmp_path):
    timings = {"Rendering": 30.0, "Generating": 61.0}
    text = text_of(write_video_demo(tmp_path, shown, "dwm", figures=evaluation.figures(), timings=timings))
    gains = [each.figures["dwm"]["psnr_inside"] - each.figures["static_copy"]["psnr_inside"] for each in shown]
    for part in (f"+{np.mean(gains):.1f} dB where the hands act, against the static", "1 min 31 s", "7 held-out clips"):
        assert part in text
    with pytest.raises(ValueError, match="at least one clip"):
        write_video_demo(tmp_path, [], "dwm")
    shown = shown_clip(CLIPS[0], [*reference_methods(Blocks()), *METHODS[:1]])  # one clip, and no evaluation
    page = write_video_demo(tmp_path, [shown], "dwm").read_text(encoding="utf-8")
    assert page.count("<article") == 1
    assert "How good it is" not in page


def test_the_selection_page_ranks_candidates_and_says_which_is_right(judged, text_of, tmp_path):
    page = write_selection_report(tmp_path, figures(judged, chance=0.25), judged, about={"Scenes": "1"})
    text = text_of(page)
    places = [text.index(name) for name in ("1. Motion 2", "2. Motion 4", "3. Motion 3", "4. Motion 1")]
    assert places == sorted(places)
    for part in ("Wrong: the right one is number 3", "really ends 20.0 cm from the goal", "25.0 %"):
        assert part in text
    assert page.read_text().count("<video") == 3 * 4
    bare = Judged(1, 0, np.zeros(2), {"dwm": np.zeros(2)})
    with pytest.raises(ValueError, match="scene 1 was judged without keeping its videos"):
        scene_card(bare)


def test_a_ranking_of_ones_own_scene_knows_no_right_answer(text_of, tmp_path):
    names, videos = ("left", "right", "up"), tuple(one.interaction for one in CLIPS[:3])
    ranking = Ranking(names, np.array([-0.3, -0.1, -0.2]), np.array([1, 2, 0]), "-direction (own)", videos)
    page = write_ranking_report(tmp_path, ranking, CLIPS[:3], "put it <there>")
    text = text_of(page)
    assert "Chosen: right" in text
    assert "“put it &lt;there&gt;”" in text
    assert "badge good" not in page.read_text(encoding="utf-8")
    assert text.index("1. right") < text.index("2. up") < text.index("3. left")


def test_figures_that_were_taken_before_a_measure_was_there_are_shown_without_it(evaluation):
    old = {name: {**evaluation.summary(name)} for name in ("static_copy", "dwm")}
    for each in old.values():
        for key in [key for key in each if key.startswith("lite0")]:
            del each[key]
    shown = "".join(map(str, tables(old, "dwm")))
    assert "Lite0 Fréchet distance: n/a (the measurement is older than this measure)" in shown
    assert "PSNR inside" in shown
