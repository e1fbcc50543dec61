"""Make checkpoint folders ready for the Hugging Face hub: `format` in the weights' metadata, front matter in the card.

    python tools/prepare_for_hub.py src/dexworld/assets/reference [more folders]

Tensors stay equal to the bit. A card that has front matter is left as it is.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open

from dexworld.models.checkpoint import read_tensors, write_tensors, write_text
from dexworld.models.hub import CLASSES, front_matter

# A field that only the config of one class has.
MARKS = {
    "predictor": "DexWMConfig",
    "backbone": "DWMConfig",
    "network": "PixelDecoderConfig",
    "head": "EvaluatorConfig",
}


def prepare(folder: Path) -> None:
    """Rewrite what is missing. Raises ValueError where the tensors would change."""
    weights, card = folder / "model.safetensors", folder / "README.md"
    with safe_open(weights, "pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != "pt":
        tensors = read_tensors(weights)
        write_tensors(weights, tensors, metadata)
        again = read_tensors(weights)
        if again.keys() != tensors.keys() or not all(torch.equal(again[name], tensors[name]) for name in tensors):
            raise ValueError(f"{weights}: the tensors changed")
    text = card.read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model"]
        task, tag, _ = CLASSES[next((kind for mark, kind in MARKS.items() if mark in model), "EvaluatorConfig")]
        write_text(card, f"{front_matter('apache-2.0', task, tag)}\n{text}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        prepare(Path(argument))
