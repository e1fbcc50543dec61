"""From dataset folders to a pixel decoder: what `dexworld train decoder` runs (see `fit` for what it leaves).

It learns L1 and a multi-scale gradient distance, which needs no weights. Departure from the RAE recipe (Zheng et al.,
"Diffusion transformers with representation autoencoders", 2025), which the DexWM paper follows (appendix A.4): there is
no LPIPS and no discriminator.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dexworld.data.windows import Window
from dexworld.models.checkpoint import check_prediction
from dexworld.models.decoder import (
    DECODER_PRESETS,
    DecoderConfig,
    PixelDecoder,
    PixelDecoderConfig,
    from_pixels,
    to_pixels,
)
from dexworld.models.perceptual import GradientDistance
from dexworld.models.picture_metrics import psnr_of_mse, squared_error_map, ssim_map
from dexworld.training.checkpoints import check_settings
from dexworld.training.distributed import Processes
from dexworld.training.fit import fit
from dexworld.training.run_data import LatentRun, LatentRunConfig
from dexworld.training.sources import FrameSource, WindowSource, open_data
from dexworld.training.train_config import LoopConfig, check_not_negative, check_positive, fixed_settings
from dexworld.training.trainer import Trainer
from dexworld.training.window_task import SourceTask

CHUNK = 16  # pictures at a time in validation
FIT_PICTURES = 512  # that the linear part of a residual decoder is fitted on


@dataclass(frozen=True)
class DecoderTrainConfig(LoopConfig):
    """Training of a pixel decoder: the loop and its losses. Raises ValueError naming the field that makes no sense."""

    batch_size: int = 16
    """Pictures in a batch."""
    learning_rate: float = 2e-4
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.0
    """Weight decay of matrices; vectors have none."""
    perceptual: float = 1.0
    """Weight of the gradient distance, beside L1 of pixels in [-1, 1] with weight 1."""
    validation_pictures: int = 64
    """Pictures in the validation figures."""

    FREE: ClassVar[frozenset[str]] = LoopConfig.FREE | {"validation_pictures"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(self, "perceptual")
        check_positive(self, "validation_pictures")


@dataclass(frozen=True)
class DecoderRunConfig(LatentRunConfig):
    """A training run of a pixel decoder. Raises ValueError naming the field that makes no sense."""

    output: Path = Path("outputs/decoder")
    """Folder of the run; a run that was stopped goes on there."""
    size: str = "tiny"
    """Size of the decoder: `debug`, `tiny`, `vit-s`, `vit-b`, or the paper's `vit-l`."""
    residual: bool = False
    """Start from the best linear picture of each token by itself, and learn what is missing: for short runs, and for
    encoders that linear maps turn back well, as pca."""
    refine: int = 0
    """Channels of a small convolutional network that goes over the picture at the end; 0 has none."""
    training: DecoderTrainConfig = field(default_factory=DecoderTrainConfig)
    """Steps, losses, optimiser."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in DECODER_PRESETS:
            raise ValueError(f"size is {self.size!r}; choose from {', '.join(DECODER_PRESETS)}")


class DecoderTask(SourceTask):
    """Pictures with their latents, and what a decoder loses on them."""

    def __init__(self, model: PixelDecoder, config: DecoderTrainConfig, source: WindowSource) -> None:
        super().__init__(config, source)
        self.model, self.perceptual = model, GradientDistance()

    def losses(self, batch: Window, index: int) -> dict[str, Tensor]:
        """Scalars: `loss`, and its parts before weighting, `l1` and `gradient_distance`."""
        true = from_pixels(batch.frames[:, 0])
        made = self.model(batch.latents[:, 0]).float()
        losses = {"l1": (made - true).abs().mean()}
        total = losses["l1"]
        if self.config.perceptual:
            losses["gradient_distance"] = self.perceptual(made, true).mean()
            total = total + self.config.perceptual * losses["gradient_distance"]
        return {"loss": total, **losses}


@torch.no_grad()
def decoder_figures(source: WindowSource, pictures: int, model: PixelDecoder, device: torch.device) -> dict[str, float]:
    """Figures on `pictures` pictures of a source, always the same ones.

    Of 8-bit pictures: `l1` of values in [0, 1], `psnr` in dB of the mean squared error over them all, `ssim`, and
    `gradient_distance`. Raises ValueError for pictures of less than 11 pixels a side.
    """
    sums: dict[str, float] = {}
    for step, start in enumerate(range(0, pictures, CHUNK)):
        # Batches are of one size, so that pictures keep their numbers; of the last one only a part may count.
        batch, count = source.batch(step, CHUNK), min(CHUNK, pictures - start)
        images = batch.frames[:count, 0]
        drawn = model(batch.latents[:count, 0])
        check_prediction(drawn, model, [f"picture {start + index}" for index in range(count)])
        made = to_pixels(drawn)
        pair = (made.cpu().numpy(), images.cpu().numpy())
        figures = {
            "l1": float((made.float() - images.float()).abs().mean()) / 255,
            "gradient_distance": float(GradientDistance()(from_pixels(made), from_pixels(images)).mean()),
            "mse": float(squared_error_map(*pair).mean()),
            "ssim": float(ssim_map(*pair).mean(dtype=np.float64)),
        }
        for key, value in figures.items():
            sums[key] = sums.get(key, 0.0) + value * count
    means = {key: value / pictures for key, value in sums.items()}
    return {"psnr": psnr_of_mse(means.pop("mse")), **means}


def train_decoder(config: DecoderRunConfig, network: DecoderConfig | None = None) -> Path:
    """Train a decoder, or go on with a run that was stopped, and return the folder of the decoder.

    network: the size instead of the preset's. Raises ValueError for data that is missing or does not fit, ResumeError
    or TrainingDiverged with what to do. Under torchrun all processes call this and share the batches (DDP).
    """
    if network is None:
        network = replace(DECODER_PRESETS[config.size], refine=config.refine)
        network = replace(network, residual=True, output="linear") if config.residual else network
    return fit(partial(_prepare, config, network), config.device)


def _prepare(
    config: DecoderRunConfig, network: DecoderConfig, device: torch.device, processes: Processes
) -> tuple[Trainer[PixelDecoder], dict[str, Any]]:
    training = config.training
    with processes.first_alone():  # it fits the encoder, the others read what it wrote
        run = LatentRun.open(config, training.seed, device)
    data, identity = run.data, run.identity(config)
    check_settings(config.output / "checkpoints", {"training": fixed_settings(training), **identity})
    source, shown = open_data(config, training, data, run.encoder, run.space.encoder, device, processes)
    torch.manual_seed(training.seed)  # the modules draw their first weights from torch's generator
    model = PixelDecoder(PixelDecoderConfig(run.space, network))
    if network.residual:
        model.fit(_fit_pictures(source.pictures(data.training, CHUNK, alike=True)))
    # Every checkpoint of the run is to know these, not only its last one.
    model.provenance = run.provenance(training) | {"finished": False}
    task = DecoderTask(model, training, source.pictures(data.training, training.batch_size))
    validation = None
    if data.validates:
        held_out = shown.pictures(data.held_out, CHUNK, alike=True)
        validation = partial(decoder_figures, held_out, training.validation_pictures)
    identity |= {"decoder": asdict(model.config)}
    trainer = Trainer(model, training, task, config.output, validation, identity, device, processes)
    return trainer, dict(model.provenance)


def _fit_pictures(source: FrameSource) -> Iterator[tuple[Tensor, Tensor]]:
    for step in range(FIT_PICTURES // CHUNK):
        pictures = source.batch(step, CHUNK)
        yield from_pixels(pictures.frames[:, 0]), pictures.latents[:, 0]
