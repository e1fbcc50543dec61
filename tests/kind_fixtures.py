"""Every kind of world model that dexworld registers and trains, at the size that a test works with."""

from dataclasses import replace

import torch

from dexworld.models.config import DexWMConfig
from dexworld.models.world_model import kinds, preset
from dexworld.track import TASK_BYTES

OWN = {name: kind for name, kind in kinds().items() if kind.model.__module__.startswith("dexworld.")}
KINDS = [name for name, kind in OWN.items() if kind.presets]  # what has none, such as Cosmos, is made of a folder
BASELINES = [name for name in KINDS if name != "dexwm"]


def config_of(kind: str, base: DexWMConfig):
    """The config of a kind with the sizes of `base`, from its preset `debug`."""
    if kind == "dexwm":
        return base
    own, sizes = preset(f"{kind}-debug"), {name: getattr(base.predictor, name) for name in ("dim", "depth", "heads")}
    predictor = replace(own.predictor, **sizes, num_context=base.num_context)
    config = replace(own, predictor=predictor, image_size=base.image_size, encoder=base.encoder)
    config = replace(config, keypoint_head=base.keypoint_head)
    return config.with_sentences("hashed") if hasattr(config, "with_sentences") else config


def body_and_sentence(batch: tuple[int, ...], frames: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Columns that some kinds read: an upper body that moves, and a sentence for each window."""
    generator = torch.Generator().manual_seed(seed)
    body = torch.randn(*batch, frames, 18, 3, generator=generator)
    letters = torch.randint(97, 123, (*batch, 1, TASK_BYTES), dtype=torch.uint8, generator=generator)
    letters[..., 40:] = 0
    return {
        "body_world": body,
        "body_valid": torch.ones(*batch, frames, 18, dtype=torch.bool),
        "task_utf8": letters.expand(*batch, frames, TASK_BYTES),
    }
