"""What a selection benchmark reports: rates with intervals, ranks, regret, and paired tests between methods."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

import numpy as np

from dexworld.evaluation.intervals import bootstrap_mean, mcnemar, named_values, wilson
from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge.select_actions import rank_order
from dexworld.video.judge.video_measures import NO_WEIGHTS

MAIN, NO_HAND, DEXWM = "dwm", "no_hand", "dexwm"


@dataclass(frozen=True)
class Judged:
    """One scene as every method judged it.

    scores: (N,) by method, higher is better; text_scores: by the goal's sentence. final_distances: (N,) metres between
    each outcome's objects and the goal's. shown: for a page; None for most scenes.
    """

    seed: int
    goal_index: int
    final_distances: np.ndarray
    scores: dict[str, np.ndarray]
    text_scores: dict[str, np.ndarray] = field(default_factory=dict)
    shown: "ShownScene | None" = None

    def row(self) -> dict[str, Any]:
        """The judgement as `plain` JSON values, without pictures."""
        return {name: value for name, value in vars(self).items() if name not in ("seed", "shown")}

    @classmethod
    def of(cls, seed: int, row: dict[str, Any], shown: "ShownScene | None") -> "Judged":
        """A judgement from `row`, or from what a file made of it."""
        arrays = {
            kind: {name: np.asarray(each, dtype=float) for name, each in row[kind].items()}
            for kind in ("scores", "text_scores")
        }
        return cls(seed, row["goal_index"], np.asarray(row["final_distances"], dtype=float), **arrays, shown=shown)

    def order(self, method: str) -> np.ndarray:
        """Candidates (N,), best first; equal scores in an order that the scene's seed draws."""
        return rank_order(self.scores[method], self.seed)


@dataclass(frozen=True)
class ShownScene:
    """What a page shows of a scene: candidates' clips, the goal picture (H, W, 3), videos (F, H, W, 3) by method."""

    clips: tuple[TripletClip, ...]
    goal_image: np.ndarray
    videos: dict[str, tuple[np.ndarray, ...]]


def figures(judged: Sequence[Judged], chance: float) -> dict[str, Any]:
    """What `results.json` holds.

    top1, low, high: of the video world model. p_above_chance: exact binomial, one-sided. methods: top1 with its Wilson
    interval; mrr, mean reciprocal rank of the right answer, and regret_m, metres from the chosen outcome to the goal,
    with bootstrap intervals; tied, share of scenes whose best score is shared. mcnemar: exact two-sided p of the video
    world model against each other method. text_top1: by the goal's sentence.
    """
    names = sorted({name for each in judged for name in each.scores})
    rows = {name: _method_row(judged, name) for name in names}
    won = {name: _won(judged, name) for name in names}
    return {
        **{name: rows[MAIN][name] if MAIN in rows else None for name in ("top1", "low", "high")},
        "n": len(judged),
        "chance": chance,
        "dexwm_top1": rows[DEXWM]["top1"] if DEXWM in rows else None,
        "no_hand_top1": rows[NO_HAND]["top1"] if NO_HAND in rows else None,
        "p_above_chance": binomial_p(int(won[MAIN].sum()), len(judged), chance) if MAIN in won else None,
        "text_top1": _top1_by_text(judged) if judged[0].text_scores else NO_WEIGHTS,
        "methods": rows,
        "mcnemar": {name: mcnemar(won[MAIN], won[name]) for name in names if name != MAIN} if MAIN in won else {},
        "seeds": [each.seed for each in judged],
        "chosen_right": {name: [int(flag) for flag in won[name]] for name in names},
    }


def _won(judged: Sequence[Judged], method: str) -> np.ndarray:
    return np.array([each.order(method)[0] == each.goal_index for each in judged])


def _method_row(judged: Sequence[Judged], method: str) -> dict[str, Any]:
    won = _won(judged, method)
    orders = [each.order(method) for each in judged]
    pairs = list(zip(orders, judged, strict=True))
    ranks = np.array([1.0 / (1 + int(np.flatnonzero(order == each.goal_index)[0])) for order, each in pairs])
    regret = np.array([each.final_distances[order[0]] for order, each in pairs])
    generator = np.random.default_rng(0)
    rate, mrr, metres = wilson(int(won.sum()), len(won)), *(bootstrap_mean(v, generator) for v in (ranks, regret))
    tied = [np.isclose(np.sort(s)[-2:], s.max(), rtol=0, atol=1e-9).all() for s in (j.scores[method] for j in judged)]
    row = {"top1": rate.value, "low": rate.low, "high": rate.high}
    return row | named_values("mrr", mrr) | named_values("regret_m", metres) | {"tied": float(np.mean(tied))}


def _top1_by_text(judged: Sequence[Judged]) -> dict[str, Any]:
    """Top-1 with its interval by method, when the goal's sentence ranks the videos instead of its picture."""
    found: dict[str, Any] = {}
    for name in judged[0].text_scores:
        right = [rank_order(each.text_scores[name], each.seed)[0] == each.goal_index for each in judged]
        rate = wilson(sum(map(int, right)), len(judged))
        found[name] = {"top1": rate.value, "low": rate.low, "high": rate.high}
    return found


def binomial_p(successes: int, trials: int, chance: float) -> float:
    """One-sided p of at least so many successes by chance alone."""
    tail = sum(comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(successes, trials + 1))
    return min(1.0, float(tail))
