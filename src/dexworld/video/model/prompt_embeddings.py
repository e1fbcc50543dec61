"""Prompts as the text embeddings that published video models were trained with.

CogVideoX reads T5-XXL: 226 tokens, padding included, no mask. Wan reads UMT5-XXL: 512 tokens, masked, zeros after the
prompt's end. A model without a text encoder sees zeros. A prompt longer than the encoder's tokens is cut and reported.
"""

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dexworld.models.checkpoint import CheckpointError, check_finite, lasting_place, understood, write_tensors
from dexworld.video.model.published_parts import find_optional_part, find_part, library_model, part_settings, require
from dexworld.video.model.video_config import BackboneConfig

log = logging.getLogger(__name__)
BATCH = 4  # prompts that are embedded at a time
ENCODERS = {"cogvideox": "T5EncoderModel", "wan": "UMT5EncoderModel"}


def embed_prompts(
    prompts: Iterable[str],
    backbone: BackboneConfig,
    source: str | Path,
    cache: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """The embedding (L, D) float32 of every different prompt, as `backbone` reads them.

    source: folder or Hugging Face id with `text_encoder/` and `tokenizer/`. cache: folder for one file per set of
    prompts and encoder; with it the encoder, 10 GB and more, is not even loaded. Raises CheckpointError for an encoder
    that is missing, of another kind or width, or whose weights don't fit.
    """
    unique, source = tuple(sorted(set(prompts))), lasting_place(source)
    if not unique:
        return {}
    path = None if cache is None else Path(cache) / f"text-{_fingerprint(unique, backbone, source)}.safetensors"
    if path is not None and path.is_file():
        return _read_cache(path, (len(unique), backbone.text_tokens, backbone.text_dim))
    tokenizer, encoder = load_text_encoder(source, backbone)
    encoder.to(device)
    cut = [text for text in unique if len(tokenizer(text).input_ids) > backbone.text_tokens]
    if cut:
        counts = len(cut), len(unique), backbone.text_tokens
        log.warning("%d of %d prompts are longer than %d tokens and are cut, e.g. %r", *counts, cut[0][:80])
    parts = [list(unique[start : start + BATCH]) for start in range(0, len(unique), BATCH)]
    embeddings = torch.cat([_encode(tokenizer, encoder, part, backbone).cpu() for part in parts])
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"prompts": json.dumps(unique), "source": str(source)}
        write_tensors(path, {"embeddings": embeddings}, about)
    return dict(zip(unique, embeddings, strict=True))


def check_text_encoder(source: str | Path, backbone: BackboneConfig) -> Path:
    """The folder of the text encoder in a folder or hub id. Raises CheckpointError if `backbone` can't read it."""
    name = ENCODERS[backbone.kind]
    folder = find_part(source, "text_encoder")
    settings = part_settings(folder)
    found = settings.get("architectures") or ["an unnamed class"]
    if not isinstance(found, list) or name not in found:
        raise CheckpointError(f"{folder} holds {found[0]}, but {backbone.kind} reads {name}")
    width = settings.get("d_model")
    if width != backbone.text_dim:
        raise CheckpointError(f"{folder} embeds into {width} numbers, the model reads {backbone.text_dim}")
    return folder


def load_text_encoder(source: str | Path, backbone: BackboneConfig) -> tuple[Any, Any]:
    """(tokenizer, encoder) that `backbone` was trained with. Raises CheckpointError, or ImportError."""
    import transformers

    folder, name = check_text_encoder(source, backbone), ENCODERS[backbone.kind]
    # A model folder has its tokenizer beside the encoder, an encoder's own folder in itself.
    words = find_optional_part(source, "tokenizer") or folder
    if not (words / "tokenizer.json").is_file():
        require("sentencepiece")  # as CogVideoX's; without it transformers complains about another package
    encoder = library_model(getattr(transformers, name), folder, dtype=torch.float32)
    with understood(words):
        tokenizer = transformers.AutoTokenizer.from_pretrained(words, local_files_only=True)
    return tokenizer, encoder.eval()


@torch.no_grad()
def _encode(tokenizer: Any, encoder: Any, prompts: list[str], backbone: BackboneConfig) -> Tensor:
    options = {"padding": "max_length", "max_length": backbone.text_tokens, "truncation": True}
    options |= {"add_special_tokens": True, "return_attention_mask": True, "return_tensors": "pt"}
    tokens = tokenizer(prompts, **options).to(encoder.device)
    if backbone.kind == "cogvideox":
        return encoder(tokens.input_ids).last_hidden_state
    hidden = encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    return hidden * tokens.attention_mask[..., None].to(hidden)


def _fingerprint(prompts: tuple[str, ...], backbone: BackboneConfig, source: str | Path) -> str:
    what = [prompts, backbone.kind, backbone.text_tokens, backbone.text_dim, str(source), "torch.float32"]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _read_cache(path: Path, shape: tuple[int, ...]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            prompts, embeddings = json.loads(file.metadata()["prompts"]), file.get_tensor("embeddings")
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt ({error}); delete it, it is made again") from error
    if tuple(embeddings.shape) != shape:
        raise CheckpointError(f"{path} holds {tuple(embeddings.shape)} numbers, not {shape}; delete it")
    check_finite({"embeddings": embeddings}, path)
    return dict(zip(prompts, embeddings, strict=True))
