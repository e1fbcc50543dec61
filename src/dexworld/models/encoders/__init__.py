"""Frozen image encoders behind one interface: which there are, and which one a command takes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from dexworld.models.checkpoint import StandIn, lasting_place, shapes_only
from dexworld.models.config import ENCODERS, DexWMConfig, EncoderConfig, pretrained_encoder
from dexworld.models.encoders.base import Encoder
from dexworld.models.encoders.cnn import CNNEncoder
from dexworld.models.encoders.pca import PCAEncoder
from dexworld.models.encoders.pretrained import TransformersEncoder, read_checkpoint_config

Norm = Literal["preset", "none", "layer"]
Precision = Literal["preset", "float32", "bfloat16"]
KINDS: dict[str, type[Encoder]] = {"pca": PCAEncoder, "cnn": CNNEncoder, "transformers": TransformersEncoder}
FITTED = ("pca", "cnn")  # kinds whose weights lie in our checkpoints, and which `fit` makes


def register_encoder(name: str, encoder: type[Encoder], config: EncoderConfig) -> None:
    """Make an encoder known: by `config.kind` in checkpoints, by `name` on the command line.

    Raises ValueError when another class has the kind or the name.
    """
    if KINDS.get(config.kind, encoder) is not encoder or ENCODERS.get(name, config) != config:
        raise ValueError(f"the encoder kind {config.kind!r} or the name {name!r} is taken")
    KINDS[config.kind], ENCODERS[name] = encoder, config


def build_encoder(config: EncoderConfig, image_size: tuple[int, int]) -> Encoder:
    """The encoder that `config` names: a `pca` or `cnn` not fitted yet, a `transformers` one with its weights loaded.

    Raises ValueError listing the kinds there are.
    """
    if config.kind not in KINDS:
        known = ", ".join(KINDS)
        raise ValueError(f"no encoder kind {config.kind!r}; choose from {known}, or import the one that adds it")
    if shapes_only() and config.kind not in FITTED:
        return StandIn()  # type: ignore[return-value]
    return KINDS[config.kind](config, image_size)


def find_encoder(name: str) -> EncoderConfig:
    """The encoder of a name in `ENCODERS`, or of a local folder or Hugging Face id, whose config.json is read.

    Raises ValueError when it is none of these.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    name = lasting_place(name)
    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        known = ", ".join(ENCODERS)
        raise ValueError(f"no encoder {name!r}: it is no folder; choose from {known}, or give a folder or owner/name")
    checkpoint = read_checkpoint_config(name)
    return pretrained_encoder(checkpoint.layout.families[0], name, checkpoint.dim, checkpoint.patch)


@dataclass(frozen=True)
class EncoderChoice:
    """The encoder's part of a command's options. Raises ValueError for options that the encoder does not have."""

    encoder: str | None = None
    """Another encoder than the preset's: dinov2-small, dinov2-base, dinov2-large, dinov3-large, webssl-300m,
    vjepa2-giant, siglip2-so400m, or a local folder or Hugging Face id of such a model; without a download
    lite0-block10, lite0-block4, pca-wide, pca-fine."""
    encoder_norm: Norm = "preset"
    """`layer` normalises each token's features, `none` does not; `preset` as the paper: V-JEPA 2's only."""
    encoder_precision: Precision = "preset"
    """Of a pretrained encoder; bfloat16 is several times faster on GPUs and on CPUs with AMX."""

    def __post_init__(self) -> None:
        for name, choices in (("encoder_norm", get_args(Norm)), ("encoder_precision", get_args(Precision))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(choices)}")

    def applied(self, config: DexWMConfig) -> DexWMConfig:
        """`config` with this encoder, its images and heatmaps made to fit (see `DexWMConfig.with_encoder`)."""
        encoder = config.encoder if self.encoder is None else find_encoder(self.encoder)
        if self.encoder_norm != "preset":
            encoder = replace(encoder, feature_norm="layer" if self.encoder_norm == "layer" else None)
        if self.encoder_precision != "preset":
            encoder = replace(encoder, precision="bfloat16" if self.encoder_precision == "bfloat16" else None)
        return config if encoder == config.encoder else config.with_encoder(encoder)
