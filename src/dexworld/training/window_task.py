"""What DexWM is trained on: batches of windows, teacher-forced first and unrolled later."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dexworld.data.sampling import OfficialSampling, PaperSampling, PartStrategy, StrideSampling
from dexworld.data.windows import Window
from dexworld.training.config import SamplingConfig, TrainConfig
from dexworld.training.losses import ItemsEach, own_items
from dexworld.training.objective import WindowLoss

Strategy = PartStrategy | StrideSampling


class WindowSource(Protocol):
    """Where batches of windows come from: cached latents, or frames that are encoded on the way."""

    def batch(self, step: int, size: int, first: int | None = None) -> Window:
        """Batch `step` of `size` windows. first: the number of its first sample, by default step * size."""
        ...

    def describe(self, row: int) -> str:
        """Where the frame of a window's row comes from."""
        ...


MakeSource = Callable[[Strategy], WindowSource]


def window_strategies(
    num_context: int, config: TrainConfig, sampling: SamplingConfig = SamplingConfig()
) -> tuple[Strategy, Strategy]:
    """How windows of the teacher-forced and of the unrolled phase are drawn for a model of `num_context` frames.

    `paper` and `official` unroll from a single frame, as the release's multistep phase does; there, `official` takes
    frames of the whole clip.
    """
    teacher, unrolled = num_context + 1, num_context + config.unroll_steps
    if sampling.windows == "stride":
        strides = StrideSampling(
            frames=teacher,
            history=num_context,
            stride_weights=config.stride_weights,
            short_history=config.short_history,
            moving_object_weight=config.moving_object_weight,
            rate_hz=sampling.rate_hz,
        )
        return strides, replace(strides, frames=unrolled)
    if sampling.windows == "paper":
        paper = PaperSampling(teacher, num_context, sampling.reach_seconds, sampling.segments)
        return paper, replace(paper, frames=unrolled, lead=num_context - 1)
    official = OfficialSampling(teacher, sampling.reach_seconds, sampling.segments)
    return official, replace(official, frames=unrolled, whole_clip=True, lead=num_context - 1)


class WindowTask:
    """Windows of episodes and their losses (a `trainer.Task`).

    make_source: windows of a strategy (it knows the data, this process's rank and the seed). items_each: what means
    over this process's share of a batch are taken with (`Processes.items_each`).
    """

    def __init__(
        self,
        model: Any,
        config: TrainConfig,
        make_source: MakeSource,
        sampling: SamplingConfig = SamplingConfig(),
        items_each: ItemsEach = own_items,
    ) -> None:
        self.config = config
        context = model.config.num_context
        teacher, unrolled = window_strategies(context, config, sampling)
        self.sources = {False: make_source(teacher), True: make_source(unrolled)}
        self.deep_source = None
        if config.deep_unroll_steps is not None:
            self.deep_source = make_source(window_strategies(context, config.deeper, sampling)[1])
        self.objective = WindowLoss(model, config, items_each)

    def unrolled(self, index: int) -> bool:
        """Whether batch `index` belongs to the second phase."""
        return index >= self._second_phase

    def deep(self, index: int) -> bool:
        """Whether batch `index` is unrolled for `deep_unroll_steps`."""
        return self.deep_source is not None and self.unrolled(index) and (index - self._second_phase) % 2 == 1

    def source(self, index: int) -> WindowSource:
        """Where the windows of batch `index` come from."""
        if self.deep_source is not None and self.deep(index):
            return self.deep_source
        return self.sources[self.unrolled(index)]

    def batch(self, index: int, device: torch.device) -> tuple[Window, int]:
        """This process's share of batch number `index` of the run, and the size of the whole batch."""
        config, unrolled = self.config, self.unrolled(index)
        first, size = index * config.batch_size, config.batch_size
        if unrolled:  # sample numbers go on where the first phase has ended, and with them the epoch
            size = config.unroll_batch_size or config.batch_size
            first = self._second_phase * config.batch_size + (index - self._second_phase) * size
        return self.source(index).batch(index, size, first).to(device), size

    @property
    def _second_phase(self) -> int:
        """Number of the first unrolled batch."""
        return self.config.teacher_forced_steps * self.config.accumulation

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        """See `WindowLoss`."""
        return self.objective(batch, self.unrolled(index))

    def contents(self, batch: Window) -> dict[str, Tensor]:
        """The window's tensors by name."""
        return {name: getattr(batch, name) for name in batch.__dataclass_fields__}

    def broken_data(self, batch: Window) -> str:
        """Which episode's latents are not finite, if any."""
        bad = ~torch.isfinite(batch.latents).flatten(2).all(dim=-1)
        if not bad.any():
            return ""
        episode = self.sources[False].describe(int(batch.rows[bad][0]))
        return f" Latents are not finite in {episode}: if they are cached, delete that folder's cache."
