"""What the baselines share: DexWM's network and training, told something else than the hands."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dexworld.models.config import PRESETS, DexWMConfig, DiffusionConfig, PredictorConfig

DIFFUSED = {"diffusion": DiffusionConfig(), "residual": False}  # the form of the original NWM and PEVA
SIZES = ("paper-s", "paper-b", "paper-l", "paper-xl", "tiny", "clip", "debug")


@dataclass(frozen=True)
class ToldOtherwiseConfig(DexWMConfig):
    """A DexWM whose predictor is not told the hands. Raises ValueError for parts that would tell them."""

    predictor: PredictorConfig = field(default_factory=lambda: PredictorConfig(pixel_aligned=False))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictor.pixel_aligned or self.points is not None:
            tells = "predictor.pixel_aligned tells" if self.predictor.pixel_aligned else "a point head is told"
            raise ValueError(f"{type(self).__name__} hides the hands, but {tells} them; leave it out")


def presets(kind: str, config_type: Any, predictor: Mapping[str, Any] = {}, **changes: Any) -> dict[str, Any]:
    """DexWM's sizes for a baseline, named `kind-size`. predictor, changes: fields that differ from DexWM's."""
    named = {}
    for size in SIZES:
        own = replace(PRESETS[size].predictor, pixel_aligned=False, **predictor)
        named[f"{kind}-{size}"] = config_type(**vars(PRESETS[size]) | {"predictor": own} | changes)
    return named
