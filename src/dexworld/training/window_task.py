"""What DexWM is trained on: batches of windows, teacher-forced first and unrolled later."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dexworld.data.sampling import StrideSampling
from dexworld.data.windows import Window, WindowSampler
from dexworld.models.dexwm import DexWM
from dexworld.training.config import TrainConfig
from dexworld.training.objective import WindowLoss

MakeSampler = Callable[[StrideSampling], WindowSampler]


def window_configs(model: DexWM, config: TrainConfig) -> tuple[StrideSampling, StrideSampling]:
    """How windows of the teacher-forced and of the unrolled phase are drawn for this model."""
    context = model.config.predictor.num_context
    teacher = StrideSampling(
        frames=context + 1,
        history=context,
        stride_weights=config.stride_weights,
        short_history=config.short_history,
        moving_object_weight=config.moving_object_weight,
    )
    return teacher, replace(teacher, frames=context + config.unroll_steps)


class WindowTask:
    """Windows of episodes and their losses (a `trainer.Task`).

    make_sampler: draws windows of a given kind (it knows the data, this process's rank and the seed).
    """

    def __init__(self, model: DexWM, config: TrainConfig, make_sampler: MakeSampler) -> None:
        self.config = config
        teacher, unrolled = window_configs(model, config)
        self.samplers = {False: make_sampler(teacher), True: make_sampler(unrolled)}
        self.objective = WindowLoss(model, config)

    def unrolled(self, index: int) -> bool:
        """Whether batch `index` belongs to the second phase."""
        return index // self.config.accumulation >= self.config.teacher_forced_steps

    def batch(self, index: int, device: torch.device) -> tuple[Window, int]:
        """Batch number `index` of the run."""
        config, unrolled = self.config, self.unrolled(index)
        size = (config.unroll_batch_size or config.batch_size) if unrolled else config.batch_size
        return self.samplers[unrolled].batch(index, size).to(device), size

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        """See `WindowLoss`."""
        return self.objective(batch, self.unrolled(index))

    def contents(self, batch: Window) -> dict[str, Tensor]:
        """The window's tensors by name."""
        return {name: getattr(batch, name) for name in batch.__dataclass_fields__}

    def blame(self, batch: Window) -> str:
        """Which episode's latents are not finite, if any."""
        bad = ~torch.isfinite(batch.latents).flatten(2).all(dim=-1)
        if not bad.any():
            return ""
        episode = self.samplers[False].describe(int(batch.rows[bad][0]))
        return f" Latents are not finite in {episode}: delete that folder's cache."
