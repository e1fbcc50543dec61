"""How a world model is trained: numbers only, checked when they are made."""

from dataclasses import asdict, dataclass
from math import cos, isfinite, pi
from typing import Any


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Raises ValueError naming the field that makes no sense.

    steps: optimiser steps in all. batch_size: windows a step.
    teacher_forced: fraction of the steps that predict every frame from true ones; the rest unrolls the model on its own
        predictions (DexWM paper, section 3.2; gradients flow through the whole roll-out).
    unroll_steps: predicted frames of an unrolled window. unroll_batch_size: its windows a step (default: batch_size).
    learning_rate: peak; linear warm-up over warmup_steps, then a cosine down to final_learning_rate times the peak.
    weight_decay: on matrices only. clip: largest gradient norm. ema: decay of the averaged weights saved; 0 is off.
    bfloat16: autocast the forward pass; pays on GPUs and for widths of 256 and more.
    hand_consistency: weight of the keypoint loss on predicted latents. The paper's 100 belongs to the mean-squared
        loss with sigma 2 px on 224 x 392 maps; an all-zero map costs pi sigma^2 / (h w), so rescale it with sigma and
        map size. The cross-entropy is of order 1 to 10: 0.02 is the like of it.
    detach_predictions: train the head, but not the predictor, by that loss.
    true_keypoints: weight of the keypoint loss on true latents; without it goal keypoints are wrong.
    keypoint_frames: frames of a window that keypoint losses look at (its last ones).
    sigma_px: standard deviation of the target Gaussians, in pixels of the stored image.
    stride_weights, short_history, moving_object_weight: see `data.windows.WindowConfig`.
    seed: of the first weights, the draws, and the encoder's fit.
    log_every, validate_every, checkpoint_every: in steps. keep_checkpoints: how many of the latest stay on disk.
    validation_windows: windows in each validation figure. validation_rollouts: (stride, steps) of each rollout.
    max_seconds: stop after so much time, with a checkpoint to go on from.
    """

    steps: int = 20_000
    batch_size: int = 32
    teacher_forced: float = 0.6
    unroll_steps: int = 4
    unroll_batch_size: int | None = None
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    final_learning_rate: float = 0.02
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    bfloat16: bool = False
    hand_consistency: float = 0.02
    detach_predictions: bool = False
    true_keypoints: float = 0.05
    keypoint_frames: int = 2
    sigma_px: float = 4.0
    stride_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0)
    short_history: float = 0.4
    moving_object_weight: float = 1.0
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    validation_windows: int = 128
    validation_rollouts: tuple[tuple[int, int], ...] = ((1, 5), (5, 3))
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        positive: tuple[str, ...] = (
            "steps",
            "batch_size",
            "unroll_steps",
            "learning_rate",
            "clip",
            "keypoint_frames",
            "sigma_px",
        )
        positive += ("log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "validation_windows")
        for name in positive:
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be positive")
        for name in ("warmup_steps", "weight_decay", "hand_consistency", "true_keypoints", "seed"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be 0 or more")
        for name in ("teacher_forced", "final_learning_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a fraction between 0 and 1")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema is {self.ema}; it is a decay of at least 0 and below 1")
        if self.unroll_batch_size is not None and self.unroll_batch_size < 1:
            raise ValueError(f"unroll_batch_size is {self.unroll_batch_size}; it must be positive, or None")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds is {self.max_seconds}; it must be positive, or None")
        if any(len(pair) != 2 or min(pair) < 1 for pair in self.validation_rollouts):
            raise ValueError(f"validation_rollouts is {self.validation_rollouts}; give (stride, steps) pairs from 1")

    @property
    def teacher_forced_steps(self) -> int:
        """Number of steps of the first phase."""
        return round(self.teacher_forced * self.steps)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ..., steps - 1."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(self.steps - 1 - self.warmup_steps, 1)
        low = self.final_learning_rate
        return self.learning_rate * (low + (1.0 - low) * 0.5 * (1.0 + cos(pi * min(progress, 1.0))))


# Fields that may differ between a run and its continuation: they change no weight.
_FREE = {"max_seconds", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "validation_windows"} | {
    "validation_rollouts"
}


def fixed_settings(config: TrainConfig) -> dict[str, Any]:
    """The fields, as JSON values, that a resumed run must share with the run it continues."""
    values = {name: value for name, value in asdict(config).items() if name not in _FREE}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
