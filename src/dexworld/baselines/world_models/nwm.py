"""NWM*: told the camera's motion and nothing else, as in DexWM's Table 3.

Source: Bar et al., "Navigation World Models", CVPR 2025, in the form of DexWM's appendix C.3: DexWM's framework,
"conditioning only on navigation (camera movement) actions, excluding hand and body motion". Network, losses and
keypoint head are DexWM's; its released code keeps all twelve heatmap targets for it. Presets `nwm-diffusion-...`
denoise, as the original does.
"""

from dataclasses import dataclass

from torch import Tensor

from dexworld.baselines.told_otherwise import DIFFUSED, ToldOtherwiseConfig, presets
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import Kind, register
from dexworld.track import Track


@dataclass(frozen=True)
class NWMConfig(ToldOtherwiseConfig):
    """NWM* in DexWM's sizes."""

    @property
    def action_dim(self) -> int:
        """Translation and rotation of the camera."""
        return 6


class NWM(DexWM):
    """DexWM that sees the hands and isn't told what they do."""

    config_type, kind = NWMConfig, "nwm"

    def told(self, track: Track) -> tuple[Tensor, Tensor]:
        """No point; the camera's two rows are in every condition."""
        return track.keypoints_world[..., :0, :], track.keypoints_valid[..., :0]


_PRESETS = presets(NWM.kind, NWMConfig) | presets("nwm-diffusion", NWMConfig, DIFFUSED)
register(Kind(NWM.kind, NWM, NWMConfig, _PRESETS))
