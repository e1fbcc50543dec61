"""What one window costs: the forward pass of training, as a module so that a distributed wrapper can go around it."""

from typing import Any

import torch
from torch import Tensor, nn

from dexworld.data.windows import Window
from dexworld.training.config import TrainConfig
from dexworld.training.losses import ItemsEach, keypoint_loss, latent_loss, own_items, tracked_pixels


class WindowLoss(nn.Module):
    """Losses of a batch of windows, teacher-forced or unrolled.

    A teacher-forced window has num_context + 1 frames; all but the first are predicted from the true ones before.
    An unrolled window has num_context observed frames (some may repeat) and the rest is predicted from predictions.
    items_each: divisor for means over this rank's share of a batch (see `losses.latent_loss`). Raises ValueError when
    keypoint losses are asked for and the model has no keypoint head.
    """

    def __init__(self, model: Any, config: TrainConfig, items_each: ItemsEach = own_items) -> None:
        super().__init__()
        self.model, self.config, self.items_each = model, config, items_each
        if (config.hand_consistency or config.true_keypoints) and not hasattr(model, "keypoint_logits"):
            raise ValueError("this world model has no keypoint head: set hand_consistency and true_keypoints to 0")

    def forward(self, window: Window, unrolled: bool) -> dict[str, Tensor]:
        """Scalars: `loss`, and its parts `latents`, `keypoints_predicted`, `keypoints_true` before weighting."""
        model, config = self.model, self.config
        condition = model.condition(window.track)
        true = window.latents
        if unrolled:
            observed = model.config.num_context
            predicted = model.unroll(true[:, :observed], condition)
            losses = {"latents": latent_loss(predicted, true[:, observed:])}
        else:
            predicted = model.predict(true, condition)
            # A frame that repeats the one before it has nothing to teach: "no action, no change" is given by repeats.
            counted = window.slots[1:] > window.repeats[:, None]
            losses = {"latents": latent_loss(predicted, true[:, 1:], counted, self.items_each)}
        frames = min(config.keypoint_frames, predicted.shape[1])
        if config.hand_consistency:
            seen = predicted.detach() if config.detach_predictions else predicted
            losses["keypoints_predicted"] = self._keypoints(seen[:, -frames:], window)
        if config.true_keypoints:
            losses["keypoints_true"] = self._keypoints(true[:, -frames:], window)
        weights = {
            "latents": 1.0,
            "keypoints_predicted": config.hand_consistency,
            "keypoints_true": config.true_keypoints,
        }
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return {"loss": total, **losses}

    def _keypoints(self, latents: Tensor, window: Window) -> Tensor:
        """Keypoint loss of latents (B, T, P, D) of the last T frames of the window."""
        frames = latents.shape[1]
        pixels, visible = tracked_pixels(window.track)
        return keypoint_loss(
            self.model.keypoint_logits(latents),
            pixels[:, -frames:],
            visible[:, -frames:],
            self.model.config.image_size,
            self.config.sigma_px,
            self.model.config.keypoint_head.loss,
            self.items_each,
        )
