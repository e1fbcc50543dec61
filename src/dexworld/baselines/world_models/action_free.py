"""A model that is told nothing: the next frame from past frames. What it can't predict is what actions are worth."""

from dataclasses import dataclass, replace

from torch import Tensor

from dexworld.actions import HandMotion
from dexworld.baselines.told_otherwise import ToldOtherwiseConfig, presets
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import Kind, register
from dexworld.track import Track

NOTHING = {"embed_actions": False}  # to embed


@dataclass(frozen=True)
class ActionFreeConfig(ToldOtherwiseConfig):
    """DexWM's sizes without a condition: AdaLN's vectors are learned, and the same for every step."""

    @property
    def action_dim(self) -> int:
        """Nothing is told."""
        return 0


class ActionFree(DexWM):
    """DexWM without actions."""

    config_type, kind = ActionFreeConfig, "action-free"

    def condition(self, track: Track) -> HandMotion:
        """T transitions (..., T) that say nothing."""
        motion = super().condition(track)
        return replace(motion, deltas=motion.deltas[..., :0, :])

    def scaled_to(self, track: Track, moving: Tensor) -> "ActionFree":
        """This model: there is no action to scale."""
        return self


register(Kind(ActionFree.kind, ActionFree, ActionFreeConfig, presets(ActionFree.kind, ActionFreeConfig, NOTHING)))
