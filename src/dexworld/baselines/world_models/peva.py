"""PEVA*: told the camera's motion and that of the upper body without fingers, as in DexWM's Table 3.

Source: Bai et al., "Whole-Body Conditioned Egocentric Video Prediction", 2025, in the form of DexWM's appendix C.3:
DexWM's framework, "conditioning on the upper body human poses, excluding the fingers". The twenty joints are those of
DexWM's released code: shoulder, arm, forearm and hand of both sides, hip, neck1-4 and spine1-7. An action has twenty
rows of displacements, in DexWM's convention, and the camera's two. Presets `peva-diffusion-...` denoise, as the
original does.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dexworld.baselines.told_otherwise import DIFFUSED, ToldOtherwiseConfig, presets
from dexworld.hands import BODY_KEYPOINTS, LEFT, RIGHT, WRIST
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import Kind, register
from dexworld.track import Track

WRISTS = [LEFT.start + WRIST, RIGHT.start + WRIST]


@dataclass(frozen=True)
class PEVAConfig(ToldOtherwiseConfig):
    """PEVA* in DexWM's sizes."""

    @property
    def action_dim(self) -> int:
        """Twenty joints and the camera's two rows, three numbers each."""
        return 3 * (len(WRISTS) + len(BODY_KEYPOINTS) + 2)


class PEVA(DexWM):
    """DexWM that is told wrists, arms, neck, spine and hip in place of the hands."""

    config_type, kind = PEVAConfig, "peva"
    columns = ("keypoints_world", "keypoints_valid", "keypoints_shown", "body_world", "body_valid")

    def told(self, track: Track) -> tuple[Tensor, Tensor]:
        """Wrists and upper body: (..., T + 1, 20, 3) metres, (..., T + 1, 20). Raises ValueError without a body."""
        if "body_world" not in track.columns:
            lack = f"{track.source or 'the data'}: no upper body (column body_world), which PEVA* is told"
            raise ValueError(f"{lack}; EgoDex and `dexworld collect human` have one")
        points = torch.cat([track.keypoints_world[..., WRISTS, :], track["body_world"]], dim=-2)
        return points, torch.cat([track.keypoints_valid[..., WRISTS], track["body_valid"]], dim=-1)


_PRESETS = presets(PEVA.kind, PEVAConfig) | presets("peva-diffusion", PEVAConfig, DIFFUSED)
register(Kind(PEVA.kind, PEVA, PEVAConfig, _PRESETS))
