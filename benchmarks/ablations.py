"""What the world model's options are worth: each one changed alone, at equal budget, measured on held-out video.

    python benchmarks/ablations.py --data data/allegro --pretraining stores/human stores/gripper \\
      --held-out data/held-out --output outputs/bench/ablations

Runs of every variant and seed lie in `<output>/runs`; start the command again and it goes on with those that are
missing. `results.json` and `table.md` hold all variants, those that have not run yet as missing. docs/ablations.md
tells what the figures mean.
"""

import argparse
import logging
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablation_figures import Figure, figures_at, seed_interval
from ablation_runs import BY_NAME, RATE_HZ, VARIANTS, Study, StudyConfig, Variant
from common import interval_values, parser, write_results
from dexworld.data.files import read_json, written_atomically
from dexworld.evaluation.intervals import paired_difference, ratios

Sums = dict[str, np.ndarray]
MISSING = "missing"


def load(study: Study, variant: Variant, seeds: list[int]) -> dict[int, Sums]:
    """Sums of the finished runs of a variant, by seed."""
    found = {}
    for seed in seeds:
        if study.finished(variant.name, seed):
            with np.load(study.folder(variant.name, seed) / "sums.npz", allow_pickle=False) as arrays:
                found[seed] = dict(arrays)
    return found


def stacked(runs: dict[int, Sums], seeds: list[int], figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators (S, E) of a figure."""
    pairs = [figure.sums(runs[seed], RATE_HZ) for seed in seeds]
    return np.stack([top for top, _ in pairs]), np.stack([bottom for _, bottom in pairs])


def summary(study: Study, seeds: list[int], resamples: int) -> dict[str, Any]:
    """All figures of all variants; a variant without any finished run is {"seeds": []}."""
    figures = figures_at(study.config.rollout_steps / RATE_HZ)
    runs = {variant.name: load(study, variant, seeds) for variant in VARIANTS}
    rows: dict[str, Any] = {}
    for variant in VARIANTS:
        done = sorted(runs[variant.name])
        row: dict[str, Any] = {"what": variant.what, "seeds": done}
        rows[variant.name] = row
        if not done:
            continue
        records = [read_json(study.folder(variant.name, seed) / "results.json") for seed in done]
        row["steps"] = records[0]["training"]["steps"]
        row["train_cpu_s"] = [record["train_cpu_s"] for record in records]
        row["episodes"] = len(next(iter(runs[variant.name].values()))["mse"])
        for figure in figures:
            values = ratios(*stacked(runs[variant.name], done, figure))
            row[figure.name] = interval_values(seed_interval(values)) | by_seed(values)
        for other in variant.against:
            shared = [seed for seed in done if seed in runs[other]]
            if not shared:
                continue
            row[f"minus_{other}"] = {
                figure.name: _difference(runs, variant.name, other, shared, figure, resamples)
                for figure in figures
                if figure.of_variant
            } | {"seeds": shared}
    return rows


def _difference(
    runs: dict[str, dict[int, Sums]], name: str, other: str, seeds: list[int], figure: Figure, resamples: int
) -> dict[str, Any]:
    ours, theirs = stacked(runs[name], seeds, figure), stacked(runs[other], seeds, figure)
    generator = np.random.default_rng(0)  # the same draws for every pair
    return interval_values(paired_difference(ours, theirs, generator, resamples)) | by_seed(
        ratios(*ours) - ratios(*theirs)
    )


def by_seed(values: np.ndarray) -> dict[str, list[float | None]]:
    """A figure of every seed, None where it doesn't exist."""
    return {"by_seed": [None if math.isnan(value) else float(value) for value in values]}


def table(rows: dict[str, Any], figures: tuple[Figure, ...], seeds: list[int]) -> str:
    """Two markdown tables: figures with their interval over seeds, and paired differences."""
    shown = [figure for figure in figures if figure.of_variant and figure.in_table]
    heads = [figure.title for figure in shown]
    lines = _row("variant", "seeds", "steps", "CPU-s", *heads) + "|---" * (len(heads) + 4) + "|\n"
    for name, row in rows.items():
        if not row["seeds"]:
            lines += _row(name, MISSING, *[""] * (len(heads) + 2))
            continue
        seconds = f"{np.mean(row['train_cpu_s']):.0f}"
        cells = [_cell(row[figure.name], figure.digits) for figure in shown]
        lines += _row(name, _seeds(row["seeds"], seeds), str(row["steps"]), seconds, *cells)
    lines += "\n" + _row("difference", "seeds", *heads) + "|---" * (len(heads) + 2) + "|\n"
    for variant in VARIANTS:
        for other in variant.against:
            label, found = f"{variant.name} - {other}", rows[variant.name].get(f"minus_{other}")
            if found is None:
                lines += _row(label, MISSING, *[""] * len(heads))
                continue
            cells = [_cell(found[figure.name], figure.digits, sign="+") for figure in shown]
            lines += _row(label, _seeds(found["seeds"], seeds), *cells)
    return lines


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _seeds(done: list[int], wanted: list[int]) -> str:
    return f"{len(done)}" if len(done) == len(wanted) else f"{len(done)} of {len(wanted)}"


def _cell(figure: dict[str, Any], digits: int, sign: str = "") -> str:
    """`0.712 [0.690, 0.734]`."""
    if figure["value"] is None:
        return "-"
    spelled = f"{figure['value']:{sign}.{digits}f}"
    if figure["low"] is None:
        return spelled
    return f"{spelled} [{figure['low']:{sign}.{digits}f}, {figure['high']:{sign}.{digits}f}]"


def report(study: Study, seeds: list[int], resamples: int) -> str:
    """Write results.json and table.md; returns the table."""
    rows = summary(study, seeds, resamples)
    evaluator = study.output / "evaluator" / "results.json"
    figures = {
        "split": study.split,
        "held_out_episodes": len(study.held_out),
        "robot_episodes": len(study.robot),
        "evaluator": read_json(evaluator)["validation"] if evaluator.exists() else None,
        "settings": {each.name: getattr(study.config, each.name) for each in fields(StudyConfig)},
        "resamples": resamples,
        "variants": rows,
    }
    write_results(study.output, figures, seeds=study.held_out.seeds)
    content = table(rows, figures_at(study.config.rollout_steps / RATE_HZ), seeds)
    with written_atomically(study.output / "table.md") as temporary:
        temporary.write_text(content, encoding="utf-8")
    return content


def arguments(words: list[str] | None) -> argparse.Namespace:
    """The command line: every number of `StudyConfig` is an option."""
    options = parser(__doc__, "outputs/bench/ablations")
    options.add_argument("--data", type=Path, required=True, help="robot episodes to train on")
    options.add_argument("--pretraining", type=Path, nargs="*", default=[], help="prepared human and gripper video")
    options.add_argument("--held-out", type=Path, required=True, help="robot episodes to measure on")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights and windows")
    options.add_argument(
        "--variants", nargs="*", default=list(BY_NAME), choices=list(BY_NAME), help="what to run; none: report only"
    )
    options.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    for each in fields(StudyConfig):
        if each.name in ("width", "depth"):
            kind: Any = int
        elif each.name == "bfloat16":
            kind = lambda word: word == "True"  # noqa: E731
        else:
            kind = type(each.default)
        options.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default, help="of the study")
    return options.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Run what is asked for by the words of a command line, by default this process's."""
    options = arguments(words)
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    config = StudyConfig(**{each.name: getattr(options, each.name) for each in fields(StudyConfig)})
    study = Study(config, options.data, tuple(options.pretraining), options.held_out, options.output)
    for seed in options.seeds:
        for name in options.variants:
            if study.finished(name, seed):
                continue
            study.run(name, seed)
            print(f"{name}, seed {seed}", flush=True)
            report(study, options.seeds, options.resamples)
    print(report(study, options.seeds, options.resamples))


if __name__ == "__main__":
    main()
