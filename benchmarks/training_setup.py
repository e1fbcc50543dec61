"""What a step of training is measured on: models and windows of random numbers, and the trainer around them."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dexworld.data.windows import Window
from dexworld.models.config import DexWMConfig
from dexworld.models.dexwm import DexWM
from dexworld.track import Track
from dexworld.training.cost import VIT_SHAPES, Meter
from dexworld.training.train_config import ScaleConfig, TrainConfig
from dexworld.training.trainer import Trainer
from dexworld.training.window_task import window_losses


class Enough(Exception):
    """Ends `Trainer.run` after the step that was wanted."""


@dataclass
class OneWindow:
    """The same batch at every step (a `trainer.Task`). images: (B, F, H, W, 3) to encode at every step, or None."""

    model: DexWM
    config: TrainConfig
    window: Window
    unrolled: bool
    images: Tensor | None = None

    def batch(self, index: int, device: torch.device) -> tuple[Window, int]:
        window, count = self.window, len(self.window.repeats)
        if self.images is not None:
            with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.config.bfloat16):
                window = replace(window, latents=self.model.encode(self.images).float())
        return window, count

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        return window_losses(self.model, self.config, batch, self.unrolled)

    def contents(self, batch: Window) -> dict[str, Tensor]:
        return {"latents": batch.latents}

    def broken_data(self, batch: Window) -> str:
        return ""


def shortened(config: DexWMConfig, share: int) -> DexWMConfig:
    """The model with one of `share` blocks, in predictor and head."""
    parts = {"predictor": config.predictor, "keypoint_head": config.keypoint_head}
    return replace(config, **{key: replace(part, depth=max(1, part.depth // share)) for key, part in parts.items()})


def random_encoder(config: DexWMConfig, folder: Path, whole: bool) -> DexWMConfig:
    """The model with an encoder of random weights below `folder` in place of a pretrained one; one for each width.

    whole: of the published shape; else with a single layer, for those who bring latents and never run it.
    """
    if config.encoder.kind == "pca":
        return config
    from transformers import Dinov2Config, Dinov2Model
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    width = config.encoder.dim
    place = folder / f"{'encoder' if whole else 'stub'}-{width}"
    if not (place / "config.json").exists():
        settings = Dinov2Config(
            hidden_size=width,
            num_hidden_layers=VIT_SHAPES[width][0] if whole else 1,
            num_attention_heads=max(1, width // 64),
            image_size=518,
            patch_size=config.encoder.patch,
        )
        Dinov2Model(settings).save_pretrained(place)
    return replace(config, encoder=replace(config.encoder, source=str(place)))


def compile_blocks(model: DexWM, backend: str) -> None:
    """Compile the methods of each predictor block (not the whole model: one block's code serves all of them).

    backend: of torch.compile; `inductor` makes kernels, `eager` only traces.
    """
    for block in model.blocks.layers:
        for name in ("forward", *model.blocks.methods):
            setattr(block, name, torch.compile(getattr(block, name), backend=backend))


def lively(model: DexWM) -> DexWM:
    """The model without zeros among its weights, which would hide differences."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in model.parameters():
            if each.requires_grad:
                each.add_(0.02 * torch.randn(each.shape, generator=generator).to(each.device))
    return model


def random_window(config: DexWMConfig, batch: int, frames: int, device: torch.device) -> Window:
    """Windows of random latents with hands in the picture, most of their keypoints visible."""
    height, width = config.image_size
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand(batch, frames, 42, 3, generator=generator) - 0.5
    keypoints = keypoints * torch.tensor([0.9 * width / 200, 0.9 * height / 200, 0.0]) + torch.tensor([0.0, 0.0, 1.0])
    latents = torch.randn(batch, frames, config.grid[0] * config.grid[1], config.encoder.dim, generator=generator)
    valid = torch.rand(batch, frames, 42, generator=generator) < 0.8
    track = Track(
        torch.eye(4).expand(batch, frames, 4, 4).clone(),
        torch.tensor([[200.0, 0, width / 2], [0, 200.0, height / 2], [0, 0, 1]]).expand(batch, 3, 3).clone(),
        {"keypoints_world": keypoints, "keypoints_valid": valid},
    )
    return Window(
        track=track,
        latents=latents,
        repeats=torch.arange(batch) % 2,
        stride=torch.ones(batch, dtype=torch.int64),
        rows=torch.zeros(batch, frames, dtype=torch.int64),
    ).to(device)


def make_trainer(
    model: DexWM,
    config: TrainConfig,
    task: OneWindow,
    folder: Path,
    recompute: str = "none",
    meter: Meter | None = None,
) -> Trainer:
    """The trainer as `dexworld train` makes it, for a device that the model lies on."""
    device, scale = next(model.predictor.parameters()).device, ScaleConfig(recompute=recompute)
    more = {"blocks": model.blocks, "idle_parameters": False, "meter": meter}
    return Trainer(model, config, task, folder, device=device, scale=scale, **more)


def one_step(trainer: Trainer) -> None:
    """One step of `Trainer.run`, without the checkpoint at its end."""

    def stop(step: int) -> None:
        raise Enough

    trainer.on_step = stop
    with suppress(Enough):
        trainer.run()
