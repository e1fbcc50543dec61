"""Networks that clean a noisy chunk of actions: the 1-D U-Net and the transformer of Diffusion Policy.

Source: Chi et al., "Diffusion Policy: Visuomotor Policy Learning via Action Diffusion", IJRR 2025, sections 3.1 and A.
B batch, T actions of a chunk, A numbers of an action, C tokens of the condition, W their width.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

GROUPS = 8  # of the U-Net's group norms


class StepEmbedding(nn.Module):
    """Diffusion steps (B,) to sines and cosines (B, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pairs = dim // 2

    def forward(self, steps: Tensor) -> Tensor:
        """Sines and cosines (B, 2 pairs) of steps (B,)."""
        rates = torch.arange(self.pairs, device=steps.device) * (-math.log(10_000) / (self.pairs - 1))
        angles = steps.float()[:, None] * rates.exp()
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ConditionedBlock(nn.Module):
    """Two convolutions along time with a shortcut; the condition scales and shifts what the first one gives (FiLM)."""

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(inputs, outputs, kernel), _convolution(outputs, outputs, kernel)
        self.modulation = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * outputs))
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Features (B, C', T) of x (B, C, T), scaled and shifted as the condition (B, D) says."""
        scale, shift = self.modulation(condition)[..., None].chunk(2, dim=1)
        return self.second(scale * self.first(x) + shift) + self.shortcut(x)


class ConditionedBlocks(nn.ModuleList):
    """Blocks in a row."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C, T) through every block, under the same condition (B, D)."""
        for block in self:
            x = block(x, condition)
        return x


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, outputs), nn.Mish())


class UNet(nn.Module):
    """The U-Net over time: as many halvings of T as there are channels, less one; T must be a multiple of their power.

    condition: width of the flattened condition. step_dim: of the embedded diffusion step.
    """

    def __init__(self, action: int, condition: int, channels: tuple[int, ...], kernel: int, step_dim: int) -> None:
        super().__init__()
        steps = [StepEmbedding(step_dim), nn.Linear(step_dim, 4 * step_dim), nn.Mish()]
        self.steps = nn.Sequential(*steps, nn.Linear(4 * step_dim, step_dim))
        condition += step_dim

        def pair(inputs: int, outputs: int) -> ConditionedBlocks:
            return ConditionedBlocks(ConditionedBlock(each, outputs, condition, kernel) for each in (inputs, outputs))

        last, levels = channels[-1], list(pairwise(channels))
        self.down = nn.ModuleList(pair(*each) for each in pairwise((action, *channels)))
        self.shrink = nn.ModuleList(nn.Conv1d(each, each, 3, 2, 1) for each in channels[:-1])
        self.middle = pair(last, last)
        self.up = nn.ModuleList(pair(2 * outer, inner) for inner, outer in reversed(levels))
        self.grow = nn.ModuleList(nn.ConvTranspose1d(inner, inner, 4, 2, 1) for inner, _ in reversed(levels))
        self.out = nn.Sequential(_convolution(channels[0], channels[0], kernel), nn.Conv1d(channels[0], action, 1))

    def forward(self, noisy: Tensor, steps: Tensor, condition: Tensor) -> Tensor:
        """Clean actions (B, T, A) from noisy ones (B, T, A) at diffusion steps (B,), under a condition (B, C, W)."""
        told, x, kept = torch.cat([self.steps(steps), condition.flatten(1)], dim=-1), noisy.transpose(1, 2), []
        for level, blocks in enumerate(self.down):
            x = blocks(x, told)
            kept.append(x)
            x = self.shrink[level](x) if level < len(self.shrink) else x
        x = self.middle(x, told)
        for blocks, grow in zip(self.up, self.grow, strict=True):
            x = grow(blocks(torch.cat([x, kept.pop()], dim=1), told))
        return self.out(x).transpose(1, 2)


class ActionTransformer(nn.Module):
    """The transformer: actions attend to those before them, and to the diffusion step and the condition.

    Departures: every action sees the whole condition, as the chunk begins after the last observation and the goal
    belongs to all of it; nothing is dropped out.
    """

    def __init__(self, action: int, horizon: int, tokens: int, width: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed, self.told, self.steps = nn.Linear(action, dim), nn.Linear(width, dim), StepEmbedding(dim)
        self.places = nn.Parameter(torch.empty(horizon, dim))
        self.token_places = nn.Parameter(torch.empty(1 + tokens, dim))
        self.encoder = nn.Sequential(nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim))
        layer = nn.TransformerDecoderLayer(dim, heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, depth, nn.LayerNorm(dim))
        self.out = nn.Linear(dim, action)
        for name, value in self.named_parameters():
            if value.ndim > 1:
                nn.init.normal_(value, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(value)

    def forward(self, noisy: Tensor, steps: Tensor, condition: Tensor) -> Tensor:
        """Clean actions (B, T, A), as of `UNet.forward`."""
        tokens = torch.cat([self.steps(steps)[:, None], self.told(condition)], dim=1) + self.token_places
        causal = nn.Transformer.generate_square_subsequent_mask(noisy.shape[1], device=noisy.device)
        x = self.embed(noisy) + self.places
        return self.out(self.decoder(x, self.encoder(tokens), tgt_mask=causal, tgt_is_causal=True))
