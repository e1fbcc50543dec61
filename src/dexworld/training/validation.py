"""Figures on held-out episodes while a model trains: rollouts against standing still, and keypoints of true frames."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dexworld.data.sampling import StrideSampling
from dexworld.data.windows import Window
from dexworld.training.losses import keypoint_distances
from dexworld.training.window_task import MakeSource

CHUNK = 32  # windows at a time
PCK_PX = 20.0  # pixels of the model's image (DexWM paper: PCK@20 at 224 x 392)


class Validation:
    """Always the same windows of the same episodes, so that figures of two moments can be compared.

    make_source: windows of a strategy, cut from held-out episodes. rollouts: (stride, steps) pairs; each starts from a
    single frame, as planning does. windows: how many of each. rate_hz: what strides are counted in (`StrideSampling`).
    """

    def __init__(
        self, make_source: MakeSource, rollouts: Sequence[tuple[int, int]], windows: int, rate_hz: float | None = None
    ) -> None:
        self.windows, self.rollouts, self.sources = windows, rollouts, []
        for stride, steps in rollouts:
            weights = (*[0.0] * (stride - 1), 1.0)
            self.sources.append(make_source(StrideSampling(steps + 1, 1, weights, short_history=0.0, rate_hz=rate_hz)))

    @torch.no_grad()
    def __call__(self, model: Any, device: torch.device | str = "cpu") -> dict[str, float]:
        """Figures by name.

        mse_ratio_stride{s}_step{k}: squared error of the k-th predicted frame over that of repeating the start frame.
        shuffled_mse_ratio_...: the same with the actions of another window: near 1 or above when actions matter.
        pck20_true_latents: visible keypoints that are found within 20 px in latents of true frames.
        """
        figures: dict[str, float] = {}
        distances = []
        for (stride, steps), source in zip(self.rollouts, self.sources, strict=True):
            errors = torch.zeros(3, steps, dtype=torch.float64)  # model, model with shuffled actions, standing still
            for step, start in enumerate(range(0, self.windows, CHUNK)):
                size = min(CHUNK, self.windows - start)
                window = source.batch(step, size).to(device)
                errors += _rollout_errors(model, window)
                if hasattr(model, "keypoints"):
                    distances.append(keypoint_distances(model, window, model.config.image_size))
            ratio = errors[:2] / errors[2].clamp(min=1e-12)
            for k in sorted({1, steps}):
                figures[f"mse_ratio_stride{stride}_step{k}"] = float(ratio[0, k - 1])
                figures[f"shuffled_mse_ratio_stride{stride}_step{k}"] = float(ratio[1, k - 1])
        distance = torch.cat(distances) if distances else torch.zeros(0)
        if len(distance):
            figures["pck20_true_latents"] = int((distance <= PCK_PX).sum()) / len(distance)
        return figures


def _rollout_errors(model: Any, window: Window) -> Tensor:
    """Squared errors (3, steps), summed over windows: model, shuffled actions, standing still."""
    condition = model.condition(window.track)
    order = torch.arange(len(window.rows), device=window.rows.device).roll(1)
    shuffled = model.condition(window.track.index(order))
    start, true = window.latents[:, :1], window.latents[:, 1:]
    predictions = (model.unroll(start, condition), model.unroll(start, shuffled), start.expand_as(true))
    errors = [(each.float() - true).square().mean(dim=(-1, -2)).sum(dim=0) for each in predictions]
    return torch.stack(errors).double().cpu()
