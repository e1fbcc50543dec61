"""The benchmark's figures, in closed form."""

import numpy as np
import pytest

from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge.goal_image import GoalView
from dexworld.video.judge.select_benchmark import composite, hand_over_change
from dexworld.video.judge.select_figures import Judged, binomial_p, figures
from dexworld.video.judge.video_measures import NO_WEIGHTS


def judged(seed: int, right: int, **scores: list[float]) -> Judged:
    """A scene of four candidates at 0, 1, 2 and 3 cm from the goal, `right` first."""
    distances = 0.01 * np.roll(np.arange(4.0), right)
    return Judged(seed, right, "push", distances, {name: np.array(row) for name, row in scores.items()}, 0.5, 0.1)


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


def test_the_binomial_tail_counts_at_least_so_many():
    assert binomial_p(0, 10, 0.125) == pytest.approx(1.0)
    assert binomial_p(2, 2, 0.5) == pytest.approx(0.25)
    assert binomial_p(25, 100, 0.125) < 1e-3


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
