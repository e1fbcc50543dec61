"""What is trained on the latents of a frozen encoder, without a predictor: which encoder, and which data."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from dexworld.models.config import KeypointHeadConfig, PredictorConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.encoders import EncoderChoice
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.reference import REFERENCE
from dexworld.models.world_model import load_world_model, preset
from dexworld.training.config import LoopConfig
from dexworld.training.fit import without_folders
from dexworld.training.run_data import DataConfig, RunData, fit_encoder


@dataclass(frozen=True)
class LatentRunConfig(DataConfig):
    """Data and encoder of a run. Raises ValueError naming the field that makes no sense."""

    checkpoint: str = REFERENCE
    """World model whose encoder is taken: a folder, a Hugging Face id, or `reference`."""
    encoder_preset: str | None = None
    """Take the encoder of this model preset instead; a pca one is fitted on the data as `dexworld train` does."""
    encoder: EncoderChoice = field(default_factory=EncoderChoice)
    """Pretrained encoder instead, before there is any world model of it; pictures have the size of the preset, `tiny`
    unless another is given."""
    mix: tuple[float, ...] = ()
    """Share of each data folder in what is drawn; by default as large as its data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint != REFERENCE and (self.encoder_preset is not None or self.encoder != EncoderChoice()):
            raise ValueError(
                f"the encoder is that of {self.checkpoint}: leave out the options of another encoder, or `checkpoint`"
            )

    @property
    def shares(self) -> tuple[float, ...]:
        return self.mix


@dataclass(frozen=True)
class LatentRun:
    """An encoder and the data it is applied to.

    model: a world model that holds the encoder; the rest of it is not used. fingerprint: of the encoder. source: what
    encoder it is, in words. data: with frames of the model's size.
    """

    model: Any
    fingerprint: str
    source: str
    data: RunData

    @classmethod
    def open(cls, config: LatentRunConfig, seed: int, device: torch.device) -> "LatentRun":
        """Open the data and load or fit the encoder. Raises ValueError for data that is missing or does not fit."""
        data = RunData.open(config)
        if config.encoder_preset is None and config.encoder == EncoderChoice():
            model, source = load_world_model(config.checkpoint), without_folders(config.checkpoint)
        else:
            name = config.encoder_preset or "tiny"
            small = PredictorConfig(dim=32, depth=1, heads=2, pixel_aligned=False)  # only the encoder is used
            wanted = replace(config.encoder.applied(preset(name)), predictor=small)
            model = DexWM(replace(wanted, keypoint_head=KeypointHeadConfig(dim=32, depth=1, heads=2))).eval()
            fit_encoder(model.config, model.encoder, data.datasets, config.encoder_frames, seed, device)
            source = without_folders(config.encoder.encoder) if config.encoder.encoder else f"preset {name}"
        model.requires_grad_(False).to(device)
        return cls(model, encoder_fingerprint(model.encoder), source, data.resized(model.config.image_size))

    def identity(self, config: LatentRunConfig) -> dict[str, Any]:
        """What a continued run must share, as JSON values."""
        own = {"encoder": self.fingerprint, "latents": config.latents, "mix": list(config.mix)}
        return own | self.data.identity(config)

    def provenance(self, training: LoopConfig, ancestry: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a model card needs to know about data and settings; ancestry as for `RunData.provenance`."""
        encoder = {"encoder": self.fingerprint, "encoder_of": self.source}
        return {**encoder, **self.data.provenance(ancestry), "training": asdict(training)}
