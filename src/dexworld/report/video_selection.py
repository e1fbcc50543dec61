"""The page of action selection: candidate hand motions, what the model imagines of each, and which one was right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.report.films import film, film_script, film_style, films
from dexworld.report.html import (
    Markup,
    badge,
    details,
    facts,
    figure,
    page,
    paragraph,
    section,
    table,
    tag,
    tiles,
    write_page,
)
from dexworld.report.plots import rate_bar
from dexworld.report.video import image_tag
from dexworld.video.clips.clip import TripletClip
from dexworld.video.judge.select_actions import Ranking
from dexworld.video.judge.select_figures import MAIN, Judged

TITLE = "Which hand motion leads to the goal?"
INTRODUCTION = (
    "One scene, several hand motions, one goal picture. The video model imagines what each motion would do to the "
    "scene, and the candidate whose imagined ending looks most like the goal is chosen, before anything moves."
)
SCORES = (
    "Scores are negative distances to the goal: the nearest to zero wins. Pixels under a hand don't count, so that "
    "nobody wins by where the hand is."
)
NAMES = {
    "dwm": "World model",
    "no_hand": "Without hands",
    "dexwm": "DexWM, the latent world model",
    "composite": "Hands pasted on the static video",
    "composite_codec": "The same through the codec",
    "hand_over_change": "Hand nearest to the change (no model)",
    "oracle": "The simulator's own videos (ceiling)",
}


@dataclass(frozen=True)
class Candidate:
    """One hand motion of a scene, as a card shows it.

    score: higher is better. video: (F, H, W, 3) uint8, what the model imagines. truth: what really happens, where that
    is known. right: whether it really leads to the goal; distance_m: how far its objects end from the goal, metres.
    """

    name: str
    score: float
    video: np.ndarray
    hands: np.ndarray
    truth: np.ndarray | None = None
    right: bool | None = None
    distance_m: float | None = None


def write_selection_report(
    folder: Path | str,
    results: Mapping[str, Any],
    judged: Sequence[Judged],
    method: str = MAIN,
    *,
    names: Mapping[str, str] | None = None,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write `folder/report.html` of a benchmark and return its path.

    results: the benchmark's figures as `results.json` holds them. judged: its scenes with videos (`shown`), of which
    `method`'s are on the page. names: how methods are called, beside `NAMES`. about: further facts.
    """
    called = {**NAMES, **(names or {})}
    cards = [scene_card(scene, method) for scene in judged if scene.shown is not None]
    text = page(
        TITLE,
        film_style(),
        header(results, called, method),
        rates_section(results, called, method),
        section("Scenes", paragraph(SCORES, class_="lead"), *cards, anchor="scenes") if cards else None,
        section("How it was measured", tag("div", facts(list((about or {}).items())), class_="card"))
        if about
        else None,
        tag("footer", "Made by dexworld. This page holds everything it shows and loads nothing from elsewhere."),
        film_script(),
    )
    return write_page(Path(folder) / "report.html", text)


def write_ranking_report(
    folder: Path | str,
    ranking: Ranking,
    clips: Sequence[TripletClip],
    goal: np.ndarray | str,
    *,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write `folder/report.html` of one scene's ranking, where no right answer is known, and return its path.

    clips: the candidates in the order of `ranking.names`. goal: the picture (H, W, 3) uint8, or the sentence.
    """
    candidates = [
        Candidate(name, float(score), video, clip.hands)
        for name, clip, score, video in zip(ranking.names, clips, ranking.scores, ranking.videos, strict=True)
    ]
    card = ranking_card("The candidates, best first", goal, clips[0], candidates, list(ranking.order))
    chosen = f"Chosen: {ranking.names[ranking.best]}. The score is {ranking.score_name}."
    text = page(
        TITLE,
        film_style(),
        tag("header", tag("h1", TITLE), paragraph(INTRODUCTION, class_="lead"), paragraph(chosen)),
        card,
        section("How it was made", tag("div", facts(list((about or {}).items())), class_="card")) if about else None,
        tag("footer", "Made by dexworld. This page holds everything it shows and loads nothing from elsewhere."),
        film_script(),
    )
    return write_page(Path(folder) / "report.html", text)


def header(results: Mapping[str, Any], called: Mapping[str, str], method: str) -> Markup:
    """Title, what this is, and the result in a few figures."""
    row = results["methods"].get(method)
    items = [(f"{100 * results['chance']:.1f} %", "by chance"), (str(results["n"]), "scenes")]
    if row is not None:
        items = [
            (f"{100 * row['top1']:.0f} %", f"right first choices ({called.get(method, method)})"),
            *items,
            (f"{100 * row['regret_m']:.1f} cm", "from the goal where the chosen motion ends, on average"),
        ]
    return tag("header", tag("h1", TITLE), paragraph(INTRODUCTION, class_="lead"), tiles(items))


def rates_section(results: Mapping[str, Any], called: Mapping[str, str], method: str) -> Markup:
    """How often each method's first choice is right: bars with Wilson intervals, and a table."""
    rows = sorted(results["methods"].items(), key=lambda item: -item[1]["top1"])
    bars = [
        rate_bar(
            called.get(name, name), row["top1"], row["low"], row["high"], own=name == method, mark=results["chance"]
        )
        for name, row in rows
    ]
    p_values = results.get("mcnemar", {})
    lines = [
        [
            called.get(name, name),
            f"{100 * row['top1']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})",
            f"{row['mrr']:.2f}",
            f"{100 * row['regret_m']:.1f} cm",
            f"{100 * row['tied']:.0f} %",
            f"{p_values[name]:.2g}" if name in p_values else "–",
        ]
        for name, row in rows
    ]
    head = ["Method", "Right (95 % interval)", "Mean reciprocal rank", "Ends from the goal", "Ties", "p against it"]
    return section(
        "How often the first choice is right",
        tag("div", *bars, paragraph("The dashed line is chance.", class_="note"), class_="card wide"),
        details("The same as a table", table(head, lines)),
    )


def scene_card(scene: Judged, method: str) -> Markup:
    """One scene of the benchmark: its candidates in the order of the method's scores."""
    shown = scene.shown
    if shown is None:
        raise ValueError(f"scene {scene.seed} was judged without keeping its videos; ask for `shown` scenes")
    videos = shown.videos.get(method, tuple(clip.static for clip in shown.clips))
    candidates = [
        Candidate(
            f"Motion {index + 1}",
            float(scene.scores[method][index]),
            videos[index],
            clip.hands,
            clip.interaction,
            index == scene.goal_index,
            float(scene.final_distances[index]),
        )
        for index, clip in enumerate(shown.clips)
    ]
    order = [int(index) for index in scene.order(method)]
    rank = order.index(scene.goal_index) + 1
    verdict = ("Right", "good") if rank == 1 else (f"Wrong: the right one came {ordinal(rank)}", "bad")
    return ranking_card(f"Scene {scene.seed}", shown.goal_image, shown.clips[0], candidates, order, verdict)


def ranking_card(
    title: str,
    goal: np.ndarray | str,
    scene: TripletClip,
    candidates: Sequence[Candidate],
    order: Sequence[int],
    verdict: tuple[str, str] | None = None,
) -> Markup:
    """A goal and its candidates, best first; the hands and, where known, what really happens open on a click."""
    start = figure(image_tag(scene.static[0], f"{title}: the scene at the start"), "The scene at the start.")
    if isinstance(goal, str):
        wanted = tag("div", tag("h4", "The goal"), paragraph(f"“{goal}”"))
    else:
        wanted = figure(image_tag(goal, f"{title}: the goal"), "The goal: how it should look in the end.")
    ranked = [candidates[index] for index in order]
    imagined = [
        film(
            each.video,
            scene.fps,
            f"{place}. {each.name}",
            candidate_note(each),
            own=place == 1 and each.right is None,
            right=bool(each.right),
            mark=("leads to the goal", "good") if each.right else None,
        )
        for place, each in enumerate(ranked, start=1)
    ]
    folds = [fold("The hand motions", [(each, each.hands) for each in ranked], scene.fps)]
    if any(each.truth is not None for each in ranked):
        known = [(each, each.truth) for each in ranked if each.truth is not None]
        folds.append(fold("What really happens", known, scene.fps))
    return tag(
        "article",
        tag("div", tag("h3", title), badge(*verdict) if verdict else None, class_="head"),
        tag("div", start, wanted, class_="films few", style="--columns:2"),
        tag("h4", "Imagined, best first"),
        films(imagined, *folds),
        class_="card",
    )


def fold(title: str, videos: Sequence[tuple[Candidate, np.ndarray]], fps: float) -> Markup:
    """Further videos of the candidates, in the same order, that open on a click."""
    grid = [film(video, fps, each.name, right=bool(each.right)) for each, video in videos]
    return details(title, tag("div", *grid, class_="films", style="--columns:4"))


def candidate_note(candidate: Candidate) -> str:
    """Its score, and where it really ends."""
    note = f"score {candidate.score:.4g}".replace("-", "−")
    if candidate.distance_m is not None and not candidate.right:
        note += f", really ends {100 * candidate.distance_m:.1f} cm from the goal"
    return note


def ordinal(rank: int) -> str:
    """2 as "2nd"."""
    suffix = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{suffix}"
