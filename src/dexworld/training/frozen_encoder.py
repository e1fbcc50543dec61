"""What is trained on the latents of a frozen encoder, without a predictor: the pixel decoder, the keypoint evaluator.

Which encoder, which data, and how what was trained is opened again beside a model.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from dexworld.data.datasets import open_dataset
from dexworld.data.resize import resized
from dexworld.data.source import Dataset
from dexworld.models.config import KeypointHeadConfig, PredictorConfig, preset
from dexworld.models.decoder import PixelDecoder
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import Encoder, EncoderChoice, PCAEncoder
from dexworld.models.evaluator import KeypointEvaluator
from dexworld.models.latent_space import OtherEncoderError
from dexworld.models.reference import EVALUATOR, REFERENCE, checkpoint_path
from dexworld.training.config import LoopConfig, ScaleConfig
from dexworld.training.distributed import Processes, joined, local_device
from dexworld.training.fitting import encoder_fingerprint, fitted_encoder
from dexworld.training.run import data_provenance, split_by_scene, without_folders

# Who reads latents, besides an evaluator or a decoder that is named.
AUTO = "auto"
OWN = "own"


@dataclass(frozen=True)
class FrozenRunConfig:
    """Data and encoder of a run. Raises ValueError naming the field that makes no sense."""

    data: tuple[Path, ...] = ()
    """Dataset folders made by `dexworld collect` or `dexworld prepare`."""
    output: Path = Path("outputs/train")
    """Folder of the run; a run that was stopped goes on there."""
    checkpoint: str = REFERENCE
    """World model whose encoder is taken: a folder, a Hugging Face id, or `reference`."""
    encoder_preset: str | None = None
    """Take the encoder of this model preset instead; a pca one is fitted on the data as `dexworld train` does."""
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    """Pretrained encoder instead, before there is any world model of it; pictures have the size of the preset, `tiny`
    unless another is given."""
    encoder_frames: int = 3000
    """Frames that a pca encoder is fitted on."""
    validation_data: tuple[Path, ...] = ()
    """Dataset folders of held-out scenes."""
    validation_fraction: float = 0.05
    """Fraction of the training scenes that is held out when there is no validation data."""
    latents: Literal["cached", "online"] = "cached"
    """`cached` encodes every frame once and keeps it on disk; `online` encodes while training."""
    mix: tuple[float, ...] = ()
    """Share of each data folder in what is drawn; by default as large as its data."""
    workers: int = 2
    """Processes that decode video."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: CUDA where there is a GPU."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction is {self.validation_fraction}; it must lie in [0, 1)")
        if self.encoder_frames < 1:
            raise ValueError(f"encoder_frames is {self.encoder_frames}; it must be positive")
        if self.latents not in ("cached", "online"):
            raise ValueError(f"latents is {self.latents!r}; choose 'cached' or 'online'")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; it must be 0 or more")
        if self.mix and len(self.mix) != len(self.data):
            raise ValueError(f"mix gives {len(self.mix)} shares for {len(self.data)} data folders")
        if self.checkpoint != REFERENCE and (self.encoder_preset is not None or self.encoder != EncoderChoice()):
            raise ValueError(
                f"the encoder is that of {self.checkpoint}: leave out the options of another encoder, or `checkpoint`"
            )


@dataclass(frozen=True)
class FrozenData:
    """An encoder and the data it is applied to.

    model: a world model that holds the encoder; the rest of it is not used. fingerprint: of the encoder. source: what
    encoder it is, in words. datasets, held_out_data: at the model's image size. training, held_out: episodes of each
    dataset, the latter of `datasets` where no validation data was given.
    """

    model: DexWM
    fingerprint: str
    source: str
    datasets: list[Dataset]
    held_out_data: list[Dataset]
    training: list[np.ndarray]
    held_out: list[np.ndarray]

    @property
    def held_out_datasets(self) -> list[Dataset]:
        """The datasets that `held_out` counts in."""
        return self.held_out_data or self.datasets

    def identity(self, config: FrozenRunConfig) -> dict[str, Any]:
        """What a continued run must share, as JSON values."""
        return {
            "encoder": self.fingerprint,
            "data": [dataset.fingerprint for dataset in self.datasets],
            "validation_fraction": None if self.held_out_data else config.validation_fraction,
            "latents": config.latents,
            "mix": list(config.mix),
        }

    def provenance(self, training: LoopConfig, ancestry: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a model card needs to know about data and settings; ancestry as for `data_provenance`."""
        return {
            "encoder": self.fingerprint,
            "encoder_of": self.source,
            **data_provenance(self.datasets, self.training, self.held_out_data, self.held_out, ancestry),
            "training": asdict(training),
        }


@contextmanager
def processes_of(config: FrozenRunConfig) -> Iterator[tuple[torch.device, Processes]]:
    """The device of this process, and the processes of the run: one, or those that torchrun started (DDP).

    The first one tells what all do.
    """
    device = local_device(config.device)
    with joined(device, ScaleConfig().timeout_seconds) as processes:
        if not processes.is_first:
            logging.getLogger("dexworld").setLevel(logging.WARNING)
        yield device, processes


def open_frozen_data(config: FrozenRunConfig, seed: int, device: torch.device) -> FrozenData:
    """Open the data and load or fit the encoder. Raises ValueError for data that is missing or does not fit."""
    if not config.data:
        raise ValueError("data names no dataset folder; make one with `dexworld collect` or `dexworld prepare` first")
    datasets, held_out_data = ([open_dataset(each) for each in part] for part in (config.data, config.validation_data))
    model, source = _encoder(config, datasets, seed, device)
    size = model.config.image_size
    datasets, held_out_data = ([resized(each, size) for each in part] for part in (datasets, held_out_data))
    training, held_out = split_by_scene(datasets, 0.0 if held_out_data else config.validation_fraction)
    if held_out_data:
        held_out = [np.arange(len(dataset)) for dataset in held_out_data]
    model.to(device)
    return FrozenData(model, encoder_fingerprint(model.encoder), source, datasets, held_out_data, training, held_out)


def _encoder(config: FrozenRunConfig, datasets: list[Dataset], seed: int, device: torch.device) -> tuple[DexWM, str]:
    """A world model with the encoder, and what it is called; of a preset, only the encoder has its full size."""
    if config.encoder_preset is None and config.encoder == EncoderChoice():
        model = DexWM.from_pretrained(checkpoint_path(config.checkpoint))
        return model.requires_grad_(False), without_folders(config.checkpoint)
    name = config.encoder_preset or "tiny"
    wanted = config.encoder.applied(preset(name))
    small = PredictorConfig(dim=32, depth=1, heads=2, pixel_aligned=False)
    wanted = replace(wanted, predictor=small, keypoint_head=KeypointHeadConfig(dim=32, depth=1, heads=2))
    model = DexWM(wanted).eval().requires_grad_(False)
    if isinstance(model.encoder, PCAEncoder):
        sized = [resized(dataset, wanted.image_size) for dataset in datasets]
        model.encoder.load_state_dict(fitted_encoder(wanted, sized, config.encoder_frames, seed, device))
    return model, without_folders(config.encoder.encoder) if config.encoder.encoder else f"preset {name}"


Reader = TypeVar("Reader", PixelDecoder, KeypointEvaluator)


def open_decoder(folder: str | Path, encoder: Encoder) -> PixelDecoder:
    """The decoder in `folder`, for pictures of this encoder's latents.

    Raises CheckpointError when it can't be read, OtherEncoderError when it was trained for another encoder.
    """
    return _checked(PixelDecoder.from_pretrained(checkpoint_path(str(folder))), f"the decoder {folder}", encoder)


def open_evaluator(folder: str | Path, encoder: Encoder) -> KeypointEvaluator:
    """The keypoint evaluator in `folder`, for this encoder's latents. Raises as `open_decoder`."""
    evaluator = KeypointEvaluator.from_pretrained(checkpoint_path(str(folder)))
    return _checked(evaluator, f"the keypoint evaluator {folder}", encoder)


def chosen_evaluator(name: str, encoder: Encoder) -> tuple[KeypointEvaluator | None, str]:
    """The evaluator that reads keypoints from this encoder's latents, None for the model's own head, and who that is.

    name: a folder, a Hugging Face id or `evaluator`, the shipped one; `own` for the model's own head; `auto` for the
    shipped evaluator where it was trained on latents of this very encoder (the shipped reference's, which models that
    start from it keep). Raises as `open_evaluator`.
    """
    evaluator, who = chosen_reader(name, encoder, open_evaluator, EVALUATOR, "the evaluator")
    if evaluator is None:
        return None, f"the model's own head ({who})" if who else "the model's own head"
    return evaluator, who


def chosen_reader(
    name: str, encoder: Encoder, opened: Callable[[str, Encoder], Reader], shipped: str, title: str
) -> tuple[Reader | None, str]:
    """What reads this encoder's latents, and who that is; None for the model's own way, and why unless asked for it.

    name: as for `chosen_evaluator`. opened: opens what is named, as `open_decoder`. shipped: the name in `SHIPPED` of
    the one that dexworld ships; title: what that one is called. Raises as `open_decoder`.
    """
    if name == OWN:
        return None, ""
    if name != AUTO:
        # A run's folder and its `model` in it: the last part alone would name all alike.
        return opened(name, encoder), f"the {shipped} {'/'.join(Path(name).parts[-2:])}"
    try:
        return opened(shipped, encoder), f"{title} that dexworld ships"
    except FileNotFoundError:
        return None, f"this installation holds no {shipped}"
    except OtherEncoderError:
        return None, f"dexworld ships no {shipped} for this encoder"


def _checked(reader: Reader, what: str, encoder: Encoder) -> Reader:
    reader.config.latents.check_encoder(encoder_fingerprint(encoder), what)
    return reader
