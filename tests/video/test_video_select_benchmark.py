"""The selection benchmark end to end, at the smallest size, and its figures in closed form."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from dexworld.evaluation.guard import SeedError
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import PCAEncoder
from dexworld.models.world_model import preset
from dexworld.sim.hands.hand_clips import HandClipConfig
from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge import select_benchmark as select_benchmark_module
from dexworld.video.judge.goal_image import GoalView
from dexworld.video.judge.select_benchmark import (
    SelectConfig,
    clips_of,
    composite,
    hand_over_change,
    select_benchmark,
    trained_method,
)
from dexworld.video.judge.select_figures import Judged, figures
from dexworld.video.judge.video_measures import NO_WEIGHTS
from dexworld.video.model.dwm import DWM
from dexworld.video.model.generate import GenerateConfig, SampleConfig
from dexworld.video.model.video_config import preset as video_preset

CLIP = HandClipConfig(frames=5, supersample=1)
SMALL = SelectConfig(
    episodes=2, seed=900_300, candidates=3, shown=1, workers=1, split="validation", clip=CLIP, backend="auto"
)


class StaticCopy:
    """Predicts that nothing ever happens, and checks that it is told no outcome."""

    name = "static"

    def generate(self, clips, seeds):
        assert len(set(seeds)) == 1
        assert len({clip.prompt for clip in clips}) == 1
        for clip in clips:
            assert np.array_equal(clip.interaction, clip.static)
        return [clip.static for clip in clips]


class TrainedHere(StaticCopy):
    """A method that says that it was trained on the benchmark's scenes."""

    provenance = {"training_seeds": [[900_000, 900_999]]}  # noqa: RUF012


def small_dexwm(folder) -> str:
    """A DexWM of random weights for the benchmark's clips."""
    torch.manual_seed(0)
    config = preset("clip")
    model = DexWM(replace(config, predictor=replace(config.predictor, dim=32, depth=1)))
    assert isinstance(model.encoder, PCAEncoder)
    model.encoder.fit([torch.randint(0, 256, (4, 96, 144, 3), dtype=torch.uint8)])
    model.save_pretrained(folder, {"training_seeds": [[0, 99]]})
    return str(folder)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    config = replace(SMALL, dexwm=small_dexwm(tmp_path_factory.mktemp("dexwm")))
    steps, methods = [], {"dwm": StaticCopy, "no_hand": StaticCopy}
    found, shown = select_benchmark(config, methods, progress=lambda *step: steps.append(step))
    return found, shown, steps


def test_results_hold_the_documented_keys(result):
    found, _, steps = result
    assert {"top1", "low", "high", "n", "chance", "dexwm_top1", "no_hand_top1"} <= set(found)
    assert found["n"] == 2
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["chance_acting"] == pytest.approx(1 / 3)  # of three, none is made to touch nothing
    assert set(found["methods"]) == {"dwm", "no_hand", "dexwm", "composite", "hand_over_change", "oracle"}
    assert steps == [(1, 2), (2, 2)]
    assert found["seeds"] == [900_300, 900_301]


def test_a_model_that_predicts_no_change_and_pasted_hands_can_not_tell_candidates_apart(result):
    found, _, _ = result
    assert found["methods"]["dwm"]["tied"] == 1.0
    assert found["methods"]["composite"]["tied"] == 1.0
    assert found["methods"]["oracle"]["tied"] == 0.0


def test_the_first_scenes_come_back_with_their_videos_for_a_page(result):
    _, shown, _ = result
    assert [each.seed for each in shown] == [900_300]
    scene = shown[0].shown
    assert len(scene.clips) == 3
    assert scene.goal_image.shape == (96, 144, 3)
    assert set(scene.videos) == {"dwm", "no_hand", "composite", "oracle"}
    assert all(len(videos) == 3 for videos in scene.videos.values())
    assert shown[0].final_distances[shown[0].goal_index] == 0.0


def test_a_benchmark_that_was_stopped_goes_on_with_the_scenes_that_are_missing(result, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    recorded, methods, file = [], {"dwm": StaticCopy, "no_hand": StaticCopy}, tmp_path / "scenes.jsonl"
    record = select_benchmark_module.record_candidates
    monkeypatch.setattr(
        select_benchmark_module, "record_candidates", lambda seed, *more: recorded.append(seed) or record(seed, *more)
    )
    with pytest.raises(KeyboardInterrupt):
        select_benchmark(SMALL, methods, stop, file)
    found, shown = select_benchmark(SMALL, methods, file=file)
    assert recorded == [900_300, 900_300, 900_301]  # the first once more, for the page
    assert [each.seed for each in shown] == [900_300]
    for name in ("dwm", "no_hand", "composite", "hand_over_change", "oracle"):
        assert found["methods"][name] == result[0]["methods"][name]
    assert select_benchmark(replace(SMALL, shown=0), methods, file=file)[0] == found
    assert len(recorded) == 3
    with pytest.raises(ValueError, match="candidates was 3, now 4"):
        select_benchmark(replace(SMALL, candidates=4), methods, file=file)


def test_scenes_that_a_model_was_trained_on_are_refused():
    with pytest.raises(SeedError, match="training seeds"):
        select_benchmark(SMALL, {"dwm": TrainedHere})
    with pytest.raises(SeedError, match="outside the evaluation range"):
        select_benchmark(replace(SMALL, split="evaluation"), {"dwm": StaticCopy})
    with pytest.raises(ValueError, match="oracle"):
        select_benchmark(SMALL, {"oracle": StaticCopy})


def test_a_trained_model_is_judged_beside_its_own_codec_and_without_hands_it_can_not_choose(tmp_path):
    torch.manual_seed(0)
    model = DWM(video_preset("debug"))
    model.codec.fit([torch.randint(0, 256, (5, 32, 48, 3), dtype=torch.uint8) for _ in range(4)])
    model.save_pretrained(tmp_path / "model", {"training_seeds": [[0, 99], [900_400, 900_400]]})
    config = replace(SMALL, episodes=1, clip=None)  # the model's own size is taken
    sampling = SampleConfig(steps=1)
    methods = {
        "dwm": partial(trained_method, tmp_path / "model", GenerateConfig(sampling)),
        "no_hand": partial(trained_method, tmp_path / "model", GenerateConfig(sampling, hands=False)),
    }
    found, shown = select_benchmark(config, methods)
    assert found["methods"]["no_hand"]["tied"] == 1.0
    assert found["methods"]["composite_codec"]["tied"] == 0.0
    assert shown[0].shown.videos["dwm"][0].shape == (5, 32, 48, 3)
    assert clips_of(config, {}) == HandClipConfig()
    assert clips_of(SMALL, {}) == CLIP
    with pytest.raises(SeedError, match="training seeds"):
        select_benchmark(replace(config, seed=900_400), methods)


def judged(seed: int, right: int, **scores: list[float]) -> Judged:
    """A scene of four candidates at 0, 1, 2 and 3 cm from the goal, `right` first."""
    distances = 0.01 * np.roll(np.arange(4.0), right)
    return Judged(seed, right, distances, {name: np.array(row) for name, row in scores.items()})


def test_rates_ranks_and_regret_have_their_closed_forms():
    found = figures(
        [
            judged(0, 0, dwm=[4, 3, 2, 1], no_hand=[1, 2, 3, 4], dexwm=[4, 3, 2, 1]),
            judged(1, 1, dwm=[4, 3, 2, 1], no_hand=[1, 2, 3, 4], dexwm=[1, 4, 2, 3]),
            judged(2, 0, dwm=[9, 3, 2, 1], no_hand=[9, 2, 3, 4], dexwm=[1, 2, 3, 4]),
            judged(3, 3, dwm=[1, 3, 2, 9], no_hand=[9, 2, 3, 4], dexwm=[1, 2, 3, 4]),
        ],
        chance=0.25,
    )
    assert found["top1"] == 0.75
    assert found["n"] == 4
    assert found["no_hand_top1"] == 0.25
    assert found["dexwm_top1"] == 0.75
    assert found["low"] == pytest.approx(0.3006, abs=1e-4)  # Wilson, 3 of 4
    assert found["high"] == pytest.approx(0.9544, abs=1e-4)
    assert found["p_above_chance"] == pytest.approx(13 / 256)  # 4 * (1/4)^3 * 3/4 + (1/4)^4
    assert found["methods"]["dwm"]["mrr"] == pytest.approx((1 + 1 / 2 + 1 + 1) / 4)
    assert found["methods"]["dwm"]["regret_m"] == pytest.approx(0.03 / 4)  # in scene 1 it takes what is 3 cm off
    assert found["mcnemar"]["no_hand"] == pytest.approx(0.5)  # two scenes for, none against: 2 * (1/2)^2
    assert found["mcnemar"]["dexwm"] == 1.0
    assert found["text_top1"] == NO_WEIGHTS
    assert found["chosen_right"]["dwm"] == [1, 0, 1, 1]


def test_a_missing_method_is_null_and_a_method_that_cannot_tell_is_at_chance():
    scenes = [judged(seed, seed % 4, no_hand=[0.5, 0.5, 0.5, 0.5]) for seed in range(400)]
    found = figures(scenes, chance=0.25)
    assert found["top1"] is None
    assert found["dexwm_top1"] is None
    assert found["p_above_chance"] is None
    assert found["no_hand_top1"] == pytest.approx(0.25, abs=0.065)  # three standard deviations
    assert found["methods"]["no_hand"]["tied"] == 1.0


def clip(column: int) -> TripletClip:
    static = np.full((5, 32, 48, 3), 60, dtype=np.uint8)
    hands = np.zeros_like(static)
    hands[2, 10:20, column : column + 8] = (0, 200, 0)
    return TripletClip(f"hand{column}", static, static, hands, "")


def test_the_composite_shows_the_hand_and_changes_nothing_else():
    source = clip(4)
    pasted = composite(source)
    assert (pasted[2, 10:20, 4:12] == (0, 200, 0)).all()
    rest = source.hands.max(axis=-1) == 0
    assert np.array_equal(pasted[rest], source.static[rest])


def test_the_control_without_a_model_takes_the_hand_that_was_where_the_goal_differs():
    clips = [clip(column) for column in (2, 18, 36)]
    goal = clips[0].static[-1].copy()
    goal[12:18, 19:25] = 250
    view = GoalView(goal, clips[0].static[-1], np.zeros((3, 32, 48), dtype=bool))
    assert hand_over_change(clips, view).argmax() == 1
    still = GoalView(clips[0].static[-1], clips[0].static[-1], np.zeros((3, 32, 48), dtype=bool))
    assert hand_over_change(clips, still).tolist() == [0, 0, 0]
