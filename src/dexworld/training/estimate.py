"""What a training run takes before anything runs: hours, windows, steps, disk, memory, GPU-hours (`train --dry-run`).

Nothing here is measured on the run's own hardware. Counts come from the data or from a plan on paper; operations and
parameters from closed forms (tests compare them with torch's own counter); throughput from a peak rate and a share of
it that is reached (MFU), both stated assumptions. d width, P patches, T predicted and C observed frames of a window.
"""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from dexworld.data.loader import first_readable
from dexworld.data.sampling import StrideSampling
from dexworld.data.source import Dataset
from dexworld.models.config import DexWMConfig
from dexworld.models.world_model import preset
from dexworld.training import cost
from dexworld.training.train_config import SamplingConfig, TrainConfig, check_fractions, check_positive
from dexworld.training.train_world_model import RunConfig, check_run
from dexworld.training.window_task import window_strategies

BYTES_H264 = 5520  # a frame of 398 x 224 in the default codec; docs/store.md has 1,088 to 8,500, by what is shown
BYTES_JPEG = 27048
BYTES_LABELS = 895  # 69 joint positions and a camera pose of one EgoDex frame
STATE_BYTES = 20  # per trained parameter: float32 weight, gradient, two Adam moments, average
GIB = 2**30


@dataclass(frozen=True)
class DataPlan:
    """A dataset on paper: hours of video, frames per second, clips."""

    name: str
    hours: float
    fps: float
    clips: int

    @classmethod
    def parse(cls, text: str) -> "DataPlan":
        """From `name:hours:fps:clips`, e.g. egodex:829:30:334991. Raises ValueError saying so."""
        try:
            name, hours, fps, clips = text.split(":")
            plan = cls(name, float(hours), float(fps), int(clips))
        except ValueError as error:
            raise ValueError(f"plan {text!r}: write name:hours:fps:clips, e.g. egodex:829:30:334991") from error
        check_positive(plan, "hours", "fps", "clips")
        return plan

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


Row = tuple[str, str, str]  # what, its value as text, how it comes about


def plan_run(config: RunConfig, plan: PlanConfig = PlanConfig()) -> str:
    """The estimate as a table, of a run over the folders of `config.data`, or on paper when there are none.

    On paper, whatever `config` leaves at its default takes the paper's value: preset paper-xl, batches of 4096, 40
    epochs, the paper's windows, teacher forcing throughout. Raises what `train` raises before anything heavy.
    """
    training, sampling, name, epochs = config.training, config.sampling, config.preset, plan.epochs
    model = None
    if config.data:
        run, model = check_run(config)
        data, name = [_measured(dataset) for dataset in run.datasets], config.initial or name
    else:
        data, plain = [DataPlan.parse(text) for text in plan.plan] or list(PAPER_DATA), TrainConfig()
        name = PAPER_PRESET if name == "tiny" else name
        epochs = PAPER_EPOCHS if epochs is None and training.steps == plain.steps else epochs
        sampling = replace(sampling, windows="paper") if sampling.windows == "stride" else sampling
        if training.batch_size == plain.batch_size:
            training = replace(training, batch_size=PAPER_BATCH)
        if training.teacher_forced == plain.teacher_forced:
            training = replace(training, teacher_forced=1.0)
    model, batch = model or config.encoder.applied(preset(name)), training.batch_size * training.accumulation
    per_epoch = sum(windows_per_epoch(each, sampling, training, model) for each in data)
    steps = training.steps if epochs is None else ceil(epochs * per_epoch / batch)
    windows = steps * batch
    rows = [(each.name, f"{each.hours:,.1f} h", f"{each.clips:,} clips, {each.fps:g} frames/s") for each in data]
    rows += [
        ("windows per epoch", f"{per_epoch:,}", f"of {model.num_context + 1} frames"),
        ("steps", f"{steps:,}", f"of {batch:,} windows; {windows:,} in all, {windows / per_epoch:.1f} epochs"),
        *_disk(sum(each.frames for each in data), model),
        *_memory(model, name, plan, ceil(batch / plan.gpus)),
        *_hours(model, training, plan, windows),
    ]
    wide, value = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "".join(f"{what:<{wide}}  {shown:>{value}}  {how}".rstrip() + "\n" for what, shown, how in rows)


def windows_per_epoch(data: DataPlan, sampling: SamplingConfig, training: TrainConfig, model: DexWMConfig) -> int:
    """Windows after which everything has come once: (clip, segment) pairs, or, for strides, frames.

    Of the unrolled phase where there is no other: the release's draws one window of a clip there.
    """
    strategy = window_strategies(model.num_context, training, sampling)[int(training.teacher_forced == 0.0)]
    if isinstance(strategy, StrideSampling):
        return data.frames
    length = max(data.frames // data.clips, 1)
    return int(strategy.parts(np.array([length]), np.array([data.fps]))[0]) * data.clips


def _measured(dataset: Dataset) -> DataPlan:
    fps = first_readable(dataset).fps
    return DataPlan(dataset.folder.name, sum(dataset.lengths) / fps / 3600, fps, len(dataset))


def _disk(frames: int, model: DexWMConfig) -> list[Row]:
    h264, jpeg = BYTES_H264 + BYTES_LABELS, BYTES_JPEG + BYTES_LABELS
    latents = frames * model.grid[0] * model.grid[1] * model.encoder.dim * 2
    return [
        ("disk, h264 store", _size(frames * h264), f"{h264} bytes a frame"),
        ("disk, jpeg store", _size(frames * jpeg), f"{jpeg} bytes a frame"),
        ("disk, cached latents", _size(latents), "float16; `--latents online` needs none"),
    ]


def _memory(model: DexWMConfig, name: str, plan: PlanConfig, per_gpu: int) -> list[Row]:
    trained, encoder = cost.trained_parameters(model), cost.encoder_parameters(model)
    state = STATE_BYTES * trained + 4 * encoder
    kept, checkpointed = cost.window_bytes(model), cost.window_bytes(model, checkpointed=True)
    most, most_checkpointed = (max((plan.gpu_memory_gib * GIB - state) // each, 0) for each in (kept, checkpointed))
    at_once = f"{most_checkpointed:,.0f} with checkpointing; {plan.gpu_memory_gib:g} GiB"
    return [
        ("trained parameters", f"{trained / 1e6:,.1f} M", f"{name}; encoder {encoder / 1e6:,.0f} M, frozen"),
        ("memory of the state", _size(state), f"{STATE_BYTES} bytes a trained parameter; every GPU"),
        ("memory of a window", _size(kept), f"{_size(checkpointed)} with activation checkpointing"),
        ("windows on a GPU at once", f"{most:,.0f}", f"of {per_gpu:,} in its batch; {at_once}"),
    ]


def window_flops(model: DexWMConfig, training: TrainConfig) -> float:
    """Operations of training on one window, encoder included: the mean over teacher-forced and unrolled ones."""

    def forward(unroll_steps: int | None) -> float:
        return cost.predictor_flops(model, unroll_steps) + (unroll_steps or model.num_context) * cost.head_flops(model)

    unrolled = (forward(training.unroll_steps) + forward(training.deeper.unroll_steps)) / 2  # in turns
    share = training.teacher_forced
    return 3 * (share * forward(None) + (1 - share) * unrolled) + (model.num_context + 1) * cost.encoder_flops(model)


def gpu_hours(flops: float, plan: PlanConfig, windows: int) -> float:
    """Hours of one GPU of the plan for training on so many windows of `flops` operations each."""
    return windows * flops / (plan.peak_tflops * 1e12 * plan.mfu) / 3600


def _hours(model: DexWMConfig, training: TrainConfig, plan: PlanConfig, windows: int) -> list[Row]:
    flops = window_flops(model, training)
    hours = gpu_hours(flops, plan, windows)
    rate = plan.peak_tflops * 1e12 * plan.mfu
    assumed, windows_a_core = f"{plan.mfu:.0%} of {plan.peak_tflops:g} TFLOP/s", f"{plan.loader_windows:g} windows"
    machines = f"{hours / plan.gpus:,.1f} h on {plan.gpus} GPUs, assuming {assumed}"
    cores = f"{rate / flops / plan.loader_windows:,.1f} cores a GPU, assuming {windows_a_core} a core-second"
    return [
        ("operations of a window", f"{flops / 1e12:,.4g} TFLOP", "3 x forward, and the encoder"),
        ("GPU-hours", f"{hours:,.1f}", machines),
        ("windows per GPU-second", f"{rate / flops:,.1f}", cores),
    ]


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1e3:,.1f} kB"
