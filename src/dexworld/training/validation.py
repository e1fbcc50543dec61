"""Figures on held-out episodes while a model trains: rollouts against standing still, and keypoints of true frames."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dexworld.data.sampling import StrideSampling
from dexworld.data.windows import Window
from dexworld.training.losses import inside_image, tracked_pixels
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
        self.windows, self.rollouts = windows, tuple(rollouts)
        self.sources = []
        for stride, steps in self.rollouts:
            weights = tuple(float(each == stride) for each in range(1, stride + 1))
            self.sources.append(make_source(StrideSampling(steps + 1, 1, weights, short_history=0.0, rate_hz=rate_hz)))

    @torch.no_grad()
    def __call__(self, model: Any, device: torch.device | str = "cpu") -> dict[str, float]:
        """Figures by name.

        mse_ratio_stride{s}_step{k}: squared error of the k-th predicted frame over that of repeating the start frame.
        shuffled_mse_ratio_...: the same with the actions of another window: near 1 or above when actions matter.
        pck20_true_latents: visible keypoints that are found within 20 px in latents of true frames.
        """
        figures: dict[str, float] = {}
        found = counted = 0
        for (stride, steps), source in zip(self.rollouts, self.sources, strict=True):
            errors = torch.zeros(3, steps, dtype=torch.float64)  # model, model with shuffled actions, standing still
            for step, size in enumerate(_chunks(self.windows)):
                window = source.batch(step, size).to(device)
                errors += self._rollout_errors(model, window, steps)
                if hasattr(model, "keypoints"):
                    correct, visible = _keypoints_found(model, window)
                    found, counted = found + correct, counted + visible
            ratio = errors[:2] / errors[2].clamp(min=1e-12)
            for k in sorted({1, steps}):
                figures[f"mse_ratio_stride{stride}_step{k}"] = float(ratio[0, k - 1])
                figures[f"shuffled_mse_ratio_stride{stride}_step{k}"] = float(ratio[1, k - 1])
        if counted:
            figures["pck20_true_latents"] = found / counted
        return figures

    @staticmethod
    def _rollout_errors(model: Any, window: Window, steps: int) -> Tensor:
        """Squared errors (3, steps), summed over windows: model, shuffled actions, standing still."""
        condition = model.condition(window.track)
        order = torch.arange(len(window.rows), device=window.rows.device).roll(1)
        shuffled = model.condition(window.track.index(order))
        start, true = window.latents[:, :1], window.latents[:, 1:]
        predictions = (model.unroll(start, condition), model.unroll(start, shuffled), start.expand_as(true))
        errors = [(each.float() - true).square().mean(dim=(-1, -2)).sum(dim=0) for each in predictions]
        return torch.stack(errors).double().cpu().reshape(3, steps)


def _keypoints_found(model: Any, window: Window) -> tuple[int, int]:
    """Keypoints found within 20 px in true latents, and keypoints visible inside the image."""
    true, visible = tracked_pixels(window.track)
    found, _ = model.keypoints(window.latents)
    counted = inside_image(true, visible, model.config.image_size)
    near = (found - true[..., :2]).norm(dim=-1) <= PCK_PX
    return int((near & counted).sum()), int(counted.sum())


def _chunks(total: int) -> list[int]:
    return [min(CHUNK, total - start) for start in range(0, total, CHUNK)]
