"""The demonstration's page: one file that a stranger can open, understand and pass on."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.report import words
from dexworld.report.demo_results import CONTROLS, DemoResults, Distance, EpisodeResult, PlanRecord, SuccessRow
from dexworld.report.html import (
    Markup,
    badge,
    details,
    facts,
    figure,
    join,
    page,
    paragraph,
    section,
    table,
    tag,
    tiles,
    write_page,
)
from dexworld.report.overlay import hand_overlay
from dexworld.report.plots import Series, line_plot, rate_bar
from dexworld.report.video import image_tag, video_tag

TITLE = "A robot hand that plans by imagining"


def write_demo_report(folder: Path | str, results: DemoResults) -> Path:
    """Write `folder/report.html`, a page without any outside resource, and return its path."""
    return write_page(Path(folder) / "report.html", demo_page(results))


def demo_page(results: DemoResults) -> str:
    """The page as text."""
    return page(
        TITLE,
        header(results),
        section("How it works", how_it_works()),
        *task_sections(results.episodes, results.drawn_by),
        success_section(results),
        open_loop_section(results),
        machinery_section(results),
        tag("footer", "Made by dexworld. This page holds everything it shows and loads nothing from elsewhere."),
    )


def header(results: DemoResults) -> Markup:
    """Title, what this is, and the run in four figures."""
    solved, total = sum(episode.success for episode in results.episodes), len(results.episodes)
    times = [plan.seconds for episode in results.episodes for plan in episode.plans]
    items = [(f"{solved} of {total}", "episodes solved in this run")]
    if times:
        items.append((f"{sum(times) / len(times):.1f} s", "to make one plan, on average"))
    if results.timings:
        items.append((duration(sum(results.timings.values())), "for the whole demonstration"))
    if "Parameters" in results.checkpoint:
        items.append((results.checkpoint["Parameters"], "parameters in the world model"))
    return tag(
        "header",
        tag("h1", TITLE),
        paragraph(words.INTRODUCTION, class_="lead"),
        tiles(items),
        *(paragraph(notice, class_="note") for notice in results.notices),
    )


def how_it_works() -> Markup:
    """Three steps in plain words."""
    steps = (
        tag("div", tag("h3", tag("span", str(number), class_="disc"), title), paragraph(text))
        for number, (title, text) in enumerate(words.HOW_IT_WORKS, start=1)
    )
    return tag("div", *steps, class_="steps")


def task_sections(episodes: Iterable[EpisodeResult], drawn_by: str = "") -> list[Markup]:
    """One section a task, in the order in which the tasks first appear. drawn_by: what drew the imagined pictures."""
    by_task: dict[str, list[EpisodeResult]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode)
    sections, explained = [], False
    for task, members in by_task.items():
        told = words.task_words(task)
        solved = sum(episode.success for episode in members)
        count = badge(f"{solved} of {len(members)} solved", "good" if solved == len(members) else "quiet")
        cards = []
        for episode in members:
            cards.append(episode_card(episode, explain=not explained, drawn_by=drawn_by))
            explained = explained or bool(episode.plans)
        sections.append(section(told.title, paragraph(told.story, " ", count), *cards, anchor=task))
    return sections


def episode_card(episode: EpisodeResult, explain: bool = False, drawn_by: str = "") -> Markup:
    """One episode: pictures, measures, imagination against reality, and the search behind it.

    explain: tell how to read the comparison, and what drew it; once on a page is enough.
    """
    verdict = badge("Solved", "good") if episode.success else badge("Not solved", "bad")
    goal_caption = "The goal: how it should look in the end."
    goal = episode.goal_image
    if episode.goal_keypoints is not None and episode.goal_keypoints_shown is not None:
        goal = hand_overlay(goal, episode.goal_keypoints, episode.goal_keypoints_shown)
        goal_caption += (
            " The coloured skeleton is where the model sees wrist and fingertips."
            if episode.goal_keypoints_shown.any()
            else " The model sees no hand in it."
        )
    name = words.task_words(episode.task).title
    pictures = [
        figure(
            image_tag(episode.start_image, f"{name}: the scene at the start"), "The start: what the camera sees first."
        ),
        figure(image_tag(goal, f"{name}: the goal picture"), goal_caption),
        figure(
            video_tag(episode.outcome, episode.outcome_fps, f"{name}: what the robot did"),
            "What the robot did, in the physics simulator.",
        ),
    ]
    return tag(
        "article",
        tag("div", tag("h3", f"Scene {episode.seed}"), verdict, planning_note(episode), class_="head"),
        tag("div", *pictures, class_="pictures"),
        distance_table(episode.distances) if episode.distances else None,
        paragraph(episode.note) if episode.note else None,
        *imagination(episode.plans, explain, drawn_by),
        class_="card",
    )


def planning_note(episode: EpisodeResult) -> Markup | None:
    """How many plans were made and how long one took."""
    if episode.seconds_per_plan is None:
        return None
    count = len(episode.plans)
    return tag("span", f"{count} plan{'s' * (count != 1)}, {episode.seconds_per_plan:.1f} s each", class_="note")


def distance_table(distances: Iterable[Distance]) -> Markup:
    """The task's measures before and after, and whether each is met."""
    rows = [
        [
            item.name,
            item.shown(item.start),
            item.shown(item.end),
            f"below {item.shown(item.limit)}",
            badge("met", "good") if item.end < item.limit else badge("missed", "bad"),
        ]
        for item in distances
    ]
    return table(["Measure", "Start", "End", "Needed", ""], rows)


def imagination(plans: tuple[PlanRecord, ...], explain: bool, drawn_by: str = "") -> list[Markup]:
    """Imagined against real pictures, the whole plans, and the search's costs; empty without plans."""
    parts = []
    firsts = [plan for plan in plans if plan.imagined is not None and len(plan.happened)]
    if firsts:
        heads = [f"step {number}" for number in range(1, len(firsts) + 1)]
        strip = compared([plan.imagined[0] for plan in firsts], [plan.happened[0] for plan in firsts], heads)  # type: ignore[index]
        drawn = f" Drawn by {drawn_by}." if drawn_by else ""
        reading = [paragraph(words.IMAGINED, drawn, class_="note")] if explain else []
        parts += [tag("h4", "Imagined, and what happened"), *reading, strip]
    ahead = []
    columns = max((len(plan.imagined) for plan in plans if plan.imagined is not None), default=0)
    for number, plan in enumerate(plans, start=1):
        if plan.imagined is not None and len(plan.imagined) > 1:
            heads = [f"after {step * plan.step_seconds:g} s" for step in range(1, len(plan.imagined) + 1)]
            ahead += [tag("h4", f"Plan {number}"), compared(list(plan.imagined), list(plan.happened), heads, columns)]
    searches = [plan for plan in plans if len(plan.best_costs) > 1]
    if ahead:
        parts.append(details("The whole plans", paragraph(words.LOOK_AHEAD, class_="note"), *ahead))
    if searches:
        parts.append(details("The search", paragraph(words.SEARCH, class_="note"), search_plot(plans)))
    return parts


def compared(
    imagined: list[np.ndarray], happened: list[np.ndarray], heads: list[str], columns: int | None = None
) -> Markup:
    """Two rows of pictures with names on the left and times on top; steps that never happened stay empty.

    columns: how many to leave room for, so that pictures of several comparisons have one size.
    """
    columns = max(columns or 0, len(heads))
    blanks = [tag("span")] * (columns - len(heads))
    cells = [tag("span", class_="corner"), *(tag("span", head, class_="when") for head in heads), *blanks]
    cells += [tag("span", "imagined", class_="side")]
    cells += [image_tag(image, f"imagined, {head}") for image, head in zip(imagined, heads, strict=True)]
    cells += blanks
    cells += [tag("span", "happened", class_="side")]
    cells += [image_tag(image, f"what happened, {head}") for image, head in zip(happened, heads, strict=False)]
    return tag("div", *cells, class_="pair", style=f"--columns:{columns}")


def search_plot(plans: tuple[PlanRecord, ...]) -> Markup:
    """Cost of the best candidate and of the elites over the iterations of every plan."""
    lines = []
    for number, plan in enumerate(plans):
        iterations = list(range(1, len(plan.best_costs) + 1))
        if iterations:
            lines.append(Series(f"plan {number + 1}, best", iterations, plan.best_costs, colour=number))
            lines.append(Series("mean of the elites", iterations, plan.elite_costs, colour=number, faint=True))
    return line_plot(lines, "round of the search", "cost")


def success_section(results: DemoResults) -> Markup | None:
    """Success rates over many episodes as bars and as a table; None where none were given."""
    if not results.success:
        return None
    told = [words.task_words(row.task) for row in results.success]
    bars = [
        tag("div", tag("h4", f"{task.title} ({row.n} episodes)"), *success_bars(row, task.paper))
        for row, task in zip(results.success, told, strict=True)
    ]
    known = [key for key in CONTROLS if any(key in row.controls for row in results.success)]
    rows = [
        [
            words.task_words(row.task).title,
            f"{100 * row.success:.0f} %",
            f"{100 * row.low:.0f} to {100 * row.high:.0f} %",
            str(row.n),
            *(f"{100 * row.controls[key]:.0f} %" if key in row.controls else "–" for key in known),
            "–" if row.seconds_per_plan is None else f"{row.seconds_per_plan:.1f} s",
        ]
        for row in results.success
    ]
    head = ["Task", "World model", "95 % interval", "Episodes", *(CONTROLS[key] for key in known), "One plan"]
    paper = paragraph(words.PAPER_MARK, class_="note") if any(task.paper for task in told) else None
    return section(
        "How often it works",
        paragraph(words.SUCCESS),
        paragraph(results.success_source, class_="note") if results.success_source else None,
        tag("div", tag("div", *bars, class_="bars"), paper, class_="card"),
        details("The same as a table", table(head, rows)),
        anchor="success",
    )


def success_bars(row: SuccessRow, paper: float | None) -> list[Markup]:
    """The world model's bar and those of its controls."""
    own = rate_bar("World model", row.success, row.low, row.high, own=True, mark=paper)
    return [own, *(rate_bar(name, row.controls[key]) for key, name in CONTROLS.items() if key in row.controls)]


def open_loop_section(results: DemoResults) -> Markup | None:
    """How good the model's imagination is by itself; None where it was not measured."""
    if results.open_loop is None:
        return None
    figures = results.open_loop
    curves = figures["curves"]
    return section(
        "How good the imagination is",
        paragraph(words.OPEN_LOOP),
        paragraph(results.open_loop_source, class_="note") if results.open_loop_source else None,
        tag("div", tag("div", error_plot(curves), keypoint_plot(curves), class_="plots"), class_="card"),
        details("The figures", open_loop_table(figures)),
        anchor="open-loop",
    )


def error_plot(curves: Mapping[str, Any]) -> Markup:
    """Squared error against copy-last over the predicted seconds."""
    seconds = curves["seconds"]
    lines = [
        curve(curves, "mse_ratio", "the model", 0),
        curve(curves, "shuffled_mse_ratio", "told another movement", 1),
        Series("“nothing changes”", seconds, [1.0] * len(seconds), colour=2, faint=True),
    ]
    return figure(
        line_plot(lines, "seconds into the future", "error", bottom=0.0),
        "Prediction error, relative to guessing that nothing changes. Bands are 95 % intervals over episodes.",
    )


def keypoint_plot(curves: Mapping[str, Any]) -> Markup:
    """Share of visible keypoints found within 20 pixels over the predicted seconds."""
    lines = [
        curve(curves, "pck20_visible", "in the imagined pictures", 0),
        curve(curves, "copy_last_pck20_visible", "in the first picture, unchanged", 2, faint=True),
    ]
    return figure(
        line_plot(lines, "seconds into the future", "%", bottom=0.0),
        "Share of wrists and fingertips in view that are found within 20 pixels of where they really are. A model that "
        "is told on its own grid of patches where the hand goes, like the one shipped, shows no more here "
        "than that it listens.",
    )


def curve(curves: Mapping[str, Any], key: str, name: str, colour: int, faint: bool = False) -> Series:
    """A per-step curve of open-loop figures with its interval."""
    bounds = (curves[f"{key}_low"], curves[f"{key}_high"])
    return Series(name, curves["seconds"], curves[key], *bounds, colour=colour, faint=faint)


def open_loop_table(figures: Mapping[str, Any]) -> Markup:
    """The headline figures with their intervals."""
    named = {
        "mse_ratio_1s": "Squared error at 1 s (“nothing changes” is 1)",
        "mse_ratio_4s": "Squared error at 4 s",
        "shuffled_mse_ratio_1s": "Squared error at 1 s, told another movement",
        "shuffled_mse_ratio_4s": "Squared error at 4 s, told another movement",
        "object_mse_ratio_1s": "Squared error at 1 s where objects moved",
        "object_mse_ratio_4s": "Squared error at 4 s where objects moved",
        "mae_avg": "Mean absolute error, average (the paper's “L2”)",
        "mae_4s": "Mean absolute error at 4 s",
        "copy_last_mae_avg": "Mean absolute error of “nothing changes”",
        "pck20_visible_avg": "Visible keypoints within 20 px, average, %",
        "pck20_avg": "Keypoints within 20 px of all twelve (as released), %",
        "pck_released_ceiling": "The most that the previous line can reach, %",
        "pck20_true_latents": "Visible keypoints within 20 px, from true frames, %",
    }
    rows = [
        [name, f"{figures[key]:.3g}", f"{figures[f'{key}_low']:.3g} to {figures[f'{key}_high']:.3g}"]
        for key, name in named.items()
        if figures.get(key) is not None
    ]
    episodes = ["Held-out episodes", str(figures["episodes"]), ""]
    return table(["Figure", "Value", "95 % interval"], [*rows, episodes])


def machinery_section(results: DemoResults) -> Markup:
    """The checkpoint, the clock, the versions and the command."""
    parts: list[Markup] = []
    if results.checkpoint:
        parts += [tag("h4", "The world model"), facts(results.checkpoint.items())]
    if results.timings:
        parts += [tag("h4", "Where the time went"), facts((name, duration(s)) for name, s in results.timings.items())]
    ran = dict(results.versions) | ({"Renderer": results.renderer} if results.renderer else {})
    if results.drawn_by:
        ran["Imagined pictures"] = f"drawn by {results.drawn_by}"
    if ran:
        parts += [tag("h4", "What ran"), facts(ran.items())]
    if results.command:
        parts += [tag("h4", "Run it again"), paragraph(tag("code", results.command))]
    return section("Under the bonnet", tag("div", join(parts), class_="card"))


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
