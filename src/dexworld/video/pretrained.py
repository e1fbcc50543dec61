"""Start from published weights: CogVideoX, CogVideoX-Fun, Wan 2.1 and Wan-Fun, in diffusers' or VideoX-Fun's layout.

Tensors are matched name by name and shape by shape; nothing is skipped. The patch embedding is then widened to the
channels of our condition (`widen.py`), so a text-to-video or an inpainting base starts as what it was. Facts: the
models' own `config.json` and `scheduler_config.json`; CogVideoX-Fun is what the DWM paper starts from.
"""

import copy
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dexworld.models.checkpoint import CONFIG_FILE, CheckpointError
from dexworld.models.reference import checkpoint_path
from dexworld.options import from_dict
from dexworld.video.backbone import Backbone, build_transformer
from dexworld.video.config import CONCATENATED, BackboneConfig, ClipShape, CodecConfig, Condition, DWMConfig, Prediction
from dexworld.video.extra import require
from dexworld.video.lora import ADAPTER_FILE, LoRAConfig, add_lora, is_adapter, load_adapter, read_adapter
from dexworld.video.model import DWM
from dexworld.video.schedules import load_scheduler_config, noise_settings
from dexworld.video.sources import check_tensors, find_part, raise_if_unfit, read_settings
from dexworld.video.widen import channel_columns, widen_patch_embedding

log = logging.getLogger(__name__)
Kind = Literal["cogvideox", "wan"]
CLASSES: dict[str, Kind] = {"CogVideoXTransformer3DModel": "cogvideox", "WanTransformer3DModel": "wan"}
# Settings that our configuration need not express: what the widening changes, and what follows from the clip's shape.
FREE_SETTINGS = {"in_channels", "sample_frames", "pos_embed_seq_len"}
PUBLISHED_STEPS = 50  # the DWM release's denoising steps
CLIP_IMAGE_WIDTH = 1280  # of the image features that Wan's image-to-video models attend to


def load_base(
    source: str | Path,
    clip: ClipShape | None = None,
    condition: Condition = "mesh",
    prediction: Prediction = "velocity",
    codec: nn.Module | None = None,
    codec_source: str | None = None,
    lora: LoRAConfig | None = None,
    dtype: torch.dtype = torch.float32,
) -> DWM:
    """A world model that starts from the transformer and the VAE of a published video model.

    source: folder or Hugging Face id. clip: by default the size of the checkpoint's own training clips. codec, or
    codec_source: another codec than the one beside the transformer, e.g. when `source` holds no `vae/`. lora: train
    adapters and the patch embedding only. dtype: of the transformer's weights. Raises CheckpointError for a folder that
    can't be used and ValueError for a condition that the backbone doesn't take.
    """
    if lora is not None:
        check_lora(condition)
    transformer = load_transformer(source, dtype)
    config = _config_of(transformer, source, clip, condition, prediction, codec_source)
    _check_expressible(transformer, config, str(source))
    widen(transformer, config, str(source))
    if lora is not None:
        add_lora(transformer, lora)
    provenance = {"base": str(source)}
    return DWM(config, codec=codec, backbone=Backbone(config, transformer), provenance=provenance)


def _config_of(
    transformer: Any,
    source: str | Path,
    clip: ClipShape | None,
    condition: Condition,
    prediction: Prediction,
    codec_source: str | None,
) -> DWMConfig:
    kind = CLASSES[type(transformer).__name__]
    return DWMConfig(
        clip=clip or _own_clip(transformer, kind),
        codec=CodecConfig(kind=kind, channels=transformer.config.out_channels, source=codec_source or str(source)),
        backbone=_backbone_config(transformer, kind, noise_settings(load_scheduler_config(source, kind), kind)),
        condition=condition,
        prediction=prediction,
        sampling_steps=PUBLISHED_STEPS,
    )


def base_config(source: str | Path, condition: Condition = "mesh", prediction: Prediction = "velocity") -> DWMConfig:
    """The configuration of `load_base(source)`, from the checkpoint's settings alone: no weights are read.

    Raises CheckpointError for a folder that can't be used.
    """
    require("diffusers", "accelerate")
    import diffusers
    from accelerate import init_empty_weights

    source = _settings_folder(source, ["config.json", "transformer/config.json", "scheduler/scheduler_config.json"])
    folder = find_part(source, "transformer")
    settings, original = _transformer_settings(folder)
    cls = diffusers.WanTransformer3DModel if original else getattr(diffusers, settings["_class_name"])
    with init_empty_weights():
        transformer = cls.from_config(_translated(settings) if original else settings)
    return _config_of(transformer, source, None, condition, prediction, None)


def saved_config(folder_or_hub_id: str | Path) -> DWMConfig:
    """The configuration of a model that `DWM.save_pretrained` wrote, without reading its weights.

    Raises CheckpointError for a folder without one, such as an adapter of the DWM release.
    """
    folder = Path(_settings_folder(folder_or_hub_id, [CONFIG_FILE, ADAPTER_FILE]))
    path = folder / (ADAPTER_FILE if (folder / ADAPTER_FILE).is_file() else CONFIG_FILE)
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no {CONFIG_FILE} of a video model")
    description = read_settings(path).get("model")
    if not isinstance(description, dict):
        raise CheckpointError(f"{path} does not describe a video model")
    return from_dict(DWMConfig, description, where=f"{path}: model")


def _settings_folder(source: str | Path, files: list[str]) -> str | Path:
    """The folder, or what is downloaded of a hub id: those files only."""
    if Path(source).is_dir() or str(source).count("/") != 1:
        return source
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return snapshot_download(str(source), allow_patterns=files)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"{source} is neither a folder nor a model that could be downloaded: {error}") from error


def started_from(base: DWM, condition: Condition, prediction: Prediction | None = None) -> tuple[DWM, dict[str, Any]]:
    """A model with another condition that computes what `base` computes, and the provenance of `base`.

    The patch embedding is widened by zero columns, AdaLN and control layers end in zeros. Raises ValueError for another
    prediction than the base's: its weights would mean something else.
    """
    if prediction is not None and prediction != base.config.prediction:
        raise ValueError(
            f"the initial model predicts {base.config.prediction!r}, so its weights can't start a model that predicts "
            f"{prediction!r}"
        )
    config = replace(base.config, condition=condition)
    if config == base.config:
        return base, base.provenance
    if base.config.condition != "none":
        raise ValueError(
            f"the initial model has the condition {base.config.condition!r}; only a model without hands (condition "
            f"'none') can be given the condition {condition!r}"
        )
    transformer = widen_patch_embedding(copy.deepcopy(base.backbone.transformer), config.in_channels)
    backbone = Backbone(config, transformer)
    if backbone.skip is not None and base.backbone.skip is not None:
        backbone.skip.copy_from(base.backbone.skip)
    return DWM(config, codec=base.codec, backbone=backbone), base.provenance


def widen(transformer: Any, config: DWMConfig, where: str = "the checkpoint") -> Any:
    """Give `transformer` the input channels of `config`, in place. Raises CheckpointError for an unknown layout."""
    try:
        columns = channel_columns(transformer.config.in_channels, config.codec.channels, config.backbone.mask_channels)
        return widen_patch_embedding(transformer, config.in_channels, columns)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def load_transformer(source: str | Path, dtype: torch.dtype = torch.float32) -> Any:
    """The diffusion transformer of a published model, exactly as saved, in evaluation mode.

    Wan's image branch, which attends to features of a CLIP image that a world model doesn't have, is folded into a bias
    (`fold_image_branch`). Raises CheckpointError naming every missing, unexpected or misshapen tensor.
    """
    require("diffusers", "accelerate")
    folder = find_part(source, "transformer")
    settings, original = _transformer_settings(folder)
    transformer = _load_original_wan(folder, settings, dtype) if original else _load_library(folder, settings, dtype)
    if getattr(transformer.config, "image_dim", None) is not None:
        log.info("%s: its image branch becomes a bias, as for an empty image", folder)
        fold_image_branch(transformer)
    return transformer.eval()


def _transformer_settings(folder: Path) -> tuple[dict[str, Any], bool]:
    """The settings of a transformer's folder, and whether they are Wan's original ones."""
    settings = read_settings(folder / "config.json")
    if settings.get("patch_size_t") is not None:
        raise CheckpointError(f"{folder} is a CogVideoX 1.5 with temporal patches, which is not supported; use 1.0")
    original = "num_heads" in settings and "dim" in settings
    if not original and settings.get("_class_name") not in CLASSES:
        raise CheckpointError(
            f"{folder / 'config.json'} describes {settings.get('_class_name')}; supported are {', '.join(CLASSES)} "
            "and Wan's original layout"
        )
    return settings, original


@torch.no_grad()
def fold_image_branch(transformer: Any) -> Any:
    """Remove the image attention of a Wan model in place, leaving its answer to all-zero image features.

    VideoX-Fun gives zeros when it has no image. All image tokens are then alike, so attending to them gives their one
    value whatever the query is: a constant before the output projection, hence a bias after it.
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


def load_model(folder_or_hub_id: str | Path, base: str | Path | None = None, codec: nn.Module | None = None) -> DWM:
    """Read what `DWM.save_pretrained` wrote, or an adapter that the DWM release published.

    base: where the adapter's base lies now; needed for the release's, which doesn't name it. codec: instead of the one
    that the checkpoint names. Raises CheckpointError.
    """
    if not is_adapter(folder_or_hub_id):
        return DWM.from_pretrained(folder_or_hub_id)
    saved = read_adapter(folder_or_hub_id)
    source = base or saved.get("base")
    if not source:
        raise CheckpointError(f"{folder_or_hub_id} doesn't name the checkpoint it was trained on; give it as `base`")
    if "model" in saved:
        config = from_dict(DWMConfig, saved["model"], where=f"{folder_or_hub_id}: model")
        if _is_ours(source, saved):
            model = started_from(DWM.from_pretrained(checkpoint_path(str(source))), config.condition)[0]
            if replace(model.config, codec=config.codec) != config:
                raise CheckpointError(f"{source} is not the model that {folder_or_hub_id} was trained on: sizes differ")
        else:
            # The VAE may have moved with its base.
            vae = None if config.codec.source == saved.get("base") else config.codec.source
            model = load_base(source, config.clip, config.condition, config.prediction, codec, vae)
            model.config = model.backbone.config = replace(config, codec=model.config.codec)
    else:
        model = load_base(source, codec=codec)
    model.backbone.requires_grad_(False)  # what the adapter doesn't hold is not trained further
    load_adapter(model.backbone.transformer, folder_or_hub_id)
    model.provenance = {**saved.get("provenance", {}), "base": str(source)}
    return model


def _is_ours(source: str | Path, saved: dict[str, Any]) -> bool:
    """Whether an adapter's base is a model of ours, not a published one in its own layout."""
    if is_adapter(source):
        return True
    path = Path(checkpoint_path(str(source)))
    if path.is_dir():
        return (path / CONFIG_FILE).is_file() and "model" in read_settings(path / CONFIG_FILE)
    return bool(saved.get("provenance", {}).get("initial"))


def check_lora(condition: Condition, base: Condition = "none") -> None:
    """Raise ValueError when a model with `condition` has layers that neither an adapter nor its base would hold.

    base: the condition that the base has already. Layers of its own, such as those of AdaLN, stay as they are.
    """
    if condition != base and condition not in (*CONCATENATED, "none"):
        raise ValueError(
            f"condition {condition!r} adds new layers that a LoRA adapter doesn't hold; train in full (lora_rank 0)"
        )


def _load_library(folder: Path, settings: dict[str, Any], dtype: torch.dtype) -> Any:
    import diffusers

    cls = getattr(diffusers, settings["_class_name"])
    try:
        transformer, report = cls.from_pretrained(
            folder, torch_dtype=dtype, output_loading_info=True, use_safetensors=True, local_files_only=True
        )
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the weights in {folder} can't be read ({error}); save or download them again"
        ) from error
    ignored = tuple(cls._keys_to_ignore_on_load_unexpected or ())
    unexpected = [name for name in report["unexpected_keys"] if not any(each in name for each in ignored)]
    raise_if_unfit(report["missing_keys"], unexpected, map(str, report["mismatched_keys"]), str(folder))
    return transformer


def _load_original_wan(folder: Path, settings: dict[str, Any], dtype: torch.dtype) -> Any:
    from accelerate import init_empty_weights
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    with init_empty_weights():
        transformer = WanTransformer3DModel.from_config(_translated(settings))
    weights = convert_wan_transformer_to_diffusers(_read_shards(folder))
    check_tensors(weights, transformer.state_dict(), str(folder))
    exact = set(WanTransformer3DModel._keep_in_fp32_modules)
    weights = {
        name: value.to(torch.float32 if exact & set(name.split(".")) else dtype) for name, value in weights.items()
    }
    transformer.load_state_dict(weights, assign=True)
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
        "freq_dim": settings.get("freq_dim", 256),
        "text_dim": settings.get("text_dim", 4096),
        "patch_size": tuple(settings.get("patch_size", (1, 2, 2))),
        "cross_attn_norm": settings.get("cross_attn_norm", True),
        "eps": settings.get("eps", 1e-6),
    }
    if settings.get("model_type") == "i2v":
        translated |= {"image_dim": CLIP_IMAGE_WIDTH, "added_kv_proj_dim": width}
    return translated


def _read_shards(folder: Path) -> dict[str, Tensor]:
    paths = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder} holds no diffusion_pytorch_model*.safetensors")
    weights: dict[str, Tensor] = {}
    for path in paths:
        try:
            weights |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is truncated or corrupt ({error}); download it again") from error
    return weights


def _backbone_config(transformer: Any, kind: Kind, noise: dict[str, float]) -> BackboneConfig:
    settings = transformer.config
    common: dict[str, Any] = {
        "kind": kind,
        "heads": settings.num_attention_heads,
        "head_dim": settings.attention_head_dim,
        "depth": settings.num_layers,
    }
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
    return BackboneConfig(**common | sizes | noise)


def _own_clip(transformer: Any, kind: Kind) -> ClipShape:
    if kind == "wan":
        return ClipShape(49, 480, 720)  # what the DWM release trains Wan on; Wan's positions are free
    settings = transformer.config
    return ClipShape(settings.sample_frames, 8 * settings.sample_height, 8 * settings.sample_width)


def _check_expressible(transformer: Any, config: DWMConfig, where: str) -> None:
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
