"""The diffusion transformer: diffusers' CogVideoX or Wan class, with the hands let in; new layers start at zero."""

import copy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dexworld.video.model.backbone_layers import (
    PATCH,
    GatedSkip,
    HandEmbedding,
    Modulation,
    modulate_by_hands,
    zero_linear,
)
from dexworld.video.model.published_parts import require
from dexworld.video.model.video_config import DWMConfig


def build_transformer(config: DWMConfig) -> Any:
    """A new transformer of diffusers' class for `config`. Raises ImportError naming the extra without diffusers."""
    require("diffusers")
    import diffusers

    backbone, clip = config.backbone, config.clip
    common = {"num_attention_heads": backbone.heads, "attention_head_dim": backbone.head_dim}
    common |= {"in_channels": config.in_channels, "out_channels": config.codec.channels, "num_layers": backbone.depth}
    if backbone.kind == "wan":
        return diffusers.WanTransformer3DModel(
            **common,
            patch_size=(1, PATCH, PATCH),
            text_dim=backbone.text_dim,
            ffn_dim=backbone.mlp_dim or 4 * backbone.width,
        )
    return diffusers.CogVideoXTransformer3DModel(
        **common,
        time_embed_dim=backbone.time_dim,
        text_embed_dim=backbone.text_dim,
        max_text_seq_length=backbone.text_tokens,
        use_rotary_positional_embeddings=backbone.rotary,
        sample_height=backbone.sample_height or clip.latent_height,
        sample_width=backbone.sample_width or clip.latent_width,
        sample_frames=clip.frames,
        patch_size=PATCH,
    )


class Backbone(nn.Module):
    """A transformer and what lets hands into it. `transformer` may be given, e.g. with published weights."""

    def __init__(self, config: DWMConfig, transformer: Any = None) -> None:
        super().__init__()
        self.config = config
        self.transformer: Any = build_transformer(config) if transformer is None else transformer
        if transformer is None and config.prediction == "residual":
            # A zero output is the static video: new models start as the identity.
            nn.init.zeros_(self.transformer.proj_out.weight)
            nn.init.zeros_(self.transformer.proj_out.bias)
        self.hand_embedding: HandEmbedding | None = None
        self.control: ControlBranch | None = None
        self.skip: GatedSkip | None = None
        width = config.backbone.width
        if config.condition in ("adaln-global", "adaln-frame"):
            self.hand_embedding = HandEmbedding(width, pooled=config.condition == "adaln-global")
            modulate_by_hands(self.transformer, width)
        elif config.condition == "control":
            self.control = ControlBranch(self.transformer, config.codec.channels, config.control_depth)
        if config.backbone.skip_maps:
            self.skip = GatedSkip(config.in_channels, config.codec.channels, width, config.backbone.skip_maps)

    def recompute(self, enabled: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what is inside."""
        if enabled:
            self.transformer.enable_gradient_checkpointing()  # our own loop looks at the same switch
        else:
            self.transformer.disable_gradient_checkpointing()

    def forward(
        self,
        channels: Tensor,
        timestep: Tensor,
        text: Tensor | None = None,
        hand_vectors: Tensor | None = None,
        control: Tensor | None = None,
    ) -> Tensor:
        """The transformer's raw answer (B, f, C, h, w) to input channels (B, f, in, h, w) at timesteps (B,), 0 .. 999.

        text: (B, L, D); zeros when None. hand_vectors: (B, F, 128), for the AdaLN conditions. control: (B, f, C, h, w)
        latents of the silhouette, for `control`. Raises ValueError when the condition's input is missing.
        """
        backbone = self.config.backbone
        if text is None:
            text = channels.new_zeros(len(channels), backbone.text_tokens, backbone.text_dim)
        text = text.to(channels)
        if backbone.kind == "wan":
            # Wan's timestep is 1000 times the noise level
            answer = self.transformer(channels.transpose(1, 2), timestep + 1, text, return_dict=False)[0]
            return answer.transpose(1, 2)
        rotary = self._rotary(channels)
        hands = None
        if self.hand_embedding is not None:
            if hand_vectors is None:
                raise ValueError(f"condition {self.config.condition!r} needs hand_vectors")
            hands = self.hand_embedding(hand_vectors.to(channels))
        answer, tokens = run_cogvideox(self.transformer, channels, text, timestep, rotary, hands, self.control, control)
        if self.skip is not None:
            answer = answer + self.skip(channels, tokens)
        return answer

    def _rotary(self, channels: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self.config.backbone.rotary:
            return None
        frames, _, height, width = channels.shape[1:]
        settings = self.transformer.config
        base = (settings.sample_height // PATCH, settings.sample_width // PATCH)
        cosine, sine = _rotary_table(self.config.backbone.head_dim, frames, (height // PATCH, width // PATCH), base)
        return cosine.to(channels.device), sine.to(channels.device)


@lru_cache(maxsize=16)
def _rotary_table(head_dim: int, frames: int, grid: tuple[int, int], base: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cosines and sines (f h w / 4, head_dim) of 3-D rotary positions, the grid in the middle of the base."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    scale = min(base[0] / grid[0], base[1] / grid[1])
    rows, columns = round(grid[0] * scale), round(grid[1] * scale)
    top, left = round((base[0] - rows) / 2), round((base[1] - columns) / 2)
    region = ((top, left), (top + rows, left + columns))
    cosine, sine = get_3d_rotary_pos_embed(head_dim, region, grid, frames)
    return cosine, sine


def run_cogvideox(
    transformer: Any,
    channels: Tensor,
    text: Tensor,
    timestep: Tensor,
    rotary: tuple[Tensor, Tensor] | None,
    hands: Tensor | None = None,
    control: "ControlBranch | None" = None,
    control_latents: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """CogVideoX's forward pass with two openings: hand embeddings for the norms, and a control branch.

    Returns the answer (B, f, C, h, w), equal to `transformer.forward` without either, and the last block's video tokens
    (B, f P, D). hands: (B, f, E) or (B, 1, E), after `modulate_by_hands`.
    """
    batch, frames, _, height, width = channels.shape
    time = transformer.time_embedding(transformer.time_proj(timestep).to(channels.dtype))
    modulation = time if hands is None else Modulation(time, hands)
    tokens = transformer.patch_embed(text, channels)
    text, video = tokens[:, : text.shape[1]], tokens[:, text.shape[1] :]
    added = [] if control is None else control(video, text, time, rotary, control_latents)
    for index, block in enumerate(transformer.transformer_blocks):
        arguments = (video, text, modulation, rotary)
        if transformer.gradient_checkpointing and torch.is_grad_enabled():
            video, text = checkpoint(block, *arguments, use_reentrant=False)
        else:
            video, text = block(*arguments)
        if index < len(added):
            video = video + added[index]
    out = transformer.proj_out(transformer.norm_out(transformer.norm_final(video), temb=time))
    cells = out.reshape(batch, frames, height // PATCH, width // PATCH, -1, PATCH, PATCH)
    return cells.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4), video


class ControlBranch(nn.Module):
    """A copy of the first blocks that reads the hands' silhouette and adds to the main ones (InterDyn, CVPR 2025)."""

    def __init__(self, transformer: Any, channels: int, depth: int) -> None:
        super().__init__()
        blocks = transformer.transformer_blocks
        if depth > len(blocks):
            raise ValueError(f"control_depth is {depth}, the backbone has {len(blocks)} blocks")
        width = transformer.proj_out.in_features
        self.patch = nn.Conv2d(channels, width, kernel_size=PATCH, stride=PATCH)
        self.blocks = copy.deepcopy(blocks[:depth])
        self.out = nn.ModuleList(zero_linear(width, width) for _ in range(depth))

    def forward(
        self, video: Tensor, text: Tensor, time: Tensor, rotary: tuple[Tensor, Tensor] | None, latents: Tensor
    ) -> list[Tensor]:
        """What to add after each of the first main blocks, (B, f P, D) each, for silhouette latents (B, f, C, h, w)."""
        batch = len(latents)
        control = self.patch(latents.to(video.dtype).flatten(0, 1)).flatten(2).transpose(1, 2)
        video = video + control.reshape(batch, -1, video.shape[2])
        added = []
        for block, out in zip(self.blocks, self.out, strict=True):
            video, text = block(video, text, time, rotary)
            added.append(out(video))
        return added
