"""Figures of a study from the sums of its runs: of every variant over seeds, and of pairs of variants."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dexworld.evaluation.intervals import (
    interval_values,
    mcnemar,
    paired_difference,
    ratios,
    seed_interval,
    wilson,
)
from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.studies.study import RATE_HZ, Figure, Table, Variant
from dexworld.studies.study_runs import Study

MISSING = "missing"


def of_figure(figure: Figure, sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators (E,) of a figure from sums (E, T)."""
    top = sums[figure.numerator]
    bottom = np.ones_like(top) if figure.denominator is None else sums[figure.denominator]
    if figure.seconds is None:
        return figure.scale * top.sum(axis=1), bottom.sum(axis=1)
    step = round(figure.seconds * RATE_HZ) - 1
    return figure.scale * top[:, step], bottom[:, step]


def stacked(runs: dict[int, Sums], seeds: list[int], figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators (S, E) of a figure."""
    top, bottom = zip(*(of_figure(figure, runs[seed]) for seed in seeds), strict=True)
    return np.stack(top), np.stack(bottom)


def summary(study: Study, seeds: list[int], resamples: int) -> dict[str, Any]:
    """All figures of all variants by name; a variant without any finished run has the seeds []."""
    table, rows = study.table, dict[str, Any]()
    found = {
        variant.name: {seed: study.record(variant.name, seed) for seed in seeds if study.finished(variant.name, seed)}
        for variant in table.variants
    }
    runs = {name: {seed: sums for seed, (_, sums) in by_seed.items()} for name, by_seed in found.items()}
    for variant in table.variants:
        done = sorted(runs[variant.name])
        row: dict[str, Any] = {"what": variant.what, "seeds": done}
        rows[variant.name] = row
        if not done:
            row["needs"] = None if study.can_run(variant.name) or variant.needs is None else variant.needs[0]
            continue
        records = [found[variant.name][seed][0] for seed in done]
        row |= {name: records[0][name] for name in ("steps", "parameters")}
        row |= {
            name: [record[name] for record in records] for name in ("train_cpu_s", "train_seconds", "measure_cpu_s")
        }
        for figure in table.figures:
            top, bottom = stacked(runs[variant.name], done, figure)
            values = ratios(top, bottom)
            pooled = wilson(int((top > 0).sum()), top.size).scaled(figure.scale) if figure.pooled else None
            row[figure.name] = interval_values(pooled or seed_interval(values)) | _by_seed(values)
            row[figure.name] |= {"episodes": top.size} if pooled else {}
        row |= _differences(table, variant, runs, resamples)
    return rows


def _differences(table: Table, variant: Variant, runs: dict[str, dict[int, Sums]], resamples: int) -> dict[str, Any]:
    """`minus_<other>` for every variant that this one is compared with, of the seeds that both have."""
    found: dict[str, Any] = {}
    for other in variant.against:
        shared = [seed for seed in sorted(runs[variant.name]) if seed in runs[other]]
        if not shared:
            continue
        found[f"minus_{other}"] = {"seeds": shared}
        for figure in (each for each in table.figures if each.of_variant):
            ours, theirs = (stacked(runs[name], shared, figure) for name in (variant.name, other))
            kept: dict[str, Any] = _by_seed(ratios(*ours) - ratios(*theirs))
            if figure.pooled:
                kept |= {"p": mcnemar(ours[0].flatten() > 0, theirs[0].flatten() > 0)}
                # episodes of all seeds as those of one
                ours, theirs = ((top.reshape(1, -1), bottom.reshape(1, -1)) for top, bottom in (ours, theirs))
            generator = np.random.default_rng(0)  # the same draws for every pair
            interval = interval_values(paired_difference(ours, theirs, generator, resamples))
            found[f"minus_{other}"][figure.name] = interval | kept
    return found


def _by_seed(values: np.ndarray) -> dict[str, list[float | None]]:
    """A figure of every seed, None where it doesn't exist."""
    return {"by_seed": [None if math.isnan(value) else float(value) for value in values]}


def markdown(table: Table, rows: dict[str, Any], seeds: list[int]) -> str:
    """Two tables: figures with their interval over seeds, and paired differences."""
    shown = [figure for figure in table.figures if figure.of_variant and figure.in_table]
    heads = [figure.title for figure in shown]
    lines = _row("variant", "seeds", "steps", "CPU-s", *heads) + "|---" * (len(heads) + 4) + "|\n"
    for name, row in rows.items():
        if not row["seeds"]:
            lines += _row(name, MISSING, *[""] * (len(heads) + 2))
            continue
        seconds = f"{np.mean(row['train_cpu_s']):.0f}"
        cells = [table_cell(row[figure.name], figure.digits) for figure in shown]
        lines += _row(name, of_seeds(row["seeds"], seeds), str(row["steps"]), seconds, *cells)
    lines += "\n" + _row("difference", "seeds", *heads) + "|---" * (len(heads) + 2) + "|\n"
    for variant in table.variants:
        for other in variant.against:
            label, found = f"{variant.name} - {other}", rows[variant.name].get(f"minus_{other}")
            if found is None:
                lines += _row(label, MISSING, *[""] * len(heads))
                continue
            cells = [table_cell(found[figure.name], figure.digits, sign="+") for figure in shown]
            lines += _row(label, of_seeds(found["seeds"], seeds), *cells)
    return lines


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |\n"


def of_seeds(done: list[int], wanted: list[int]) -> str:
    """`3`, or `2 of 3`."""
    return f"{len(done)}" if len(done) == len(wanted) else f"{len(done)} of {len(wanted)}"


def table_cell(figure: dict[str, Any], digits: int, sign: str = "") -> str:
    """`0.712 [0.690, 0.734]`; of pooled episodes also their number or a pair's p."""
    if figure["value"] is None:
        return "-"
    spelled = f"{figure['value']:{sign}.{digits}f}"
    if figure["low"] is None:
        return spelled
    interval = f"[{figure['low']:{sign}.{digits}f}, {figure['high']:{sign}.{digits}f}]"
    return ", ".join([f"{spelled} {interval}", *of_episodes(figure)])


def of_episodes(figure: Mapping[str, Any]) -> list[str]:
    """`n = 102` of a pooled figure, `p = 0.012` of a pair; nothing of others."""
    if "episodes" in figure:
        return [f"n = {figure['episodes']}"]
    if "p" in figure:
        return ["p < 0.001" if figure["p"] < 0.001 else f"p = {figure['p']:.2g}"]
    return []
