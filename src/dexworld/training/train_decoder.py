"""From dataset folders to a pixel decoder: what `dexworld train decoder` runs (see `fit` for what it leaves)."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dexworld.data.mixture import MixConfig
from dexworld.data.source import Dataset
from dexworld.models.decoder import (
    DECODER_PRESETS,
    DecoderConfig,
    PixelDecoder,
    PixelDecoderConfig,
    decoder_preset,
    from_pixels,
)
from dexworld.models.latent_space import LatentSpace
from dexworld.models.perceptual import perceptual_distance
from dexworld.training.decoder_objective import (
    CHUNK,
    AdversarialDecoder,
    DecoderLoss,
    DecoderTask,
    DecoderTrainConfig,
    DecoderValidation,
)
from dexworld.training.discriminator import PatchDiscriminator
from dexworld.training.distributed import Processes
from dexworld.training.fit import Job, fit
from dexworld.training.latent_run import LatentRun, LatentRunConfig
from dexworld.training.picture_source import CachedLatents, Latents, PictureSource
from dexworld.training.sources import CachedData

FIT_PICTURES = 512  # that the linear part of a residual decoder is fitted on


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
    lpips_vgg: Path | None = None
    """VGG16 for LPIPS, .safetensors or .npz (docs/video_data.md). Without weights the perceptual term is
    `gradient_distance`, which needs none."""
    lpips_heads: Path | None = None
    """The five linear heads of LPIPS."""
    training: DecoderTrainConfig = field(default_factory=DecoderTrainConfig)
    """Steps, losses, optimiser."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in DECODER_PRESETS:
            raise ValueError(f"size is {self.size!r}; choose from {', '.join(DECODER_PRESETS)}")


def train_decoder(config: DecoderRunConfig, network: DecoderConfig | None = None) -> Path:
    """Train a decoder, or go on with a run that was stopped, and return the folder of the decoder.

    network: the size instead of the preset's. Raises ValueError for data that is missing or does not fit, ResumeError
    or TrainingDiverged with what to do. Under torchrun all processes call this and share the batches (DDP).
    """
    if network is None:
        network = replace(decoder_preset(config.size), refine=config.refine)
        network = replace(network, residual=True, output="linear") if config.residual else network
    wanted = network
    return fit(config.output, config.training, lambda device, all_: _job(config, wanted, device, all_), config.device)


def _job(config: DecoderRunConfig, network: DecoderConfig, device: torch.device, processes: Processes) -> Job:
    training = config.training
    name, perceptual = perceptual_distance(config.lpips_vgg, config.lpips_heads)
    perceptual.to(device)
    with processes.first_alone():  # it fits and encodes what is missing, the others read what it wrote
        run = LatentRun.open(config, training.seed, device)
        data = run.data
        latents = _latents(config, run, data.datasets, device)
        shown = _latents(config, run, data.held_out_data, device) if data.held_out_data else latents
    torch.manual_seed(training.seed)  # the modules draw their first weights from torch's generator
    decoder = PixelDecoder(PixelDecoderConfig(LatentSpace.of(run.model.config, run.fingerprint), network))
    if network.residual:
        decoder.fit(_fit_pictures(run, latents, training.seed, device))
    discriminator = PatchDiscriminator(training.discriminator_channels) if training.adversarial else None
    model = AdversarialDecoder(decoder, discriminator)
    # Every checkpoint of the run is to know these, not only its last one.
    decoder.provenance = run.provenance(training) | {"perceptual": name, "finished": False}
    validation = None
    if data.validates:
        held_out = PictureSource(data.held_out_datasets, data.held_out, shown, device, CHUNK, training.seed)
        validation = DecoderValidation(held_out, training.validation_pictures, perceptual, name)
    described = {"decoder": json.loads(json.dumps(asdict(decoder.config))), "perceptual": name}
    pictures = PictureSource(
        data.datasets,
        data.training,
        latents,
        device,
        training.batch_size,
        training.seed,
        MixConfig(config.mix),
        config.workers,
        processes.rank,
        processes.count,
    )
    task = DecoderTask(DecoderLoss(model, training, perceptual, name, processes), pictures)
    return Job(model, task, run.identity(config) | described, dict(decoder.provenance), validation)


def _fit_pictures(run: LatentRun, latents: Latents, seed: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The same pictures in every process, so that all start from one linear part."""
    source = PictureSource(run.data.datasets, run.data.training, latents, device, CHUNK, seed)
    for step in range(FIT_PICTURES // CHUNK):
        pictures = source.batch(step, CHUNK)
        yield from_pixels(pictures.images), pictures.latents


def _latents(config: DecoderRunConfig, run: LatentRun, datasets: list[Dataset], device: torch.device) -> Latents:
    """Latents from the datasets' caches, which are made when they are missing, or from the encoder."""
    if config.latents == "cached":
        return CachedLatents(
            CachedData(datasets, run.model, run.fingerprint, config.mix, config.training.seed, device).caches
        )

    def encode(images: Tensor, rows: np.ndarray) -> Tensor:
        return run.model.encode(images).float()

    return encode
