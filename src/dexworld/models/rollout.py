"""Exact fast rollouts: what `predictor.plain_rollout` defines, without the work that cancels out.

Only the predicted frame's tokens go through the blocks. Depth never changes the context stream, so the keys and values
of observed frames depend on frame and slot alone: they are computed once per plan and shared by all candidates and all
solver iterations; those of predicted frames are each candidate's own. Both attentions merge exactly by log-sum-exp, so
the shared keys are never copied per candidate. When the window slides by a frame, an observed frame moves down a slot
and its position embedding changes, so there is one set of shared keys for each step; copies of frame 0 that pad a
short history keep theirs.

S contexts, G candidates each, N = S * G; C observed frames, T steps, P patches, D width, L keys, H heads, d head width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.models.attention import attend, attend_with_lse, merge_attention, split_heads
from dexworld.models.diffusion import Denoise, with_level
from dexworld.models.predictor import CrossAttention, Predictor, normalise

KeyValue = tuple[Tensor, Tensor]  # (S or N, H, L, d) each


@dataclass
class Context:
    """What was observed, and the keys and values that follow from it (filled in as steps ask for them).

    latents (S, C, P, latent D) of the last C <= num_context observed frames; conditions (S, C, width) of the actions
    that led into them; constant: computed without gradients and kept between rollouts.
    """

    latents: Tensor
    conditions: Tensor
    constant: bool
    steps: list[list[KeyValue]] = field(default_factory=list)


def start(predictor: Predictor, latents: Tensor, motion: HandMotion, constant: bool) -> Context:
    """A context from observed latents (S, C, P, latent D) and the motion (S, C - 1) between them.

    With `constant`, gradients don't flow into it, and its keys are kept for any number of rollouts.
    """
    if motion.deltas.ndim != 4 or tuple(motion.deltas.shape[:2]) != (latents.shape[0], latents.shape[1] - 1):
        needed = f"{latents.shape[1]} observed frames need {latents.shape[1] - 1} transitions of motion between them"
        raise ValueError(f"{needed}, in {latents.shape[0]} contexts; got {tuple(motion.deltas.shape[:-2])}")
    size = predictor.config.num_context
    with torch.set_grad_enabled(torch.is_grad_enabled() and not constant):
        conditions = predictor.conditions(motion.deltas)[:, -size:]
    return Context(latents[:, -size:].detach() if constant else latents[:, -size:], conditions, constant)


def rollout(predictor: Predictor, context: Context, motion: HandMotion, max_batch: int | None = None) -> Tensor:
    """Predicted latents (N, T, P, latent D) of candidates' motion (N, T), N a multiple of the number of contexts.

    Candidates of one context are consecutive. Differentiable with respect to `motion` (and to weights and observed
    latents unless the context is constant). max_batch: candidates that run at a time when there is one context.
    """
    total, count = motion.deltas.shape[0], context.latents.shape[0]
    if motion.deltas.ndim != 4 or motion.steps < 1 or total % count:
        found = tuple(motion.deltas.shape[:-2])
        raise ValueError(f"rollout wants motion (N, T), T >= 1 and N a multiple of the {count} contexts, not {found}")
    if max_batch is None or count > 1 or total <= max_batch:
        return _rollout(predictor, context, motion)
    parts = [motion.index(slice(first, first + max_batch)) for first in range(0, total, max_batch)]
    return torch.cat([_rollout(predictor, context, part) for part in parts])


def _rollout(predictor: Predictor, context: Context, motion: HandMotion) -> Tensor:
    candidates, size = motion.deltas.shape[0], predictor.config.num_context
    conditions = predictor.action_embedding(motion.deltas)  # (N, T, C)
    last = _repeat(context.latents[:, -1], candidates)
    alignment, pixels, visible = predictor.pixel_alignment, motion.pixels, motion.visible
    hands = None if alignment is None else alignment.features(pixels[:, 0], visible[:, 0])
    projected: list[Tensor] = []  # (N, P, D) of each prediction
    predictions: list[Tensor] = []
    for step in range(motion.steps):
        own = min(step, size)  # predicted frames in the window; they take its last slots
        shared = _shared_key_values(predictor, context, step) if own < size else []
        if own:
            streams = torch.stack(projected[-own:], dim=1) + predictor.positions[size - own : size]  # (N, own, P, D)
            x, normalised = streams[:, -1], normalise(streams).flatten(0, 1)
            led_into = _conditions_into(predictor, conditions[:, step - own : step], slot_0=own == size).flatten(0, 1)
        else:
            x = _repeat(predictor.context(context.latents[:, -1], size - 1), candidates)
        told = None
        if alignment is not None:
            following = alignment.features(pixels[:, step + 1], visible[:, step + 1])
            told, hands = alignment(hands, following), following
            x = x + told
        attentions = _attentions(predictor, shared, (normalised, led_into) if own else None, candidates)
        if predictor.diffusion is None:
            last = _through(predictor, x, conditions[:, step], attentions, last)
        else:
            denoise = _denoiser(predictor, told, conditions[:, step], list(attentions), last)
            last = predictor.diffusion.sample(last, denoise, seed=step)
        predictions.append(last)
        if step + 1 < motion.steps:
            projected.append(predictor.project_in(last))
    return torch.stack(predictions, dim=1)


def _attentions(
    predictor: Predictor, shared: list[KeyValue], own: tuple[Tensor, Tensor] | None, candidates: int
) -> Iterator[CrossAttention]:
    """Each block's attention to observed frames, `shared`, and to predicted ones, of streams and conditions `own`."""
    for index, block in enumerate(predictor.layers):
        private = _joined(block.context_key_value(*own), candidates, block.heads) if own else None
        yield _cross_attention(shared[index] if shared else None, private, candidates)


def _through(
    predictor: Predictor, x: Tensor, condition: Tensor, attentions: Iterable[CrossAttention], last: Tensor
) -> Tensor:
    """What the network makes of query tokens (N, P, D), (N, P, latent D)."""
    for block, attention in zip(predictor.layers, attentions, strict=True):
        x = block(x, condition, attention)
    return predictor.finish(x, condition, last)


def _denoiser(
    predictor: Predictor, told: Tensor | None, condition: Tensor, attentions: list[CrossAttention], last: Tensor
) -> Denoise:
    def denoise(noisy: Tensor, level: Tensor) -> Tensor:
        x = predictor.context(noisy, predictor.config.num_context - 1)
        x = x if told is None else x + told
        return _through(predictor, x, with_level(condition, level), attentions, last)

    return denoise


def _shared_key_values(predictor: Predictor, context: Context, step: int) -> list[KeyValue]:
    """Each block's keys and values (S, H, L, d) of the observed frames that are still in the window at `step`."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and not context.constant):
        while len(context.steps) <= step:
            context.steps.append(_next_shared(predictor, context, len(context.steps)))
    return context.steps[step]


def _next_shared(predictor: Predictor, context: Context, step: int) -> list[KeyValue]:
    """Shared keys of a step from those of the step before.

    Slot j holds observed frame j + step - pad, or frame 0 where that is negative. Where a slot holds frame 0 now and at
    the step before, its keys are the same, so those slots, the first ones, are taken over as a view.
    """
    size = predictor.config.num_context
    pad, slots = size - context.latents.shape[1], size - step
    kept = min(slots, max(0, pad - step + 1)) if step else 0
    end = kept * predictor.tokens
    old = [(key[:, :, :end], value[:, :, :end]) for key, value in context.steps[-1]] if kept else []
    if kept == slots:
        return old
    frames = [max(0, slot + step - pad) for slot in range(kept, slots)]
    streams = normalise(predictor.context(context.latents[:, frames], slice(kept, slots))).flatten(0, 1)
    led_into = _conditions_into(predictor, context.conditions[:, frames], slot_0=kept == 0).flatten(0, 1)
    batch, layers = context.latents.shape[0], predictor.layers
    new = [_joined(block.context_key_value(streams, led_into), batch, block.heads) for block in layers]
    if not kept:
        return new
    pairs = [[torch.cat(parts, dim=2) for parts in zip(*both, strict=True)] for both in zip(old, new, strict=True)]
    return [(key, value) for key, value in pairs]


def _conditions_into(predictor: Predictor, conditions: Tensor, slot_0: bool) -> Tensor:
    """Conditions (N, F, C) of context frames; the first one's is that of no action if it stands in slot 0."""
    if not slot_0:
        return conditions
    still = predictor.action_embedding.still()
    return torch.cat([still.expand(conditions.shape[0], -1, -1), conditions[:, 1:]], dim=1)


def _joined(key_value: KeyValue, batch: int, heads: int) -> KeyValue:
    """Keys and values (batch * F, P, D) of F frames each to (batch, H, F * P, d), as views."""
    key, value = (split_heads(part.unflatten(0, (batch, -1)).flatten(1, 2), heads) for part in key_value)
    return key, value


def _repeat(x: Tensor, candidates: int) -> Tensor:
    """(S, P, D) to (N, P, D), each context's rows for all of its candidates; a view when there is one context."""
    return x[:, None].expand(-1, candidates // x.shape[0], -1, -1).flatten(0, 1)


def _cross_attention(shared: KeyValue | None, private: KeyValue | None, candidates: int) -> CrossAttention:
    """Attention of candidates' queries (N, H, P, d) to shared keys (S, H, L, d), private ones (N, H, L', d)."""
    if shared is None:
        assert private is not None
        return lambda query: attend(query, *private)
    contexts = shared[0].shape[0]
    if private is None:
        return lambda query: _ungroup(attend(_group(query, contexts), *shared), candidates)
    if contexts == candidates or torch.is_grad_enabled():
        # Gradients don't pass the fused kernels' log-sum-exp, so here the shared keys are copied.
        key, value = (
            torch.cat([part.repeat_interleave(candidates // contexts, dim=0), own], dim=2)
            for part, own in zip(shared, private, strict=True)
        )
        return lambda query: attend(query, key, value)

    def merged(query: Tensor) -> Tensor:
        output, lse = attend_with_lse(_group(query, contexts), *shared)
        lse = _ungroup(lse[..., None], candidates)[..., 0]
        return merge_attention((_ungroup(output, candidates), lse), attend_with_lse(query, *private))

    return merged


def _group(x_NHPd: Tensor, contexts: int) -> Tensor:
    """(N, H, P, d) to (S, H, G * P, d)."""
    return x_NHPd.transpose(1, 2).unflatten(0, (contexts, -1)).flatten(1, 2).transpose(1, 2)


def _ungroup(x_SHQd: Tensor, candidates: int) -> Tensor:
    """(S, H, G * P, d) to (N, H, P, d)."""
    contexts = x_SHQd.shape[0]
    return x_SHQd.transpose(1, 2).unflatten(1, (candidates // contexts, -1)).flatten(0, 1).transpose(1, 2)
