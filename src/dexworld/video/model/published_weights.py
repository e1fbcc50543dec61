"""Start from published weights: CogVideoX, CogVideoX-Fun, Wan 2.1 and Wan-Fun, in diffusers' or VideoX-Fun's layout.

Tensors are matched name by name and shape by shape. The patch embedding is then widened to the channels of our
condition, so a base starts as what it was. Facts: the models' own `config.json` and `scheduler_config.json`.
"""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dexworld.models.checkpoint import CheckpointError, check_tensors, read_tensors, shapes_of, understood
from dexworld.video.clips.clip import ClipShape
from dexworld.video.model.backbone import build_transformer
from dexworld.video.model.noise import noise_settings
from dexworld.video.model.patch_embedding import channel_columns, widen_patch_embedding
from dexworld.video.model.published_parts import find_part, library_model, part_settings, require
from dexworld.video.model.video_config import (
    BackboneConfig,
    CodecConfig,
    Condition,
    DWMConfig,
    Kind,
    Prediction,
)

log = logging.getLogger(__name__)
CLASSES: dict[str, Kind] = {"CogVideoXTransformer3DModel": "cogvideox", "WanTransformer3DModel": "wan"}
# Settings that our configuration need not express: what the widening changes, and what follows from the clip's shape.
FREE_SETTINGS = {"in_channels", "sample_frames", "pos_embed_seq_len"}
CLIP_IMAGE_WIDTH = 1280  # of the image features that Wan's image-to-video models attend to
PUBLISHED_STEPS = 50  # the DWM release's denoising steps


def published_config(
    transformer: Any,
    source: str | Path,
    clip: ClipShape | None,
    condition: Condition,
    prediction: Prediction,
    codec_source: str | None,
) -> DWMConfig:
    """The configuration of a loaded transformer, with the size of its own training clips unless `clip` is given."""
    kind, settings = CLASSES[type(transformer).__name__], transformer.config
    with understood(f"{source}: the transformer's config.json"):
        if clip is None and kind == "wan":
            clip = ClipShape(49, 480, 720)  # what the DWM release trains Wan on; Wan's positions are free
        elif clip is None:
            clip = ClipShape(settings.sample_frames, 8 * settings.sample_height, 8 * settings.sample_width)
        codec = CodecConfig(kind=kind, channels=settings.out_channels, source=codec_source or str(source))
        backbone = _backbone_config(settings, kind, noise_settings(source, kind))
    return DWMConfig(clip, codec, backbone, condition, prediction, sampling_steps=PUBLISHED_STEPS)


def widen(transformer: Any, config: DWMConfig, where: str = "the checkpoint") -> Any:
    """Give `transformer` the input channels of `config`, in place. Raises CheckpointError for an unknown layout."""
    try:
        columns = channel_columns(transformer.config.in_channels, config.codec.channels, config.backbone.mask_channels)
        return widen_patch_embedding(transformer, config.in_channels, columns)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def load_transformer(source: str | Path) -> Any:
    """The transformer of a published model, in evaluation mode. Raises CheckpointError naming every unfit tensor."""
    require("diffusers", "accelerate")
    folder = find_part(source, "transformer")
    settings, original = _transformer_settings(folder)
    if original:
        transformer = _load_original_wan(folder, settings)
    else:
        import diffusers

        transformer = library_model(getattr(diffusers, settings["_class_name"]), folder, torch_dtype=torch.float32)
    if getattr(transformer.config, "image_dim", None) is not None:
        log.info("%s: its image branch becomes a bias, as for an empty image", folder)
        fold_image_branch(transformer)
    return transformer.eval()


def _transformer_settings(folder: Path) -> tuple[dict[str, Any], bool]:
    """The settings of a transformer's folder, and whether they are Wan's original ones."""
    settings = part_settings(folder)
    if settings.get("patch_size_t") is not None:
        raise CheckpointError(f"{folder} is a CogVideoX 1.5 with temporal patches, which is not supported; use 1.0")
    original = "num_heads" in settings and "dim" in settings
    if not original and str(settings.get("_class_name")) not in CLASSES:
        raise CheckpointError(
            f"{folder / 'config.json'} describes {settings.get('_class_name')}; supported are {', '.join(CLASSES)} "
            "and Wan's original layout"
        )
    return settings, original


@torch.no_grad()
def fold_image_branch(transformer: Any) -> Any:
    """Remove the image attention of a Wan model in place, leaving its answer to all-zero image features.

    VideoX-Fun gives zeros when it has no image. All image tokens are then alike, so attending to them gives their one
    value whatever the query: a constant before the output projection, hence a bias after it.
    """
    embedder = transformer.condition_embedder.image_embedder
    weight = next(embedder.parameters())
    image = embedder(torch.zeros(1, 1, transformer.config.image_dim, device=weight.device, dtype=weight.dtype))
    for block in transformer.blocks:
        attention, out = block.attn2, block.attn2.to_out[0]
        out.bias += nn.functional.linear(attention.add_v_proj(image.to(out.weight))[0, 0], out.weight)
        attention.add_k_proj = attention.add_v_proj = attention.norm_added_k = None
        attention.added_kv_proj_dim = None
    transformer.condition_embedder.image_embedder = None
    transformer.register_to_config(image_dim=None, added_kv_proj_dim=None)
    return transformer


def _load_original_wan(folder: Path, settings: dict[str, Any]) -> Any:
    from accelerate import init_empty_weights
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    with understood(folder / "config.json"), init_empty_weights():
        transformer = WanTransformer3DModel.from_config(_translated(settings))
    with understood(folder):
        weights = convert_wan_transformer_to_diffusers(_read_shards(folder))
    check_tensors(shapes_of(weights), shapes_of(transformer.state_dict()), folder)
    transformer.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    return transformer


def _translated(settings: dict[str, Any]) -> dict[str, Any]:
    """diffusers' settings of a Wan model from its original ones."""
    width, heads = settings["dim"], settings["num_heads"]
    translated = {
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "in_channels": settings.get("in_dim", settings.get("in_channels")),
        "out_channels": settings.get("out_dim", 16),
        "num_layers": settings["num_layers"],
        "ffn_dim": settings["ffn_dim"],
        "patch_size": tuple(settings.get("patch_size", (1, 2, 2))),
    }
    defaults = {"freq_dim": 256, "text_dim": 4096, "cross_attn_norm": True, "eps": 1e-6}
    translated |= {name: settings.get(name, value) for name, value in defaults.items()}
    if settings.get("model_type") == "i2v":
        translated |= {"image_dim": CLIP_IMAGE_WIDTH, "added_kv_proj_dim": width}
    return translated


def _read_shards(folder: Path) -> dict[str, Tensor]:
    paths = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder} holds no diffusion_pytorch_model*.safetensors")
    return {name: value for path in paths for name, value in read_tensors(path).items()}


def _backbone_config(settings: Any, kind: Kind, noise: dict[str, float]) -> BackboneConfig:
    common: dict[str, Any] = {"kind": kind, "heads": settings.num_attention_heads, "depth": settings.num_layers}
    common |= {"head_dim": settings.attention_head_dim, **noise}
    if kind == "wan":
        sizes: dict[str, Any] = {"text_dim": settings.text_dim, "text_tokens": 512, "mlp_dim": settings.ffn_dim}
    else:
        sizes = {
            "time_dim": settings.time_embed_dim,
            "text_dim": settings.text_embed_dim,
            "text_tokens": settings.max_text_seq_length,
            "rotary": settings.use_rotary_positional_embeddings,
            "sample_height": settings.sample_height,
            "sample_width": settings.sample_width,
        }
    return BackboneConfig(**common | sizes)


def check_expressible(transformer: Any, config: DWMConfig, where: str) -> None:
    """Raise CheckpointError when a model that `config` builds would differ from the one that was loaded."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        rebuilt: Any = build_transformer(config)
    differing = [
        f"{name} is {_plain(value)}, ours {_plain(rebuilt.config[name])}"
        for name, value in transformer.config.items()
        if not name.startswith("_") and name in rebuilt.config and name not in FREE_SETTINGS
        if not _same(value, rebuilt.config[name])
    ]
    if differing:
        raise CheckpointError(f"{where} is a variant that is not supported: {'; '.join(differing)}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-6)
    return bool(_plain(left) == _plain(right))
