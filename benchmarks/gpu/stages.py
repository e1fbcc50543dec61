"""What the plans that train share: stages that go on from slice to slice, steps that fit the time, work by all cores.

A stage is one training run on scenes of its own. One that was stopped goes on; the next begins from its model: from
the weights that came back, where the machine is a new one.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dexworld.data.files import read_json
from dexworld.data.parallel import available_cores, parallel_map
from dexworld.writing import write_json
from jobs import Figures, Slice
from packed_weights import packed, unpack

TIMED_STEPS = 12  # of a throw-away run: four parts, whose second and last are timed
SCENES = 20_000  # seeds that each stage may use of a kind of data


def stage_number(now: Slice, job: str = "train") -> int:
    """The stage that this slice works on: that of the last slice, unless it is finished or its folder is gone."""
    entry = now.entries.get(job, {})
    if "stage" not in entry:
        return 0
    number = int(entry["stage"])
    goes_on = entry.get("slice") == now.number or (not entry["finished"] and stage_folder(now, number).exists())
    return number if goes_on else number + 1


def stage_folder(now: Slice, number: int) -> Path:
    """Where the data and runs of a stage lie."""
    return now.work / f"stage-{number}"


def initial_of(now: Slice, number: int) -> Path | None:
    """The model that a stage begins from; None for new weights. The same one whenever it is asked for."""
    folder = stage_folder(now, number) / "initial"
    if number == 0:
        return None
    if not folder.exists() and packed(now.output):
        shutil.rmtree(folder.with_name("unpacked"), ignore_errors=True)
        unpack(now.output, folder.with_name("unpacked")).rename(folder)
    return folder if folder.exists() else None


def run_in_time(
    now: Slice, folder: Path, run: Callable[[Path, int, float | None], Path], samples: int, reserve: float = 15.0
) -> tuple[Path, Figures]:
    """Run a training that fits into the time that is left; the model's folder and figures of the run.

    run: trains in a folder for so many steps, and for at most so many seconds. How many steps fit is measured by a
    short run and kept in `folder`.json, so that a run that was stopped goes on. samples: of a step, as the trainer
    counts them. reserve: seconds for what comes after the last step.
    """
    record = folder.with_suffix(".json")
    if not record.exists():
        timing = folder.with_name(f"{folder.name}-timing")
        run(timing, TIMED_STEPS, None)
        steps = int(0.9 * (now.left - reserve) / seconds_a_step(timing, samples))
        write_json(record, {"steps": min(max(steps, now.size(50, 4)), now.size(10**6, 4))})
    before = folder / "results.json"
    spent = read_json(before)["seconds"] if before.exists() else 0.0
    model = run(folder, int(read_json(record)["steps"]), spent + max(1.0, now.left - reserve))
    results = read_json(before)
    figures = {name: results[name] for name in ("steps", "finished")} | {"train_s": results["seconds"]}
    return model, {**figures, "validation": results["validation"]}


def seconds_a_step(folder: Path, samples: int) -> float:
    """The mean of both halves of a run of TIMED_STEPS steps, which logged its samples a second four times.

    The first and the third quarter don't count: kernels are chosen and memory is taken there.
    """
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line["samples_per_second"] for line in lines if "samples_per_second" in line]
    return samples * (1 / rates[1] + 1 / rates[3]) / 2


def schedule(now: Slice, steps: int, seconds: float | None) -> dict[str, Any]:
    """What a run's length decides: warm-up, reports, checkpoints and validations."""
    timed = seconds is None
    return {
        "steps": steps,
        "max_seconds": seconds,
        "warmup_steps": min(100, max(1, steps // 10)),
        "log_every": steps // 4 if timed else now.size(100, 2),
        "checkpoint_every": steps if timed else max(1, steps // 4),
        "keep_checkpoints": 1,
        "validate_every": steps if timed or now.rehearsed else max(1, steps // 2),
    }


def by_all_cores(now: Slice, work: Callable[[int], Any]) -> None:
    """Call picklable `work` in a process on each core; the calls share the work by claims on its parts."""
    cores = now.size(available_cores(), 1)
    for _ in parallel_map(partial(_on_one_thread, work), range(cores), cores, ordered=False):
        pass


def _on_one_thread(work: Callable[[int], Any], number: int) -> None:
    torch.set_num_threads(1)
    work(number)
