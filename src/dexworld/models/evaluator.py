"""The keypoint evaluator: a keypoint head of its own, trained on true latents only, apart from every world model.

Figures of predicted keypoints are read with it, so that they never depend on the head of the model under test (DexWM
paper: a shared keypoint prediction layer, trained separately).
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dexworld.models.checkpoint import Pretrained
from dexworld.models.config import KeypointHeadConfig
from dexworld.models.keypoint_head import KeypointHead
from dexworld.models.latent_space import LatentSpace


@dataclass(frozen=True)
class EvaluatorConfig:
    """A keypoint head for the latents of one encoder."""

    latents: LatentSpace
    head: KeypointHeadConfig = field(default_factory=KeypointHeadConfig)


EVALUATOR_PRESETS: dict[str, KeypointHeadConfig] = {
    "debug": KeypointHeadConfig(dim=32, depth=1, heads=2),
    "tiny": KeypointHeadConfig(dim=128, depth=3),
    "small": KeypointHeadConfig(dim=256, depth=6, heads=8, mlp_ratio=4),
    # The released configuration: 12 blocks of width 512, read by the height of the maps' peaks.
    "paper": KeypointHeadConfig(dim=512, depth=12, heads=16, mlp_ratio=4, cell=14, loss="mse"),
}


class KeypointEvaluator(Pretrained):
    """Latents (..., P, D) to tracked keypoints. `provenance` says where the weights come from."""

    config_type = EvaluatorConfig

    def __init__(self, config: EvaluatorConfig, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.provenance = config, dict(provenance or {})
        space = config.latents
        self.head = KeypointHead(config.head, space.dim, space.grid, space.image_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Heatmap logits (..., 12, h, w) of latents (..., P, D)."""
        return self.head(latents)

    def keypoints(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Tracked keypoints (..., 12, 2) [u, v] in image pixels and confidences (..., 12) in [0, 1]."""
        return self.head.read(self.head(latents))
