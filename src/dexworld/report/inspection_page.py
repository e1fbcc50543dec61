"""The page of `dexworld inspect`: what is in a dataset, what is broken, what looks wrong, and how it looks."""

from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.episode_figures import Snapshot
from dexworld.data.inspection import Inspection, account
from dexworld.data.statistics import Histogram
from dexworld.hands import HAND_KEYPOINTS, LEFT, RIGHT
from dexworld.report import html
from dexworld.report.media import picture
from dexworld.report.overlay import hand_overlay
from dexworld.report.plots import histogram_plot, rate_bar

SHOWN_BROKEN = 100  # rows on the page; all are in results.json
SHOWN_TASKS = 10
MAP_CELL = 12  # pixels
PALE, STRONG = np.array([24, 26, 31]), {"left": np.array([255, 200, 61]), "right": np.array([70, 178, 255])}
SIDES = ("left", "right")
FOOTER = "Made by dexworld inspect. This page loads nothing from elsewhere; all figures: results.json."
STAGES = {"opening": "files", "labels": "labels", "frames": "frames"}
SPREAD = {"mean": "mean", "p50": "median", "p95": "95 %", "p99": "99 %", "max": "largest"}
RANGE = {"min": "smallest", "q01": "1 %", "mean": "mean", "std": "std", "q99": "99 %", "max": "largest"}
MOVING = {"left_hand": "Left hand", "right_hand": "Right hand", "camera": "Camera", "camera_turn_deg": "Camera"}
STEPS = {"keypoints": "Keypoints, m", "camera": "Camera, m", "camera_turn": "Camera, rad"}
SEEN = {"valid": "valid", "in_front": "in front", "visible": "visible"}


def write_inspection_page(folder: Path | str, result: Inspection) -> Path:
    """Write `folder`/report.html, a page without any outside resource, and return its path."""
    figures = account(result)
    sample = figures["sample"]
    about, frames = ("≈ ", "frames read") if sample else ("", "frames")
    counts = [
        (f"{figures['episodes']:,}", "episodes"),
        (about + duration_text(figures["estimate"]["hours"]), "of video"),
        (about + size_text(figures["estimate"]["bytes"]), "on disk"),
        (f"{figures['frames']:,}", frames),
        (f"{figures['broken']['count']:,}", "broken"),
        (f"{sum(row['episodes'] for row in figures['findings']):,}", "findings"),
    ]
    lead = f"{result.kind} dataset. {extent(figures, result.config.seed)}"
    notices = ["Hours and bytes of the whole are estimated from the sample."] if sample else []
    return html.write_page(
        Path(folder) / "report.html",
        f"{result.folder.name}: inspection",
        html.opening(result.folder.name, lead, counts, notices),
        _broken_section(figures["broken"]["episodes"]),
        _findings_section(figures["findings"], max(figures["readable"], 1)),
        _sheet_section(result.snapshots),
        _contents_section(result, figures),
        *([_visibility_section(result, figures), _motion_section(result, figures)] if result.readable else []),
        _actions_section(figures["actions"]),
        footer=FOOTER,
    )


def extent(figures: dict[str, Any], seed: int) -> str:
    """One sentence: how much of the dataset was read."""
    if figures["sample"]:
        read = f"A sample of {figures['read']:,} of {figures['episodes']:,} episodes, drawn with seed {seed}"
    else:
        read = f"All {figures['episodes']:,} episodes" if figures["episodes"] != 1 else "The only episode"
    pictures = figures["pictures"]
    if pictures["decode"] == "none" or not pictures["decoded"]:
        return f"{read}; no picture was decoded."
    return f"{read}; {pictures['decoded']:,} pictures of {pictures['episodes']:,} of them were decoded."


def _broken_section(rows: list[dict[str, Any]]) -> html.Markup:
    if not rows:
        fine = " Every episode read could be opened."
        return html.section("Broken", html.box("card clean", html.badge("none", "good"), fine))
    shown = [(row["episode"], html.badge(STAGES[row["stage"]], "bad"), row["reason"]) for row in rows[:SHOWN_BROKEN]]
    more = len(rows) - len(shown)
    return html.section(
        "Broken",
        html.box("card broken reasons", html.table(("Episode or file", "In its", "Reason"), shown, numeric_from=3)),
        html.note(f"and {more:,} more: results.json lists them all.") if more else None,
        lead="These can't be used: reading them fails. Training and preparation leave them out and count them.",
    )


def _findings_section(rows: list[dict[str, Any]], readable: int) -> html.Markup:
    if not rows:
        fine = " No label or picture is outside its limits."
        return html.section("What looks wrong", html.box("card clean", html.badge("nothing", "good"), fine))
    cells, examples = [], []
    for row in rows:
        places = [("" if each["frame"] is None else str(each["frame"]), each) for each in row["examples"]]
        examples += [(row["title"], each["episode"], frame, each["message"]) for frame, each in places]
        frame, first = places[0]
        where = first["episode"] + (f", frame {frame}" if frame else "")
        share = f"{row['episodes']:,} ({100 * row['episodes'] / readable:.2g} %)"
        name = html.tag("span", row["title"], html.tag("small", row["advice"]))
        cells.append((name, share, f"{where}: {first['message']}"))
    return html.section(
        "What looks wrong",
        html.box("card warned reasons", html.table(("Finding", "Episodes", "For instance"), cells, numeric_from=3)),
        html.details("Where", html.table(("Finding", "Episode", "Frame", "What"), examples, numeric_from=4)),
        lead="These can be read, but values lie outside what hands and cameras do. They are kept: judge for yourself.",
    )


def _sheet_section(snapshots: list[Snapshot]) -> html.Markup | None:
    if not snapshots:
        return None
    cells = []
    for shot in snapshots:
        scale = max(1, round(384 / shot.image.shape[1]))
        caption = html.tag("span", html.tag("b", shot.episode), f", frame {shot.frame}. {shot.task}")
        drawn = hand_overlay(shot.image, shot.pixels, shot.visible, scale)
        cells.append(picture(drawn, f"{shot.episode}, frame {shot.frame}", caption))
    return html.section(
        "Contact sheet",
        html.box("sheet", *cells),
        lead="The frame of each episode that shows most keypoints, with the keypoints that lie in the picture: thumb "
        "orange, index yellow, middle green, ring blue, little finger violet, wrist white.",
    )


def _contents_section(result: Inspection, figures: dict[str, Any]) -> html.Markup:
    tasks, length, pictures = figures["tasks"], figures["length_s"], figures["pictures"]
    low, middle, high = (short_number(length[key]) for key in ("min", "p50", "max"))
    lengths = f"{low} s" if low == high else f"{low} to {high} s, median {middle} s"
    same = f"{pictures['identical']:,} of {pictures['compared']:,}" if pictures["compared"] else "not looked at"
    pairs = [
        ("Frame sizes", counted_text(figures["frame_sizes"])),
        ("Frames per second", counted_text(figures["fps"])),
        ("Splits", counted_text(figures["splits"]) or "none"),
        ("Also recorded", ", ".join(figures["extras"]) or "nothing else"),
        ("Tasks", f"{tasks['distinct']:,} different"),
        ("Length of an episode", lengths if length["count"] else "unknown"),
        ("Identical neighbouring pictures", same),
    ]
    rows = [(task or "(no text)", f"{count:,}") for task, count in tasks["most_common"][:SHOWN_TASKS]]
    more = tasks["distinct"] - len(rows)
    plot = None
    if np.count_nonzero(result.figures.lengths.counts) > 1:
        lines = histogram_plot({"episodes": result.figures.lengths}, "seconds", log=True)
        plot = html.figure(lines, "How long episodes are.")
    named = html.tag("div", html.box("reasons", html.table(("Task", "Episodes"), rows))) if rows else None
    below = html.note(f"and {more:,} more tasks.") if more > 0 else None
    return html.section("What is in it", html.facts(pairs), html.box("plots", named, plot), below)


def _visibility_section(result: Inspection, figures: dict[str, Any]) -> html.Markup:
    seen = figures["visibility"]
    counts = {"none": "none of the hands", "one": "one hand", "two": "two hands"}
    bars = [rate_bar(name, seen["hands_in_picture"][key] or 0.0) for key, name in counts.items()]
    bars += [rate_bar(f"the {side} hand", seen[side] or 0.0, own=True) for side in SIDES]
    maps = []
    for side, places in zip(SIDES, result.figures.map, strict=True):
        if places.any():
            caption = f"Where in the picture the {side} hand is."
            maps.append(picture(heat_map(places, side), caption, caption))
    plots = [_distribution({"visible keypoints": result.figures.depth}, "metres from the camera")]
    if result.figures.confidence_frames:
        plots.append(_distribution(result.figures.confidence, "tracking confidence of a keypoint"))
    pairs = zip(seen["keypoints"][LEFT], seen["keypoints"][RIGHT], strict=True)
    rows = [
        (name, *(f"{100 * each[key]:.1f} %" for each in pair for key in SEEN))
        for name, pair in zip(HAND_KEYPOINTS, pairs, strict=True)
    ]
    kinds = [f"{side}: {what}" for side in SIDES for what in SEEN.values()]
    return html.section(
        "What can be seen of the hands",
        html.box("shares", html.tag("h4", "Frames with"), *bars),
        html.box("plots", *maps) if maps else None,
        html.box("plots", *plots),
        html.details("Every keypoint", html.table(("Keypoint", *kinds), rows)),
        lead="A keypoint is visible when it is annotated, more than 5 cm in front of the camera and inside the picture "
        "(hands hidden behind things count); a hand when half of its keypoints are.",
    )


def _motion_section(result: Inspection, figures: dict[str, Any]) -> html.Markup:
    speeds = result.figures.speeds
    hands = {side: speeds[f"{side}_hand"] for side in SIDES}
    plots = [
        _distribution(hands, "hand speed, m/s", log=True),
        _distribution({"camera": speeds["camera"]}, "camera speed, m/s", log=True),
        _distribution({"camera": speeds["camera_turn_deg"]}, "camera rotation, degrees/s", log=True),
        _distribution(result.figures.hand_length, "wrist to middle knuckle, m"),
    ]
    named = [(f"{MOVING[key]}, {_unit(key)}", each) for key, each in figures["speeds_per_s"].items()]
    for key, each in figures["steps_per_frame"].items():
        named.append((f"{STEPS[key]} per frame (rms {short_number(each['rms'])})", each))
    rows = [(name, *(short_number(each[key]) for key in SPREAD)) for name, each in named if each["count"]]
    extremes = []
    for key, found in figures["largest"].items():
        for row in found[:5]:
            if row["value"] > 0:
                kind = _unit(key) + (f" {row['note']}" if row["note"] else ", camera")
                extremes.append((kind, row["episode"], str(row["frame"]), short_number(row["value"])))
    fastest = html.table(("Speed", "Episode", "Frame", "Value"), extremes, numeric_from=2)
    return html.section(
        "How things move",
        html.table(("Between neighbouring frames", *SPREAD.values()), rows),
        html.box("plots", *plots),
        html.details("The fastest moments", fastest) if extremes else None,
        lead="Speeds of keypoints (mean over a hand) and of the camera, in the world: what actions are made of.",
    )


def _unit(key: str) -> str:
    return "degrees/s" if key == "camera_turn_deg" else "m/s"


def _actions_section(actions: list[dict[str, Any]]) -> html.Markup | None:
    parts: list[html.Markup] = []
    for found in actions:
        episodes = f"{found['episodes']:,} episode{'s' * (found['episodes'] != 1)}"
        count = f"{found['dimensions']} dimensions, {found['frames']:,} frames of {episodes}"
        rows = [(str(row), *(short_number(found[key][row]) for key in RANGE)) for row in range(found["dimensions"])]
        parts += [html.tag("h4", count), html.table(("Dimension", *RANGE.values()), rows)]
        if found["not_finite"]:
            parts.append(html.note(f"{found['not_finite']:,} values are NaN or Inf and left out."))
    lead = "Commands of the robot as the dataset has them, in its own units and order; what normalising them needs."
    return html.section("Recorded actions", *parts, lead=lead) if parts else None


def _distribution(histograms: dict[str, Histogram], label: str, log: bool = False) -> html.Markup | None:
    known = any(each.count and each.high > 0 for each in histograms.values())
    return histogram_plot(histograms, label, log) if known else None


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
    hours = hours or 0.0
    for unit, size in (("h", 1.0), ("min", 1 / 60)):
        if hours >= size:
            return f"{hours / size:,.0f} {unit}" if hours / size >= 100 else f"{hours / size:.3g} {unit}"
    return f"{3600 * hours:.3g} s"


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
