"""The keypoint evaluator: a keypoint head of its own, trained on true latents only, apart from every world model.

Figures of predicted keypoints are read with it, so that they never depend on the head of the model under test (DexWM
paper: a shared keypoint prediction layer, trained separately).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dexworld.models.checkpoint import load_exactly, read_checkpoint, write_checkpoint
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


def evaluator_preset(name: str) -> KeypointHeadConfig:
    """The preset of that name. Raises ValueError listing the names there are."""
    if name not in EVALUATOR_PRESETS:
        raise ValueError(f"no evaluator preset {name!r}; choose from {', '.join(EVALUATOR_PRESETS)}")
    return EVALUATOR_PRESETS[name]


class KeypointEvaluator(nn.Module):
    """Latents (..., P, D) to tracked keypoints. `provenance` says where the weights come from."""

    def __init__(self, config: EvaluatorConfig, provenance: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        self.provenance: dict[str, Any] = dict(provenance or {})
        space = config.latents
        self.head = KeypointHead(config.head, space.dim, space.grid, space.image_size)

    def forward(self, latents: Tensor) -> Tensor:
        """Heatmap logits (..., 12, h, w) of latents (..., P, D)."""
        return self.head(latents)

    def keypoints(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Tracked keypoints (..., 12, 2) [u, v] in image pixels and confidences (..., 12) in [0, 1]."""
        return self.head.read(self.head(latents))

    def save_pretrained(self, folder: str | Path, provenance: dict[str, Any] | None = None) -> None:
        """Write `config.json` and `model.safetensors`."""
        if provenance is not None:
            self.provenance = dict(provenance)
        write_checkpoint(folder, self.config, self.state_dict(), self.provenance)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: str | Path) -> "KeypointEvaluator":
        """Load a checkpoint folder or Hugging Face model id, on the CPU and in evaluation mode.

        Raises CheckpointError when it is missing, truncated, of another format version or does not fit its config.
        """
        config, weights, provenance = read_checkpoint(folder_or_hub_id, EvaluatorConfig)
        evaluator = cls(config, provenance)
        load_exactly(evaluator, weights, folder_or_hub_id)
        return evaluator.eval()
