"""The trainer: one loop for every world model, on one device, resumable at any step.

A run that is killed and started again ends with the same weights, bit for bit, as one that was never interrupted:
batches depend on seed and step alone, and a checkpoint holds everything else.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dexworld.training import checkpoints
from dexworld.training.checkpoints import TrainingState
from dexworld.training.config import LoopConfig, fixed_settings

logger = logging.getLogger(__name__)
Report = Callable[[int, dict[str, float]], None]  # (step, scalars by name)


class Trainable(Protocol):
    """A model that the trainer can write."""

    def save_pretrained(self, folder: Path, /) -> None:
        """Write the model so that its class reads it again."""
        ...


Batch = TypeVar("Batch")
Model = TypeVar("Model", bound=nn.Module)


class Task(Protocol[Batch]):
    """What is trained: where batches come from and what they cost. Batches depend on the index alone."""

    def batch(self, index: int, device: torch.device) -> tuple[Batch, int]:
        """Batch number `index` of the run, on `device`, and how many samples it holds."""
        ...

    def losses(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """Scalars of a batch; `loss` is what is minimised."""
        ...

    def contents(self, batch: Batch) -> dict[str, Tensor]:
        """The batch as named tensors, to be kept when training has diverged."""
        ...

    def blame(self, batch: Batch) -> str:
        """A sentence that names broken data in the batch, or an empty string."""
        ...


class TrainingDiverged(RuntimeError):
    """A loss or gradient became NaN or Inf; the message names the saved batch and what to try."""


class Trainer(Generic[Model]):
    """Trains `model`, which it changes, on `task`, and keeps checkpoints in `folder`/checkpoints.

    validation: figures of the averaged model on held-out data.
    identity: what else a continued run must share (data, encoder, model), as JSON values.
    report: called with scalars every `log_every` steps and after each validation.
    """

    def __init__(
        self,
        model: Model,
        config: LoopConfig,
        task: Task,
        folder: Path,
        validation: Callable[[Model, torch.device], dict[str, float]] | None = None,
        identity: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
        report: Report | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).train()
        self.config, self.task, self.folder, self.validation = config, task, folder, validation
        self.identity = {"training": fixed_settings(config), **(identity or {})}
        self.report, self.on_step = report, on_step
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        matrices = [each for each in self.parameters.values() if each.ndim >= 2]
        vectors = [each for each in self.parameters.values() if each.ndim < 2]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.average = {name: each.detach().clone() for name, each in self.parameters.items()} if config.ema else {}
        self.step, self.seconds = 0, 0.0
        self.figures: dict[str, float] = {}

    def resume(self) -> bool:
        """Go back to the newest checkpoint of the folder; False when there is none. Raises ResumeError."""
        path = checkpoints.latest(self.folder / "checkpoints")
        if path is None:
            return False
        state = checkpoints.load(path, self.identity)
        checkpoints.restore(state.tensors, self.parameters, self.optimiser, self.average)
        self.step, self.seconds = state.step, state.seconds
        logger.info("resumed from %s", path)
        return True

    def run(self) -> bool:
        """Train to the last step, or until `max_seconds` of all sittings are spent. True when the last step is done.

        Raises TrainingDiverged at the first loss or gradient that is not finite, before any weight has changed by it.
        """
        config, started, before, logged = self.config, time.monotonic(), self.seconds, (time.monotonic(), self.step)
        samples = 0
        while self.step < config.steps:
            losses, size = self._train_step()
            self.step += 1
            samples += size
            self.seconds = before + time.monotonic() - started
            out_of_time = config.max_seconds is not None and self.seconds >= config.max_seconds
            last = self.step == config.steps or out_of_time
            if self.report and (self.step % config.log_every == 0 or last):
                rate = samples / max(time.monotonic() - logged[0], 1e-9)
                scalars = {name: float(value) for name, value in losses.items()}
                learning_rate = config.learning_rate_at(self.step - 1)
                self.report(self.step, {**scalars, "learning_rate": learning_rate, "samples_per_second": rate})
                logged, samples = (time.monotonic(), self.step), 0
            if self.on_step:
                self.on_step(self.step)
            if self.validation and (self.step % config.validate_every == 0 or last):
                self.figures = self.validate()
            if self.step % config.checkpoint_every == 0 or last:
                self.save()
            if out_of_time:
                break
        return self.step >= config.steps

    def _train_step(self) -> tuple[dict[str, Tensor], int]:
        """One optimiser step over `accumulation` batches; their mean losses, and how many samples they held."""
        config, step, parts = self.config, self.step, self.config.accumulation
        means: dict[str, Tensor] = {}
        samples = 0
        self.optimiser.zero_grad(set_to_none=True)
        for index in range(step * parts, (step + 1) * parts):
            batch, size = self.task.batch(index, self.device)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=config.bfloat16):
                losses = self.task.losses(batch, index)
            if not torch.isfinite(losses["loss"]):
                raise self._diverged(batch, losses, "the loss")
            (losses["loss"] / parts).backward()
            samples += size
            for name, value in losses.items():
                means[name] = means.get(name, 0.0) + value.detach() / parts
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip)
        if not torch.isfinite(norm):
            raise self._diverged(batch, losses, "the gradient")
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate_at(step)
        self.optimiser.step()
        self._update_average()
        return {**means, "gradient_norm": norm}, samples

    def _update_average(self) -> None:
        if not self.average:
            return
        # Ramped up, so that the first random weights are forgotten early in a short run.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(
            list(self.average.values()), [each.detach() for each in self.parameters.values()], 1.0 - decay
        )

    @contextmanager
    def averaged(self) -> Iterator[Model]:
        """The model with its averaged weights and in evaluation mode, for as long as the context lasts."""
        kept = {name: self.parameters[name].detach().clone() for name in self.average}
        self._load(self.average)
        self.model.eval()
        try:
            yield self.model
        finally:
            self._load(kept)
            self.model.train()

    @torch.no_grad()
    def _load(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on held-out episodes (see `Validation`); reported and returned."""
        if self.validation is None:
            return {}
        with self.averaged() as model:
            figures = self.validation(model, self.device)
        if self.report:
            self.report(self.step, {f"validation/{name}": value for name, value in figures.items()})
        return figures

    def save(self) -> Path:
        """Write a checkpoint; its model holds the averaged weights."""
        tensors = checkpoints.collect(self.parameters, self.optimiser, self.average)
        state = TrainingState(self.step, self.seconds, tensors, self.identity)
        with self.averaged() as model:
            return checkpoints.save(
                self.folder / "checkpoints",
                state,
                cast(Trainable, model).save_pretrained,
                self.config.keep_checkpoints,
            )

    def _diverged(self, batch: Any, losses: dict[str, Tensor], what: str) -> TrainingDiverged:
        """Save the batch, and say what happened."""
        path = self.folder / f"diverged-step-{self.step:08d}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = self.task.contents(batch)
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
        where = self.task.blame(batch)
        values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        return TrainingDiverged(
            f"{what} is NaN or Inf at step {self.step} ({values}); no weight was changed by it.{where} The batch is in "
            f"{path}. Go on from the last checkpoint with a lower learning rate or clip, or look at the data"
        )
