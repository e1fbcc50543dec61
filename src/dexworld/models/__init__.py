"""The world model: encoders, the latent predictor, the keypoint head, and DexWM that joins them."""

from dexworld.models.checkpoint import FORMAT_VERSION, CheckpointError
from dexworld.models.config import (
    PRESETS,
    DexWMConfig,
    EncoderConfig,
    KeypointHeadConfig,
    PredictorConfig,
    preset,
)
from dexworld.models.dexwm import DexWM
from dexworld.models.rollout import Context

__all__ = [
    "FORMAT_VERSION",
    "PRESETS",
    "CheckpointError",
    "Context",
    "DexWM",
    "DexWMConfig",
    "EncoderConfig",
    "KeypointHeadConfig",
    "PredictorConfig",
    "preset",
]
