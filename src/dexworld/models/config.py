"""Configuration of the world model: what is built, and nothing about how it is trained.

Every class checks itself when made and raises ValueError naming the field. `PRESETS` holds the paper's four predictor
sizes (DexWM paper, Table 5) and our small ones.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_type_hints

from dexworld.actions import OFFICIAL, ActionConvention
from dexworld.hands import NUM_TRACKED

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen image encoder.

    kind: `pca` (patch PCA fitted on the data) or `transformers` (a pretrained vision transformer).
    dim: latent width D. patch: side of a token in pixels of the encoder's input. downsample: integer factor by which
        images are area-averaged first. source: local folder or Hugging Face id of a `transformers` encoder.
    mean, std: normalisation of RGB in [0, 1] (`transformers` only; `pca` subtracts its own mean).
    """

    kind: Literal["pca", "transformers"] = "pca"
    dim: int = 96
    patch: int = 14
    downsample: int = 2
    source: str | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.kind not in ("pca", "transformers"):
            raise ValueError(f"encoder kind is {self.kind!r}; choose 'pca' or 'transformers'")
        if min(self.dim, self.patch, self.downsample) < 1:
            raise ValueError(f"encoder dim, patch and downsample must be positive, not {self}")
        if self.kind == "pca" and self.dim > 3 * self.patch**2:
            raise ValueError(
                f"a pca encoder of {self.patch}-pixel patches has at most {3 * self.patch**2} dims, not {self.dim}"
            )
        if self.kind == "transformers" and not self.source:
            raise ValueError("a transformers encoder needs `source`: a local folder or a Hugging Face id")
        if min(self.std) <= 0:
            raise ValueError(f"encoder std must be positive, not {self.std}")

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens for images of (height, width). Raises ValueError when patches don't tile it."""
        side = self.patch * self.downsample
        if image_size[0] % side or image_size[1] % side:
            raise ValueError(f"image size {image_size} is not a multiple of patch x downsample = {side} pixels")
        return image_size[0] // side, image_size[1] // side


@dataclass(frozen=True)
class PredictorConfig:
    """The conditional diffusion transformer without diffusion (CDiT) that predicts the next frame's latents.

    num_context: frames the window holds, observed and predicted together (paper: 8).
    residual: predict the change of the last frame's latents instead of the latents (ours; see docs/model.md).
    embed_actions: a small network before AdaLN instead of raw actions (ours).
    pixel_aligned: add, to every query token, where the hand is and where the action takes it on the patch grid (ours),
        for the `tracked` keypoints (indices into `hands.TRACKED`), with Gaussians of `sigmas` patches and depth
        measured from `depth_reference` metres.
    """

    dim: int = 160
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 2
    num_context: int = 4
    residual: bool = True
    embed_actions: bool = True
    pixel_aligned: bool = True
    tracked: tuple[int, ...] = tuple(range(NUM_TRACKED))
    sigmas: tuple[float, ...] = (1.0, 3.0)
    depth_reference: float = 0.8

    def __post_init__(self) -> None:
        if min(self.dim, self.depth, self.heads, self.mlp_ratio, self.num_context) < 1:
            raise ValueError(f"predictor sizes must be positive, not {self}")
        if self.dim % self.heads:
            raise ValueError(f"predictor dim {self.dim} is not a multiple of its {self.heads} heads")
        if not self.tracked or len(set(self.tracked)) != len(self.tracked):
            raise ValueError(f"predictor tracked keypoints must be distinct and not empty, not {self.tracked}")
        if min(self.tracked) < 0 or max(self.tracked) >= NUM_TRACKED:
            raise ValueError(
                f"predictor tracked keypoints index the {NUM_TRACKED} of hands.TRACKED, not {self.tracked}"
            )
        if not self.sigmas or min(self.sigmas) <= 0:
            raise ValueError(f"predictor sigmas must be positive, not {self.sigmas}")


@dataclass(frozen=True)
class KeypointHeadConfig:
    """The transformer that draws one heatmap for each tracked keypoint from latents.

    cell: heatmap pixels along the side of one token, so a map is (grid rows * cell, grid columns * cell).
    loss: what it is trained with, which decides how it is read: `mse` on Gaussian maps (paper) or spatial
        `cross_entropy` (ours: trains where MSE collapses to all-zero maps).
    """

    dim: int = 96
    depth: int = 2
    heads: int = 4
    mlp_ratio: int = 2
    cell: int = 7
    channels: int = NUM_TRACKED
    loss: Literal["mse", "cross_entropy"] = "cross_entropy"

    def __post_init__(self) -> None:
        if min(self.dim, self.depth, self.heads, self.mlp_ratio, self.cell, self.channels) < 1:
            raise ValueError(f"keypoint head sizes must be positive, not {self}")
        if self.dim % self.heads:
            raise ValueError(f"keypoint head dim {self.dim} is not a multiple of its {self.heads} heads")
        if self.loss not in ("mse", "cross_entropy"):
            raise ValueError(f"keypoint head loss is {self.loss!r}; choose 'mse' or 'cross_entropy'")


@dataclass(frozen=True)
class DexWMConfig:
    """A whole world model for images of `image_size` (height, width) pixels.

    action_scale: what a displacement of one unit means before the network: metres for the 42 keypoints, metres for the
        camera's translation, radians for its rotation. (1, 1, 1) feeds raw metres, as the paper does.
    """

    image_size: tuple[int, int] = (224, 392)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    keypoint_head: KeypointHeadConfig = field(default_factory=KeypointHeadConfig)
    action_convention: ActionConvention = field(default_factory=ActionConvention)
    action_scale: tuple[float, float, float] = (0.05, 0.05, 0.05)

    def __post_init__(self) -> None:
        if min(self.action_scale) <= 0:
            raise ValueError(f"action_scale must be positive, not {self.action_scale}")
        self.encoder.grid(self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latent tokens."""
        return self.encoder.grid(self.image_size)


def from_dict(cls: type, values: dict[str, Any], where: str = "config") -> Any:
    """A frozen config of class `cls` from the nested dict that `dataclasses.asdict` made, e.g. out of JSON.

    Raises ValueError naming fields that are unknown or of the wrong kind. Fields that are absent keep their default.
    """
    hints = get_type_hints(cls)
    known = {each.name for each in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"{where} has unknown fields {', '.join(unknown)}; {cls.__name__} knows {', '.join(sorted(known))}"
        )
    arguments = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise ValueError(f"{where}.{name} must be a mapping, not {type(value).__name__}")
            value = from_dict(hints[name], value, f"{where}.{name}")
        elif isinstance(value, list):
            value = tuple(value)
        arguments[name] = value
    return cls(**arguments)


def _paper(dim: int, depth: int, heads: int) -> DexWMConfig:
    """The paper's model at one of its sizes (Table 5): DINOv2 ViT-L/14, raw actions, no residual, MSE heatmaps."""
    return DexWMConfig(
        encoder=EncoderConfig(kind="transformers", dim=1024, downsample=1, source="facebook/dinov2-large"),
        predictor=PredictorConfig(
            dim=dim, depth=depth, heads=heads, num_context=8, residual=False, embed_actions=False, pixel_aligned=False
        ),
        keypoint_head=KeypointHeadConfig(dim=256, depth=6, heads=16, mlp_ratio=4, cell=14, loss="mse"),
        action_convention=OFFICIAL,
        action_scale=(1.0, 1.0, 1.0),
    )


PRESETS: dict[str, DexWMConfig] = {
    "paper-s": _paper(384, 12, 6),
    "paper-b": _paper(768, 12, 12),
    "paper-l": _paper(1024, 24, 16),
    "paper-xl": _paper(1024, 32, 16),
    # The reference robot has a right hand only: half of the tracked keypoints would be zeros.
    "tiny": DexWMConfig(
        predictor=PredictorConfig(tracked=tuple(range(NUM_TRACKED // 2, NUM_TRACKED))),
        keypoint_head=KeypointHeadConfig(dim=128, depth=3),
    ),
    # The same for data that shows both hands, human video first of all, and for what is fine-tuned from it.
    "tiny-hands": DexWMConfig(keypoint_head=KeypointHeadConfig(dim=128, depth=3)),
    # For the video world model's clips of 96 x 144 pixels, which show both hands.
    "clip": DexWMConfig(
        image_size=(96, 144),
        encoder=EncoderConfig(dim=96, patch=12, downsample=1),
        predictor=PredictorConfig(dim=128, depth=3),
        keypoint_head=KeypointHeadConfig(dim=64, depth=1, cell=4),
    ),
    "debug": DexWMConfig(
        encoder=EncoderConfig(dim=16, patch=14, downsample=4),
        predictor=PredictorConfig(dim=32, depth=2, heads=2, num_context=4),
        keypoint_head=KeypointHeadConfig(dim=32, depth=1, heads=2, cell=7),
    ),
}


def preset(name: str) -> DexWMConfig:
    """The preset of that name. Raises ValueError listing the names there are."""
    if name not in PRESETS:
        raise ValueError(f"no model preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
