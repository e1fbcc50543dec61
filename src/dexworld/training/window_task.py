"""What DexWM is trained on: batches of windows, teacher-forced first and unrolled later."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dexworld.data.sampling import OfficialSampling, PaperSampling, StrideSampling
from dexworld.data.windows import Window
from dexworld.training.losses import ItemsEach, keypoint_loss, latent_loss, own_items, tracked_pixels
from dexworld.training.sources import Strategy, WindowSource
from dexworld.training.train_config import SamplingConfig, TrainConfig

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
        chances = {name: getattr(config, name) for name in ("stride_weights", "short_history", "moving_object_weight")}
        strides = StrideSampling(frames=teacher, history=num_context, rate_hz=sampling.rate_hz, **chances)
        return strides, replace(strides, frames=unrolled)
    if sampling.windows == "paper":
        paper = PaperSampling(teacher, num_context, sampling.reach_seconds, sampling.segments)
        return paper, replace(paper, frames=unrolled, lead=num_context - 1)
    official = OfficialSampling(teacher, sampling.reach_seconds, sampling.segments)
    return official, replace(official, frames=unrolled, whole_clip=True, lead=num_context - 1)


class SourceTask:
    """Batches of one source of windows; subclasses add `losses` (a `trainer.Task`)."""

    def __init__(self, config: Any, source: WindowSource) -> None:
        self.config, self.source = config, source

    def batch(self, index: int, device: torch.device) -> tuple[Window, int]:
        """This process's share of batch number `index` of the run, and the size of the whole batch."""
        return self.source.batch(index, self.config.batch_size).to(device), self.config.batch_size

    def contents(self, batch: Window) -> dict[str, Tensor]:
        """The window's tensors by name."""
        return batch.tensors

    def broken_data(self, batch: Window) -> str:
        """Where latents are not finite, if any."""
        if batch.bad_row is None:
            return ""
        place = self.source.describe(batch.bad_row)
        return f" Latents are not finite in {place}: if they are cached, delete that folder's cache."


def check_losses(model: Any, config: TrainConfig) -> None:
    """Raise ValueError when keypoint losses are asked for and the model, or its class, has no keypoint head."""
    if (config.hand_consistency or config.true_keypoints) and not hasattr(model, "keypoint_logits"):
        raise ValueError("this world model has no keypoint head: set hand_consistency and true_keypoints to 0")


class WindowTask(SourceTask):
    """Windows of episodes and their losses.

    make_source: windows of a strategy (it knows the data, this process's rank and the seed). items_each: divisor for
    means over this process's share of a batch (`Processes.items_each`). The workers of the first phase end when the
    second begins. Raises ValueError when keypoint losses are asked for and the model has no keypoint head.
    """

    def __init__(
        self,
        model: Any,
        config: TrainConfig,
        make_source: MakeSource,
        sampling: SamplingConfig = SamplingConfig(),
        items_each: ItemsEach = own_items,
    ) -> None:
        check_losses(model, config)
        context, self.sources = model.config.num_context, dict[int | None, WindowSource]()  # by `unroll_steps`
        teacher, unrolled = window_strategies(context, config, sampling)
        self.sources[None], self.sources[config.unroll_steps] = make_source(teacher), make_source(unrolled)
        if config.deep_unroll_steps is not None:
            deeper = window_strategies(context, config.deeper, sampling)[1]
            self.sources[config.deep_unroll_steps] = make_source(deeper)
        super().__init__(config, self.sources[None])
        self.model, self.items_each = model, items_each
        self._second_phase = config.teacher_forced_steps * config.accumulation  # number of the first unrolled batch

    def unroll_steps(self, index: int) -> int | None:
        """Predicted frames of batch `index` if it is unrolled, as those of the second phase are."""
        if index < self._second_phase:
            return None
        config = self.config.deeper if (index - self._second_phase) % 2 else self.config
        return config.unroll_steps

    def batch(self, index: int, device: torch.device) -> tuple[Window, int]:
        """This process's share of batch number `index` of the run, and the size of the whole batch."""
        self.source = self.sources[self.unroll_steps(index)]
        if self.source is not self.sources[None]:
            self.sources[None].close()
        return super().batch(index, device)

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        """See `window_losses`."""
        return window_losses(self.model, self.config, batch, self.unroll_steps(index) is not None, self.items_each)


def window_losses(
    model: Any, config: TrainConfig, window: Window, unrolled: bool, items_each: ItemsEach = own_items
) -> dict[str, Tensor]:
    """Scalars: `loss`, and its parts `latents`, `keypoints_predicted`, `keypoints_true` before weighting.

    A teacher-forced window has num_context + 1 frames; all but the first are predicted from the true ones before.
    An unrolled window has num_context observed frames (some may repeat) and the rest is predicted from predictions.
    """
    true, condition = window.latents, model.condition(window.track)
    if unrolled:
        observed = model.config.num_context
        predicted = model.unroll(true[:, :observed], condition)
        losses = {"latents": latent_loss(predicted, true[:, observed:])}
    else:
        predicted = model.predict(true, condition)
        # A frame that repeats the one before it has nothing to teach: "no action, no change" is given by repeats.
        counted = window.slots[1:] > window.repeats[:, None]
        losses = {"latents": latent_loss(predicted, true[:, 1:], counted, items_each)}

    def keypoints(latents: Tensor) -> Tensor:
        """Keypoint loss of the last frames of latents (B, T, P, D) that end with the window."""
        frames = min(config.keypoint_frames, predicted.shape[1])
        pixels, visible = (each[:, -frames:] for each in tracked_pixels(window.track))
        logits, kind = model.keypoint_logits(latents[:, -frames:]), model.config.keypoint_head.loss
        return keypoint_loss(logits, pixels, visible, model.config.image_size, config.sigma_px, kind, items_each)

    if config.hand_consistency:
        losses["keypoints_predicted"] = keypoints(predicted.detach() if config.detach_predictions else predicted)
    if config.true_keypoints:
        losses["keypoints_true"] = keypoints(true)
    weights = {"keypoints_predicted": config.hand_consistency, "keypoints_true": config.true_keypoints}
    total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
    return {"loss": total, **losses}
