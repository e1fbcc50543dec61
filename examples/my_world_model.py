"""A world model of your own: register its kind, then `train`, `evaluate` and `plan` take it like any other.

This one predicts how a token changes from the token itself and the mean motion of the hands. It shows the whole seam:
a config with `image_size`, `encoder` and `num_context`, and the methods of `WorldModel`. An installed package
names it in an entry point of the group `dexworld.world_models` instead of calling `register`.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dexworld.actions import ActionConvention, hand_motion
from dexworld.hands import NUM_KEYPOINTS
from dexworld.models.checkpoint import Pretrained
from dexworld.models.config import EncoderConfig
from dexworld.models.encoders import build_encoder
from dexworld.models.world_model import Kind, register
from dexworld.track import Track


@dataclass(frozen=True)
class TokenMLPConfig:
    """A network on every token by itself; it sees one frame back."""

    image_size: tuple[int, int] = (224, 392)
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(dim=16, patch=14, downsample=4))
    width: int = 64
    num_context: int = 1


class TokenMLP(Pretrained):
    """Latents (..., P, D) and mean hand displacements (..., 3) in metres to the change of the latents."""

    config_type, kind = TokenMLPConfig, "token-mlp"

    def __init__(self, config: TokenMLPConfig, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.provenance = config, dict(provenance or {})
        self.encoder = build_encoder(config.encoder, config.image_size).requires_grad_(False)
        dim = config.encoder.dim
        self.network = nn.Sequential(nn.Linear(dim + 3, config.width), nn.GELU(), nn.Linear(config.width, dim))

    def encode(self, images: Tensor) -> Tensor:
        return self.encoder.encode(images)

    def condition(self, track: Track) -> Tensor:
        """Mean displacement (..., T, 3) of the visible keypoints between the T + 1 frames, in units of 5 cm."""
        parts = (track.keypoints_world, track.keypoints_valid, track.world_from_camera, track.intrinsics)
        moved = hand_motion(*parts, ActionConvention()).deltas[..., :NUM_KEYPOINTS, :]
        return moved.mean(dim=-2) / 0.05

    def step(self, latents: Tensor, moved: Tensor) -> Tensor:
        """Latents (B, P, D) one step later."""
        wide = moved[:, None].expand(-1, latents.shape[1], -1)
        return latents + self.network(torch.cat([latents, wide], dim=-1))

    def predict(self, latents: Tensor, condition: Tensor) -> Tensor:
        flat = self.step(latents[:, :-1].flatten(0, 1), condition.flatten(0, 1))
        return flat.unflatten(0, condition.shape[:2])

    def unroll(self, latents: Tensor, condition: Tensor) -> Tensor:
        predicted = [latents[:, -1]]
        for moved in condition[:, latents.shape[1] - 1 :].unbind(1):
            predicted.append(self.step(predicted[-1], moved))
        return torch.stack(predicted[1:], dim=1)

    def start(self, latents: Tensor, condition: Tensor) -> Tensor:
        return latents[-1:]

    def rollout(self, context: Tensor, condition: Tensor, max_batch: int | None = None) -> Tensor:
        return self.unroll(context.expand(len(condition), -1, -1)[:, None], condition)


register(Kind(TokenMLP.kind, TokenMLP, TokenMLPConfig, {"token-mlp": TokenMLPConfig()}))
