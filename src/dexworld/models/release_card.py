"""What is written down about a converted checkpoint of the DexWM release: what was assumed, and the model card."""

from collections.abc import Mapping
from typing import Any

from dexworld.models.config import DexWMConfig

LICENCE = "CC-BY-NC-4.0"
ENCODER_DIFFERENCES = {  # where the same encoder weights give other latents than in the release
    "dinov2": "The release takes DINOv2 from torch.hub, which shifts position embeddings by a tenth of a patch when it "
    "resizes them; transformers does not. So latents of images differ slightly from the release's.",
    "vjepa2": "The release takes V-JEPA 2 from transformers, whose versions 5.17 to 5.23 number positions wrongly on "
    "grids that are not square. Our encoder numbers them right, so latents of images may differ.",
}


def assumptions(config: DexWMConfig, keypoint_rows: str) -> list[str]:
    """What was assumed in reading a checkpoint, a sentence each."""
    notes = [
        f"The tensors don't tell the number of attention heads: {config.predictor.heads} in the predictor, "
        f"{config.keypoint_head.heads} in the keypoint head.",
        f"Rows of the keypoint head's last layer are {keypoint_rows}. If heatmaps look scrambled, take the other.",
        "No scene of this package's simulator was among the training data.",
        f"The encoder is {config.encoder.source}; a copy in the file is not converted.",
        ENCODER_DIFFERENCES.get(config.encoder.family or ""),
    ]
    return [note for note in notes if note]


def model_card(config: DexWMConfig, provenance: Mapping[str, Any]) -> str:
    """The README.md of a converted checkpoint."""
    predictor, head, (height, width) = config.predictor, config.keypoint_head, config.image_size
    listed = "\n".join(f"- {note}" for note in provenance["assumed"])
    return f"""---
license: cc-by-nc-4.0
---
# A checkpoint of the DexWM release, converted

Licence: the weights are those of the authors of DexWM (arXiv 2512.13644) and keep their licence, {LICENCE}: **no
commercial use**. The Apache-2.0 licence of dexworld's code does not cover them.

| | |
|---|---|
| Converted from | `{provenance["source"]}`, SHA-256 `{provenance["sha256"]}` |
| Predictor | width {predictor.dim}, {predictor.depth} blocks, window of {predictor.num_context} frames |
| Keypoint head | width {head.dim}, {head.depth} blocks, drawn at {head.token_grid} places |
| Encoder | `{config.encoder.source}` on images of {height} x {width}; not included |
| Actions | the release's: window frame, world-frame camera differences, raw metres and radians |

## Assumed

{listed}
"""
