"""What a training run takes before anything runs: hours, windows, steps, disk, memory, GPU-hours (`train --dry-run`).

Nothing here is measured on the run's own hardware. Counts come from the data or from a plan on paper; operations and
parameters from closed forms (tests compare them with torch's own counter); throughput from a peak rate and a share of
it that is reached (MFU), both stated assumptions. d width, P patches, T predicted and C observed frames of a window.
"""

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np

from dexworld.data.datasets import open_dataset
from dexworld.data.loader import first_readable
from dexworld.data.sampling import StrideSampling
from dexworld.models.config import DexWMConfig
from dexworld.models.world_model import preset
from dexworld.training.cost import ModelCost, model_cost
from dexworld.training.train_config import SamplingConfig, TrainConfig, check_fractions, check_positive
from dexworld.training.train_world_model import RunConfig
from dexworld.training.window_task import window_strategies

BYTES_H264 = 5520  # a frame of 398 x 224 in the default codec; docs/store.md has 1,088 to 8,500, by what is shown
BYTES_JPEG = 27048
BYTES_LABELS = 895  # 69 joint positions and a camera pose of one EgoDex frame
STATE_BYTES = 20  # per trained parameter: float32 weight, gradient, two Adam moments, average
GIB = 2**30


@dataclass(frozen=True)
class DataPlan:
    """A dataset on paper: hours of video, frames per second, clips. Raises ValueError naming what makes no sense."""

    name: str
    hours: float
    fps: float
    clips: int

    def __post_init__(self) -> None:
        if not (self.hours > 0 and self.fps > 0 and self.clips >= 1):
            raise ValueError(f"plan {self.name}: hours, frames per second and clips must be positive, not {self}")

    @classmethod
    def parse(cls, text: str) -> "DataPlan":
        """From `name:hours:fps:clips`, e.g. egodex:829:30:334991. Raises ValueError saying so."""
        try:
            name, hours, fps, clips = text.split(":")
            return cls(name, float(hours), float(fps), int(clips))
        except ValueError as error:
            raise ValueError(f"plan {text!r}: write name:hours:fps:clips, e.g. egodex:829:30:334991") from error

    @property
    def frames(self) -> int:
        """Frames in all."""
        return round(self.hours * 3600 * self.fps)


# The paper's data: 829 h of EgoDex (its training split counts 334,991 clips) and 100 h of DROID. The number of DROID's
# clips follows from the mean of 19.2 s over the whole dataset (95,658 clips, 27.6 million frames at 15 per second).
PAPER_DATA = (DataPlan("EgoDex", 829, 30, 334_991), DataPlan("DROID", 100, 15, 18_720))
PAPER_PRESET, PAPER_BATCH, PAPER_EPOCHS = "paper-xl", 4096, 40.0


@dataclass(frozen=True)
class PlanConfig:
    """The machines, and the data where there are none yet."""

    gpus: int = 8
    """GPUs that share a batch."""
    peak_tflops: float = 989.0
    """10^12 operations per second of one GPU on paper: an H100 in dense bfloat16."""
    mfu: float = 0.35
    """Share of it that training reaches: an assumption, not a measurement."""
    gpu_memory_gib: float = 80.0
    """Memory of one GPU."""
    loader_windows: float = 60.0
    """Windows that one CPU core decodes per second (`benchmarks/loader.py` measures it on your machine)."""
    epochs: float | None = None
    """Epochs to plan instead of the run's steps."""
    plan: tuple[str, ...] = ()
    """Data on paper instead of folders, each name:hours:fps:clips; without either, EgoDex and DROID as in the paper."""

    def __post_init__(self) -> None:
        check_positive(self, "gpus", "peak_tflops", "mfu", "gpu_memory_gib", "loader_windows", "epochs")
        check_fractions(self, "mfu")
        for text in self.plan:
            DataPlan.parse(text)


@dataclass(frozen=True)
class Estimate:
    """rows: (what, value as text, how it comes about), in the order to show. figures: the same as numbers, by name."""

    rows: tuple[tuple[str, str, str], ...]
    figures: dict[str, float]

    def lines(self) -> list[str]:
        """The table as lines of text."""
        wide, value = (max(len(row[column]) for row in self.rows) for column in (0, 1))
        return [f"{what:<{wide}}  {shown:>{value}}  {how}".rstrip() for what, shown, how in self.rows]


def plan_run(config: RunConfig, plan: PlanConfig = PlanConfig()) -> Estimate:
    """The estimate of a run over the folders of `config.data`, or on paper when there are none.

    On paper, whatever `config` leaves at its default takes the paper's value: preset paper-xl, batches of 4096, 40
    epochs, the paper's windows, teacher forcing throughout. Raises what opening a dataset raises.
    """
    training, sampling, name, epochs = config.training, config.sampling, config.preset, plan.epochs
    if config.data:
        data = [_measured(folder) for folder in config.data]
    else:
        data, plain = [DataPlan.parse(text) for text in plan.plan] or list(PAPER_DATA), TrainConfig()
        name = PAPER_PRESET if name == "tiny" else name
        epochs = PAPER_EPOCHS if epochs is None and training.steps == plain.steps else epochs
        sampling = replace(sampling, windows="paper") if sampling.windows == "stride" else sampling
        if training.batch_size == plain.batch_size:
            training = replace(training, batch_size=PAPER_BATCH)
        if training.teacher_forced == plain.teacher_forced:
            training = replace(training, teacher_forced=1.0)
    model, batch = config.encoder.applied(preset(name)), training.batch_size * training.accumulation
    per_epoch = sum(windows_per_epoch(each, sampling, training, model) for each in data)
    steps = training.steps if epochs is None else ceil(epochs * per_epoch / batch)
    cost = model_cost(model, training.unroll_steps)
    if training.deep_unroll_steps is not None:  # every second batch
        deep = model_cost(model, training.deep_unroll_steps)
        cost = replace(cost, unrolled_flops=(cost.unrolled_flops + deep.unrolled_flops) / 2)
    share = training.teacher_forced
    forward = share * cost.teacher_flops + (1 - share) * cost.unrolled_flops
    figures = _figures(data, plan, model, cost, forward)
    figures |= {"windows_per_epoch": per_epoch, "windows": steps * batch, "steps": steps, "batch": batch}
    figures["epochs"] = figures["windows"] / per_epoch
    rate = plan.peak_tflops * 1e12 * plan.mfu
    figures["gpu_hours"] = figures["windows"] * figures["window_flops"] / rate / 3600
    return Estimate(_rows(data, plan, name, model.num_context + 1, figures), figures)


def windows_per_epoch(data: DataPlan, sampling: SamplingConfig, training: TrainConfig, model: DexWMConfig) -> int:
    """Windows after which everything has come once: (clip, segment) pairs, or, for strides, frames.

    Of the unrolled phase where there is no other: the release's draws one window of a clip there.
    """
    strategy = window_strategies(model.num_context, training, sampling)[int(training.teacher_forced == 0.0)]
    if isinstance(strategy, StrideSampling):
        return data.frames
    length = max(data.frames // data.clips, 1)
    return int(strategy.parts(np.array([length]), np.array([data.fps]))[0]) * data.clips


def _measured(folder: Path) -> DataPlan:
    dataset = open_dataset(folder)
    fps = first_readable(dataset).fps
    return DataPlan(dataset.folder.name, sum(dataset.lengths) / fps / 3600, fps, len(dataset))


def _figures(
    data: list[DataPlan], plan: PlanConfig, model: DexWMConfig, cost: ModelCost, forward: float
) -> dict[str, float]:
    """Numbers that don't depend on the run's length. forward: operations of predictor and head on one window."""
    frames = sum(each.frames for each in data)
    flops = 3 * forward + (model.num_context + 1) * cost.encoder_flops
    rate = plan.peak_tflops * 1e12 * plan.mfu
    state = STATE_BYTES * cost.trained + 4 * cost.encoder
    room = plan.gpu_memory_gib * GIB - state
    return {
        "hours": sum(each.hours for each in data),
        "frames": frames,
        "clips": sum(each.clips for each in data),
        "h264_bytes": frames * (BYTES_H264 + BYTES_LABELS),
        "jpeg_bytes": frames * (BYTES_JPEG + BYTES_LABELS),
        "latent_bytes": frames * model.grid[0] * model.grid[1] * model.encoder.dim * 2,
        "trained_parameters": cost.trained,
        "encoder_parameters": cost.encoder,
        "state_bytes": state,
        "window_bytes": cost.kept_bytes,
        "checkpointed_window_bytes": cost.checkpointed_bytes,
        "windows_at_once": max(room // cost.kept_bytes, 0),
        "checkpointed_windows_at_once": max(room // cost.checkpointed_bytes, 0),
        "window_flops": flops,
        "windows_per_gpu_second": rate / flops,
        "cores_per_gpu": rate / flops / plan.loader_windows,
    }


def _rows(
    data: list[DataPlan], plan: PlanConfig, name: str, slots: int, figures: dict[str, float]
) -> tuple[tuple[str, str, str], ...]:
    """The table of an estimate."""
    of = {key: f"{value:,.0f}" for key, value in figures.items()}
    size = {key: _size(value) for key, value in figures.items() if key.endswith("bytes")}
    hours, per_gpu, peak = figures["gpu_hours"], ceil(figures["batch"] / plan.gpus), plan.peak_tflops
    batch = f"of {of['batch']} windows; {of['windows']} in all, {figures['epochs']:.1f} epochs"
    trained = f"{name}; encoder {figures['encoder_parameters'] / 1e6:,.0f} M, frozen"
    at_once = f"{of['checkpointed_windows_at_once']} with checkpointing; {plan.gpu_memory_gib:g} GiB"
    machines = f"{hours / plan.gpus:,.1f} h on {plan.gpus} GPUs, assuming {plan.mfu:.0%} of {peak:g} TFLOP/s"
    cores = f"{figures['cores_per_gpu']:,.1f} cores a GPU, assuming {plan.loader_windows:g} windows a core-second"
    recomputed = f"{size['checkpointed_window_bytes']} with activation checkpointing"
    return (
        *((each.name, f"{each.hours:,.1f} h", f"{each.clips:,} clips, {each.fps:g} frames/s") for each in data),
        ("windows per epoch", of["windows_per_epoch"], f"of {slots} frames"),
        ("steps", of["steps"], batch),
        ("disk, h264 store", size["h264_bytes"], f"{BYTES_H264 + BYTES_LABELS} bytes a frame"),
        ("disk, jpeg store", size["jpeg_bytes"], f"{BYTES_JPEG + BYTES_LABELS} bytes a frame"),
        ("disk, cached latents", size["latent_bytes"], "float16; `--latents online` needs none"),
        ("trained parameters", f"{figures['trained_parameters'] / 1e6:,.1f} M", trained),
        ("memory of the state", size["state_bytes"], f"{STATE_BYTES} bytes a trained parameter; every GPU"),
        ("memory of a window", size["window_bytes"], recomputed),
        ("windows on a GPU at once", of["windows_at_once"], f"of {per_gpu:,} in its batch; {at_once}"),
        ("operations of a window", f"{figures['window_flops'] / 1e12:,.4g} TFLOP", "3 x forward, and the encoder"),
        ("GPU-hours", f"{hours:,.1f}", machines),
        ("windows per GPU-second", f"{figures['windows_per_gpu_second']:,.1f}", cores),
    )


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1e3:,.1f} kB"
