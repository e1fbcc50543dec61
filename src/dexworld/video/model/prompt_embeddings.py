"""Prompts as the text embeddings that published video models were trained with.

CogVideoX reads T5-XXL: 226 tokens, padding included, no mask. Wan reads UMT5-XXL: 512 tokens, masked, zeros after the
prompt's end. A model without a text encoder sees zeros. A prompt longer than the encoder's tokens is cut and reported.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dexworld.data.files import written_atomically
from dexworld.models.checkpoint import CheckpointError
from dexworld.video.model.published_parts import (
    BROKEN,
    find_optional_part,
    find_part,
    library_model,
    read_settings,
    require,
)
from dexworld.video.model.video_config import BackboneConfig

log = logging.getLogger(__name__)
ENCODERS = {"cogvideox": "T5EncoderModel", "wan": "UMT5EncoderModel"}


@dataclass(frozen=True)
class PromptEmbeddings:
    """Embeddings (n, L, D) of n different prompts. truncated: those of them that were longer than L tokens."""

    prompts: tuple[str, ...]
    embeddings: Tensor
    truncated: tuple[str, ...] = ()

    def of(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings (B, L, D) of a batch of prompts. Raises KeyError for one that was not embedded."""
        rows = {prompt: row for row, prompt in enumerate(self.prompts)}
        unknown = [prompt for prompt in prompts if prompt not in rows]
        if unknown:
            raise KeyError(f"{len(unknown)} prompts were not embedded, the first is {unknown[0]!r}")
        return self.embeddings[[rows[prompt] for prompt in prompts]]

    def by_clip(self, prompts: Mapping[str, str]) -> dict[str, Tensor]:
        """The text embedding (L, D) of every clip, given the clips' prompts by name."""
        return dict(zip(prompts, self.of(list(prompts.values())), strict=True))


def embed_prompts(
    prompts: Sequence[str],
    backbone: BackboneConfig,
    source: str | Path | None,
    cache: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 4,
) -> PromptEmbeddings:
    """Embed a set of prompts for `backbone`.

    source: folder or Hugging Face id with `text_encoder/` and `tokenizer/`, or None for zeros. cache: folder for one
    file per set of prompts and encoder; with it the encoder, 10 GB and more, is not even loaded. Raises CheckpointError
    for an encoder that is missing, of another kind or width, or whose weights don't fit.
    """
    unique = tuple(sorted(set(prompts)))
    shape = (len(unique), backbone.text_tokens, backbone.text_dim)
    if source is None or not unique:
        return PromptEmbeddings(unique, torch.zeros(shape, dtype=dtype))
    path = None if cache is None else Path(cache) / f"text-{_fingerprint(unique, backbone, source, dtype)}.safetensors"
    if path is not None and path.is_file():
        return _read_cache(path, shape)
    tokenizer, encoder = load_text_encoder(source, backbone, dtype)
    encoder.to(device)
    truncated = tuple(text for text in unique if len(tokenizer(text).input_ids) > backbone.text_tokens)
    if truncated:
        counts = len(truncated), len(unique), backbone.text_tokens
        log.warning("%d of %d prompts are longer than %d tokens and are cut, e.g. %r", *counts, truncated[0][:80])
    parts = [list(unique[start : start + batch_size]) for start in range(0, len(unique), batch_size)]
    embeddings = torch.cat([_encode(tokenizer, encoder, part, backbone).cpu() for part in parts])
    result = PromptEmbeddings(unique, embeddings, truncated)
    if path is not None:
        _write_cache(path, result, str(source))
    return result


def load_text_encoder(source: str | Path, backbone: BackboneConfig, dtype: torch.dtype) -> tuple[Any, Any]:
    """(tokenizer, encoder) that `backbone` was trained with, from a model's folder or id. Raises CheckpointError, or
    ImportError naming the extra for a tokenizer that needs sentencepiece."""
    import transformers

    name = ENCODERS[backbone.kind]
    folder = find_part(source, "text_encoder")
    settings = read_settings(folder / "config.json")
    found = settings.get("architectures") or ["an unnamed class"]
    if name not in found:
        raise CheckpointError(f"{folder} holds {found[0]}, but {backbone.kind} reads {name}")
    if settings.get("d_model") != backbone.text_dim:
        width = settings.get("d_model")
        raise CheckpointError(f"{folder} embeds into {width} numbers, the model reads {backbone.text_dim}")
    # A model folder has its tokenizer beside the encoder, an encoder's own folder in itself.
    words = find_optional_part(source, "tokenizer") or folder
    if not (words / "tokenizer.json").is_file():
        require("sentencepiece")  # as CogVideoX's; without it transformers complains about another package
    encoder = library_model(getattr(transformers, name), folder, dtype=dtype)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(words, local_files_only=True)
    except BROKEN as error:
        raise CheckpointError(f"{words} can't be read ({error}); save or download it again") from error
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


def _fingerprint(prompts: tuple[str, ...], backbone: BackboneConfig, source: str | Path, dtype: torch.dtype) -> str:
    what = [prompts, backbone.kind, backbone.text_tokens, backbone.text_dim, str(source), str(dtype)]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _write_cache(path: Path, result: PromptEmbeddings, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"prompts": json.dumps(result.prompts), "truncated": json.dumps(result.truncated), "source": source}
    with written_atomically(path) as temporary:
        save_file({"embeddings": result.embeddings.contiguous()}, temporary, metadata=about)


def _read_cache(path: Path, shape: tuple[int, ...]) -> PromptEmbeddings:
    try:
        with safe_open(path, framework="pt") as file:
            about, embeddings = file.metadata(), file.get_tensor("embeddings")
        prompts, truncated = (tuple(json.loads(about[name])) for name in ("prompts", "truncated"))
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt ({error}); delete it, it is made again") from error
    if tuple(embeddings.shape) != shape:
        raise CheckpointError(f"{path} holds {tuple(embeddings.shape)} numbers, not {shape}; delete it")
    return PromptEmbeddings(prompts, embeddings, truncated)
