"""What the world model's options are worth: each one changed alone, at equal budget, measured on held-out video.

    python benchmarks/ablations.py --data data/allegro --pretraining stores/human stores/gripper \\
      --held-out data/held-out --output outputs/bench/ablations

Runs of every variant and seed lie in `<output>/runs`; start the command again and it goes on with those that are
missing. `results.json` and `table.md` hold all variants, those that have not run yet as missing. docs/ablations.md
tells what the figures mean.
"""

import argparse
import itertools
import logging
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablation_runs import BY_NAME, RATE_HZ, VARIANTS, Study, StudyConfig, Variant
from common import interval_values, parser, write_results
from dexworld.data.files import read_json
from dexworld.evaluation.intervals import Interval, paired_difference, ratios
from dexworld.writing import written_atomically

Sums = dict[str, np.ndarray]  # (S, E) of a variant: what each seed's model adds up to in each held-out episode
MISSING = "missing"
# 97.5 % points of Student's t for 1 to 9 degrees of freedom (any table; 95 %, two-sided).
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Figure:
    """A ratio of two sums at one moment of the rollout.

    seconds: after the start frame. scale: 100 for percent. of_variant: it depends on the variant; others tell what is
    possible at all, and are the same for all variants. in_table: shown in the tables, and not in results.json alone.
    """

    name: str
    title: str
    numerator: str
    denominator: str
    seconds: float
    scale: float = 1.0
    digits: int = 3
    of_variant: bool = True
    in_table: bool = True

    def sums(self, sums: dict[str, np.ndarray], rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators (E,) from sums (E, T)."""
        step = round(self.seconds * rate_hz) - 1
        return self.scale * sums[self.numerator][:, step], sums[self.denominator][:, step]


def figures_at(last: float) -> tuple[Figure, ...]:
    """The figures of a study whose rollouts last so many seconds."""
    moments = {"1s": min(1.0, last), "end": last}
    error = [Figure(f"error_{name}", f"error, {at:g} s", "mse", "copy_last_mse", at) for name, at in moments.items()]
    title = f"error where objects moved, {last:g} s"
    objects = Figure("object_error_end", title, "object_mse", "copy_last_object_mse", last)
    control = [
        Figure(f"shuffled_error_{name}", f"error with another's actions, {at:g} s", "shuffled_mse", "copy_last_mse", at)
        for name, at in moments.items()
    ]
    keypoints, possible = [], []
    for pixels, (name, at) in itertools.product((20, 10), moments.items()):
        key, title = f"pck{pixels}", f"PCK@{pixels}, {at:g} s"
        keypoints.append(Figure(f"{key}_{name}", title, key, "in_view", at, 100.0, 1, in_table=pixels == 20))
    for kind, pixels, (name, at) in itertools.product(("copy_last_", "true_latents_"), (20, 10), moments.items()):
        key = f"{kind}pck{pixels}"
        possible.append(Figure(f"{key}_{name}", "", key, "in_view", at, 100.0, 1, of_variant=False))
    return (*error, objects, *keypoints, *control, *possible)


def seed_interval(values: np.ndarray) -> Interval:
    """Mean of a figure over seeds (S,) with Student's t interval: what another set of seeds might give.

    It takes the held-out episodes as they are. Without a second seed the interval has no width to speak of: NaN.
    Raises ValueError on more than ten seeds.
    """
    seeds = len(values)
    if seeds > len(T_QUANTILES) + 1:
        raise ValueError(f"{seeds} seeds; the table of Student's t ends at {len(T_QUANTILES) + 1}")
    mean = float(values.mean())
    if seeds < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = T_QUANTILES[seeds - 2] * float(values.std(ddof=1)) / seeds**0.5
    return Interval(mean, mean - half, mean + half)


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
    top, bottom = zip(*(figure.sums(runs[seed], RATE_HZ) for seed in seeds), strict=True)
    return np.stack(top), np.stack(bottom)


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
        cells = [table_cell(row[figure.name], figure.digits) for figure in shown]
        lines += _row(name, _seeds(row["seeds"], seeds), str(row["steps"]), seconds, *cells)
    lines += "\n" + _row("difference", "seeds", *heads) + "|---" * (len(heads) + 2) + "|\n"
    for variant in VARIANTS:
        for other in variant.against:
            label, found = f"{variant.name} - {other}", rows[variant.name].get(f"minus_{other}")
            if found is None:
                lines += _row(label, MISSING, *[""] * len(heads))
                continue
            cells = [table_cell(found[figure.name], figure.digits, sign="+") for figure in shown]
            lines += _row(label, _seeds(found["seeds"], seeds), *cells)
    return lines


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _seeds(done: list[int], wanted: list[int]) -> str:
    return f"{len(done)}" if len(done) == len(wanted) else f"{len(done)} of {len(wanted)}"


def table_cell(figure: dict[str, Any], digits: int, sign: str = "") -> str:
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
    names = list(BY_NAME)
    options.add_argument("--variants", nargs="*", default=names, choices=names, help="what to run; none: report only")
    options.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap")
    kinds: dict[str, Any] = {"width": int, "depth": int, "bfloat16": lambda word: word == "True"}
    for each in fields(StudyConfig):
        kind = kinds.get(each.name, type(each.default))
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
