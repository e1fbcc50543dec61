"""A training step of DexWM the way its equations are written, to compare the trainer with.

All frames of a window lie in one sequence; boolean masks say who sees whom: "its own frame" and "the frames before".
Attention is the softmax of a matrix of scores. A rollout predicts the whole window again at every step and keeps its
last frame. Heatmap targets are drawn keypoint by keypoint. Gradients, weights and averages are gone through one by one.

Weights, embeddings of actions and pixel-aligned features are the model's own modules. B windows, T predicted frames,
P patches, D width, H heads, K keypoints, h x w heatmap size.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.data.windows import Window
from dexworld.hands import TRACKED
from dexworld.models.dexwm import DexWM
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.predictor import MODULATIONS, Block, Predictor, modulate, normalise, plain_rollout
from dexworld.training.losses import inside_image, keypoint_loss
from dexworld.training.train_config import TrainConfig


@dataclass(frozen=True)
class Choices:
    """Which of the trainer's ways the plain step takes over; none by default.

    kernel: torch's attention kernel instead of a softmax of scores, masks as they are. frames: each frame attends on
    its own, so that nothing is computed to be masked. cache: a rollout keeps the keys of frames that it has seen.
    targets: losses of keypoints from rows and columns of the Gaussians. optimiser: fused updates.
    """

    kernel: bool = False
    frames: bool = False
    cache: bool = False
    targets: bool = False
    optimiser: bool = False


def plain_losses(model: DexWM, window: Window, unrolled: bool, config: TrainConfig, choices: Choices) -> Tensor:
    """What `window_losses` minimises."""
    motion, true, size = model.condition(window.track), window.latents, model.config.predictor.num_context
    plain = _Plain(model.predictor, choices)
    if unrolled:
        target = true[:, size:]
        if choices.cache:
            predicted = model.unroll(true[:, :size], motion)
        else:
            predicted = plain_rollout(plain, true[:, :size], motion, target.shape[1])
        total = (predicted - target).square().mean()
    else:
        target, predicted = true[:, 1:], plain(true, motion)
        counted = (window.slots[1:] > window.repeats[:, None])[..., None, None].expand_as(target)
        total = (predicted - target).square()[counted].mean()
    frames = min(config.keypoint_frames, target.shape[1])
    for weight, seen in ((config.hand_consistency, predicted), (config.true_keypoints, true)):
        logits = plain_head(model.keypoint_head, seen[:, -frames:], choices)
        total = total + weight * _keypoints(model, logits, motion, window, frames, config, choices)
    return total


class _Plain:
    """The predictor's forward in one sequence; has what `plain_rollout` asks of a predictor."""

    def __init__(self, predictor: Predictor, choices: Choices) -> None:
        self.predictor, self.config, self.choices = predictor, predictor.config, choices

    def __call__(self, latents: Tensor, motion: HandMotion) -> Tensor:
        """Predictions (B, T, P, latent D) from latents (B, T + 1, P, latent D)."""
        predictor = self.predictor
        if self.choices.frames:
            return predictor(latents, motion)
        frames, tokens = latents.shape[1] - 1, latents.shape[2]
        condition = predictor.conditions(motion.deltas)
        context = predictor.context(latents[:, :-1], slice(0, frames))  # (B, T, P, D)
        frame = torch.arange(frames, device=latents.device).repeat_interleave(tokens)
        own, before = frame[:, None] == frame, frame[:, None] >= frame  # (T * P, T * P)
        x = predictor.start_query(context, motion)
        for block in predictor.layers:
            x = _block(block, x, context, condition, own, before, self.choices.kernel)
        shift, scale = predictor.final_modulation(condition[:, 1:])[:, :, None].chunk(2, dim=-1)
        output = predictor.project_out(predictor.final(modulate(normalise(x), shift, scale)))
        return latents[:, :-1] + output if self.config.residual else output


def _block(
    block: Block, x: Tensor, context: Tensor, condition: Tensor, own: Tensor, before: Tensor, kernel: bool
) -> Tensor:
    """Query tokens (B, T, P, D) through one block."""
    m = block.modulation(condition[:, 1:])[:, :, None].chunk(MODULATIONS, dim=-1)
    into = block.modulation(condition[:, :-1])[:, :, None].chunk(MODULATIONS, dim=-1)
    query, key, value = block.self_qkv(modulate(normalise(x), m[0], m[1])).chunk(3, dim=-1)
    x = x + m[2] * block.self_out(_window_attention(query, key, value, block.heads, own, kernel))
    query = block.cross_query(modulate(normalise(x), m[5], m[6]))
    key, value = block.cross_key_value(modulate(normalise(context), into[3], into[4])).chunk(2, dim=-1)
    x = x + m[7] * block.cross_out(_window_attention(query, key, value, block.heads, before, kernel))
    return x + m[10] * block.mlp(modulate(normalise(x), m[8], m[9]))


def _window_attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor, kernel: bool) -> Tensor:
    """Attention of all tokens (B, T, P, D) of a window in one sequence."""
    flat = (part.flatten(1, 2) for part in (query, key, value))
    return _attention(*flat, heads, mask, kernel).view(query.shape)


def _attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None, kernel: bool) -> Tensor:
    """Attention (B, L, D), written out or by torch's kernel. mask (L, L): what a query sees."""
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    if kernel:
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    else:
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        output = scores.softmax(dim=-1) @ value
    return output.transpose(1, 2).flatten(2)


def plain_head(head: KeypointHead, latents: Tensor, choices: Choices) -> Tensor:
    """Logits (B, T, K, h, w) of latents (B, T, P, D) on the encoder's own grid."""
    if choices.frames:
        return head(latents)
    x = head.project_in(latents.flatten(0, 1)) + head.positions
    for block in head.blocks:
        query, key, value = block.qkv(block.norm_attention(x)).chunk(3, dim=-1)
        x = x + block.out(_attention(query, key, value, block.heads, None, choices.kernel))
        x = x + block.mlp(block.norm_mlp(x))
    (rows, columns), cell, channels = head.token_grid, head.config.cell, head.config.channels
    x = head.project_out(head.norm(x)).view(-1, rows, columns, channels, cell, cell).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(*latents.shape[:2], channels, rows * cell, columns * cell)


def _keypoints(
    model: DexWM, logits: Tensor, motion: HandMotion, window: Window, frames: int, config: TrainConfig, choices: Choices
) -> Tensor:
    """Keypoint loss of logits (B, frames, K, h, w) of a window's last frames, against target maps."""
    shown = window.track.keypoints_shown[..., list(TRACKED)]
    pixels, visible = motion.pixels[:, -frames:], (motion.visible & shown)[:, -frames:]
    size, sigma, kind = model.config.image_size, config.sigma_px, model.config.keypoint_head.loss
    if choices.targets:
        return keypoint_loss(logits, pixels, visible, size, sigma, kind)
    losses = []
    for place in inside_image(pixels, visible, size).nonzero().tolist():
        each = tuple(place)
        target = _gaussian(logits.shape[-2:], pixels[each], size, sigma)
        if kind == "mse":
            losses.append((logits[each] - target).square().mean())
        else:
            target = target / target.sum()
            losses.append(-(target * logits[each].flatten().log_softmax(dim=0).view(target.shape)).sum())
    return torch.stack(losses).mean()


def _gaussian(shape: torch.Size, pixel: Tensor, image_size: tuple[int, int], sigma: float) -> Tensor:
    """A map (h, w) of peak 1 around a pixel [u, v, ...] of the image."""
    height, width = shape
    rows = (torch.arange(height, device=pixel.device) + 0.5) * (image_size[0] / height)
    columns = (torch.arange(width, device=pixel.device) + 0.5) * (image_size[1] / width)
    v, u = torch.meshgrid(rows, columns, indexing="ij")
    return torch.exp(-((u - pixel[0]) ** 2 + (v - pixel[1]) ** 2) / (2 * sigma**2))


@dataclass
class PlainStep:
    """Steps of training on one window: loss, gradients, clipping, AdamW, averaged weights."""

    model: DexWM
    config: TrainConfig
    choices: Choices
    step: int = 0
    optimiser: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [each for each in self.model.parameters() if each.requires_grad]
        matrices = [each for each in self.parameters if each.ndim >= 2]
        vectors = [each for each in self.parameters if each.ndim < 2]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            foreach=False,
            fused=self.choices.optimiser,
        )
        self.average = [each.detach().clone() for each in self.parameters]

    def __call__(self, window: Window, unrolled: bool) -> None:
        """One step."""
        self.optimiser.zero_grad(set_to_none=True)
        plain_losses(self.model, window, unrolled, self.config, self.choices).backward()
        fast = self.choices.optimiser
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip or float("inf"), foreach=fast)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step)
        self.optimiser.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            if fast:
                torch._foreach_lerp_(self.average, self.parameters, 1.0 - decay)
            else:
                for mean, value in zip(self.average, self.parameters, strict=True):
                    mean.mul_(decay).add_(value, alpha=1.0 - decay)
        self.step += 1
