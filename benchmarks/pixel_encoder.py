"""Does an encoder that is trained from pixels, together with the predictor, beat the frozen `pca`? At equal CPU time.

    python benchmarks/pixel_encoder.py --train outputs/data --validation outputs/val --test outputs/test --seconds 420

Arms: `pca` (frozen, as shipped), `pixels` (end to end, two terms as in LeWorldModel: prediction error and SIGReg) and,
for one seed and a shorter time, `unregularised` (end to end without the second term), which collapses. Same predictor,
windows, seeds and CPU-seconds on one thread. Figures are read by probes and by ranking motions (see
pixel_encoder_probes.py); results.json holds them for every arm with intervals over seeds and scenes, the paired
difference `pixels - pca`, every seed's own value, and the spread of the latents over training.

Each arm and seed leaves a file in `<output>/units`; the same command goes on where it was stopped. Without folders it
collects a few scenes and trains for seconds: that runs everything, and its figures mean nothing.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from common import parser, write_results
from dexworld.data.files import read_json, write_json
from dexworld.evaluation.intervals import paired_difference, ratios
from dexworld.models.config import preset
from dexworld.models.dexwm import DexWM
from pixel_encoder_model import Arm, Pictures, Training, build, open_pictures, spread, train
from pixel_encoder_probes import Scaling, encode, measure, train_keypoints, train_objects

RESAMPLES = 2000
PROBE_FRAMES = 1200
CHANCE = 1 / 16
Sums = tuple[np.ndarray, np.ndarray]  # numerators and denominators (S, E) of S seeds and E scenes


def small_data(folder: Path) -> tuple[Path, Path, Path]:
    """A few simulated scenes of each split."""
    from dexworld.sim.collect import CollectConfig, collect

    folders = []
    for name, seed, count in (("train", 890_000, 4), ("validation", 990_000, 2), ("test", 1_900_000, 2)):
        collect(CollectConfig(folder / name, episodes=count, seed=seed, workers=1))
        folders.append(folder / name)
    return folders[0], folders[1], folders[2]


def trained_model(
    arm: Arm, seed: int, data: dict[str, Pictures], options: Training, path: Path
) -> tuple[DexWM, dict[str, Any]]:
    """A trained arm and what is to be told of its training: from `path` (without suffix) when it lies there."""
    config, weights, account = preset("clip"), path.with_suffix(".safetensors"), path.with_suffix(".training.json")
    if not account.exists():
        shown = np.arange(0, len(data["validation"].frames), 20)
        done = train(arm, config, data["train"], options, seed, lambda model: spread(model, data["validation"], shown))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(done.model.state_dict(), weights)
        told = {"arm": arm, "seed": seed, "steps": done.steps, "cpu_s": done.seconds, "options": asdict(options)}
        write_json(account, told | {"curve": done.curve})
    model = build(arm, config, seed)
    model.load_state_dict(load_file(weights))
    return model.eval(), read_json(account)


def measured(model: DexWM, data: dict[str, Pictures], probe_seconds: float, seed: int) -> dict[str, Any]:
    """Train the probes on true latents of training scenes and measure the model on the test scenes; plain values."""
    begin, rows = time.process_time(), probe_rows(data["train"])
    with torch.no_grad():
        latents = encode(model, data["train"], rows)
    scaling = Scaling.of(latents)
    latents = scaling(latents)
    head = train_keypoints(model, latents, data["train"].window(rows[:, None]), probe_seconds, seed)
    objects = train_objects(model, latents, data["train"].objects[rows], probe_seconds, seed)
    figures = measure(model, scaling, head, objects, data["test"], seed)
    return {
        "probe_seconds": probe_seconds,
        "measuring_cpu_s": time.process_time() - begin,
        "figures": {name: [part.tolist() for part in parts] for name, parts in figures.items()},
    }


def probe_rows(pictures: Pictures) -> np.ndarray:
    """About 1200 frames, from all training episodes: what probes read, they are to read in new scenes."""
    lengths = np.diff(pictures.starts)
    each = max(1, round(PROBE_FRAMES / len(lengths)))
    places = (np.arange(each) + np.random.default_rng(0).random((len(lengths), each))) / each
    return np.sort((pictures.starts[:-1, None] + np.floor(places * lengths[:, None]).astype(int)).ravel())


def summarise(units: list[dict[str, Any]]) -> dict[str, Any]:
    """Of every figure each arm's value with its interval, its seeds' own values, and the paired difference from `pca`.

    Intervals resample seeds and scenes (see `paired_difference`); with one seed, scenes alone.
    """
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for unit in units:
        found.setdefault(unit["arm"], {})[unit["seed"]] = unit["figures"]
    names = list(units[0]["figures"]) if units else []
    return {name: _row({arm: _sums(by_seed, name) for arm, by_seed in found.items()}) for name in names}


def _sums(by_seed: dict[int, dict[str, Any]], name: str) -> Sums:
    """Numerators and denominators (S, E) of a figure."""
    above, below = (np.array([by_seed[seed][name][part] for seed in sorted(by_seed)]) for part in (0, 1))
    return above, below


def _row(arms: dict[str, Sums]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for arm, (above, below) in arms.items():
        if below.sum():
            row[arm] = _interval((above, below), (0 * above, below))
            row[f"{arm}_seeds"] = ratios(above, below).tolist()
    if {"pca", "pixels"} <= set(row):
        shared = min(len(arms[arm][0]) for arm in ("pca", "pixels"))  # while the other arm's seed is still to come
        ours, theirs = (tuple(part[:shared] for part in arms[arm]) for arm in ("pixels", "pca"))
        row["pixels_minus_pca"] = _interval(ours, theirs)
    return row


def _interval(ours: Sums, theirs: Sums) -> list[float]:
    interval = paired_difference(ours, theirs, np.random.default_rng(0), RESAMPLES)
    return [float(interval.value), float(interval.low), float(interval.high)]


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0], "outputs/bench/pixel_encoder")
    for name in ("train", "validation", "test"):
        arguments.add_argument(f"--{name}", type=Path, help=f"dataset folder of {name} scenes; all three, or none")
    arguments.add_argument("--store", type=Path, help="where frames at 96 x 144 are kept (default: in --output)")
    arguments.add_argument(
        "--seconds", type=float, help="CPU-seconds of training of an arm and seed (default 420, or 4)"
    )
    arguments.add_argument(
        "--probe-seconds", type=float, help="CPU-seconds of training of each probe (default 20, or 2)"
    )
    arguments.add_argument("--seeds", type=int, help="number of seeds (default 3, or 1)")
    arguments.add_argument("--weight", type=float, default=Training.weight, help="of the regulariser")
    arguments.add_argument("--grouping", choices=("position", "pooled"), default=Training.grouping, help="of tokens")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    folders = (given.train, given.validation, given.test)
    if any(folders) and not all(folders):
        arguments.error("give --train, --validation and --test, or none of them")
    real = all(folders)
    if not real:
        folders = small_data(given.output / "data")
    size, store = preset("clip").image_size, given.store or given.output / "frames"
    names = ("train", "validation", "test")
    data = {name: open_pictures(folder, size, store) for name, folder in zip(names, folders, strict=True)}
    seconds = given.seconds or (420.0 if real else 4.0)
    probe_seconds = given.probe_seconds or (20.0 if real else 2.0)
    seeds = given.seeds or (3 if real else 1)
    jobs: list[tuple[Arm, int, float]] = [(arm, seed, seconds) for seed in range(seeds) for arm in ("pca", "pixels")]
    jobs.insert(4, ("unregularised", 0, seconds / 3))
    units = []
    for arm, seed, budget in jobs:
        path = given.output / "units" / f"{arm}-{seed}"
        if not path.with_suffix(".json").exists():
            options = Training(seconds=budget, weight=given.weight, grouping=given.grouping)
            model, told = trained_model(arm, seed, data, options, path)
            write_json(path.with_suffix(".json"), told | measured(model, data, probe_seconds, seed))
        units.append(read_json(path.with_suffix(".json")))
        print(f"{arm} seed {seed}: {units[-1]['steps']} steps in {units[-1]['cpu_s']:.0f} CPU-seconds", flush=True)
        report(given.output, units, real)


def report(output: Path, units: list[dict[str, Any]], real: bool) -> None:
    """Write what there is so far, and print it."""
    table = summarise(units)
    results = {"figures": table, "meaningful": real, "chance_top1": CHANCE}
    results["runs"] = [{key: value for key, value in unit.items() if key != "figures"} for unit in units]
    write_results(output, results)
    for name, row in table.items():
        if "pixels_minus_pca" in row:
            shown = [*row["pca"], *row["pixels"], *row["pixels_minus_pca"]]
            print(f"{name:30}" + "".join(f"{each:9.3f}" for each in shown), flush=True)


if __name__ == "__main__":
    main()
