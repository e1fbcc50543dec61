"""Frozen image encoders behind one interface."""

from dexworld.models.config import EncoderConfig
from dexworld.models.encoders.base import Encoder
from dexworld.models.encoders.choice import EncoderChoice, find_encoder
from dexworld.models.encoders.pca import PCAEncoder
from dexworld.models.encoders.pretrained import TransformersEncoder

__all__ = ["Encoder", "EncoderChoice", "PCAEncoder", "TransformersEncoder", "build_encoder", "find_encoder"]


def build_encoder(config: EncoderConfig, image_size: tuple[int, int]) -> Encoder:
    """The encoder that `config` names: a `pca` one not fitted yet, a `transformers` one with its weights loaded."""
    return (PCAEncoder if config.kind == "pca" else TransformersEncoder)(config, image_size)
