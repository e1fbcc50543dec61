"""Rewrite a checkpoint's weights in half precision; `config.json` stays as it is.

    python tools/half_precision.py src/dexworld/assets/reference [more folders]

Tensors of the frozen encoder or codec stay in single precision: their bytes identify latents that were cached, and the
decoders and evaluators that read them. A weight that half precision can't hold stops the script before it writes.
"""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

KEPT = ("encoder.", "codec.")


def halve(folder: Path) -> tuple[int, int]:
    """Bytes of the weights before and after. Raises ValueError naming a tensor that overflows."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    before = path.stat().st_size
    for name, value in weights.items():
        if value.dtype != torch.float32 or name.startswith(KEPT):
            continue
        weights[name] = value.half()
        if not torch.isfinite(weights[name]).all():
            raise ValueError(f"{path}: {name} holds values up to {value.abs().max():g}; half precision ends at 65,504")
    partial = path.with_name(f".{path.name}.partial")
    save_file(weights, partial, metadata={"format": "pt"})
    os.replace(partial, path)
    return before, path.stat().st_size


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        was, now = halve(Path(argument))
        sys.stdout.write(f"{argument}: {was / 1e6:.1f} MB -> {now / 1e6:.1f} MB\n")
