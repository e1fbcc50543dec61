"""Compute the latents of datasets before training: what `dexworld cache-latents` runs.

The encoder is the one that `dexworld train` takes with the same datasets, preset and seed, or that of a checkpoint, so
that training opens what was computed here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dexworld.data.datasets import open_dataset
from dexworld.data.files import Shard
from dexworld.data.latent_cache import cache_folder, compute_latents, open_cache, place_of_latents
from dexworld.data.locks import alone_in
from dexworld.data.resize import resized
from dexworld.data.source import Dataset
from dexworld.models.encoders import Encoder, EncoderChoice, build_encoder
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.world_model import load_world_model, preset
from dexworld.training.distributed import local_device
from dexworld.training.run_data import fit_encoder
from dexworld.training.train_config import check_positive

Watch = Callable[[str, int, int], None]  # (dataset, frames done, frames in all)


@dataclass(frozen=True)
class LatentsConfig:
    """Which latents of which datasets. Raises ValueError naming the field that makes no sense."""

    data: tuple[Path, ...]
    """Dataset folders to train on, as `dexworld train` gets them: a pca encoder is fitted on all of them."""
    validation_data: tuple[Path, ...] = ()
    """Dataset folders of held-out scenes; encoded too, but not fitted on."""
    preset: str = "tiny"
    """Model preset whose encoder is taken."""
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    """Pretrained encoder instead of the preset's."""
    checkpoint: str | None = None
    """Take the encoder of this checkpoint instead: a folder, a Hugging Face id, or `reference`."""
    encoder_frames: int = 3000
    """Frames that a pca encoder is fitted on."""
    seed: int = 0
    """Of the pca encoder's fit: that of the training to come."""
    cache: Path | None = None
    """Folder for latents; by default beside the data, or the user's cache folder where that can't be written."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""
    shard: str = "0/1"
    """Share i of n of the work, e.g. 3/16 in a Slurm array; processes on one machine need none."""
    verify: bool = False
    """Read complete caches again and compare every checksum."""

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data names no dataset folder; collect or prepare one first")
        check_positive(self, "encoder_frames")
        if self.checkpoint is not None and self.encoder != EncoderChoice():
            raise ValueError("a checkpoint has its own encoder: leave out the encoder's options, or `checkpoint`")
        Shard.parse(self.shard)


def cache_latents(config: LatentsConfig, watch: Watch) -> list[dict[str, Any]]:
    """Compute this shard's part of every cache; one row of figures per dataset.

    Keys: dataset, folder, frames, complete, damaged (files with a wrong checksum; None when not asked for). Raises what
    `latent_cache` raises.
    """
    device = local_device(config.device)
    model, own = _model_config(config)
    datasets = _open(config, model.image_size)
    if own is None:
        own, fitted_on = build_encoder(model.encoder, model.image_size), datasets[: len(config.data)]
        # One fit for all processes: two machines' fits may differ in the last digit, and then nobody's latents match.
        with alone_in(place_of_latents(fitted_on[0].folder, ".", config.cache)):
            fit_encoder(own, fitted_on, config.encoder_frames, config.seed, device, config.cache)
    encoder = own.to(device)
    fingerprint = encoder_fingerprint(encoder)
    shard, rows = Shard.parse(config.shard), []
    for dataset in datasets:
        folder, progress = cache_folder(dataset, fingerprint, config.cache), partial(watch, str(dataset.folder))
        complete = compute_latents(dataset, encoder.encode, fingerprint, folder, device, progress, shard)
        damaged = None
        if complete and config.verify:
            damaged = [name for name, wrong in open_cache(dataset, fingerprint, folder).damaged() if wrong]
        facts = {"dataset": dataset.folder, "folder": folder, "frames": sum(dataset.lengths)}
        rows.append({**facts, "complete": complete, "damaged": damaged})
    return rows


def _model_config(config: LatentsConfig) -> tuple[Any, Encoder | None]:
    if config.checkpoint is None:
        return config.encoder.applied(preset(config.preset)), None
    model = load_world_model(config.checkpoint)
    return model.config, model.encoder


def _open(config: LatentsConfig, image_size: tuple[int, int]) -> list[Dataset]:
    return [resized(open_dataset(folder), image_size) for folder in (*config.data, *config.validation_data)]
