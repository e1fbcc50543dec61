"""The trainer: one loop for every world model, on one device or many, resumable at any step.

A run that is killed and started again ends with the same weights, bit for bit, as one that was never interrupted:
batches depend on seed and step alone, and a checkpoint holds everything else.
"""

import copy
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from dexworld.errors import UsageError
from dexworld.models.checkpoint import write_tensors
from dexworld.models.world_model import Blocks
from dexworld.training import checkpoints
from dexworld.training.blocks import recompute_blocks
from dexworld.training.checkpoints import TrainingState
from dexworld.training.cost import Meter
from dexworld.training.distributed import Processes, Spread, choose, launched, lost_processes_named, own_part, whole
from dexworld.training.train_config import LoopConfig, ScaleConfig, fixed_settings

logger = logging.getLogger(__name__)
Report = Callable[[int, dict[str, float]], None]  # (step, scalars by name)
Batch = TypeVar("Batch")
Model = TypeVar("Model", bound=Any)  # an `nn.Module` with `save_pretrained`


class Task(Protocol[Batch]):
    """What is trained: where batches come from and what they cost. Batches depend on the index alone."""

    def batch(self, index: int, device: torch.device) -> tuple[Batch, int]:
        """This process's share of batch number `index` of the run, on `device`, and the samples of the whole batch."""

    def losses(self, batch: Batch, index: int) -> dict[str, Tensor]:
        """Scalars of a batch; `loss` is what is minimised."""

    def contents(self, batch: Batch) -> dict[str, Tensor]:
        """The batch as named tensors, to be kept when training has diverged."""

    def broken_data(self, batch: Batch) -> str:
        """A sentence that names broken data in the batch, or an empty string."""


class TrainingDiverged(UsageError):
    """A loss or gradient became NaN or Inf; the message names the saved batch and what to try."""


class OutOfMemory(UsageError):
    """A step did not fit into the device's memory; the message says what to change."""


class _Losses(nn.Module):
    """The losses of a batch as a module around the model, for what wraps modules."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, batch: Any, index: int) -> dict[str, Tensor]:
        return self.task.losses(batch, index)


class Trainer(Generic[Model]):
    """Trains `model` in place on `task`, and keeps checkpoints in `folder`/checkpoints.

    validation: figures of the averaged model on held-out data. identity: what else a continued run must share (data,
    encoder, model). processes: who shares the batches; the first one validates and writes. scale: how
    the model is spread. blocks: the model's repeated parts. idle_parameters: whether some get no gradient in some
    batch. meter: counts operations per second.

    The attribute `report` is called with scalars every `log_every` steps and after each validation, `on_step` after
    each step.
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
        processes: Processes = Processes(),
        scale: ScaleConfig = ScaleConfig(),
        blocks: Blocks = Blocks([]),
        idle_parameters: bool = True,
        meter: Meter | None = None,
    ) -> None:
        parallel = choose(scale.parallel)
        if launched() and processes.control is None and parallel != "none":
            raise ValueError("this kind of training runs in one process; start it without torchrun")
        self.device = torch.device(device)
        self.model = model.to(self.device).train()
        self.config, self.task, self.folder, self.validation = config, task, folder, validation
        self.identity = json.loads(json.dumps({"training": fixed_settings(config), **(identity or {})}))
        self.report: Report | None = None
        self.on_step: Callable[[int], None] | None = None
        self.processes = processes
        self.meter = meter or Meter(devices=processes.count)
        self._whole: Model | None = None  # with parameters of its own, but for those that are not trained
        if parallel == "fsdp" and processes.is_first:
            shared = {id(each): each for each in model.parameters() if not each.requires_grad}
            self._whole = copy.deepcopy(model, shared)
        recompute_blocks(blocks, scale.recompute)
        methods = dict.fromkeys(blocks.layers, blocks.methods)
        self.spread = Spread(_Losses(model, task), parallel, methods, idle_parameters)
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        matrices = [each for each in self.parameters.values() if each.ndim >= 2]
        vectors = [each for each in self.parameters.values() if each.ndim < 2]
        groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors}]
        if not config.decay_vectors:
            groups[1]["weight_decay"] = 0.0
        fused = self.device.type in ("cpu", "cuda", "mps", "xpu")
        decay = config.weight_decay
        self.optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=decay, fused=fused)
        self.average = {name: each.detach().clone() for name, each in self.parameters.items()} if config.ema else {}
        self.step, self.seconds = 0, 0.0
        self._out_of_time, self._sitting = False, (0.0, time.monotonic())  # seconds before, start
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

        Raises TrainingDiverged at the first loss or gradient that is not finite, before any weight has changed by it;
        OutOfMemory, LostProcess and CheckpointNotWritten with what to do. Checkpoints written before stay usable.
        """
        config, self._sitting = self.config, (self.seconds, time.monotonic())
        while self.step < config.steps:
            with self._explained():
                started = time.monotonic()
                losses, size = self._train_step()
                self.meter.add(self.step * config.accumulation, size, time.monotonic() - started)
            self.step += 1
            last = self.step == config.steps or self._out_of_time
            if self.report and (self.step % config.log_every == 0 or last):
                scalars = {name: float(value) for name, value in losses.items()}
                learning_rate = config.learning_rate_at(self.step - 1)
                self.report(self.step, {**scalars, "learning_rate": learning_rate, **self.meter.figures()})
            if self.on_step:
                self.on_step(self.step)
            with self._explained():
                if self.validation and (self.step % config.validate_every == 0 or last):
                    self.figures = self.validate()
                if self.step % config.checkpoint_every == 0 or last:
                    self.save()
            if self._out_of_time:
                break
        return self.step >= config.steps

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what to do about a device that is full and about a process that is gone."""
        try:
            with lost_processes_named(f"at step {self.step}"):
                yield
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            path = checkpoints.latest(self.folder / "checkpoints")
            left = f"{path} is whole; the same command goes on from it" if path else "No checkpoint was written yet"
            size = self.config.batch_size
            raise OutOfMemory(
                f"step {self.step} does not fit into the memory of {self.device}, with {size // self.processes.count} "
                f"samples of a batch of {size} at a time. Try `--recompute full`, `--parallel fsdp` under torchrun, "
                f"more processes, or half the batch and twice the `--accumulation` in a run of its own. {left}"
            ) from error

    def _train_step(self) -> tuple[dict[str, Tensor], int]:
        """One optimiser step over `accumulation` batches; their mean losses, and how many samples they held."""
        config, step, parts = self.config, self.step, self.config.accumulation
        means: dict[str, Tensor] = {}
        suspect: tuple[Any, dict[str, Tensor]] | None = None
        samples = 0
        self.optimiser.zero_grad(set_to_none=True)
        for index in range(step * parts, (step + 1) * parts):
            batch, size = self.task.batch(index, self.device)
            with self.spread.exchanging(last=index + 1 == (step + 1) * parts):
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=config.bfloat16):
                    losses = self.spread(batch, index)
                if suspect is None and not torch.isfinite(losses["loss"]):
                    suspect = (batch, losses)
                    if self.processes.count == 1:
                        raise self._diverged(suspect, losses)
                # With several processes it goes on: all of them learn of it below, and none waits for one that left.
                (losses["loss"] / parts).backward()
            samples += size
            for name, value in losses.items():
                means[name] = means.get(name, 0.0) + value.detach().float() / parts
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters.values(), config.clip or inf))
        means, self._out_of_time = self._over_processes(means)
        if not torch.isfinite(norm + means["loss"]):
            raise self._diverged(suspect or (batch, None), means)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate_at(step)
        self.optimiser.step()
        self._update_average()
        return {**means, "gradient_norm": norm}, samples

    def _over_processes(self, means: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
        """Losses of the whole batch, and whether the time of the run is over, which all must know at once."""
        before, started = self._sitting
        self.seconds = before + time.monotonic() - started
        over = self.config.max_seconds is not None and self.seconds >= self.config.max_seconds
        if self.processes.count == 1:
            return means, over
        values = torch.stack([*means.values(), torch.tensor(float(over), device=self.device)])
        *shared, anywhere = self.processes.mean(values).unbind()
        return dict(zip(means, shared, strict=True)), bool(anywhere > 0)

    def _update_average(self) -> None:
        if not self.average:
            return
        # Ramped up, so that the first random weights are forgotten early in a short run.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        parameters = [own_part(each.detach()) for each in self.parameters.values()]
        torch._foreach_lerp_([own_part(each) for each in self.average.values()], parameters, 1.0 - decay)

    @contextmanager
    def averaged(self) -> Iterator[Model]:
        """The model with its averaged weights and in evaluation mode, for as long as the context lasts.

        All processes must enter; what the first one is given is for use.
        """
        if self.spread.parallel == "fsdp":
            yield self._gathered()
            return
        kept = {name: self.parameters[name].detach().clone() for name in self.average}
        self._load(self.average)
        self.model.eval()
        try:
            yield self.model
        finally:
            self._load(kept)
            self.model.train()

    @torch.no_grad()
    def _gathered(self) -> Model:
        """A model of its own with the averaged weights, gathered from all processes, in the first one."""
        own = dict(self._whole.named_parameters()) if self._whole is not None else {}
        for name, value in (self.average or self.parameters).items():
            gathered = whole(value)  # one at a time: only the first process keeps it
            if own:
                own[name].copy_(gathered)
        return self.model if self._whole is None else self._whole.eval()

    @torch.no_grad()
    def _load(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)

    def validate(self) -> dict[str, float]:
        """Figures of the averaged weights on held-out data; reported and returned."""
        if self.validation is None:
            return {}
        figures: dict[str, float] = {}
        with self.averaged() as model:
            if self.processes.is_first:
                figures = self.validation(model, self.device)
        figures = json.loads(self.processes.gather(json.dumps(figures))[0])
        if self.report:
            self.report(self.step, {f"validation/{name}": value for name, value in figures.items()})
        return figures

    def save(self) -> Path:
        """Write a checkpoint; its model holds the averaged weights. Raises CheckpointNotWritten."""
        tensors = checkpoints.collect(self.parameters, self.optimiser, self.average, keep=self.processes.is_first)
        state = TrainingState(self.step, self.seconds, tensors, self.identity)
        with self.averaged() as model:
            folder, keep = self.folder / "checkpoints", self.config.keep_checkpoints
            return checkpoints.save(folder, state, model.save_pretrained, keep, self.processes)

    def _diverged(self, suspect: tuple[Any, dict[str, Tensor] | None], means: dict[str, Tensor]) -> TrainingDiverged:
        """Save the batch, and say what happened. suspect: a batch, with its losses when they are not finite."""
        batch, losses = suspect
        one_of = f"-rank-{self.processes.rank}" if self.processes.count > 1 else ""
        path = self.folder / f"diverged-step-{self.step:08d}{one_of}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = self.task.contents(batch)
        write_tensors(path, tensors)
        what = "the loss" if losses is not None or not torch.isfinite(means["loss"]) else "the gradient"
        where = " ".join(filter(None, self.processes.gather(self.task.broken_data(batch).strip())))
        values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in means.items())
        return TrainingDiverged(
            f"{what} is NaN or Inf at step {self.step} ({values}); no weight was changed by it. {where} The batch is "
            f"in {path}. Go on from the last checkpoint with a lower learning rate or clip, or look at the data"
        )
