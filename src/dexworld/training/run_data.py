"""The data of a run: datasets, which of their scenes are held out, and an encoder that is fitted on them."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dexworld.data.datasets import open_dataset
from dexworld.data.latent_cache import place_of_latents
from dexworld.data.resize import resized
from dexworld.data.source import Dataset
from dexworld.models.checkpoint import CheckpointError, read_tensors, write_tensors
from dexworld.models.encoders import Encoder, EncoderChoice, build_encoder
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.latent_space import LatentSpace
from dexworld.models.reference import REFERENCE
from dexworld.models.world_model import load_world_model, preset
from dexworld.training.fit import without_folders
from dexworld.training.train_config import LoopConfig, check_not_negative, check_positive

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataConfig:
    """Data and encoder of a run. Raises ValueError naming the field that makes no sense."""

    data: tuple[Path, ...] = ()
    """Dataset folders made by `dexworld collect` or `dexworld prepare`."""
    output: Path = Path("outputs/train")
    """Folder of the run; a run that was stopped goes on there."""
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    """Pretrained encoder instead of the preset's."""
    encoder_frames: int = 3000
    """Frames that a pca encoder is fitted on; a cnn measures its channels on the first 512 of them."""
    validation_data: tuple[Path, ...] = ()
    """Dataset folders of held-out scenes."""
    validation_fraction: float = 0.05
    """Fraction of the training scenes that is held out when there is no validation data."""
    latents: Literal["cached", "online"] = "cached"
    """`cached` encodes every frame once and keeps it on disk; `online` decodes and encodes while training, which large
    data and augmentation need."""
    cache: Path | None = None
    """Folder for latents; by default beside the data, or the user's cache folder where that can't be written."""
    workers: int = 2
    """Processes that decode video for online latents."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it must lie in [0, 1)")
        check_positive(self, "encoder_frames")
        check_not_negative(self, "workers")
        if self.latents not in ("cached", "online"):
            raise ValueError(f"latents is {self.latents!r}; choose 'cached' or 'online'")
        if self.shares and len(self.shares) != len(self.data):
            raise ValueError(f"mix gives {len(self.shares)} shares for {len(self.data)} data folders")

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each data folder in what is drawn; empty for as large as its data."""
        return ()


@dataclass(frozen=True)
class RunData:
    """datasets, held_out_data: of a run. training, held_out: episodes of each dataset.

    `held_out` counts in `held_out_data`, or in `datasets` where no validation data was given.
    """

    datasets: list[Dataset]
    held_out_data: list[Dataset]
    training: list[np.ndarray]
    held_out: list[np.ndarray]

    @classmethod
    def open(cls, config: DataConfig) -> "RunData":
        """Open the folders of a run. Raises ValueError for data that is missing or holds no readable episode."""
        if not config.data:
            raise ValueError("data names no dataset folder; make one with `dexworld collect` or `prepare` first")
        datasets, held_out_data = _open_all(config.data), _open_all(config.validation_data)
        training, held_out = split_by_scene(datasets, 0.0 if held_out_data else config.validation_fraction)
        if held_out_data:
            held_out = [np.arange(len(dataset)) for dataset in held_out_data]
        return cls(datasets, held_out_data, training, held_out)

    def resized(self, image_size: tuple[int, int]) -> "RunData":
        """The same with frames of `image_size` (height, width)."""
        datasets = [resized(each, image_size) for each in self.datasets]
        held_out_data = [resized(each, image_size) for each in self.held_out_data]
        return RunData(datasets, held_out_data, self.training, self.held_out)

    @property
    def validates(self) -> bool:
        """Whether anything is held out; says so where nothing is."""
        if any(len(episodes) for episodes in self.held_out):
            return True
        logger.info("no episode is held out: there will be no validation figures")
        return False

    def identity(self, config: DataConfig) -> dict[str, Any]:
        """What a continued run must share."""
        return {
            "data": [dataset.fingerprint for dataset in self.datasets],
            "validation_fraction": None if self.held_out_data else config.validation_fraction,
        }

    def provenance(self, ancestry: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a model card needs to know about data, as JSON values.

        ancestry: provenance of the model that training began from, if any; a fine-tuned one has seen what its ancestors
        were trained on.
        """
        seeds = [[dataset.seeds[0], dataset.seeds[-1]] for dataset in self.datasets if dataset.seeds]
        inherited = [list(pair) for pair in (ancestry or {}).get("training_seeds", []) if list(pair) not in seeds]
        return {
            "training_seeds": seeds + inherited,
            "datasets": [
                {
                    "name": dataset.folder.name,
                    "settings": dataset.settings,
                    "episodes": len(dataset),
                    "training_episodes": len(episodes),
                    "frames": sum(dataset.lengths),
                    "quarantined": len(dataset.quarantined),
                    "fingerprint": dataset.fingerprint,
                }
                for dataset, episodes in zip(self.datasets, self.training, strict=True)
            ],
            "validation_datasets": [{"name": one.folder.name, "settings": one.settings} for one in self.held_out_data],
            "validation_episodes": sum(len(episodes) for episodes in self.held_out),
        }


def _open_all(folders: tuple[Path, ...]) -> list[Dataset]:
    datasets = []
    for folder in folders:
        dataset = open_dataset(folder)
        if dataset.quarantined:
            shown = "; ".join(f"{file}: {reason}" for file, reason in dataset.quarantined[:3])
            logger.warning("%s: %d episodes are quarantined (%s)", folder, len(dataset.quarantined), shown)
        if not len(dataset):
            raise ValueError(f"{folder} holds no readable episode ({len(dataset.quarantined)} are quarantined)")
        datasets.append(dataset)
    return datasets


def split_by_scene(datasets: Sequence[Dataset], fraction: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Indices of training and of held-out episodes of each dataset; about `fraction` is held out.

    All episodes of a scene (simulator seed) fall on one side, the same one in every run and in every dataset.
    """
    training, held_out = [], []
    for dataset in datasets:
        scenes = zip(dataset.ids, dataset.episode_seeds, strict=True)
        names = [name if seed is None else f"seed {seed}" for name, seed in scenes]
        digests = (hashlib.sha256(name.encode()).digest() for name in names)
        out = np.array([int.from_bytes(digest[:8], "big") / 2**64 < fraction for digest in digests])
        training.append(np.flatnonzero(~out))
        held_out.append(np.flatnonzero(out))
    return training, held_out


def fit_encoder(
    encoder: Any, datasets: list[Dataset], frames: int, seed: int, device: torch.device, cache: Path | None = None
) -> None:
    """Give `encoder` its weights, fitted on about `frames` frames of all datasets, when it is one to fit (pca, cnn).

    Frames of another size are brought to the encoder's. The fit is kept beside the first dataset's latents and read
    from there when it is asked for again. Raises ValueError when that file is damaged.
    """
    if not hasattr(encoder, "fit"):
        return
    datasets = [resized(dataset, encoder.image_size) for dataset in datasets]
    settings = [encoder.config.identity(), encoder.image_size, frames, seed]
    content = json.dumps([*settings, *(dataset.fingerprint for dataset in datasets)])
    key = hashlib.sha256(content.encode()).hexdigest()
    path = place_of_latents(datasets[0].folder, f"encoder-{key[:16]}.safetensors", cache)
    if path.exists():
        try:
            encoder.load_state_dict(read_tensors(path))
        except CheckpointError as error:
            raise ValueError(f"{path} is damaged ({error}); delete it to fit the encoder anew") from error
        return
    new: Any = build_encoder(encoder.config, encoder.image_size)
    new.to(device).fit(images.to(device) for images in _sampled_frames(datasets, frames, seed))
    kept = f", which keeps {float(new.explained_variance):.1%} of the variance" if encoder.config.kind == "pca" else ""
    logger.info("fitted the %s encoder%s", encoder.config.kind, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, new.state_dict())
    encoder.load_state_dict(new.state_dict())


def _sampled_frames(datasets: list[Dataset], count: int, seed: int) -> Iterator[Tensor]:
    """Batches (N, H, W, 3) uint8 of about `count` frames in all, at most eight from an episode drawn at random."""
    generator = np.random.default_rng([seed, 1])
    episodes = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    per_episode = max(1, min(8, count // len(episodes)))
    chosen = generator.permutation(len(episodes))[: max(1, count // per_episode)]
    for place in chosen:
        dataset, index = episodes[place]
        frames = dataset[index].frames
        picked = generator.choice(len(frames), size=min(per_episode, len(frames)), replace=False)
        yield torch.from_numpy(frames.read(sorted(picked.tolist())))


@dataclass(frozen=True)
class LatentRunConfig(DataConfig):
    """Data and encoder of a run. Raises ValueError naming the field that makes no sense."""

    checkpoint: str = REFERENCE
    """World model whose encoder is taken: a folder, a Hugging Face id, or `reference`."""
    encoder_preset: str | None = None
    """Take the encoder of this model preset instead; a pca one is fitted on the data as `dexworld train` does."""
    mix: tuple[float, ...] = ()
    """Share of each data folder in what is drawn; by default as large as its data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint != REFERENCE and (self.encoder_preset is not None or self.encoder != EncoderChoice()):
            own = f"the encoder is that of {self.checkpoint}"
            raise ValueError(f"{own}: leave out the options of another encoder, or `checkpoint`")

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each data folder in what is drawn; () is as large as its data."""
        return self.mix


@dataclass(frozen=True)
class LatentRun:
    """An encoder and the data it is applied to.

    space: of the encoder's latents. source: what encoder it is, in words. data: with frames of the encoder's size.
    """

    encoder: Encoder
    space: LatentSpace
    source: str
    data: RunData

    @classmethod
    def open(cls, config: LatentRunConfig, seed: int, device: torch.device) -> "LatentRun":
        """Open the data and load or fit the encoder. Raises ValueError for data that is missing or does not fit."""
        data = RunData.open(config)
        if config.encoder_preset is None and config.encoder == EncoderChoice():
            encoder, source = load_world_model(config.checkpoint).encoder, without_folders(config.checkpoint)
        else:
            name = config.encoder_preset or "tiny"
            model = config.encoder.applied(preset(name))
            encoder = build_encoder(model.encoder, model.image_size)
            fit_encoder(encoder, data.datasets, config.encoder_frames, seed, device, config.cache)
            source = without_folders(config.encoder.encoder) if config.encoder.encoder else f"preset {name}"
        encoder.requires_grad_(False).to(device)
        space = LatentSpace(encoder.dim, encoder.grid, encoder.image_size, encoder_fingerprint(encoder))
        return cls(encoder, space, source, data.resized(encoder.image_size))

    def identity(self, config: LatentRunConfig) -> dict[str, Any]:
        """What a continued run must share."""
        own = {"encoder": self.space.encoder, "latents": config.latents, "mix": config.mix}
        return own | self.data.identity(config)

    def provenance(self, training: LoopConfig, ancestry: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a model card needs to know about data and settings; ancestry as for `RunData.provenance`."""
        encoder = {"encoder": self.space.encoder, "encoder_of": self.source}
        return {**encoder, **self.data.provenance(ancestry), "training": asdict(training)}
