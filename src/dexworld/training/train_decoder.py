"""From dataset folders to a pixel decoder: what `dexworld train decoder` runs (see `fit` for what it leaves)."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from dexworld.data.source import Dataset
from dexworld.data.windows import CachedLatents
from dexworld.models.decoder import DECODER_PRESETS, DecoderConfig, PixelDecoder, PixelDecoderConfig, from_pixels
from dexworld.models.latent_space import LatentSpace
from dexworld.models.perceptual import perceptual_distance
from dexworld.training.decoder_objective import (
    CHUNK,
    AdversarialDecoder,
    DecoderTask,
    DecoderTrainConfig,
    DecoderValidation,
    PatchDiscriminator,
)
from dexworld.training.distributed import Processes
from dexworld.training.fit import Job, fit
from dexworld.training.run_data import LatentRun, LatentRunConfig
from dexworld.training.sources import CachedData, Latents, picture_source

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
        network = replace(DECODER_PRESETS[config.size], refine=config.refine)
        network = replace(network, residual=True, output="linear") if config.residual else network
    return fit(config.output, config.training, partial(_job, config, network), config.device)


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
        datasets = data.held_out_data or data.datasets
        held_out = picture_source(datasets, data.held_out, shown, device, CHUNK, training.seed)
        validation = DecoderValidation(held_out, training.validation_pictures, perceptual, name)
    described = {"decoder": asdict(decoder.config), "perceptual": name}
    options = (training.batch_size, training.seed, config.mix, config.workers, processes)
    pictures = picture_source(data.datasets, data.training, latents, device, *options)
    task = DecoderTask(model, training, pictures, perceptual, name, processes)
    return Job(model, task, run.identity(config) | described, dict(decoder.provenance), validation)


def _fit_pictures(run: LatentRun, latents: Latents, seed: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The same pictures in every process, so that all start from one linear part."""
    source = picture_source(run.data.datasets, run.data.training, latents, device, CHUNK, seed)
    for step in range(FIT_PICTURES // CHUNK):
        pictures = source.batch(step, CHUNK)
        yield from_pixels(pictures.frames[:, 0]), pictures.latents[:, 0]


def _latents(config: DecoderRunConfig, run: LatentRun, datasets: list[Dataset], device: torch.device) -> Latents:
    """Latents from the datasets' caches, which are made when they are missing, or from the encoder."""
    if config.latents == "cached":
        cached = CachedData(datasets, run.model, run.fingerprint, config.mix, config.training.seed, device)
        return CachedLatents(cached.caches)
    return run.model.encode
