"""The latent dynamics: a conditional transformer that predicts the next frame's tokens from those of earlier frames.

DexWM paper, section 3.2 and Figure 3, with the released code's details. B batch, T frames, P patches, D predictor
width, H heads, L context tokens, C width of the action condition.

A window has slots 0 .. num_context. The *context* stream of a slot is its projected latents plus the slot's position
embedding, and depth never changes it. The *query* stream of slot i starts as the context of slot i - 1 (its position
embedding included), attends to itself, then to the contexts of all slots before i, and becomes the prediction of
frame i.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dexworld.actions import ACTION_DIM, HandMotion
from dexworld.models.attention import attend, merge_heads, split_heads
from dexworld.models.conditioning import ActionEmbedding, PixelAlignment
from dexworld.models.config import PredictorConfig
from dexworld.models.diffusion import Diffusion, with_level

NORM_EPS = 1e-6
MODULATIONS = 11  # vectors per block: self shift, scale, gate; context shift, scale; cross shift, scale, gate; MLP same
CONTEXT_MODULATION = slice(3, 5)

CrossAttention = Callable[[Tensor], Tensor]  # queries (N, H, P, d) -> (N, H, P, d)


def normalise(x: Tensor) -> Tensor:
    """LayerNorm without affine, over the last dimension."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def modulate(normalised: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """AdaLN: `normalised` (N, P, D) * (1 + scale) + shift, with one vector (N, 1, D) for all tokens of a frame."""
    return torch.addcmul(shift, normalised, 1.0 + scale)


def zeroed_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer that starts as zeros. Without inputs it is a learned vector."""
    layer = nn.Linear(inputs or 1, outputs)
    if not inputs:  # FSDP takes no parameter without elements
        del layer.weight
        layer.register_buffer("weight", torch.empty(outputs, 0), persistent=False)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Self-attention within a frame, cross-attention to the context, MLP; each modulated and gated by the action."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, condition_dim: int) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.self_qkv = nn.Linear(dim, 3 * dim)
        self.self_out = nn.Linear(dim, dim)
        self.cross_query = nn.Linear(dim, dim)
        self.cross_key_value = nn.Linear(dim, 2 * dim)
        self.cross_out = nn.Linear(dim, dim)
        first, second = nn.Linear(dim, mlp_ratio * dim), nn.Linear(mlp_ratio * dim, dim)
        self.mlp = nn.Sequential(first, nn.GELU(approximate="tanh"), second)
        self.modulation = zeroed_linear(condition_dim, MODULATIONS * dim)

    def context_key_value(self, context: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (N, P, D) of normalised context frames (N, P, D) that actions `condition` (N, C) lead to."""
        rows = slice(CONTEXT_MODULATION.start * self.dim, CONTEXT_MODULATION.stop * self.dim)
        modulation = F.linear(condition, self.modulation.weight[rows], self.modulation.bias[rows])
        shift, scale = modulation[:, None].chunk(2, dim=-1)
        key, value = self.cross_key_value(modulate(context, shift, scale)).chunk(2, dim=-1)
        return key, value

    def forward(self, x: Tensor, condition: Tensor, cross_attention: CrossAttention) -> Tensor:
        """Query tokens (N, P, D) of N frames that actions `condition` (N, C) lead to."""
        vectors = self.modulation(condition)[:, None].chunk(MODULATIONS, dim=-1)
        shift_self, scale_self, gate_self, _, _, shift_cross, scale_cross, gate_cross = vectors[:8]
        shift_mlp, scale_mlp, gate_mlp = vectors[8:]
        qkv = self.self_qkv(modulate(normalise(x), shift_self, scale_self))
        query, key, value = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        x = torch.addcmul(x, gate_self, self.self_out(merge_heads(attend(query, key, value))))
        query = split_heads(self.cross_query(modulate(normalise(x), shift_cross, scale_cross)), self.heads)
        x = torch.addcmul(x, gate_cross, self.cross_out(merge_heads(cross_attention(query))))
        return torch.addcmul(x, gate_mlp, self.mlp(modulate(normalise(x), shift_mlp, scale_mlp)))


class Predictor(nn.Module):
    """CDiT over windows of latents. A new one with `residual` predicts that nothing changes."""

    def __init__(
        self,
        config: PredictorConfig,
        latent_dim: int,
        grid: tuple[int, int],
        image_size: tuple[int, int],
        action_scale: tuple[float, float, float],
        action_dim: int = ACTION_DIM,
    ) -> None:
        super().__init__()
        self.config = config
        dim, same = config.dim, latent_dim == config.dim
        self.tokens = grid[0] * grid[1]
        self.action_embedding = ActionEmbedding(config, action_scale, action_dim)
        condition_dim = self.action_embedding.dim
        self.diffusion = None if config.diffusion is None else Diffusion(config.diffusion)
        self.pixel_alignment = PixelAlignment(config, grid, image_size) if config.pixel_aligned else None
        self.project_in = nn.Identity() if same else nn.Linear(latent_dim, dim)
        self.positions = nn.Parameter(torch.randn(config.num_context + 1, self.tokens, dim).mul_(0.02))
        sizes = (dim, config.heads, config.mlp_ratio, condition_dim)
        self.blocks = nn.ModuleList(Block(*sizes) for _ in range(config.depth))
        self.final_modulation = zeroed_linear(condition_dim, 2 * dim)
        self.final = nn.Linear(dim, dim)
        self.project_out: nn.Module = nn.Identity() if same else nn.Linear(dim, latent_dim)
        # The paper zeroes `final`. With a projection behind it we zero the projection instead when the output is a
        # residual: the start is then exactly copy-last, and gradients still reach both layers.
        last = self.project_out if config.residual and isinstance(self.project_out, nn.Linear) else self.final
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, latents: Tensor, motion: HandMotion) -> Tensor:
        """Teacher-forced prediction (B, T, P, D) of frames 1 .. T from latents (B, T + 1, P, D) of frames 0 .. T.

        Frame i sees frames 0 .. i - 1 only, and with diffusion itself behind random noise. `motion` has B windows of
        T <= num_context transitions.
        """
        batch, frames = latents.shape[0], latents.shape[1] - 1
        self._check(latents, motion, frames)
        condition = self.conditions(motion.deltas)
        before, into = condition[:, :-1].flatten(0, 1), condition[:, 1:].flatten(0, 1)
        context = self.context(latents[:, :-1], slice(0, frames))
        normalised = normalise(context).flatten(0, 1)
        last = latents[:, :-1].flatten(0, 1)

        def through(queries: Tensor, condition: Tensor) -> Tensor:
            x = self.start_query(queries, motion).flatten(0, 1)
            for block in self.layers:
                key, value = (
                    split_heads(part.unflatten(0, (batch, frames)).flatten(1, 2), block.heads)  # (B, H, T * P, d)
                    for part in block.context_key_value(normalised, before)
                )
                x = block(x, condition, _frame_causal_attention(key, value, frames))
            return self.finish(x, condition, last)

        def denoise(noisy: Tensor, level: Tensor) -> Tensor:
            queries = self.context(noisy.unflatten(0, (batch, frames)), slice(0, frames))
            return through(queries, with_level(into, level))

        if self.diffusion is None:
            predicted = through(context, into)
        else:
            predicted = self.diffusion.taught(latents[:, 1:].flatten(0, 1), denoise)
        return predicted.unflatten(0, (batch, frames))

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast(list[Block], list(self.blocks))

    def conditions(self, deltas: Tensor) -> Tensor:
        """Conditions (B, T + 1, C) of every slot from actions (B, T, 44, 3); slot 0 has the zero action."""
        return self.action_embedding(F.pad(deltas, (0, 0, 0, 0, 1, 0)))

    def context(self, latents: Tensor, slots: slice | int) -> Tensor:
        """The context stream of latents: (..., S, P, latent D) in S slots, or (..., P, latent D) in one, to width D."""
        return self.project_in(latents) + self.positions[slots]

    def start_query(self, context: Tensor, motion: HandMotion) -> Tensor:
        """Query tokens (B, T, P, D) before the first block, from the contexts of the frames before."""
        if self.pixel_alignment is None:
            return context
        features = self.pixel_alignment.features(motion.pixels, motion.visible)  # (B, T + 1, P, channels)
        return context + self.pixel_alignment(features[:, :-1], features[:, 1:])

    def finish(self, x: Tensor, condition: Tensor, last_latents: Tensor) -> Tensor:
        """Predicted latents (N, P, latent D) from the query stream after the last block."""
        shift, scale = self.final_modulation(condition)[:, None].chunk(2, dim=-1)
        output = self.project_out(self.final(modulate(normalise(x), shift, scale)))
        return last_latents + output if self.config.residual else output

    def _check(self, latents: Tensor, motion: HandMotion, frames: int) -> None:
        if not 1 <= frames <= self.config.num_context:
            longest = self.config.num_context + 1
            raise ValueError(f"a window holds 2 to {longest} frames, not {frames + 1}; `unroll` predicts further")
        expected, found = (latents.shape[0], frames), tuple(motion.deltas.shape[:-2])
        if found != expected:
            raise ValueError(f"motion is {found}, but the latents ask for (B, T) = {expected}")


def _frame_causal_attention(key: Tensor, value: Tensor, frames: int) -> CrossAttention:
    """Cross-attention of the query of slot i to the contexts of slots 0 .. i - 1; keys and values (B, H, T * P, d).

    One unmasked call per slot: it computes only what a mask would keep, and any fused kernel takes it.
    """
    tokens = key.shape[2] // frames

    def cross_attention(query: Tensor) -> Tensor:
        ends = (tokens * (slot + 1) for slot in range(frames))
        queries = query.unflatten(0, (-1, frames)).unbind(1)
        outputs = [attend(each, key[:, :, :end], value[:, :, :end]) for each, end in zip(queries, ends, strict=True)]
        return torch.stack(outputs, dim=1).flatten(0, 1)

    return cross_attention


def plain_rollout(predictor: Predictor, latents: Tensor, motion: HandMotion, steps: int) -> Tensor:
    """The definition of a rollout, as slow as it is plain: predictions (B, steps, P, D).

    latents (B, C, P, D) observed, motion (B, C - 1 + steps). The window holds the last num_context frames; before frame
    0 stand copies of it that zero actions lead to. `rollout.py` computes the same thing fast.
    """
    size = predictor.config.num_context
    pad = max(0, size - latents.shape[1])
    latents = torch.cat([latents[:, :1]] * pad + [latents], dim=1)
    motion = motion.pad_left(pad)
    for _ in range(steps):
        end = latents.shape[1]
        window = torch.cat([latents[:, end - size :], latents[:, -1:]], dim=1)  # the last frame is a placeholder
        prediction = predictor(window, motion.slice(end - size, end))[:, -1:]
        latents = torch.cat([latents, prediction], dim=1)
    return latents[:, -steps:]
