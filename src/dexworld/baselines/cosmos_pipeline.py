"""Cosmos' video pipelines of diffusers: which are known, how one is opened from a folder, and what a video takes."""

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dexworld.models.checkpoint import CheckpointError, check_plausible, read_settings, understood

INDEX_FILE = "model_index.json"
# Cosmos-Predict2 Video2World and Cosmos-Predict2.5, in diffusers 0.42.
PREDICT2, PREDICT25 = "Cosmos2VideoToWorldPipeline", "Cosmos2_5_PredictBasePipeline"
TEXT_TOKENS = 512  # to which both pad a sentence
PARTS = ("transformer", "vae", "text_encoder")
# Blocks and heads of the published transformers, by diffusers' conversion of them; Predict2.5 has the same.
PUBLISHED = {"2b": (28, 16), "14b": (36, 40)}
_TRANSFORMER = {
    "in_channels": 17,
    "attention_head_dim": 128,
    "rope_scale": (1.0, 3.0, 3.0),
    "extra_pos_embed_type": None,
}
_T5_11B: dict[str, Any] = {
    "d_model": 1024,
    "d_ff": 65536,
    "d_kv": 128,
    "num_heads": 128,
    "num_layers": 24,
    "vocab_size": 32128,
}
_FEED_FORWARD_COPIES = 3  # of its widest tensor that are alive at once: an assumption


def pipeline_class(folder: Path) -> str:
    """The class of the pipeline in `folder`. Raises CheckpointError for what is no Video2World pipeline of Cosmos."""
    if not (folder / INDEX_FILE).is_file():
        wanted = (
            "a folder that diffusers' `save_pretrained` wrote, such as a download of Cosmos-Predict2-2B-Video2World"
        )
        raise CheckpointError(f"{folder} holds no {INDEX_FILE}; give {wanted}")
    name = read_settings(folder / INDEX_FILE).get("_class_name")
    if name not in (PREDICT2, PREDICT25):
        raise CheckpointError(f"{folder} holds a {name}; a video of a frame is made by {PREDICT2} or {PREDICT25}")
    return str(name)


def open_pipeline(folder: Path) -> Any:
    """The pipeline in `folder`, with NVIDIA's safety checker: in bfloat16 on a GPU where there is one, else float32.

    Raises CheckpointError for another folder, and ImportError saying what to install: diffusers refuses to run Cosmos
    without `cosmos_guardrail`, as the weights' licence asks.
    """
    name = pipeline_class(folder)
    cls = getattr(_diffusers(), name)
    if part_settings(folder, "transformer").get("concat_padding_mask", True):
        _require_torchvision()
    checker = sys.modules[cls.__module__].CosmosSafetyChecker()  # first, before anything large is read
    on_gpu = torch.cuda.is_available()
    with understood(folder):
        options = {"dtype": torch.bfloat16 if on_gpu else torch.float32, "local_files_only": True}
        pipeline = cls.from_pretrained(folder, safety_checker=checker, use_safetensors=True, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if on_gpu else "cpu")


def _diffusers() -> Any:
    try:
        return import_module("diffusers")
    except ModuleNotFoundError as error:
        raise ImportError("Cosmos needs the package diffusers: pip install 'dexworld[video]'") from error


def _require_torchvision() -> None:
    if importlib.util.find_spec("torchvision") is None:
        raise ImportError("diffusers' Cosmos transformer needs the package torchvision: pip install torchvision")


def part_settings(folder: Path, part: str) -> dict[str, Any]:
    """The `config.json` of a part of the pipeline. Raises CheckpointError where it is missing or implausible."""
    path = folder / part / "config.json"
    settings = read_settings(path)
    check_plausible(settings, 2**20, str(path))
    return settings


@dataclass(frozen=True)
class VideoCost:
    """What one video takes: parameters by part, bytes of weights and activations, operations (FLOPs) by stage.

    The text encoder is not counted in operations: 512 tokens are few beside the video's.
    """

    parameters: Mapping[str, int]
    weights_bytes: int
    activations_bytes: int
    flops: Mapping[str, float]


def video_cost(source: Path | str, video_size: tuple[int, int], frames: int, steps: int, guided: bool) -> VideoCost:
    """The cost of a video of `frames` frames in `steps` steps, in bfloat16, by torch's count on empty tensors.

    source: a pipeline's folder, or the name of a published size. Nothing is loaded. Raises as `open_pipeline`.
    """
    diffusers, (height, width) = _diffusers(), video_size
    with torch.device("meta"), torch.no_grad():
        built: dict[str, Any] = dict(
            _published(str(source), diffusers) if source in PUBLISHED else _from_folder(Path(source))
        )
        transformer, vae = built["transformer"], built["vae"]
        scale, time = 2 ** len(vae.temperal_downsample), 2 ** sum(vae.temperal_downsample)
        latent = ((frames - 1) // time + 1, height // scale, width // scale)
        config = transformer.config
        text = config.crossattn_proj_in_channels if config.use_crossattn_projection else config.text_embed_dim
        with FlopCounterMode(display=False) as once:
            transformer(
                hidden_states=torch.empty(1, config.in_channels - 2, *latent),  # the mask becomes one, padding another
                timestep=torch.empty(1, 1, latent[0], 1, 1),
                encoder_hidden_states=torch.empty(1, TEXT_TOKENS, text),
                fps=16,
                condition_mask=torch.empty(1, 2, *latent),
            )
        with FlopCounterMode(display=False) as drawn:
            vae.decode(torch.empty(1, vae.config.z_dim, *latent))
        with FlopCounterMode(display=False) as seen:
            vae.encode(torch.empty(1, 3, frames, height, width))
    tokens = latent[0] * latent[1] * latent[2] // (config.patch_size[0] * config.patch_size[1] * config.patch_size[2])
    widest = tokens * config.num_attention_heads * config.attention_head_dim * config.mlp_ratio
    parameters = {part: sum(each.numel() for each in module.parameters()) for part, module in built.items()}
    flops = {"encode the frame": float(seen.get_total_flops())}
    flops["denoise"] = float(once.get_total_flops()) * steps * (2 if guided else 1)
    flops["decode the video"] = float(drawn.get_total_flops())
    return VideoCost(parameters, 2 * sum(parameters.values()), round(2 * widest * _FEED_FORWARD_COPIES), flops)


def _published(size: str, diffusers: Any) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a published Predict2 (its text encoder is T5-11B's, its VAE is Wan 2.1's), on the meta device."""
    import transformers

    layers, heads = PUBLISHED[size]
    settings = _TRANSFORMER | {"num_layers": layers, "num_attention_heads": heads}
    yield "transformer", _unmasked(diffusers.CosmosTransformer3DModel, settings)
    yield "vae", diffusers.AutoencoderKLWan().eval()
    yield "text_encoder", transformers.T5EncoderModel(transformers.T5Config(**_T5_11B))


def _from_folder(folder: Path) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a pipeline as its configs say, on the meta device."""
    pipeline_class(folder)
    index = read_settings(folder / INDEX_FILE)
    for part in PARTS:
        with understood(folder / part):
            library, name = index[part]
            if library not in ("diffusers", "transformers"):
                raise CheckpointError(f"{folder / INDEX_FILE}: {part} comes from {library}, which is not read")
            cls, settings = getattr(import_module(library), name), part_settings(folder, part)
            if part == "transformer":
                yield part, _unmasked(cls, settings)
            elif library == "diffusers":
                yield part, cls.from_config(settings).eval()
            else:
                yield part, cls(cls.config_class(**settings))


def _unmasked(cls: Any, settings: Mapping[str, Any]) -> Any:
    """A transformer with the padding mask as a channel of its input, which costs the same and needs no torchvision."""
    if not settings.get("concat_padding_mask", True):
        return cls.from_config(settings).eval()
    more = {"in_channels": settings["in_channels"] + 1, "concat_padding_mask": False}
    return cls.from_config({**settings, **more}).eval()
