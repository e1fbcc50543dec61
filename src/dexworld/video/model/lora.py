"""Low-rank adapters (LoRA) on a pretrained video transformer, and the folder that holds a trained one.

As the DWM release: rank 64 and alpha 64 on the attention's to_q, to_k, to_v and to_out.0, and the whole patch
embedding, whose new hand channels start at zero. The files are laid out as the release's, so its adapter loads as well:

    pytorch_lora_weights.safetensors   lora_A and lora_B of every adapted layer, names start with "transformer."
    non_lora_weights.safetensors       the patch embedding
    adapter.json                       rank, alpha, and the base it was trained on (ours; optional when reading)
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dexworld.models.checkpoint import (
    CheckpointError,
    check_plausible,
    check_tensors,
    config_of,
    read_settings,
    read_shapes,
    read_tensors,
    shapes_of,
    write_tensors,
)
from dexworld.video.model.patch_embedding import patch_embedding
from dexworld.video.model.published_parts import require
from dexworld.writing import write_json

FORMAT_VERSION = 1
ADAPTER_FILE = "adapter.json"
LORA_FILE = "pytorch_lora_weights.safetensors"
OTHER_FILE = "non_lora_weights.safetensors"
ADAPTER_FILES = (ADAPTER_FILE, LORA_FILE, OTHER_FILE)
PREFIX = "transformer."


@dataclass(frozen=True)
class LoRAConfig:
    """rank: of every change of a weight, which is scaled by alpha / rank. targets: the layers, by how names end."""

    rank: int = 64
    alpha: int = 64
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"LoRA rank and alpha must be positive, not {self.rank} and {self.alpha}")
        if not self.targets:
            raise ValueError("LoRA needs at least one target layer")


def add_lora(transformer: Any, config: LoRAConfig = LoRAConfig(), seed: int = 0) -> Any:
    """Freeze `transformer`, add adapters to it in place, and return it; only they and the patch embedding train.

    The output doesn't change: every lora_B starts at zero. seed: of every lora_A; the global generator is left as it
    was. Raises ValueError when the model has adapters already or none of the targets.
    """
    require("peft")
    from peft import LoraConfig

    if has_lora(transformer):
        raise ValueError("this transformer has LoRA adapters already; merge them first")
    linear = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    targets = [name for name in linear if any(f".{name}".endswith("." + each) for each in config.targets)]
    if not targets:
        raise ValueError(f"no linear layer of {type(transformer).__name__} is named {', '.join(config.targets)}")
    transformer.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets, init_lora_weights=True)
        transformer.add_adapter(settings)
    patch_embedding(transformer).requires_grad_(True)
    return transformer


def has_lora(transformer: nn.Module) -> bool:
    """Whether adapters are attached and not yet merged."""
    return bool(getattr(transformer, "peft_config", None))


def adapter_state(transformer: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(lora_A and lora_B of every adapted layer, the patch embedding), by the names in the transformer."""
    require("peft")
    from peft import get_peft_model_state_dict

    if not has_lora(transformer):
        raise ValueError("this transformer has no LoRA adapters to save")
    lora = get_peft_model_state_dict(transformer, adapter_name="default")
    prefix = "patch_embed.proj." if hasattr(transformer, "patch_embed") else "patch_embedding."
    other = {prefix + name: value for name, value in patch_embedding(transformer).state_dict().items()}
    return lora, other


def save_adapter(transformer: Any, folder: str | Path, base: str = "", about: dict[str, Any] | None = None) -> None:
    """Write the adapter folder, adapter.json last. about: further entries of adapter.json, beside the base's name."""
    folder, peft = Path(folder), transformer.peft_config["default"]
    folder.mkdir(parents=True, exist_ok=True)
    lora, other = adapter_state(transformer)
    lora = {PREFIX + name: value for name, value in lora.items()}
    scale = {"r": peft.r, "lora_alpha": peft.lora_alpha, "target_modules": sorted(peft.target_modules)}
    scale = {PREFIX + name: value for name, value in scale.items()}  # diffusers takes alpha = rank without it
    write_tensors(folder / LORA_FILE, lora, {"lora_adapter_metadata": json.dumps(scale)})
    write_tensors(folder / OTHER_FILE, other)
    description = {"format_version": FORMAT_VERSION, "base": base, "rank": peft.r, "alpha": peft.lora_alpha}
    description |= {"in_channels": patch_embedding(transformer).in_channels, **(about or {})}
    write_json(folder / ADAPTER_FILE, dict(sorted(description.items())))


def is_adapter(folder: str | Path) -> bool:
    """Whether the folder holds a LoRA adapter (ours or the release's)."""
    return (Path(folder) / LORA_FILE).is_file()


def read_adapter(folder: str | Path) -> dict[str, Any]:
    """What adapter.json says; nothing for an adapter of the release, which has no such file. Raises CheckpointError."""
    path = Path(folder) / ADAPTER_FILE
    if not path.is_file():
        return {}
    description = read_settings(path)
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {version!r}, this dexworld reads version {FORMAT_VERSION}")
    for name, kind in (("base", str), ("provenance", dict)):
        if not isinstance(description.get(name, kind()), kind):
            raise CheckpointError(f"{path}: {name} is {description[name]!r}; it must be a {kind.__name__}")
    check_plausible({**description, "provenance": None}, len(read_shapes(Path(folder) / LORA_FILE)), str(path))
    return description


def load_adapter(transformer: Any, folder: str | Path) -> Any:
    """Attach a saved adapter in place to its widened base. Raises CheckpointError naming every unfit tensor."""
    require("peft")
    from peft import set_peft_model_state_dict

    folder = Path(folder)
    lora, other = read_tensors(folder / LORA_FILE), read_tensors(folder / OTHER_FILE)
    lora = {name.removeprefix(PREFIX): value for name, value in lora.items()}
    add_lora(transformer, _config(lora, read_adapter(folder), folder))
    expected_lora, expected_other = adapter_state(transformer)
    check_tensors(shapes_of(lora), shapes_of(expected_lora), folder / LORA_FILE)
    check_tensors(shapes_of(other), shapes_of(expected_other), folder / OTHER_FILE)
    set_peft_model_state_dict(transformer, lora, adapter_name="default")
    patch_embedding(transformer).load_state_dict({name.rsplit(".", 1)[1]: value for name, value in other.items()})
    return transformer


def _config(lora: dict[str, Tensor], description: dict[str, Any], folder: Path) -> LoRAConfig:
    """What adapter.json says, or what the tensors tell: the release writes no such file and has alpha = rank."""
    ranks = {value.shape[0] for name, value in lora.items() if name.endswith("lora_A.weight") and value.ndim}
    if len(ranks) != 1:
        raise CheckpointError(f"{folder / LORA_FILE} should hold lora_A weights of one rank, not of {sorted(ranks)}")
    rank = ranks.pop()
    if description.get("rank", rank) != rank:
        raise CheckpointError(f"{folder / ADAPTER_FILE} says rank {description['rank']}, its tensors have rank {rank}")
    targets = tuple(sorted({name.rsplit(".lora_", 1)[0] for name in lora}))
    values = {"rank": rank, "alpha": description.get("alpha", rank), "targets": targets}
    return config_of(LoRAConfig, values, str(folder / ADAPTER_FILE))
