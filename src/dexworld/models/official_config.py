"""The configuration of a DexWM release checkpoint: from its tensors' shapes, its arguments, and `OfficialOptions`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dexworld.actions import OFFICIAL
from dexworld.models.checkpoint import CheckpointError
from dexworld.models.config import ENCODERS, DexWMConfig, EncoderConfig, KeypointHeadConfig, PredictorConfig, preset
from dexworld.models.official_file import ReleaseFile
from dexworld.models.official_layout import HeadSizes, Layout

IMAGE_SIZES = {(14, 448): (224, 392), (16, 336): (224, 384)}  # by patch and number of tokens
# The release's configuration names of encoders, and ours.
RELEASE_ENCODERS: dict[str, EncoderConfig] = {
    "dinov2": ENCODERS["dinov2-large"],
    "dinov3_large": ENCODERS["dinov3-large"],
    "webssl_vitl": ENCODERS["webssl-300m"],
    "siglip2_so400m_patch14_384": ENCODERS["siglip2-so400m"],
    "vjepa2_vitg_256": ENCODERS["vjepa2-giant"],
}
# The one that the release doesn't load from `transformers`; its attention layers are fused.
HUB_ENCODER, FUSED = "dinov2", "qkv"


@dataclass(frozen=True)
class OfficialOptions:
    """What the tensors of a release checkpoint can't tell. The defaults are the release's."""

    key: str | None = None
    """Entry of the file that holds the weights; found by itself where there is one world model."""
    head_width: int = 64
    """Width of each of the predictor's attention heads."""
    keypoint_heads: int = 16
    """Attention heads of the keypoint head."""
    keypoint_rows: Literal["pixels-first", "keypoints-first"] = "pixels-first"
    """Order of the rows of the keypoint head's last layer: pixel row, pixel column, keypoint; or keypoint first."""
    encoder: str | None = None
    """The encoder's configuration name in the release, e.g. `dinov2`; found by itself where possible."""
    encoder_source: str | None = None
    """Local folder or hub id of the encoder, instead of the usual one."""
    image_size: tuple[int, int] | None = None
    """Height and width of images; from the number of tokens for 224 x 392 (patch 14) and 224 x 384 (patch 16)."""
    ignore: tuple[str, ...] = ()
    """Patterns such as `ema.*` of tensors that are left out on purpose."""

    def __post_init__(self) -> None:
        if min(self.head_width, self.keypoint_heads) < 1:
            raise ValueError(f"head_width and keypoint_heads must be positive, not {self}")
        if self.encoder is not None and self.encoder not in RELEASE_ENCODERS:
            raise ValueError(f"no release encoder {self.encoder!r}; choose from {', '.join(RELEASE_ENCODERS)}")
        if self.keypoint_rows not in ("pixels-first", "keypoints-first"):
            raise ValueError(f"keypoint_rows is {self.keypoint_rows!r}; choose 'pixels-first' or 'keypoints-first'")


def official_config(size: Literal["s", "b", "l", "xl"] = "xl") -> DexWMConfig:
    """The release's model at one of the paper's sizes (Table 5): the paper's preset with the head of 16 x 16 places."""
    config = preset(f"paper-{size}")
    return replace(config, keypoint_head=replace(config.keypoint_head, token_grid=(16, 16)))


def infer_config(layout: Layout, file: ReleaseFile, options: OfficialOptions) -> DexWMConfig:
    """The model that a release checkpoint's tensors describe. `layout` must have no problems.

    Raises CheckpointError where the shapes contradict each other or the options, or the options must say more.
    """
    predictor, head = layout.predictor, layout.head
    if predictor is None or head is None:
        raise CheckpointError(f"{file.path} lacks the predictor or the keypoint head")
    patch = layout.patch or head.cell
    image_size = options.image_size or IMAGE_SIZES.get((patch, predictor.tokens))
    if image_size is None or (image_size[0] // patch) * (image_size[1] // patch) != predictor.tokens:
        known = "no known image size has" if image_size is None else f"images of {image_size} do not have"
        raise CheckpointError(
            f"{file.path}: {known} {predictor.tokens} tokens of {patch} x {patch} pixels; say the right image_size"
        )
    for name, dim, heads in (
        ("predictor", predictor.dim, predictor.dim / options.head_width),
        ("keypoint head", head.dim, options.keypoint_heads),
    ):
        if dim % heads or heads != int(heads):
            raise CheckpointError(
                f"{file.path}: a {name} of width {dim} is not a multiple of its heads; say head_width or keypoint_heads"
            )
    encoder = _encoder_config(layout, file, options, patch, predictor.latent_dim)
    try:
        return DexWMConfig(
            image_size=image_size,
            encoder=encoder,
            predictor=PredictorConfig(
                dim=predictor.dim,
                depth=predictor.depth,
                heads=predictor.dim // options.head_width,
                mlp_ratio=predictor.mlp_ratio,
                num_context=predictor.slots - 1,
                residual=False,
                embed_actions=False,
                pixel_aligned=False,
            ),
            keypoint_head=KeypointHeadConfig(
                dim=head.dim,
                depth=head.depth,
                heads=options.keypoint_heads,
                mlp_ratio=head.mlp_ratio,
                cell=head.cell,
                loss="mse",
                token_grid=_token_grid(head, encoder.grid(image_size), file.path),
            ),
            action_convention=OFFICIAL,
            action_scale=(1.0, 1.0, 1.0),
        )
    except ValueError as error:
        raise CheckpointError(f"{file.path}: the sizes of its tensors contradict each other: {error}") from error


def _token_grid(head: HeadSizes, grid: tuple[int, int], path: Path) -> tuple[int, int] | None:
    """The head's square of places, or None where it draws at the encoder's own grid."""
    if head.tokens == grid[0] * grid[1]:
        return None
    side = isqrt(head.tokens)
    if side * side != head.tokens:
        raise CheckpointError(
            f"{path}: the keypoint head has {head.tokens} places, neither a square nor the encoder's {grid} grid"
        )
    return side, side


def _encoder_config(layout: Layout, file: ReleaseFile, options: OfficialOptions, patch: int, dim: int) -> EncoderConfig:
    """The encoder by the options, by the arguments in the file, or by its patch and width."""
    fitting = [name for name, config in RELEASE_ENCODERS.items() if (config.patch, config.dim) == (patch, dim)]
    named = [each for each in _strings(file.others) if each in fitting]
    if not named and layout.encoder and not any(FUSED in name for name in layout.encoder):
        fitting = [each for each in fitting if each != HUB_ENCODER] or fitting
    name = options.encoder or next(iter(named + fitting), None)
    if name is None:
        if options.encoder_source is None:
            raise CheckpointError(
                f"{file.path} was made on an encoder of {patch}-pixel patches and width {dim}, which is none of "
                f"{', '.join(RELEASE_ENCODERS)}; say the encoder_source"
            )
        return EncoderConfig("transformers", dim, patch, 1, options.encoder_source)
    config = RELEASE_ENCODERS[name]
    if (config.patch, config.dim) != (patch, dim):
        raise CheckpointError(
            f"{file.path}: the encoder {name} has patches of {config.patch} and width {config.dim}, but the tensors "
            f"say {patch} and {dim}"
        )
    return replace(config, source=options.encoder_source or config.source)


def _strings(value: Any) -> Iterator[str]:
    """Every string among nested arguments."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)
    elif hasattr(value, "__dict__") and not isinstance(value, Tensor):
        yield from _strings(vars(value))
