"""The demonstration's page: one file that a stranger can open, understand and pass on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.planning.protocols import PlanStatistics
from dexworld.report import html, words
from dexworld.report.media import image_tag, picture, video_tag
from dexworld.report.overlay import hand_overlay, points_overlay
from dexworld.track import Track


@dataclass(frozen=True)
class PlanRecord:
    """One plan.

    imagined: (H, W, 3) uint8, the prediction of its first step, or what was seen with the way of the points that the
    plan follows; None where latents can't be decoded. happened: (H, W, 3) uint8, what the camera saw then. seconds:
    wall time. points: whether points are shown instead of a picture. statistics: what the search found.
    """

    imagined: np.ndarray | None
    happened: np.ndarray
    seconds: float
    points: bool = False
    statistics: PlanStatistics | None = None


@dataclass(frozen=True)
class Clicked:
    """A goal of given points: pixels (Q, 2) of the start picture, and where they should be, wanted (Q, 2).

    distances_px: how far they were from there in the first and in the last picture, on average, as the model sees it.
    """

    pixels: np.ndarray
    wanted: np.ndarray
    distances_px: tuple[float, float]


@dataclass(frozen=True)
class EpisodeResult:
    """One episode as it was carried out.

    start_image, goal_image: (H, W, 3) uint8. outcome: (F, H, W, 3) uint8, the execution, at outcome_fps.
    goal_keypoints: (12, 2) pixels and goal_keypoints_shown: (12,) bool, where the model sees the hand in the goal
    image. distances: metres to the goal before the first and after the last step; success needs less than `limit`.
    clicked: the goal that was given instead of the episode's own; nothing else is measured then. seen: frames, camera
    and hand before each move.
    """

    task: str
    seed: int
    success: bool
    start_image: np.ndarray
    goal_image: np.ndarray
    outcome: np.ndarray
    outcome_fps: float
    goal_keypoints: np.ndarray
    goal_keypoints_shown: np.ndarray
    distances: tuple[float, float]
    limit: float
    plans: tuple[PlanRecord, ...] = ()
    clicked: Clicked | None = None
    seen: Track | None = None

    @property
    def seconds_per_plan(self) -> float | None:
        """Mean wall time of a plan, None where there was none."""
        return sum(plan.seconds for plan in self.plans) / len(self.plans) if self.plans else None


@dataclass(frozen=True)
class DemoResults:
    """All that a demonstration's page shows.

    episodes: those of this run, in the order to show them. measured: the checkpoint's `evaluation.json`: "tasks" and
    "open_loop" as the two `dexworld evaluate` write them, and a sentence about each ("tasks_source", ...). timings:
    wall seconds of each stage. checkpoint: facts of its model card. command: what was typed. renderer: what drew the
    pictures. drawn_by: what drew the imagined ones. notices: what a reader must know first.
    """

    episodes: tuple[EpisodeResult, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    renderer: str = ""
    drawn_by: str = ""
    notices: tuple[str, ...] = ()


def write_demo_report(folder: Path | str, results: DemoResults) -> Path:
    """Write `folder/report.html`, a page without any outside resource, and return its path."""
    ran = {"Renderer": results.renderer} if results.renderer else {}
    if results.drawn_by:
        ran["Imagined pictures"] = f"drawn by {results.drawn_by}"
    times = {name: html.duration(seconds) for name, seconds in results.timings.items()}
    groups = {"The world model": results.checkpoint, "Where the time went": times}
    groups["What ran"] = {**results.versions, **ran}
    return html.write_page(
        Path(folder) / "report.html",
        words.TITLE,
        html.opening(words.TITLE, words.INTRODUCTION, _headline(results), results.notices),
        html.how_it_works(words.HOW_IT_WORKS.items()),
        *_task_sections(results.episodes, results.drawn_by),
        _success_section(results),
        _open_loop_section(results),
        html.under_the_bonnet(groups, results.command),
    )


def _headline(results: DemoResults) -> list[tuple[str, str]]:
    judged = [episode.success for episode in results.episodes if episode.clicked is None]
    times = [plan.seconds for episode in results.episodes for plan in episode.plans]
    figures = [(f"{sum(judged)} of {len(judged)}", "episodes solved in this run")] if judged else []
    if times:
        figures.append((f"{sum(times) / len(times):.1f} s", "to make one plan, on average"))
    if results.timings:
        figures.append((html.duration(sum(results.timings.values())), "for the whole demonstration"))
    if "Parameters" in results.checkpoint:
        figures.append((results.checkpoint["Parameters"], "parameters in the world model"))
    return figures


def _task_sections(episodes: Iterable[EpisodeResult], drawn_by: str) -> list[html.Markup]:
    by_task: dict[str, list[EpisodeResult]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode)
    sections, explained = [], set[bool]()
    for task, members in by_task.items():
        task_words = words.task_words(task)
        judged = [episode.success for episode in members if episode.clicked is None]
        solved = f"{sum(judged)} of {len(judged)} solved"
        count = html.badge(solved, "good" if all(judged) else "quiet") if judged else html.Markup()
        cards = []
        for episode in members:
            kinds = {plan.points for plan in episode.plans}
            cards.append(episode_card(episode, bool(kinds - explained), drawn_by))
            explained |= kinds
        story = html.tag("p", task_words.story, " ", count)
        sections.append(html.section(task_words.title, story, *cards, anchor=task))
    return sections


def episode_card(episode: EpisodeResult, explain: bool, drawn_by: str) -> html.Markup:
    """Pictures, measure, and imagination against reality. explain: say how to read the comparison."""
    clicked, name = episode.clicked, words.task_words(episode.task).title
    if clicked is None:
        goal = hand_overlay(episode.goal_image, episode.goal_keypoints, episode.goal_keypoints_shown)
        shown = words.SKELETON if episode.goal_keypoints_shown.any() else words.NO_SKELETON
        asked = f"The goal: how it should look in the end. {shown}"
        start, end, limit = (f"{100 * value:.1f} cm" for value in (*episode.distances, episode.limit))
        met = html.badge("met", "good") if episode.distances[1] < episode.limit else html.badge("missed", "bad")
        measure = [words.task_words(episode.task).measure, start, end, f"below {limit}", met]
        judged = html.badge("Solved", "good") if episode.success else html.badge("Not solved", "bad")
    else:
        path, size = np.stack([clicked.pixels, clicked.wanted]), np.ones(len(clicked.pixels))
        goal, asked = points_overlay(episode.start_image, path, clicked.wanted, size), words.CLICKED
        measure = [words.CLICKED_MEASURE, *(f"{value:.0f} px" for value in clicked.distances_px), "–", html.Markup()]
        judged = html.badge("Goal of points", "quiet")
    pointed = clicked is not None or any(plan.points for plan in episode.plans)
    start_image = image_tag(episode.start_image, f"{name}: the scene at the start", data_pixels=pointed)
    played = video_tag(episode.outcome, episode.outcome_fps, f"{name}: what the robot did")
    under = [words.PIXEL, html.tag("output", "–")] if pointed else []
    pictures = [
        html.figure(start_image, html.join([words.START, *under])),
        picture(goal, f"{name}: the goal", asked),
        html.figure(played, "What the robot did, in the physics simulator."),
    ]
    count = len(episode.plans)
    return html.card(
        f"Scene {episode.seed}",
        judged,
        html.box("pictures", *pictures),
        html.table(["Measure", "Start", "End", "Needed", ""], [measure]),
        *imagination(episode.plans, explain, drawn_by),
        aside=f"{count} plan{'s' * (count != 1)}, {episode.seconds_per_plan:.1f} s each" if count else None,
    )


def imagination(plans: Sequence[PlanRecord], explain: bool, drawn_by: str) -> list[html.Markup]:
    """The first step of every plan, imagined and real; empty without decoded plans."""
    decoded = [(plan.imagined, plan.happened) for plan in plans if plan.imagined is not None]
    if not decoded:
        return []
    steps = [f"step {number}" for number in range(1, len(decoded) + 1)]
    cells = [html.tag("span", class_="corner"), *(html.tag("span", step, class_="when") for step in steps)]
    for row, images in zip(("imagined", "happened"), zip(*decoded, strict=True), strict=True):
        cells.append(html.tag("span", row, class_="side"))
        cells += [image_tag(image, f"{row}, {step}") for image, step in zip(images, steps, strict=True)]
    drawn = html.note(words.IMAGINED, f" Drawn by {drawn_by}." if drawn_by else "")
    reading = (html.note(words.POINTS) if plans[0].points else drawn) if explain else None
    pictures = html.box("pair", *cells, style=f"--columns:{len(steps)}")
    return [html.tag("h4", "Imagined, and what happened"), reading or html.Markup(), pictures]


def _success_section(results: DemoResults) -> html.Markup | None:
    measured = results.measured.get("tasks")
    if not measured:
        return None
    rows = []
    known = [key for key in words.CONTROLS if any(row.get(key) is not None for row in measured.values())]
    for task, row in measured.items():
        about = words.task_words(task)
        own = html.with_interval((100 * row[key] for key in ("success", "low", "high")), ".0f", " %")
        others = (about.paper, *(row.get(key) for key in known))
        shares = ("–" if rate is None else f"{100 * rate:.0f} %" for rate in others)
        seconds = html.number(row.get("seconds_per_plan"), ".1f")
        rows.append([about.title, *own, str(row["n"]), *shares, seconds])
    head = ["Task", "World model", "95 % interval", "Episodes", "DexWM paper", *(words.CONTROLS[key] for key in known)]
    return html.section(
        "How often it works",
        html.tag("p", words.SUCCESS),
        html.note(results.measured.get("tasks_source", "")),
        html.table([*head, "Seconds a plan"], rows),
        anchor="success",
    )


def _open_loop_section(results: DemoResults) -> html.Markup | None:
    figures = results.measured.get("open_loop")
    if figures is None:
        return None
    known = {key: name for key, name in words.OPEN_LOOP_FIGURES.items() if figures.get(key) is not None}
    rows = [[name, *html.with_interval(html.bounds(figures, key), ".3g")] for key, name in known.items()]
    rows.append(["Held-out episodes", str(figures["episodes"]), ""])
    return html.section(
        "How good the imagination is",
        html.tag("p", words.OPEN_LOOP),
        html.note(results.measured.get("open_loop_source", "")),
        html.table(["Figure", "Value", "95 % interval"], rows),
        anchor="open-loop",
    )
