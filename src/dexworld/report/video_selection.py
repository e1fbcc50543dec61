"""The page of action selection: candidate hand motions, what the model imagines of each, and which one was right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.report import html
from dexworld.report.media import film, film_grid, films, picture
from dexworld.report.video_evaluation_page import method_cell, method_name
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
MOTIONS = "The hand motions"
GOAL = "The goal: how it should look in the end."
Films = Sequence[html.Markup]
Folds = Mapping[str, Films]
COLUMNS = ("Method", "Right (95 % interval)", "Mean reciprocal rank", "Ends from the goal", "Ties", "p against it")


def write_selection_report(
    folder: Path | str, results: Mapping[str, Any], judged: Sequence[Judged], about: Mapping[str, str]
) -> Path:
    """Write `folder/report.html` of a benchmark's figures and of the scenes that keep their videos; return its path."""
    own = results["methods"][MAIN]
    items = [
        (f"{100 * own['top1']:.0f} %", f"right first choices ({method_name(MAIN)})"),
        (f"{100 * results['chance']:.1f} %", "by chance"),
        (str(results["n"]), "scenes"),
        (f"{100 * own['regret_m']:.1f} cm", "from the goal where the chosen motion ends, on average"),
    ]
    cards = [scene_card(scene) for scene in judged if scene.shown is not None]
    return html.write_page(
        Path(folder) / "report.html",
        TITLE,
        html.opening(TITLE, INTRODUCTION, items),
        _rates_section(results),
        html.section("Scenes", *cards, lead=SCORES, anchor="scenes") if cards else None,
        html.section("How it was measured", html.box("card", html.facts(about.items()))),
    )


def write_ranking_report(
    folder: Path | str, ranking: Ranking, clips: Sequence[TripletClip], goal: np.ndarray | str
) -> Path:
    """Write `folder/report.html` of one scene's ranking, where no right answer is known, and return its path.

    clips: the candidates in the order of `ranking.names`. goal: the picture (H, W, 3) uint8, or the sentence.
    """
    fps, imagined, hands = clips[0].fps, [], []
    for place, index in enumerate(ranking.order, start=1):
        name, kind = ranking.names[index], "own" if place == 1 else None
        score = f"score {html.number(float(ranking.scores[index]), '.4g')}"
        imagined.append(film(ranking.videos[index], fps, f"{place}. {name}", score, kind=kind))
        hands.append(film(clips[index].hands, fps, name))
    chosen = f"Chosen: {ranking.names[ranking.best]}. The score is {ranking.score_name}."
    return html.write_page(
        Path(folder) / "report.html",
        TITLE,
        html.opening(TITLE, INTRODUCTION),
        html.tag("p", chosen),
        _ranking_card("The candidates, best first", None, clips[0].static[0], goal, imagined, {MOTIONS: hands}),
    )


def _rates_section(results: Mapping[str, Any]) -> html.Markup:
    rows = []
    for method, row in sorted(results["methods"].items(), key=lambda item: -item[1]["top1"]):
        value, interval = html.with_interval((100 * row[key] for key in ("top1", "low", "high")), ".0f")
        cells = [f"{value} % ({interval})", f"{row['mrr']:.2f}", f"{100 * row['regret_m']:.1f} cm"]
        p_value = html.number(results["mcnemar"].get(method), ".2g")
        rows.append([method_cell(method, MAIN), *cells, f"{100 * row['tied']:.0f} %", p_value])
    return html.section("How often the first choice is right", html.table(COLUMNS, rows))


def scene_card(scene: Judged) -> html.Markup:
    """One scene of the benchmark: its candidates in the order of the model's scores."""
    shown = scene.shown
    if shown is None:
        raise ValueError(f"scene {scene.seed} was judged without keeping its videos; ask for `shown` scenes")
    imagined, hands, truth, fps = [], [], [], shown.clips[0].fps
    order = scene.order(MAIN).tolist()
    for place, index in enumerate(order, start=1):
        clip, name, right = shown.clips[index], f"Motion {index + 1}", index == scene.goal_index
        kind, text = "right" if right else None, f"score {html.number(float(scene.scores[MAIN][index]), '.4g')}"
        if not right:
            text += f", really ends {100 * scene.final_distances[index]:.1f} cm from the goal"
        mark = html.badge("leads to the goal", "good") if right else None
        imagined.append(film(shown.videos[MAIN][index], fps, f"{place}. {name}", text, kind=kind, mark=mark))
        hands.append(film(clip.hands, fps, name, kind=kind))
        truth.append(film(clip.interaction, fps, name, kind=kind))
    rank = order.index(scene.goal_index) + 1
    wrong = f"Wrong: the right one is number {rank}"
    verdict = html.badge("Right", "good") if rank == 1 else html.badge(wrong, "bad")
    folds = {MOTIONS: hands, "What really happens": truth}
    start = shown.clips[0].static[0]
    return _ranking_card(f"Scene {scene.seed}", verdict, start, shown.goal_image, imagined, folds)


def _ranking_card(
    title: str, verdict: html.Markup | None, start: np.ndarray, goal: np.ndarray | str, imagined: Films, folds: Folds
) -> html.Markup:
    """A goal and the films of its candidates, best first. folds: further films of them that open on a click."""
    scene = picture(start, f"{title}: the scene at the start", "The scene at the start.")
    if isinstance(goal, str):
        wanted = html.tag("div", html.tag("h4", "The goal"), html.tag("p", f"“{goal}”"))
    else:
        wanted = picture(goal, f"{title}: the goal", GOAL)
    top = html.box("films few", scene, wanted, style="--columns:2")
    further = [html.details(name, film_grid(cells)) for name, cells in folds.items()]
    return html.card(title, verdict, top, html.tag("h4", "Imagined, best first"), films(imagined, *further))
