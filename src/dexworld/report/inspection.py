"""The page of `dexworld inspect`: what is in a dataset, what is broken, what looks wrong, and how it looks."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.episode_figures import Snapshot
from dexworld.data.inspection import Inspection, account
from dexworld.data.statistics import Histogram
from dexworld.hands import HAND_KEYPOINTS
from dexworld.report.histogram import Distribution, histogram_plot
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
from dexworld.report.overlay import hand_overlay
from dexworld.report.plots import rate_bar
from dexworld.report.video import image_tag

SHOWN_BROKEN = 100  # rows on the page; all are in results.json
SHOWN_TASKS = 10
MAP_CELL = 12  # pixels
PALE, STRONG = np.array([24, 26, 31]), {"left": np.array([255, 200, 61]), "right": np.array([70, 178, 255])}
STYLE = Markup(
    """
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); gap: 16px 14px; }
.sheet figcaption b { color: var(--ink); font-weight: 600; overflow-wrap: anywhere; }
.reasons td { white-space: normal; overflow-wrap: anywhere; vertical-align: top; }
.reasons td:first-child { min-width: 12em; max-width: 20em; }
.plots { margin-bottom: 22px; }
.wide-names { max-width: 620px; margin: 14px 0 22px; }
.wide-names .bar { grid-template-columns: 12em 1fr 3.4em; }
.clean { border-left: 5px solid var(--good); }
.warned { border-left: 5px solid var(--second); }
.broken { border-left: 5px solid var(--bad); }
td small { display: block; color: var(--soft); white-space: normal; font-size: .86em; line-height: 1.4; }
"""
)


def write_inspection_page(folder: Path | str, result: Inspection) -> Path:
    """Write `folder`/report.html, a page without any outside resource, and return its path."""
    return write_page(Path(folder) / "report.html", inspection_page(result))


def inspection_page(result: Inspection) -> str:
    """The page as text."""
    figures = account(result)
    return page(
        f"{result.folder.name}: inspection",
        tag("style", STYLE),
        _header(result, figures),
        _broken(figures),
        _findings(figures),
        _sheet(result.snapshots),
        _contents(result, figures),
        _visibility(result, figures) if result.readable else None,
        _motion(result, figures) if result.readable else None,
        _actions(figures),
        tag("footer", "Made by dexworld inspect. This page loads nothing from elsewhere; all figures: results.json."),
    )


def extent(figures: dict[str, Any], seed: int) -> str:
    """One sentence: how much of the dataset was read."""
    if figures["sample"]:
        told = f"A sample of {figures['read']:,} of {figures['episodes']:,} episodes, drawn with seed {seed}"
    else:
        told = f"All {figures['episodes']:,} episodes" if figures["episodes"] != 1 else "The only episode"
    pictures = figures["pictures"]
    if pictures["decode"] == "none" or not pictures["decoded"]:
        return f"{told}; no picture was decoded."
    return f"{told}; {pictures['decoded']:,} pictures of {pictures['episodes']:,} of them were decoded."


def _header(result: Inspection, figures: dict[str, Any]) -> Markup:
    sample = figures["sample"]
    items = [
        (f"{figures['episodes']:,}", "episodes"),
        (f"{'≈ ' if sample else ''}{duration_text(figures['estimate']['hours'])}", "of video"),
        (f"{'≈ ' if sample else ''}{size_text(figures['estimate']['bytes'])}", "on disk"),
        (f"{figures['frames']:,}", "frames read" if sample else "frames"),
        (f"{figures['broken']['count']:,}", "broken"),
        (f"{sum(row['episodes'] for row in figures['findings']):,}", "findings"),
    ]
    return tag(
        "header",
        tag("h1", result.folder.name),
        paragraph(f"{result.kind} dataset. {extent(figures, result.config.seed)}", class_="lead"),
        tiles(items),
        paragraph("Hours and bytes of the whole are estimated from the sample.", class_="note") if sample else None,
    )


def _broken(figures: dict[str, Any]) -> Markup:
    rows = figures["broken"]["episodes"]
    if not rows:
        content = tag("div", badge("none", "good"), " Every episode read could be opened.", class_="card clean")
        return section("Broken", content)
    stages = {"opening": "files", "labels": "labels", "frames": "frames"}
    shown = [(row["episode"], badge(stages[row["stage"]], "bad"), row["reason"]) for row in rows[:SHOWN_BROKEN]]
    more = len(rows) - len(shown)
    return section(
        "Broken",
        tag("div", table(("Episode or file", "In its", "Reason"), shown, numeric_from=3), class_="card broken reasons"),
        paragraph(f"and {more:,} more: results.json lists them all.", class_="note") if more > 0 else None,
        lead="These can't be used: reading them fails. Training and preparation leave them out and count them.",
    )


def _findings(figures: dict[str, Any]) -> Markup:
    rows = figures["findings"]
    if not rows:
        content = tag(
            "div", badge("nothing", "good"), " No label or picture is outside its limits.", class_="card clean"
        )
        return section("What looks wrong", content)
    read = max(figures["readable"], 1)
    cells = []
    for row in rows:
        first = row["examples"][0]
        where = first["episode"] + (f", frame {first['frame']}" if first["frame"] is not None else "")
        name = tag("span", row["title"], tag("small", row["advice"]))
        cells.append(
            (name, f"{row['episodes']:,} ({100 * row['episodes'] / read:.2g} %)", f"{where}: {first['message']}")
        )
    examples = [
        (row["title"], each["episode"], "" if each["frame"] is None else str(each["frame"]), each["message"])
        for row in rows
        for each in row["examples"]
    ]
    return section(
        "What looks wrong",
        tag("div", table(("Finding", "Episodes", "For instance"), cells, numeric_from=3), class_="card warned reasons"),
        details("Where", table(("Finding", "Episode", "Frame", "What"), examples, numeric_from=4)),
        lead="These can be read, but values lie outside what hands and cameras do. They are kept: judge for yourself.",
    )


def _sheet(snapshots: list[Snapshot]) -> Markup | None:
    if not snapshots:
        return None
    cells = []
    for shot in snapshots:
        scale = max(1, round(384 / shot.image.shape[1]))
        drawn = hand_overlay(shot.image, shot.pixels, shot.visible, scale)
        caption = tag("span", tag("b", shot.episode), f", frame {shot.frame}. {shot.task}")
        cells.append(figure(image_tag(drawn, f"{shot.episode}, frame {shot.frame}"), caption))
    return section(
        "Contact sheet",
        tag("div", *cells, class_="sheet"),
        lead="The frame of each episode that shows most keypoints, with the keypoints that lie in the picture: thumb "
        "orange, index yellow, middle green, ring blue, little finger violet, wrist white.",
    )


def _contents(result: Inspection, figures: dict[str, Any]) -> Markup:
    pairs = [
        ("Frame sizes", counted_text(figures["frame_sizes"])),
        ("Frames per second", counted_text(figures["fps"])),
        ("Splits", counted_text(figures["splits"]) or "none"),
        ("Also recorded", ", ".join(figures["extras"]) or "nothing else"),
        ("Tasks", f"{figures['tasks']['distinct']:,} different"),
        ("Length of an episode", _spread(figures["length_s"], "s")),
        ("Identical neighbouring pictures", _of(figures["pictures"], "identical", "compared")),
    ]
    rows = [(task or "(no text)", f"{count:,}") for task, count in figures["tasks"]["most_common"][:SHOWN_TASKS]]
    more = figures["tasks"]["distinct"] - len(rows)
    plot = None
    if np.count_nonzero(result.figures.lengths.counts) > 1:
        curve = Distribution("episodes", result.figures.lengths)
        plot = figure(histogram_plot([curve], "seconds", log=True), "How long episodes are.")
    tasks = tag("div", tag("div", table(("Task", "Episodes"), rows), class_="reasons")) if rows else None
    return section(
        "What is in it",
        facts(pairs),
        tag("div", tasks, plot, class_="plots"),
        paragraph(f"and {more:,} more tasks.", class_="note") if more > 0 else None,
    )


def _visibility(result: Inspection, figures: dict[str, Any]) -> Markup:
    seen = figures["visibility"]
    bars = [
        tag("h4", "Frames with"),
        *(rate_bar(f"{name} {word}", seen["hands_in_picture"][name] or 0.0) for name, word in
          (("none", "of the hands"), ("one", "hand"), ("two", "hands"))),
        rate_bar("the left hand", seen["left"] or 0.0, own=True),
        rate_bar("the right hand", seen["right"] or 0.0, own=True),
    ]  # fmt: skip
    maps = []
    for hand, name in enumerate(("left", "right")):
        if result.figures.map[hand].any():
            caption = f"Where in the picture the {name} hand is."
            maps.append(figure(image_tag(heat_map(result.figures.map[hand], name), caption), caption))
    plots = [_plot([("visible keypoints", result.figures.depth, 0)], "metres from the camera")]
    confidence = result.figures.confidence
    if result.figures.confidence_frames:
        pairs = [("left", confidence["left"], 1), ("right", confidence["right"], 0)]
        plots.append(_plot(pairs, "tracking confidence of a keypoint"))
    per_hand = len(HAND_KEYPOINTS)
    rows = [
        (name, *(_cells(seen["keypoints"][row], seen["keypoints"][row + per_hand])))
        for row, name in enumerate(HAND_KEYPOINTS)
    ]
    kinds = [f"{side}: {what}" for side in ("left", "right") for what in ("valid", "in front", "visible")]
    return section(
        "What can be seen of the hands",
        tag("div", *bars, class_="wide-names"),
        tag("div", *maps, class_="plots") if maps else None,
        tag("div", *plots, class_="plots"),
        details("Every keypoint", table(("Keypoint", *kinds), rows)),
        lead="A keypoint is visible when it is annotated, more than 5 cm in front of the camera and inside the picture "
        "(hands hidden behind things count); a hand when half of its keypoints are.",
    )


def _motion(result: Inspection, figures: dict[str, Any]) -> Markup:
    speeds, sizes = result.figures.speeds, result.figures.hand_length
    plots = [
        _plot([("left", speeds["left_hand"], 1), ("right", speeds["right_hand"], 0)], "hand speed, m/s", True),
        _plot([("camera", speeds["camera"], 0)], "camera speed, m/s", True),
        _plot([("camera", speeds["camera_turn_deg"], 0)], "camera rotation, degrees/s", True),
        _plot([("left", sizes["left"], 1), ("right", sizes["right"], 0)], "wrist to middle knuckle, m"),
    ]
    names = {
        "left_hand": "Left hand, m/s",
        "right_hand": "Right hand, m/s",
        "camera": "Camera, m/s",
        "camera_turn_deg": "Camera, degrees/s",
    }
    rows = [
        (names[key], *(short_number(each[column]) for column in ("mean", "p50", "p95", "p99", "max")))
        for key, each in figures["speeds_per_s"].items()
        if each["count"]
    ]
    steps = {"keypoints": "Keypoints, m", "camera": "Camera, m", "camera_turn": "Camera, rad"}
    rows += [
        (f"{steps[key]} per frame (rms {short_number(each['rms'])})",
         *(short_number(each[column]) for column in ("mean", "p50", "p95", "p99", "max")))
        for key, each in figures["steps_per_frame"].items()
        if each["count"]
    ]  # fmt: skip
    units = {"keypoint": "m/s", "camera": "m/s", "camera_turn_deg": "degrees/s"}
    extremes = [
        (f"{units[key]}{' ' + row['note'] if row['note'] else ', camera'}", row["episode"], str(row["frame"]),
         short_number(row["value"]))
        for key, found in figures["largest"].items()
        for row in found[:5]
        if row["value"] > 0
    ]  # fmt: skip
    return section(
        "How things move",
        table(("Between neighbouring frames", "mean", "median", "95 %", "99 %", "largest"), rows),
        tag("div", *plots, class_="plots"),
        details("The fastest moments", table(("Speed", "Episode", "Frame", "Value"), extremes, numeric_from=2))
        if extremes
        else None,
        lead="Speeds of keypoints (mean over a hand) and of the camera, in the world: what actions are made of.",
    )


def _actions(figures: dict[str, Any]) -> Markup | None:
    if not figures["actions"]:
        return None
    columns = ("min", "q01", "mean", "std", "q99", "max")
    parts: list[Markup | None] = []
    for found in figures["actions"]:
        count = f"{found['dimensions']} dimensions, {found['frames']:,} frames of {found['episodes']:,} "
        count += "episode" if found["episodes"] == 1 else "episodes"
        rows = [
            (str(row), *(short_number(found[column][row]) for column in columns)) for row in range(found["dimensions"])
        ]
        parts += [tag("h4", count), table(("Dimension", "smallest", "1 %", "mean", "std", "99 %", "largest"), rows)]
        if found["not_finite"]:
            parts.append(paragraph(f"{found['not_finite']:,} values are NaN or Inf and left out.", class_="note"))
    lead = "Commands of the robot as the dataset has them, in its own units and order; what normalising them needs."
    return section("Recorded actions", *parts, lead=lead)


def _plot(curves: Iterable[tuple[str, Histogram, int]], label: str, log: bool = False) -> Markup | None:
    filled = [Distribution(name, each, colour) for name, each, colour in curves if each.count and each.high > 0]
    return histogram_plot(filled, label, log) if filled else None


def _cells(*rows: dict[str, Any]) -> list[str]:
    return [f"{100 * row[key]:.1f} %" for row in rows for key in ("valid", "in_front", "visible")]


def _spread(figures: dict[str, Any], unit: str) -> str:
    if not figures["count"]:
        return "unknown"
    low, middle, high = (short_number(figures[key]) for key in ("min", "p50", "max"))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}, median {middle} {unit}"


def _of(figures: dict[str, Any], part: str, whole: str) -> str:
    return f"{figures[part]:,} of {figures[whole]:,}" if figures[whole] else "not looked at"


def heat_map(counts: np.ndarray, side: str) -> np.ndarray:
    """A picture of counts (rows, columns): darker where there are none. side: `left` or `right`, for the colour."""
    level = np.sqrt(counts / max(int(counts.max()), 1))[..., None]
    colours = PALE * (1 - level) + STRONG[side] * level
    return colours.round().astype(np.uint8).repeat(MAP_CELL, axis=0).repeat(MAP_CELL, axis=1)


def counted_text(counts: dict[str, int]) -> str:
    """`name (count)` of each entry; a single one needs no count."""
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


def duration_text(hours: float | None) -> str:
    """Hours, minutes or seconds, whichever fits."""
    for unit, size in (("h", 1.0), ("min", 1 / 60)):
        if (hours or 0.0) >= size:
            value = (hours or 0.0) / size
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{3600 * (hours or 0.0):.3g} s"


def percent_text(share: float) -> str:
    """A share with two digits, but never 0 % or 100 % of what isn't."""
    return "> 99 %" if 0.995 < share < 1 else f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def short_number(value: float | None) -> str:
    """Three significant digits; a dash where there is no value."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size_text(count: int | None) -> str:
    """Bytes in the unit that fits."""
    value = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.4g} TB"
