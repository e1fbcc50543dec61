"""The page of `dexworld inspect`: what is in a dataset, what is broken, what looks wrong, and how it looks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dexworld.data.episode_figures import Snapshot
from dexworld.data.statistics import QUANTITIES
from dexworld.report import html
from dexworld.report.media import picture
from dexworld.report.overlay import hand_overlay

SHOWN = 20  # rows of a table; results.json has all
FOOTER = "Made by dexworld inspect. This page loads nothing from elsewhere; all figures: results.json."
SHEET = (
    "The frame of each episode that shows most keypoints, with the keypoints that lie in the picture: thumb orange, "
    "index yellow, middle green, ring blue, little finger violet, wrist white."
)
SPREAD = {"mean": "mean", "p50": "median", "p95": "95 %", "p99": "99 %", "max": "largest"}
RANGE = {"min": "smallest", "q01": "1 %", "mean": "mean", "std": "std", "q99": "99 %", "max": "largest"}


class Listing(NamedTuple):
    """A table for the page and the terminal; without a head it is a list of names and values.

    numeric_from: the first column of numbers.
    """

    title: str
    lead: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric_from: int = 9


def write_inspection_page(folder: Path, figures: dict[str, Any], seed: int, snapshots: list[Snapshot]) -> Path:
    """Write `folder`/report.html about an account, a page without any outside resource, and return its path."""
    broken, wrong, *others = map(_section, listings(figures, seed))
    name = figures["dataset"]
    title, opening = f"{name}: inspection", html.opening(name, f"What is in this {figures['kind']} dataset.")
    sheet = _sheet_section(snapshots) if snapshots else None
    return html.write_page(folder / "report.html", title, opening, broken, wrong, sheet, *others, footer=FOOTER)


def listings(figures: dict[str, Any], seed: int) -> list[Listing]:
    """All tables about an account, those that ask for action first."""
    unusable = "These can't be used: reading them fails. Training and preparation leave them out and count them."
    outside = "These can be read, but values lie outside what hands and cameras do. They are kept: judge for yourself."
    broken = [(row["episode"], row["stage"], row["reason"]) for row in figures["broken"]["episodes"]]
    wrong = [_finding_row(row, max(figures["readable"], 1)) for row in figures["findings"]]
    tasks = [(task or "(no text)", f"{count:,}") for task, count in figures["tasks"]["most_common"]]
    wrong_head = ("Finding", "Episodes", "For instance", "Advice")
    speeds = "Speeds are between neighbouring frames, of hands the mean of their keypoints, in the world."
    tables = [
        Listing("Broken", unusable, ("Episode or file", "Fails at", "Reason"), broken),
        Listing("What looks wrong", outside, wrong_head, wrong),
        Listing("What is in it", "", (), _content_rows(figures, seed)),
        Listing("How much, how fast", speeds, ("", *SPREAD.values()), _spread_rows(figures), 1),
        Listing("Tasks", "", ("Task", "Episodes"), tasks, 1),
    ]
    lead = "Commands of the robot as the dataset has them, in its own units and order; what normalising them needs."
    for found in figures["actions"]:
        about = f"{found['dimensions']} dimensions, {found['frames']:,} frames, episodes: {found['episodes']:,}"
        about += f", {found['not_finite']:,} values NaN or Inf" if found["not_finite"] else ""
        rows = [(str(row), *(_short(found[key][row]) for key in RANGE)) for row in range(found["dimensions"])]
        tables.append(Listing(f"Recorded actions: {about}", lead, ("Dimension", *RANGE.values()), rows, 1))
    return tables


def _content_rows(figures: dict[str, Any], seed: int) -> list[tuple[str, ...]]:
    about, pictures, estimate = "≈ " if figures["sample"] else "", figures["pictures"], figures["estimate"]
    sample, seen = f" (a sample drawn with seed {seed})" if figures["sample"] else "", figures["visibility"]
    shares = {"left": seen["left"], "right": seen["right"], "both": seen["hands_in_picture"]["two"]}
    hands = [f"{side} {'-' if share is None else f'{100 * share:.0f} %'}" for side, share in shares.items()]
    return [
        ("read", f"{figures['read']:,} of {figures['episodes']:,} episodes{sample}"),
        ("length", f"{about}{html.duration(3600 * (estimate['hours'] or 0))}, {figures['frames']:,} frames read"),
        ("disk", f"{about}{_size(estimate['bytes'] or 0)}"),
        ("layout", figures["kind"]),
        ("frame sizes", _counted(figures["frame_sizes"])),
        ("frames per second", _counted(figures["fps"])),
        ("splits", _counted(figures["splits"]) or "none"),
        ("also recorded", ", ".join(figures["extras"]) or "nothing else"),
        ("tasks", f"{figures['tasks']['distinct']:,} different"),
        ("frames with a hand's wrist and five tips in view", ", ".join(hands)),
        ("pictures", "{decoded:,} decoded, {identical:,} of {compared:,} equal the one before".format(**pictures)),
        ("kinds of findings", str(len(figures["findings"]))),
        ("broken", f"{figures['broken']['count']:,}"),
    ]


def _spread_rows(figures: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for name, (words, _) in QUANTITIES.items():
        group, _, part = name.partition(".")
        found = (figures[group] or {}).get(part) if part else figures[group]
        if found and found["count"]:
            rows.append((words, *(_short(found[key]) for key in SPREAD)))
    return rows


def _finding_row(row: dict[str, Any], readable: int) -> tuple[str, ...]:
    first = row["examples"][0]
    frame = "" if first["frame"] is None else f", frame {first['frame']}"
    share = f"{row['episodes']:,} ({100 * row['episodes'] / readable:.2g} %)"
    return row["title"], share, f"{first['episode']}{frame}: {first['message']}", row["advice"]


def _section(found: Listing) -> html.Markup | None:
    if not found.head:
        return html.section(found.title, html.facts((name, value) for name, value in found.rows))
    if not found.rows:
        return None
    table = html.table(found.head, found.rows[:SHOWN], found.numeric_from)
    more = len(found.rows) - SHOWN
    below = html.note(f"and {more:,} more: see results.json.") if more > 0 else None
    return html.section(found.title, html.box("reasons", table), below, lead=found.lead)


def _sheet_section(snapshots: list[Snapshot]) -> html.Markup:
    cells = []
    for shot in snapshots:
        scale = max(1, round(384 / shot.image.shape[1]))
        caption = html.tag("span", html.tag("b", shot.episode), f", frame {shot.frame}. {shot.task}")
        drawn = hand_overlay(shot.image, shot.pixels, shot.visible, scale)
        cells.append(picture(drawn, f"{shot.episode}, frame {shot.frame}", caption))
    return html.section("Contact sheet", html.box("sheet", *cells), lead=SHEET)


def _counted(counts: dict[str, int]) -> str:
    """`name (count)` of each entry; a single one needs no count."""
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{name} ({n:,})" for name, n in counts.items())


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.4g} TB"
