"""How a world model is trained: numbers only, checked when they are made."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import cos, isfinite, pi
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class LoopConfig:
    """The optimiser's loop, the same for every world model. Raises ValueError naming the field that makes no sense."""

    steps: int = 20_000
    """Optimiser steps in all."""
    batch_size: int = 32
    """Samples in a batch."""
    accumulation: int = 1
    """Batches whose gradients are averaged into one optimiser step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 200
    """Steps of linear warm-up, before a cosine."""
    final_learning_rate: float = 0.02
    """Where the cosine ends, as a fraction of the peak."""
    weight_decay: float = 1e-4
    """Weight decay of matrices; vectors have none."""
    decay_vectors: bool = False
    """Decay vectors too (biases, embeddings of positions), as the release does."""
    clip: float | None = 1.0
    """Largest norm of the gradient; None clips nothing."""
    ema: float = 0.999
    """Decay of the averaged weights, which are what is saved; 0 saves the trained weights themselves."""
    bfloat16: bool = False
    """Autocast the forward pass to bfloat16; pays on GPUs and on CPUs with AMX."""
    seed: int = 0
    """Of the first weights, of what is drawn, and of the encoder's fit."""
    log_every: int = 50
    """Steps between reports."""
    validate_every: int = 1000
    """Steps between validations on held-out scenes."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the latest checkpoints stay on disk."""
    max_seconds: float | None = None
    """Stop after so many seconds of training, all sittings together, with a checkpoint to go on from."""

    # Fields that may differ between a run and its continuation: they change no weight.
    FREE: ClassVar[frozenset[str]] = frozenset(
        {"max_seconds", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints"}
    )

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size", "accumulation", "learning_rate", "log_every")
        check_positive(self, "validate_every", "checkpoint_every", "keep_checkpoints", "clip", "max_seconds")
        check_not_negative(self, "warmup_steps", "weight_decay", "seed")
        check_fractions(self, "final_learning_rate")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema is {self.ema}; it is a decay of at least 0 and below 1")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ..., steps - 1."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(self.steps - 1 - self.warmup_steps, 1)
        low = self.final_learning_rate
        return self.learning_rate * (low + (1.0 - low) * 0.5 * (1.0 + cos(pi * min(progress, 1.0))))


@dataclass(frozen=True)
class ScaleConfig:
    """How a run uses its machines. Nothing here changes the result beyond rounding, and all of it may change when a run
    goes on. Raises ValueError naming the field that makes no sense.
    """

    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """Under torchrun: `ddp` keeps the whole model in every process, `fsdp` shards weights and optimiser over them.
    `auto` is `ddp` with several processes. Every batch is shared by them."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Recompute each predictor block in the backward pass, for less memory: `full` all of it (a third more operations),
    `selective` all but products of matrices and attention."""
    device_tflops: float | None = None
    """Peak of one device in 10^12 operations per second, for the share of it that is used (MFU); for some GPUs it is
    known, with bfloat16."""
    timeout_seconds: float = 600.0
    """After so long without an answer in an exchange of gradients, another process counts as lost."""

    def __post_init__(self) -> None:
        if self.parallel not in ("auto", "none", "ddp", "fsdp"):
            raise ValueError(f"parallel is {self.parallel!r}; choose 'auto', 'none', 'ddp' or 'fsdp'")
        if self.recompute not in ("none", "selective", "full"):
            raise ValueError(f"recompute is {self.recompute!r}; choose 'none', 'selective' or 'full'")
        check_positive(self, "timeout_seconds", "device_tflops")


def check_positive(config: Any, *names: str) -> None:
    """Raise ValueError naming the first of these fields that is neither None nor a finite number above 0."""
    _check(config, names, lambda value: value is None or (isfinite(value) and value > 0), "positive")


def check_not_negative(config: Any, *names: str) -> None:
    """Raise ValueError naming the first of these fields that is not a finite number of at least 0."""
    _check(config, names, lambda value: isfinite(value) and value >= 0, "0 or more")


def check_fractions(config: Any, *names: str) -> None:
    """Raise ValueError naming the first of these fields that does not lie in [0, 1]."""
    _check(config, names, lambda value: 0.0 <= value <= 1.0, "a fraction between 0 and 1")


def _check(config: Any, names: tuple[str, ...], fits: Callable[[Any], bool], wanted: str) -> None:
    for name in names:
        if not fits(getattr(config, name)):
            raise ValueError(f"{name} is {getattr(config, name)}; it must be {wanted}")


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    """Training of DexWM on windows: the loop, phases, loss weights, what is drawn, and when to report.

    Raises ValueError naming the field that makes no sense.
    """

    teacher_forced: float = 0.6
    """Fraction of the steps that predict every frame from true ones. The rest unrolls the model on its own predictions,
    with gradients through the whole roll-out (DexWM paper, section 3.2)."""
    unroll_steps: int = 4
    """Predicted frames of an unrolled window."""
    deep_unroll_steps: int | None = None
    """Predicted frames of every second unrolled batch instead. Deep roll-outs learn the far future, but short clips
    hold them at small strides only: the batches between them keep the strides that planning needs."""
    hand_consistency: float = 0.02
    """Weight of the keypoint loss on predicted latents. The paper's 100 belongs to the mean-squared loss with sigma
    2 px on 224 x 392 maps, where an empty map costs pi sigma^2 / (h w): rescale it with sigma and map size. The
    cross-entropy is of order 1 to 10."""
    detach_predictions: bool = False
    """Train the keypoint head, but not the predictor, by that loss."""
    true_keypoints: float = 0.05
    """Weight of the keypoint loss on true latents; without it the keypoints of goal images are wrong."""
    keypoint_frames: int = 2
    """Frames of a window that the keypoint losses look at: its last ones."""
    sigma_px: float = 4.0
    """Standard deviation of the keypoints' target Gaussians, in pixels of the model's image."""
    stride_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0)
    """Relative frequency of windows with 1, 2, ... stored frames from one frame to the next."""
    short_history: float = 0.4
    """Fraction of windows whose history is partly repeats of their first frame, as it is when planning starts."""
    moving_object_weight: float = 1.0
    """Extra weight of frames in which an object moves; 3 draws them four times as often."""
    validation_windows: int = 128
    """Windows in each validation figure."""
    validation_rollouts: tuple[tuple[int, int], ...] = ((1, 5), (5, 3))
    """(Stride, steps) of each rollout that validation measures."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"validation_windows", "validation_rollouts"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "unroll_steps", "keypoint_frames", "sigma_px", "validation_windows")
        check_not_negative(self, "hand_consistency", "true_keypoints")
        check_fractions(self, "teacher_forced")
        deep, shallow = self.deep_unroll_steps, self.unroll_steps
        if deep is not None and deep <= shallow:
            raise ValueError(f"deep_unroll_steps is {deep}; it must be above unroll_steps, {shallow}, or None")
        if any(len(pair) != 2 or min(pair) < 1 for pair in self.validation_rollouts):
            raise ValueError(f"validation_rollouts is {self.validation_rollouts}; give (stride, steps) pairs from 1")

    @property
    def deeper(self) -> "TrainConfig":
        """The settings of the batches that are unrolled deeper; these ones where there are none."""
        if self.deep_unroll_steps is None:
            return self
        return replace(self, unroll_steps=self.deep_unroll_steps, deep_unroll_steps=None)

    @property
    def teacher_forced_steps(self) -> int:
        """Number of steps of the first phase."""
        return round(self.teacher_forced * self.steps)


@dataclass(frozen=True)
class SamplingConfig:
    """Which frames make a window, and in which proportions datasets are mixed (see docs/data.md).

    Raises ValueError naming the field that makes no sense.
    """

    windows: Literal["stride", "paper", "official"] = "stride"
    """`stride`: a constant time step, which planning needs. `paper`: ten segments, random gaps within `reach_seconds`.
    `official`: as the released code, its edges included."""
    reach_seconds: float = 4.0
    """How far back a window of `paper` and `official` reaches."""
    segments: int = 10
    """Windows that `paper` and `official` draw from a clip in an epoch."""
    rate_hz: float | None = None
    """Base step of `stride`: with 5, data of 30, 15 and 5 frames per second give windows of the same times. By default
    strides count stored frames."""
    mix: tuple[float, ...] = ()
    """Share of each data folder in what is drawn; by default as large as its data."""

    def __post_init__(self) -> None:
        if self.windows not in ("stride", "paper", "official"):
            raise ValueError(f"windows is {self.windows!r}; choose 'stride', 'paper' or 'official'")
        check_positive(self, "reach_seconds", "segments", "rate_hz")
        if not all(isfinite(weight) and weight > 0 for weight in self.mix):
            raise ValueError(f"mix is {self.mix}; give one positive number for each data folder")


def fixed_settings(config: LoopConfig) -> dict[str, Any]:
    """The fields that a resumed run must share with the run it continues."""
    return {name: value for name, value in asdict(config).items() if name not in config.FREE}
