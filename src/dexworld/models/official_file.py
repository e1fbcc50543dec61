"""Reading files that the DexWM release's trainers write (`<name>_<epoch>.pth.tar`), without running what is in them.

Such a file is one dict that `torch.save` wrote: the model's weights, the frozen encoder's among them, and the
optimiser, scheduler, arguments, epoch and step. Torch's restricted reader (`weights_only`) takes tensors and plain
containers out of it and refuses everything else; a file that asks for more is refused with the names of what it wants.
"""

import argparse
import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexworld.actions import ACTION_DIM
from dexworld.models.checkpoint import CheckpointError

LEADING_WRAPPERS = ("module",)  # DistributedDataParallel, where a name begins
WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")  # compile, checkpointing, FSDP: anywhere
MODULATIONS = 11  # vectors in the output of each block's action layer: what a world model is recognised by


@dataclass(frozen=True)
class ReleaseFile:
    """weights: the model's tensors by name, wrappers' prefixes taken off, in the file's order (memory-mapped).

    others: what else the file's dict holds. key: entry that the weights were in, None if the file is nothing else.
    sha256: of the whole file.
    """

    path: Path
    weights: dict[str, Tensor]
    others: dict[str, Any]
    key: str | None
    sha256: str


def read_release_file(path: str | Path, key: str | None = None) -> ReleaseFile:
    """The weights in a file of the release. `key` names their entry where several could be meant.

    Raises CheckpointError for a file that is missing, damaged, of another kind or holds more than weights and plain
    values, and when no entry or several look like a world model.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file {path}")
    _require_whole(path)
    content = _restricted_load(path)
    weights, found = _find_weights(content, key, path)
    others = {name: value for name, value in content.items() if name != found} if found is not None else {}
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ReleaseFile(path, unwrapped(weights, path), others, found, digest)


def _require_whole(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is truncated, or not a file that torch.save of version 1.6 or later wrote; copy it again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy it again") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of its record {damaged} is wrong; copy it again")


def _restricted_load(path: Path) -> Any:
    """The file's content: tensors, mapped not read, and plain values. `argparse.Namespace` only holds plain values."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} is not a file that torch.save wrote: {error}") from error
        if refused:
            raise CheckpointError(
                f"{path} is not read: besides tensors and plain values it asks for {', '.join(sorted(refused))}, which "
                "could run code. Ask its author for a file with the model's state dict alone"
            )
        try:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:  # whatever the restricted reader trips over in a foreign file
            raise CheckpointError(f"{path} can't be read as plain weights: {error}") from error


def _find_weights(content: Any, key: str | None, path: Path) -> tuple[Mapping[str, Tensor], str | None]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a dict with a model's weights")
    if key is not None:
        if not _is_state_dict(content.get(key)):
            raise CheckpointError(f"{path}: the entry {key!r} is not a state dict; entries: {_entries(content)}")
        return content[key], key
    if _is_state_dict(content):
        return content, None
    candidates = [name for name, value in content.items() if _is_state_dict(value) and _is_world_model(value)]
    if len(candidates) > 1:
        raise CheckpointError(f"{path} holds several world models ({', '.join(candidates)}); choose one by its key")
    if not candidates:
        raise CheckpointError(
            f"{path} holds no state dict with layers from {ACTION_DIM} action numbers to {MODULATIONS} modulation "
            f"vectors, which every DexWM has; name the entry by its key. Entries: {_entries(content)}"
        )
    return content[candidates[0]], candidates[0]


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(each, Tensor) for name, each in value.items())
    )


def _is_world_model(weights: Mapping[str, Tensor]) -> bool:
    return any(is_modulation(value) for value in weights.values())


def is_modulation(value: Tensor) -> bool:
    """Whether a tensor has the shape (11 h, 132) of a block's action layer."""
    return value.ndim == 2 and value.shape[1] == ACTION_DIM and value.shape[0] % MODULATIONS == 0


def _entries(content: Mapping[Any, Any]) -> str:
    return ", ".join(f"{name} ({type(value).__name__})" for name, value in list(content.items())[:20]) or "none"


def unwrapped(weights: Mapping[str, Tensor], path: str | Path = "weights") -> dict[str, Tensor]:
    """The tensors without the prefixes that DDP, torch.compile, activation checkpointing and FSDP add to names.

    Raises CheckpointError when two names become one.
    """
    result: dict[str, Tensor] = {}
    for name, value in weights.items():
        parts = [part for part in name.split(".") if part not in WRAPPERS]
        while len(parts) > 1 and parts[0] in LEADING_WRAPPERS:
            parts.pop(0)
        short = ".".join(parts)
        if short in result:
            raise CheckpointError(f"{path}: two tensors are named {short} once wrappers' prefixes are taken off")
        result[short] = value
    return result
