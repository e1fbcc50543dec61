"""CPU-seconds of a training step, ours against a plain implementation of the same step; on a GPU, share of its peak.

    python benchmarks/training.py --output outputs/bench/training

A step is forward, both keypoint losses, backward, clipping, AdamW and averaged weights, on windows of random latents.
The plain one (`plain_training.py`) takes over the trainer's ways one after the other:

    plain       one sequence with masks, softmax of scores, rollouts that recompute their window, maps drawn one by one
    + kernel    torch's attention kernel, with the masks
    + frames    each frame attends on its own: nothing is computed to be masked
    + cache     a rollout keeps the keys of the frames that it has seen (unrolled steps only)
    + targets   keypoint losses from rows and columns of the Gaussians
    dexworld    the trainer itself: + fused updates
    bfloat16    the trainer under autocast (`--bfloat16 True`)

Losses and gradients are compared before anything is timed. Rows take turns; ratios are those of a round, their median
and range over the rounds. A slow model such as `paper-s` has one block in six and its first and last rows only;
`--shares 1 1 --all-rows tiny paper-s` measures it all.

On a GPU: the trainer's own meter on the paper's sizes, in bfloat16 on the losses of the paper's pre-training, from
latents and with the encoder on the way (its real shape, random weights).
"""

import copy
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import cpu_seconds, parser, processor, write_results
from dexworld.data.windows import Window
from dexworld.models.config import DexWMConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import preset
from dexworld.training.cost import Meter, known_peak, trained_parameters, training_flops, window_bytes
from dexworld.training.train_config import TrainConfig
from dexworld.training.trainer import OutOfMemory
from dexworld.training.window_task import window_losses
from plain_training import Choices, PlainStep, plain_losses
from training_setup import (
    OneWindow,
    compile_blocks,
    lively,
    make_trainer,
    one_step,
    random_encoder,
    random_window,
    shortened,
)

LADDER = {
    "plain": Choices(),
    "kernel": Choices(kernel=True),
    "frames": Choices(kernel=True, frames=True),
    "cache": Choices(kernel=True, frames=True, cache=True),
    "targets": Choices(kernel=True, frames=True, cache=True, targets=True),
}
OPTIONS = {"dexworld": False, "bfloat16": True}  # bfloat16
ENDS = ("plain", "dexworld", "bfloat16")  # rows of a model that is slow
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4  # relative; the gradient's as a norm
NOT_MEASURED = "not measured: no GPU"
GPU_LOSSES = TrainConfig(
    bfloat16=True, hand_consistency=100.0, sigma_px=2.0, keypoint_frames=8, clip=None, ema=0.0, warmup_steps=0
)  # the recipe `pretrain_egodex_droid`
WARMUP_STEPS, MEASURED_STEPS = 3, 10  # of each row on a GPU
Look = Callable[[Callable[[], None]], dict[str, Any]]


class Disagreement(RuntimeError):
    """Two implementations of the same step differ by more than rounding."""


def check_agreement(model: DexWM, window: Window, unrolled: bool, config: TrainConfig, names: list[str]) -> float:
    """Compare loss and gradient of each plain step with the trainer's; the largest relative difference of a gradient.

    Raises Disagreement when one differs by more than rounding.
    """
    parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}

    def gradients(loss: Tensor) -> tuple[float, dict[str, Tensor]]:
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
        return float(loss.detach()), dict(zip(parameters, found, strict=True))

    expected, right = gradients(window_losses(model, config, window, unrolled)["loss"])
    scale = torch.stack([each.norm() for each in right.values()]).norm()
    worst = 0.0
    for name in names:
        loss, found = gradients(plain_losses(model, window, unrolled, config, LADDER[name]))
        apart = float(torch.stack([(found[each] - right[each]).norm() for each in right]).norm() / scale)
        worst = max(worst, apart)
        if abs(loss - expected) > LOSS_TOLERANCE * abs(expected) or not apart <= GRADIENT_TOLERANCE:
            raise Disagreement(
                f"the step {name!r} has loss {loss:.8g} where the trainer has {expected:.8g}, and gradients apart by "
                f"{apart:.2g} of their norm: it is not the same step, so nothing was timed"
            )
    return worst


def make_steps(
    model: DexWM, window: Window, unrolled: bool, config: TrainConfig, names: list[str], folder: Path
) -> dict[str, Callable[[], None]]:
    """Something to call for one step of each implementation, each on a copy of the model."""
    steps: dict[str, Callable[[], None]] = {}
    for name in names:
        own = copy.deepcopy(model)
        if name in LADDER:
            plain = PlainStep(own, config, LADDER[name])
            steps[name] = lambda plain=plain: plain(window, unrolled)
        else:
            own_config = replace(config, bfloat16=OPTIONS[name])
            trainer = make_trainer(own, own_config, OneWindow(own, own_config, window, unrolled), folder)
            steps[name] = lambda trainer=trainer: one_step(trainer)
    return steps


def compare(config: DexWMConfig, batch: int, rounds: int, names: list[str], folder: Path) -> dict[str, Any]:
    """Teacher-forced and unrolled steps of all implementations by turns."""
    training, device, results = TrainConfig(), torch.device("cpu"), {}
    torch.manual_seed(0)
    model = lively(DexWM(config))
    for phase, unrolled in (("teacher_forced", False), ("unrolled", True)):
        frames = config.predictor.num_context + (training.unroll_steps if unrolled else 1)
        window = random_window(config, batch, frames, device)
        chosen = [name for name in names if unrolled or name != "cache"]
        apart = check_agreement(model, window, unrolled, training, [name for name in chosen if name in LADDER])
        steps = make_steps(model, window, unrolled, training, chosen, folder)
        for step in list(steps.values())[1:]:
            step()  # kernels chosen; the plain step has been through the comparison
        times: dict[str, list[float]] = {name: [] for name in chosen}
        for number in range(rounds):
            for name, step in steps.items():
                times[name].append(cpu_seconds(step) / batch)
            print(f"  {phase}, round {number + 1} of {rounds}: {times['plain'][-1]:.4f} CPU-s a window", flush=True)
        results[phase] = {
            "gradients_apart": apart,
            "cpu_s_per_window": {name: statistics.median(each) for name, each in times.items()},
            "plain_over": {name: ratios(times["plain"], each) for name, each in times.items() if name != "plain"},
        }
    return {"batch": batch, "rounds": rounds, **results}


def ratios(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Median, least and largest ratio of the rounds."""
    each = [left / right for left, right in zip(slow, fast, strict=True)]
    return {"median": statistics.median(each), "low": min(each), "high": max(each)}


def measure_rows(name: str, device: torch.device, folder: Path, steps: int) -> list[dict[str, Any]]:
    """Rows of one size: latents cached or online, blocks recomputed or not."""
    rows = []
    kinds = (("cached", "online"), ("none", "selective", "full"))
    for latents, recompute in itertools.product(*kinds):
        row = {"model": name, "latents": latents, "recompute": recompute}
        rows.append(row | measure_row(preset(name), device, folder, steps, latents, recompute))
    return rows


def measure_row(
    config: DexWMConfig,
    device: torch.device,
    folder: Path,
    steps: int,
    latents: str,
    recompute: str,
    compiler: str | None = None,
    look: Look | None = None,
) -> dict[str, Any]:
    """Figures of the trainer's meter over the last steps; the largest batch of a power of two that fits, at most 64.

    compiler: backend of torch.compile for the predictor's blocks; None compiles nothing. look: further figures, given
    something to call for one more step.
    """
    config = random_encoder(config, folder, whole=latents == "online")
    batch = 64 if device.type == "cuda" else 2
    if device.type == "cuda":
        window = window_bytes(config, checkpointed=recompute != "none")
        room = 0.9 * torch.cuda.get_device_properties(device).total_memory - 20 * trained_parameters(config)
        while batch > 1 and batch * window > room:
            batch //= 2
    while True:
        try:
            return _measured(config, device, folder, steps, latents == "online", recompute, batch, compiler, look)
        except OutOfMemory:
            if batch == 1:
                return {"batch": 1, "samples_per_second": "not measured: out of memory"}
            batch //= 2
        torch.cuda.empty_cache()


def _measured(
    config: DexWMConfig,
    device: torch.device,
    folder: Path,
    steps: int,
    online: bool,
    recompute: str,
    batch: int,
    compiler: str | None,
    look: Look | None,
) -> dict[str, Any]:
    training = replace(GPU_LOSSES, batch_size=batch, log_every=steps)
    torch.manual_seed(0)
    model = lively(DexWM(config).to(device))
    if compiler is not None:
        compile_blocks(model, compiler)
    frames = config.predictor.num_context + 1
    window = random_window(config, batch, frames, device)
    images = None
    if online:
        images = torch.randint(0, 256, (batch, frames, *config.image_size, 3), dtype=torch.uint8, device=device)
    flops = training_flops(config, training, online)
    meter = Meter(lambda index: flops, 1, known_peak(device, training.bfloat16))
    task = OneWindow(model, training, window, False, images)
    trainer = make_trainer(model, training, task, folder, recompute, meter)

    def timed(count: int) -> float:
        begin = time.monotonic()
        for _ in range(count):
            one_step(trainer)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # a step returns before a GPU is done with it
        return time.monotonic() - begin

    timed(WARMUP_STEPS)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    meter.figures()
    meter.seconds = timed(steps)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    figures = {"mfu": None} | meter.figures()
    seen = {} if look is None else look(lambda: one_step(trainer))
    return {"batch": batch, "steps": steps, **figures, "peak_memory_gib": memory, **seen}


def main() -> None:
    arguments = parser(__doc__, "outputs/bench/training")
    arguments.add_argument("--presets", nargs="*", default=["tiny", "paper-s"], help="models timed on the CPU")
    arguments.add_argument("--batches", nargs="*", type=int, default=[2, 1], help="windows of a step, for each preset")
    arguments.add_argument("--rounds", nargs="*", type=int, default=[5, 3], help="turns, for each preset")
    arguments.add_argument("--shares", nargs="*", type=int, default=[1, 6], help="one block in so many is there")
    arguments.add_argument("--all-rows", nargs="*", default=["tiny"], help="presets with every row; others have three")
    arguments.add_argument("--device", default="cuda", help="where throughput is measured")
    arguments.add_argument(
        "--sizes", nargs="*", default=["paper-s", "paper-b", "paper-l", "paper-xl"], help="models there"
    )
    arguments.add_argument("--steps", type=int, default=MEASURED_STEPS, help="measured steps of a row there")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"processor": processor(), "losses": asdict(TrainConfig())}
    names = [*LADDER, *OPTIONS]
    with tempfile.TemporaryDirectory() as folder:
        for name, batch, rounds, share in zip(
            options.presets, options.batches, options.rounds, options.shares, strict=True
        ):
            whole = preset(name)
            config = random_encoder(shortened(whole, share), Path(folder), whole=False)
            rows = names if name in options.all_rows else [each for each in names if each in ENDS]
            figures = compare(config, batch, rounds, rows, Path(folder))
            results[name] = {"blocks": config.predictor.depth, "of_blocks": whole.predictor.depth, **figures}
            show(name, results[name])
        device = torch.device(options.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            results["throughput"] = dict.fromkeys(options.sizes, NOT_MEASURED)
            results["device"] = NOT_MEASURED
        else:
            results["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
            results["throughput"] = {
                name: measure_rows(name, device, Path(folder), options.steps) for name in options.sizes
            }
    for name, rows in results["throughput"].items():
        for row in [rows] if isinstance(rows, str) else rows:
            print(f"{name:10} {row}")
    write_results(options.output, results, seed=0)


def show(name: str, figures: dict[str, Any]) -> None:
    """Print a model's rows."""
    print(f"{name}, {figures['blocks']} of {figures['of_blocks']} blocks, {figures['rounds']} rounds")
    for phase in ("teacher_forced", "unrolled"):
        for row, seconds in figures[phase]["cpu_s_per_window"].items():
            ratio = figures[phase]["plain_over"].get(row)
            shown = f"{ratio['median']:6.2f} x ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""
            print(f"  {phase:15} {row:10} {seconds:9.4f} CPU-s a window {shown}")


if __name__ == "__main__":
    main()
