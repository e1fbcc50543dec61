"""Which encoder's latents know objects, at equal time: a point head on each, from new weights, on the same scenes.

    python benchmarks/encoders.py --pushes data/pushes --pairs data/pairs --held-out-pushes data/vpushes \\
      --held-out-pairs data/vpairs --output outputs/bench/encoders

Runs of every encoder and seed lie in `<output>/<encoder>/<seed>`; the same command goes on with those that are missing.
Encoding is counted apart, in milliseconds a frame. Intervals are Student's t over the seeds. Time is CPU time, on a GPU
(`--device cuda`) wall time.
"""

import logging
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import interval_values, parser, write_results
from dexworld.data.datasets import open_dataset
from dexworld.data.files import read_json
from dexworld.evaluation.guard import check_seeds, split_of
from dexworld.evaluation.intervals import seed_interval
from dexworld.models.config import DexWMConfig, PointsConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import EncoderChoice
from dexworld.models.world_model import preset
from dexworld.studies.study_figures import table_cell
from dexworld.training.distributed import local_device
from dexworld.training.run_data import fit_encoder
from dexworld.training.train_points import PointsTrainConfig, PointTask, points_figures
from dexworld.training.trainer import Trainer
from dexworld.writing import write_json, written_atomically
from points import windows_of

ENCODERS = ("pca", "pca-wide", "pca-fine", "lite0-block10", "lite0-block4")
TIMED = 8  # steps that tell how many fit into the CPU time
FIGURES = {  # title of a column, and the digits of its figures
    "pushes_found_px": ("found in pushes, px", 2),
    "pushes_found_10px": ("within 10 px", 3),
    "pushes_hidden": ("hidden told right", 3),
    "pairs_found_px": ("found in pairs, px", 2),
    "pairs_found_10px": ("within 10 px", 3),
    "pushes_followed_px": ("followed, px", 2),
}


def config_of(name: str) -> DexWMConfig:
    """The preset `tiny` on an encoder, with a point head."""
    return replace(EncoderChoice(None if name == "pca" else name).applied(preset("tiny")), points=PointsConfig())


def prepared(name: str, options: Namespace) -> tuple[DexWM, dict[str, Any]]:
    """A model with its encoder fitted and all latents kept, and what that cost in seconds."""
    folder, clock = options.output / name / "encoder", clock_of(options)
    data = [options.pushes, options.pairs]
    if not (folder / "costs.json").exists():
        model, datasets = DexWM(config_of(name)), [open_dataset(each) for each in data]
        begin = clock()
        fit_encoder(model.encoder, datasets, 3000, 0, options.device)
        fitted = clock()
        model.to(options.device)
        frames = sum(len(windows_of(each, model).caches[0]) for each in data)
        encoded = clock()
        for each in (options.held_out_pushes, options.held_out_pairs):
            windows_of(each, model)
        model.save_pretrained(folder)
        costs = {"fit_s": fitted - begin, "encode_ms_per_frame": 1e3 * (encoded - fitted) / frames}
        write_json(folder / "costs.json", costs | {"tokens": list(model.config.grid), "dim": model.config.encoder.dim})
    return DexWM.from_pretrained(folder), read_json(folder / "costs.json")


def clock_of(options: Namespace) -> Callable[[], float]:
    """Seconds: of this process's CPU time, or of the wall where a GPU works."""
    return time.process_time if options.device.type == "cpu" else time.perf_counter


def trained(model: DexWM, training: PointsTrainConfig, options: Namespace, folder: Path) -> list[float]:
    """Train a model's point head in place; the seconds at the end of each step, from the start."""
    clock = clock_of(options)
    model.requires_grad_(False).points.requires_grad_(True)
    sources = [windows_of(each, model, training) for each in (options.pushes, options.pairs)]
    moving = windows_of(options.pushes, model, training, training.moving_object_weight)
    task = PointTask(model, training, sources, moving)
    trainer, times = Trainer(model, training, task, folder, device=options.device), [clock()]
    trainer.on_step = lambda step: times.append(clock())
    trainer.run()
    with trainer.averaged() as averaged:
        averaged.save_pretrained(folder / "model", {"training_seeds": options.training_seeds})
    return [each - times[0] for each in times]


def run(name: str, seed: int, options: Namespace) -> dict[str, Any]:
    """Train and measure one head; its figures, which results.json in its folder has, too."""
    fitted, costs = prepared(name, options)
    timing = options.output / name / "timing.json"

    def fresh(steps: int, where: Path) -> tuple[DexWM, list[float]]:
        torch.manual_seed(seed)
        model = DexWM(fitted.config).to(options.device)
        model.encoder.load_state_dict(fitted.encoder.state_dict())
        every = {"checkpoint_every": steps, "log_every": steps, "warmup_steps": max(1, steps // 10), "seed": seed}
        batches = {"batch_size": options.batch_size, "follow_batch": options.follow_batch}
        own = {"learning_rate": options.learning_rate, "ema": 0.98, "bfloat16": True}
        training = PointsTrainConfig(steps, **batches, **every, **own)
        return model, trained(model, training, options, where)

    if not timing.exists():
        _, times = fresh(TIMED + 2, options.output / name / "timing")
        write_json(timing, {"s_per_step": float(np.median(np.diff(times)[2:]))})
    per_step = read_json(timing)["s_per_step"]
    folder = options.output / name / str(seed)
    model, times = fresh(max(TIMED, round(options.seconds / per_step)), folder)
    model = DexWM.from_pretrained(folder / "model").to(options.device).eval()
    results = {"steps": len(times) - 1, "train_s": times[-1], "costs": costs}
    for kind, held_out in (("pushes", options.held_out_pushes), ("pairs", options.held_out_pairs)):
        figures = points_figures([windows_of(held_out, model)], options.windows, model, options.device)
        kept = {key: value for key, value in figures.items() if kind == "pushes" or not key.startswith("followed")}
        results |= {f"{kind}_{key}": value for key, value in kept.items()}
    write_json(folder / "results.json", results)
    print(name, seed, results, flush=True)
    return results


def report(options: Namespace) -> str:
    """Write results.json and table.md; returns the table."""
    kind = "CPU-" if options.device.type == "cpu" else ""
    head = ["encoder", "seeds", f"{kind}ms a frame", f"{kind}s", "steps", *(title for title, _ in FIGURES.values())]
    lines = [" | ".join(["", *head, ""]).strip(), "|---" * len(head) + "|"]
    rows: dict[str, Any] = {}
    for name in options.encoders:
        paths = [options.output / name / str(seed) / "results.json" for seed in options.seeds]
        runs = [read_json(path) for path in paths if path.exists()]
        if not runs:
            continue
        row: dict[str, Any] = {"seeds": len(runs), **runs[0]["costs"]}
        row |= {key: float(np.mean([each[key] for each in runs])) for key in ("steps", "train_s")}
        whole = (f"{row[key]:.0f}" for key in ("train_s", "steps"))
        cells = [str(len(runs)), f"{row['encode_ms_per_frame']:.1f}", *whole]
        for key, (_, digits) in FIGURES.items():
            values = [one[key] for one in runs]
            row[key] = interval_values(seed_interval(np.array(values))) | {"by_seed": values}
            cells.append(table_cell(row[key], digits))
        row |= {key: value for key, value in runs[0].items() if key.endswith("_still_px")}
        rows[name] = row
        lines.append(" | ".join(["", name, *cells, ""]).strip())
    write_results(options.output, {"seconds": options.seconds, "windows": options.windows, "encoders": rows})
    table = "\n".join(lines) + "\n"
    with written_atomically(options.output / "table.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    return table


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/encoders")
    for name in ("pushes", "pairs", "held-out-pushes", "held-out-pairs"):
        arguments.add_argument(f"--{name}", type=Path, required=True, help="folder of `dexworld collect`")
    arguments.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of weights and windows")
    arguments.add_argument("--seconds", type=float, default=120.0, help="seconds that each head is trained for")
    arguments.add_argument("--device", type=local_device, default="cpu", help="cpu, or cuda")
    arguments.add_argument("--batch-size", type=int, default=4, help="windows of each kind in which points are found")
    arguments.add_argument("--follow-batch", type=int, default=64, help="windows in which points are followed")
    arguments.add_argument("--learning-rate", type=float, default=2e-3)
    arguments.add_argument("--windows", type=int, default=256, help="held-out windows that are measured")
    options = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    options.training_seeds = []
    for folder in (options.pushes, options.pairs):
        seeds = open_dataset(folder).seeds
        options.training_seeds.append([seeds[0], seeds[-1]])
    for folder in (options.held_out_pushes, options.held_out_pairs):
        seeds = open_dataset(folder).seeds
        check_seeds(seeds, {"training_seeds": options.training_seeds}, split_of(seeds[0]))
    for seed in options.seeds:
        for name in options.encoders:
            if not (options.output / name / str(seed) / "results.json").exists():
                run(name, seed, options)
                report(options)
    print(report(options))


if __name__ == "__main__":
    main()
