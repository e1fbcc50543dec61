"""Configuration of the video world model: what is built, and nothing about how it is trained.

Every class checks itself when made and raises ValueError naming the field. `PRESETS` holds the published backbones and
our small ones. Facts: DWM paper, method section; CogVideoX and Wan model configurations.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from dexworld.video.clips.clip import SPACE_FACTOR, TIME_FACTOR, ClipShape

Kind = Literal["cogvideox", "wan"]
Condition = Literal["mesh", "mask", "adaln-global", "adaln-frame", "none", "control"]
Prediction = Literal["velocity", "residual"]
CONCATENATED: tuple[Condition, ...] = ("mesh", "mask")  # these add a hand latent to the input channels
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
# Which latents of a clip (`clip_latents.KINDS`) show a condition its hands; others see keypoints, or no hands.
HANDS_SHOWN: dict[Condition, str] = {"mesh": "hands", "mask": "silhouette", "control": "silhouette"}


@dataclass(frozen=True)
class CodecConfig:
    """What turns video into latents (B, f, C, h, w) and back.

    kind: `pca` (space-time patch PCA, fitted in seconds, no download), or the `cogvideox` or `wan` video VAE.
    channels: C. source: folder or Hugging Face id of a VAE in diffusers' layout.
    sample: draw VAE latents from their distribution instead of taking its mode.
    """

    kind: Literal["pca", "cogvideox", "wan"] = "pca"
    channels: int = 16
    source: str | None = None
    sample: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("pca", "cogvideox", "wan"):
            raise ValueError(f"codec kind is {self.kind!r}; choose 'pca', 'cogvideox' or 'wan'")
        if not 1 <= self.channels <= 3 * SPACE_FACTOR**2:
            raise ValueError(f"codec channels is {self.channels}; it lies between 1 and {3 * SPACE_FACTOR**2}")
        if self.kind != "pca" and not self.source:
            raise ValueError(f"a {self.kind} codec needs `source`: a local folder or a Hugging Face id")


@dataclass(frozen=True)
class BackboneConfig:
    """The diffusion transformer, one of diffusers' classes.

    kind: `cogvideox` (CogVideoXTransformer3DModel, diffusion with a cosine-like schedule) or `wan`
        (WanTransformer3DModel, flow matching).
    heads, head_dim, depth: width is heads x head_dim. time_dim: width of the time embedding (cogvideox only).
    mlp_dim: hidden width of the feed-forward part; 0 means 4 x width.
    text_dim, text_tokens: of the text embeddings; a model without a text encoder sees `text_tokens` zeros.
    rotary: rotary position embedding; CogVideoX-2B has fixed sines instead.
    sample_height, sample_width: latent size that positions are scaled to (60 x 90 in CogVideoX); 0 is the clip's own.
    snr_shift: of CogVideoX's noise schedule. flow_shift: of Wan's timesteps when sampling.
    skip_maps: linear maps from a token's input to its output that the last layer's tokens mix (`GatedSkip`), so
        that a narrow model need not carry what it copies; 0 in published models (cogvideox only).
    """

    kind: Kind = "cogvideox"
    heads: int = 6
    head_dim: int = 32
    depth: int = 6
    time_dim: int = 128
    mlp_dim: int = 0
    text_dim: int = 32
    text_tokens: int = 1
    rotary: bool = True
    sample_height: int = 0
    sample_width: int = 0
    snr_shift: float = 1.0
    flow_shift: float = 5.0
    skip_maps: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"backbone kind is {self.kind!r}; choose 'cogvideox' or 'wan'")
        for name in ("heads", "head_dim", "depth", "time_dim", "text_dim", "text_tokens", "snr_shift", "flow_shift"):
            if getattr(self, name) <= 0:
                raise ValueError(f"backbone {name} is {getattr(self, name)}; it must be positive")
        if min(self.mlp_dim, self.sample_height, self.sample_width) < 0:
            raise ValueError(f"backbone mlp_dim, sample_height and sample_width must be 0 or more, not {self}")
        if self.skip_maps < 0 or (self.skip_maps and self.kind != "cogvideox"):
            raise ValueError(f"skip_maps is {self.skip_maps}; it is 0 or more, and only cogvideox backbones have them")
        if self.head_dim % 16:
            raise ValueError(f"head_dim is {self.head_dim}; rotary positions in time and space need a multiple of 16")

    @property
    def width(self) -> int:
        """Width of a token."""
        return self.heads * self.head_dim

    @property
    def mask_channels(self) -> int:
        """Channels of the mask: CogVideoX-Fun has one, Wan-Fun one for each pixel frame of a latent frame."""
        return 1 if self.kind == "cogvideox" else TIME_FACTOR


@dataclass(frozen=True)
class DWMConfig:
    """A video world model.

    condition: how it sees the hands. `mesh` and `mask`: rendered hands, or their silhouette, on black, as further input
        channels; `adaln-global` and `adaln-frame`: hand keypoints through the norms; `control`: first frame instead of
        the static video, silhouette through a control branch (InterDyn-like baseline); `none`: no hands.
    prediction: what the transformer's output means. `velocity`: v of CogVideoX or the flow of Wan, which their weights
        need. `residual`: the change of the static latents, for models trained from new weights (docs/video.md).
    control_depth: blocks of the control branch.
    reference: whether it also sees the hands in the colour of skin (ours, docs/video.md).
    sampling_steps: denoising steps unless others are asked for; one is best for our small models (docs/video.md).
    """

    clip: ClipShape = field(default_factory=ClipShape)
    codec: CodecConfig = field(default_factory=CodecConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    condition: Condition = "mesh"
    prediction: Prediction = "residual"
    control_depth: int = 2
    sampling_steps: int = 1
    reference: bool = False

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition is {self.condition!r}; choose from {', '.join(CONDITIONS)}")
        if self.prediction not in get_args(Prediction):
            raise ValueError(f"prediction is {self.prediction!r}; choose from {', '.join(get_args(Prediction))}")
        if self.sampling_steps < 1:
            raise ValueError(f"sampling_steps is {self.sampling_steps}; sampling takes at least one step")
        if self.control_depth < 1:
            raise ValueError(f"control_depth is {self.control_depth}; a control branch has at least one block")
        if self.reference and self.condition not in CONCATENATED:
            raise ValueError(f"a reference colours rendered hands, and {self.condition!r} shows none; use 'mesh'")
        if self.backbone.kind == "wan" and self.condition not in (*CONCATENATED, "none"):
            raise ValueError(f"the wan backbone takes conditions mesh, mask and none, not {self.condition!r}")

    @property
    def in_channels(self) -> int:
        """Input channels: noisy, mask, static, the hands' where the condition adds them, and the reference's."""
        latents = (3 if self.condition in CONCATENATED else 2) + self.reference
        return latents * self.codec.channels + self.backbone.mask_channels


def _published(kind: Kind, codec: str, **backbone) -> DWMConfig:
    return DWMConfig(
        clip=ClipShape(49, 480, 720),
        codec=CodecConfig(kind=kind, source=codec),
        backbone=BackboneConfig(kind=kind, **backbone),
        prediction="velocity",
        sampling_steps=50,
    )


_FUN = "alibaba-pai/CogVideoX-Fun-V1.1"
_COGVIDEOX = {"head_dim": 64, "time_dim": 512, "text_dim": 4096, "text_tokens": 226}
_COGVIDEOX |= {"sample_height": 60, "sample_width": 90}
_WAN = {"head_dim": 128, "text_dim": 4096, "text_tokens": 512}
PRESETS: dict[str, DWMConfig] = {
    "cogvideox-fun-5b": _published("cogvideox", f"{_FUN}-5b-InP", heads=48, depth=42, **_COGVIDEOX),
    "cogvideox-fun-2b": _published(
        "cogvideox", f"{_FUN}-2b-InP", heads=30, depth=30, rotary=False, snr_shift=3.0, **_COGVIDEOX
    ),
    "wan2.1-fun-1.3b": _published("wan", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", heads=12, depth=30, mlp_dim=8960, **_WAN),
    "wan2.1-fun-14b": _published("wan", "Wan-AI/Wan2.1-T2V-14B-Diffusers", heads=40, depth=40, mlp_dim=13824, **_WAN),
    "small": DWMConfig(codec=CodecConfig(channels=32), backbone=BackboneConfig(skip_maps=8)),
    "mini": DWMConfig(  # the shipped model
        codec=CodecConfig(channels=32), backbone=BackboneConfig(heads=4, depth=4, skip_maps=8)
    ),
    "debug": DWMConfig(
        clip=ClipShape(5, 32, 48),
        codec=CodecConfig(channels=8),
        backbone=BackboneConfig(heads=2, head_dim=16, depth=2, time_dim=32, text_dim=8, skip_maps=2),
        control_depth=1,
    ),
}


def preset(name: str) -> DWMConfig:
    """The preset of that name. Raises ValueError listing the names there are."""
    if name not in PRESETS:
        raise ValueError(f"no video model preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
