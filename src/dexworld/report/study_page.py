"""The page of `dexworld reproduce`: the paper's table and ours side by side, what differs, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.report import html
from dexworld.report.html import Markup, join, tag
from dexworld.studies.study import Figure, Sizes, Table
from dexworld.studies.study_figures import MISSING, of_episodes, of_seeds

FOOTER = "Made by dexworld reproduce. This page loads nothing from elsewhere; all figures: results.json."
GLOSSARY = (
    "Embedding error: mean absolute error of predicted latents. Error: squared error over that of repeating the start "
    "frame, so 1 is a model that learned nothing. PCK@20: percent of the visible keypoints found within 20 pixels."
)
INTERVALS = (
    "In brackets: 95 % intervals over seeds (Student's t), the held-out episodes as they are. Differences: a bootstrap "
    "that resamples seeds and episodes. With so many intervals, one in twenty misses by chance."
)
POOLED_INTERVALS = (
    "In brackets: 95 % intervals, the trained models as they are: Wilson's of n episodes, of differences a bootstrap "
    "over episodes. p: McNemar's exact test of a pair. With so many pairs, one in twenty has p < 0.05 by chance."
)


def write_study_page(
    folder: Path,
    table: Table,
    rows: Mapping[str, Any],
    seeds: Sequence[int],
    notices: Sequence[str],
    command: str,
    films: Markup | None = None,
) -> Path:
    """Write `folder`/page.html about a study's figures by variant (`study_figures.summary`), and return its path.

    notices: notes below the lead. command: that makes it again. films: a section that shows what models imagine.
    """
    shown = [figure for figure in table.figures if figure.of_variant and figure.in_table]
    done = {name: len(row["seeds"]) for name, row in rows.items()}
    spent = sum(sum(row.get("train_cpu_s", ())) + sum(row.get("measure_cpu_s", ())) for row in rows.values())
    tiles = [
        (f"{sum(count > 0 for count in done.values())} of {len(rows)}", "variants"),
        (f"{sum(done[each.name] for each in table.variants if each.budget)}", "trained models"),
        (html.duration(spent), "CPU time, training and measuring"),
    ]
    missing = [name for name, row in rows.items() if not row["seeds"]]
    notices = [*notices, *([f"Not run yet: {', '.join(missing)}."] if missing else [])]
    paper = f"{table.paper.where}. {table.paper.says}" if table.paper.where else None
    pooled = all(figure.pooled for figure in shown)
    notes = (table.glossary or GLOSSARY, POOLED_INTERVALS if pooled else INTERVALS)
    differences, minus = _differences(table, rows, shown), "A variant's figure minus that of another."
    return html.write_page(
        folder / "page.html",
        table.title,
        html.opening(table.title, table.lead, tiles, notices),
        html.section("Beside the paper", _figures(table, rows, shown, seeds), *map(html.note, notes), lead=paper),
        films,
        html.section("Differences", differences, lead=minus) if differences else None,
        html.section("What differs from the paper, and why", tag("ul", *(tag("li", each) for each in table.differs))),
        html.section("Variants and cost", _costs(rows)),
        html.under_the_bonnet({"Settings": _settings(table.sizes)}, command),
        footer=FOOTER,
    )


def _figures(table: Table, rows: Mapping[str, Any], shown: Sequence[Figure], seeds: Sequence[int]) -> Markup:
    made = []
    for variant in table.variants:
        row = rows[variant.name]
        name = join([variant.name, _small(f"paper: {variant.paper}") if variant.paper else None])
        if not row["seeds"]:
            extra = row.get("needs")
            made.append([name, f"needs dexworld[{extra}]" if extra else MISSING, *[""] * len(shown)])
            continue
        cells = []
        for figure in shown:
            printed = table.paper.value(variant.paper, figure.paper)
            beside = None if printed is None else _small(f"paper: {printed:g}")
            cells.append(join([_interval(row[figure.name], figure.digits), beside]))
        made.append([name, of_seeds(row["seeds"], list(seeds)), *cells])
    possible = [figure for figure in table.figures if figure.in_table and not figure.of_variant]
    measured = next((row for row in rows.values() if row["seeds"]), None)
    head = ["variant", "seeds", *(figure.title for figure in shown)]
    if measured is None or not possible:
        return html.table(head, made)
    known = [f"{each.title}: {html.number(measured[each.name]['value'], f'.{each.digits}f')}" for each in possible]
    return join([html.table(head, made), html.note(f"To judge by: {'; '.join(known)}.")])


def _differences(table: Table, rows: Mapping[str, Any], shown: Sequence[Figure]) -> Markup | None:
    made = []
    for variant in table.variants:
        for other in variant.against:
            found = rows[variant.name].get(f"minus_{other}")
            if found is not None:
                cells = [_interval(found[figure.name], figure.digits, "+") for figure in shown]
                made.append([f"{variant.name} − {other}", *cells])
    return html.table(["difference", *(figure.title for figure in shown)], made) if made else None


def _costs(rows: Mapping[str, Any]) -> Markup:
    made = []
    for name, row in rows.items():
        cells = ["", "", "", ""]
        if row["seeds"]:
            spent = [f"{np.mean(row[key]):,.0f}" for key in ("train_cpu_s", "measure_cpu_s")]
            cells = [f"{row['steps']:,}", f"{row['parameters'] / 1e6:.2f} M", *spent]
        made.append([name, row["what"], *cells])
    head = ["variant", "what", "steps", "parameters", "CPU-s, training", "CPU-s, measuring"]
    note = "Means over seeds. A variant that starts from another one counts its own steps alone."
    return join([html.table(head, made, numeric_from=2), html.note(note)])


def _settings(sizes: Sizes) -> dict[str, str]:
    values = asdict(sizes)
    settings = {name.replace("_", " "): str(value) for name, value in values.items() if not isinstance(value, dict)}
    settings |= {f"budget, {name}": f"{steps:,} steps" for name, steps in values["budgets"].items()}
    settings |= {f"data, {name}": f"{each['episodes']:,} episodes" for name, each in values["data"].items()}
    held_out = {f"held out, {name}": f"{each['episodes']:,} episodes" for name, each in values["held_out"].items()}
    return settings | held_out


def _interval(figure: Mapping[str, Any], digits: int, sign: str = "") -> Markup:
    form = f"{sign}.{digits}f"
    low, high = figure["low"], figure["high"]
    around = [] if low is None else [f"[{html.number(low, form)}, {html.number(high, form)}]"]
    more = ", ".join([*around, *of_episodes(figure)])
    return join([html.number(figure["value"], form), _small(more) if more else None])


def _small(text: str) -> Markup:
    return join([tag("br"), tag("span", text, class_="note")])
