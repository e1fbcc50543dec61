"""Configuration of the world model: what is built, and nothing about how it is trained.

Every class checks itself when made and raises ValueError naming the field. `PRESETS` holds the paper's four predictor
sizes (DexWM paper, Table 5) and our small ones.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from dexworld.actions import ACTION_DIM, OFFICIAL, ActionConvention
from dexworld.hands import NUM_TRACKED

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Family = Literal["dinov2", "dinov3", "webssl", "vjepa2", "siglip2"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True)
class EncoderConfig:
    """The frozen image encoder.

    kind: `pca` (patch PCA fitted on the data), `cnn` (a middle block of EfficientNet-Lite0), `transformers` (a
        pretrained vision transformer) or a registered one.
    dim: latent width D. patch: side of a token in pixels of the encoder's input. downsample: integer factor by which
        images are area-averaged first. source: local folder or Hugging Face id of a `transformers` encoder.
    mean, std: normalisation of RGB in [0, 1] (`pca` does not use them: it subtracts its own mean).
    family: of a `transformers` encoder; None takes whichever of the five families the source is.
    feature_norm: `layer` normalises each token's features to mean 0 and variance 1 (a LayerNorm without parameters),
        as the release does for V-JEPA 2. DexWM paper, section 4.2: this can matter for planning.
    precision: `bfloat16` computes linear layers and attention of a `transformers` encoder so; None is float32.
    merge: a token holds merge x merge cells of `pca` or `cnn`, one after the other (space to depth); None is one cell.
        A cell is patch / merge pixels wide and has dim / merge^2 numbers.
    block: of the `cnn`, whose output is taken, counted from 0.
    """

    kind: str = "pca"
    dim: int = 96
    patch: int = 14
    downsample: int = 2
    source: str | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    # None by default, so that models, caches and runs from before these options stay what they are.
    family: Family | None = None
    feature_norm: Literal["layer"] | None = None
    precision: Literal["bfloat16"] | None = None
    merge: int | None = None
    block: int | None = None

    def __post_init__(self) -> None:
        if min(self.dim, self.patch, self.downsample) < 1:
            raise ValueError(f"encoder dim, patch and downsample must be positive, not {self}")
        if self.kind == "pca" and self.dim > 3 * self.patch**2:
            most = 3 * self.patch**2
            raise ValueError(f"a pca encoder of {self.patch}-pixel patches has at most {most} dims, not {self.dim}")
        if self.kind == "transformers" and not self.source:
            raise ValueError("a transformers encoder needs `source`: a local folder or a Hugging Face id")
        for name, choices in (("family", FAMILIES), ("feature_norm", ("layer",)), ("precision", ("bfloat16",))):
            value = getattr(self, name)
            if value is not None and self.kind in ("pca", "cnn"):
                raise ValueError(f"a {self.kind} encoder has no {name}; it is for pretrained transformers")
            if value not in (None, *choices):
                raise ValueError(f"encoder {name} is {value!r}; choose from {', '.join(choices)}, or None")
        if min(self.std) <= 0:
            raise ValueError(f"encoder std must be positive, not {self.std}")
        if (self.block is None) == (self.kind == "cnn"):
            raise ValueError(f"a cnn encoder has a block and no other has, not {self.block} for {self.kind}")
        if self.merge is not None and (self.merge < 2 or self.kind == "transformers"):
            raise ValueError(f"encoder merge is {self.merge}: 2 or more cells a side for pca and cnn, or None")
        if self.patch % self.cells or self.dim % self.cells**2:
            wrong = f"encoder patch {self.patch} and dim {self.dim} must be multiples of merge and of its square"
            raise ValueError(f"{wrong}: {self.cells} and {self.cells**2}")

    @property
    def cells(self) -> int:
        """Cells along the side of a token."""
        return self.merge or 1

    @property
    def cell_dim(self) -> int:
        """Numbers of a cell."""
        return self.dim // self.cells**2

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens for images of (height, width). Raises ValueError when patches don't tile it."""
        side = self.patch * self.downsample
        if min(image_size) < 1:
            raise ValueError(f"image size {image_size} must be positive")
        if image_size[0] % side or image_size[1] % side:
            raise ValueError(f"image size {image_size} is not a multiple of patch x downsample = {side} pixels")
        return image_size[0] // side, image_size[1] // side

    def identity(self) -> dict[str, Any]:
        """What decides the latents besides the weights, as JSON values.

        Options that are None are left out, and so is where pretrained weights lie: a copy gives the same latents.
        """
        values = {name: value for name, value in asdict(self).items() if name == "source" or value is not None}
        return values | ({"source": None} if self.kind == "transformers" else {})


def pretrained_encoder(family: Family, source: str, dim: int, patch: int) -> EncoderConfig:
    """An encoder of a family with the normalisation it was trained with and the output that DexWM takes.

    SigLIP 2 was trained on images in [-1, 1], all others with ImageNet's mean and deviation. V-JEPA 2 is the one
    whose features the release normalises.
    """
    half = (0.5, 0.5, 0.5)
    mean, std = (half, half) if family == "siglip2" else (IMAGENET_MEAN, IMAGENET_STD)
    norm: Literal["layer"] | None = "layer" if family == "vjepa2" else None
    return EncoderConfig("transformers", dim, patch, 1, source, mean, std, family, norm)


def lite0_encoder(block: int, stride: int, channels: int, merge: int) -> EncoderConfig:
    """EfficientNet-Lite0's `block`, whose cells are `stride` pixels apart, `merge` x `merge` of them a token.

    Pixels are scaled as in the official code (tensorflow/tpu, efficientnet/lite): minus 127, then divided by 128.
    """
    mean, std = 127 / 255, 128 / 255
    dim, patch = channels * merge**2, stride * merge
    return EncoderConfig("cnn", dim, patch, 1, None, (mean,) * 3, (std,) * 3, merge=merge, block=block)


# The five of the paper's Figure 6, DINOv2's smaller sizes, and ours that need no download.
ENCODERS: dict[str, EncoderConfig] = {
    "dinov2-small": pretrained_encoder("dinov2", "facebook/dinov2-small", 384, 14),
    "dinov2-base": pretrained_encoder("dinov2", "facebook/dinov2-base", 768, 14),
    "dinov2-large": pretrained_encoder("dinov2", "facebook/dinov2-large", 1024, 14),
    "dinov3-large": pretrained_encoder("dinov3", "facebook/dinov3-vitl16-pretrain-lvd1689m", 1024, 16),
    "webssl-300m": pretrained_encoder("webssl", "facebook/webssl-dino300m-full2b-224", 1024, 14),
    "vjepa2-giant": pretrained_encoder("vjepa2", "facebook/vjepa2-vitg-fpc64-256", 1408, 16),
    "siglip2-so400m": pretrained_encoder("siglip2", "google/siglip2-so400m-patch14-384", 1152, 14),
    "lite0-block10": lite0_encoder(10, 16, 112, 2),
    "lite0-block4": lite0_encoder(4, 8, 40, 4),
    "pca-wide": EncoderConfig(dim=192),
    "pca-fine": EncoderConfig(dim=192, merge=2),
}


@dataclass(frozen=True)
class DiffusionConfig:
    """Denoising in place of one pass, as in NWM and PEVA: the next frame's latents come from noise.

    train_steps: levels of noise, on a cosine schedule. sample_steps: passes of DDIM for a predicted frame.
    """

    train_steps: int = 1000
    sample_steps: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.sample_steps <= self.train_steps:
            raise ValueError(f"diffusion takes 1 to train_steps sample_steps, not {self}")


@dataclass(frozen=True)
class PredictorConfig:
    """The conditional diffusion transformer without diffusion (CDiT) that predicts the next frame's latents.

    num_context: frames the window holds, observed and predicted together (paper: 8).
    residual: predict the change of the last frame's latents instead of the latents (ours; see docs/model.md).
    embed_actions: a small network before AdaLN instead of raw actions (ours).
    pixel_aligned: add, to every query token, where the hand is and where the action takes it on the patch grid (ours),
        for the `tracked` keypoints (indices into `hands.TRACKED`), with Gaussians of `sigmas` patches and depth
        measured from `depth_reference` metres.
    diffusion: denoise the next frame's latents (extra `video`); None predicts them in one pass, as the paper does.
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
    diffusion: DiffusionConfig | None = None

    def __post_init__(self) -> None:
        if min(self.dim, self.depth, self.heads, self.mlp_ratio, self.num_context) < 1:
            raise ValueError(f"predictor sizes must be positive, not {self}")
        if self.dim % self.heads:
            raise ValueError(f"predictor dim {self.dim} is not a multiple of its {self.heads} heads")
        if self.diffusion is not None and self.residual:
            raise ValueError("diffusion predicts latents, not their change: set predictor.residual to False")
        if not self.tracked or len(set(self.tracked)) != len(self.tracked):
            raise ValueError(f"predictor tracked keypoints must be distinct and not empty, not {self.tracked}")
        if min(self.tracked) < 0 or max(self.tracked) >= NUM_TRACKED:
            raise ValueError(f"predictor tracked keypoints index the {NUM_TRACKED} of TRACKED, not {self.tracked}")
        if not self.sigmas or min(*self.sigmas, self.depth_reference) <= 0:
            wrong = f"{self.sigmas} and {self.depth_reference}"
            raise ValueError(f"predictor sigmas and depth_reference must be positive, not {wrong}")


@dataclass(frozen=True)
class KeypointHeadConfig:
    """The transformer that draws one heatmap for each tracked keypoint from latents.

    cell: heatmap pixels along the side of one token, so a map is (grid rows * cell, grid columns * cell).
    loss: what it is trained with, which decides how it is read: `mse` on Gaussian maps (paper) or spatial
        `cross_entropy` (ours: trains where MSE collapses to all-zero maps).
    token_grid: rows and columns that latents are resampled to first, the maps being stretched back (the release:
        16 x 16); None keeps the encoder's own grid (the paper).
    """

    dim: int = 96
    depth: int = 2
    heads: int = 4
    mlp_ratio: int = 2
    cell: int = 7
    channels: int = NUM_TRACKED
    loss: Literal["mse", "cross_entropy"] = "cross_entropy"
    token_grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        sizes = (self.dim, self.depth, self.heads, self.mlp_ratio, self.cell, self.channels, *(self.token_grid or ()))
        if min(sizes) < 1:
            raise ValueError(f"keypoint head sizes must be positive, not {self}")
        if self.token_grid is not None and len(self.token_grid) != 2:
            raise ValueError(f"keypoint head token_grid is rows and columns, not {self.token_grid}")
        if self.dim % self.heads:
            raise ValueError(f"keypoint head dim {self.dim} is not a multiple of its {self.heads} heads")
        if self.loss not in ("mse", "cross_entropy"):
            raise ValueError(f"keypoint head loss is {self.loss!r}; choose 'mse' or 'cross_entropy'")


@dataclass(frozen=True)
class PointsConfig:
    """What finds points of objects in latents and follows them under hands (ours; see docs/objects.md).

    cell: cells of a map along the side of one token. channels: of a point's look. dim, depth, heads, mlp_ratio: of the
    transformer that draws the maps. pieces: of a step's way, each with one displacement. width, layers: of the networks
    that tell displacements; ensemble: how many of them.
    """

    dim: int = 128
    depth: int = 2
    heads: int = 4
    mlp_ratio: int = 2
    cell: int = 4
    channels: int = 32
    pieces: int = 5
    width: int = 128
    layers: int = 2
    ensemble: int = 3

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1:
            raise ValueError(f"sizes of the point head must be positive, not {self}")
        if self.dim % self.heads:
            raise ValueError(f"point head dim {self.dim} is not a multiple of its {self.heads} heads")


@dataclass(frozen=True)
class TextConfig:
    """What reads goals from sentences and a picture's maps (ours; see docs/objects.md).

    words: width of the sentence encoder's vectors. dim, depth, heads: of the transformer over words. channels, layers:
    of the convolutions over the maps.
    """

    words: int = 512
    dim: int = 64
    depth: int = 2
    heads: int = 4
    channels: int = 48
    layers: int = 3

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1 or self.dim % self.heads:
            raise ValueError(f"sizes of the text head must be positive, and dim a multiple of heads, not {self}")


@dataclass(frozen=True)
class DexWMConfig:
    """A whole world model for images of `image_size` (height, width) pixels.

    action_scale: what a displacement of one unit means before the network: metres for the 42 keypoints, metres for the
        camera's translation, radians for its rotation. (1, 1, 1) feeds raw metres, as the paper does.
    points: the head that finds and follows points of objects; None has none. text: what reads goals from sentences, on
        top of it.
    """

    image_size: tuple[int, int] = (224, 392)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    keypoint_head: KeypointHeadConfig = field(default_factory=KeypointHeadConfig)
    action_convention: ActionConvention = field(default_factory=ActionConvention)
    action_scale: tuple[float, float, float] = (0.05, 0.05, 0.05)
    points: PointsConfig | None = None
    text: TextConfig | None = None

    def __post_init__(self) -> None:
        if self.text is not None and self.points is None:
            raise ValueError("a text head reads the maps of a point head, and this model has none")
        if min(self.action_scale) <= 0:
            raise ValueError(f"action_scale must be positive, not {self.action_scale}")
        self.encoder.grid(self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latent tokens."""
        return self.encoder.grid(self.image_size)

    @property
    def action_dim(self) -> int:
        """How many numbers the predictor is told of a step."""
        return ACTION_DIM

    @property
    def num_context(self) -> int:
        """Frames that the model looks back."""
        return self.predictor.num_context

    def with_encoder(self, encoder: EncoderConfig) -> "DexWMConfig":
        """The same model on another encoder's latents.

        Images are cropped to whole tokens (224 x 392 becomes 224 x 384 for patches of 16 pixels, as in the release),
        and heatmaps stay about as fine as they were. Raises ValueError when the image is smaller than a token.
        """
        side = encoder.patch * encoder.downsample
        height, width = (length // side * side for length in self.image_size)
        if not (height and width):
            raise ValueError(f"images of {self.image_size} pixels are smaller than a token of {side}")
        cell = max(1, round(self.keypoint_head.cell * side / (self.encoder.patch * self.encoder.downsample)))
        head = replace(self.keypoint_head, cell=cell)
        return replace(self, image_size=(height, width), encoder=encoder, keypoint_head=head)


def _paper(dim: int, depth: int, heads: int, action_convention: ActionConvention = ActionConvention()) -> DexWMConfig:
    """The paper's model at one of its sizes (Table 5): DINOv2 ViT-L/14, raw actions, no residual, MSE heatmaps."""
    predictor = PredictorConfig(dim, depth, heads, 2, 8, residual=False, embed_actions=False, pixel_aligned=False)
    head = KeypointHeadConfig(dim=256, depth=6, heads=16, mlp_ratio=4, cell=14, loss="mse")
    return DexWMConfig((224, 392), ENCODERS["dinov2-large"], predictor, head, action_convention, (1.0, 1.0, 1.0))


_PAPER_SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1024, 32, 16)}  # Table 5

PRESETS: dict[str, DexWMConfig] = {
    **{f"paper-{size}": _paper(*shape) for size, shape in _PAPER_SIZES.items()},
    # The same, told of actions as the release writes them, its defect included.
    **{f"official-{size}": _paper(*shape, OFFICIAL) for size, shape in _PAPER_SIZES.items()},
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
