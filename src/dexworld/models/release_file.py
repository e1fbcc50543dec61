"""Torch files of other projects, read without running what is in them; above all `<name>_<epoch>.pth.tar`.

That is what the DexWM release's trainers write, a dict: `model` is the state dict, beside it are optimiser, scheduler,
arguments, epoch and steps.
Torch's restricted reader (`weights_only`) makes tensors and plain containers and no more.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexworld.models.checkpoint import CheckpointError

MODEL, DECODER = "model", "decoder_state"
WRAPPERS = ("module", "_orig_mod")  # what DistributedDataParallel and torch.compile put before names, in either order


@dataclass(frozen=True)
class ReleaseFile:
    """weights: without wrappers' prefixes, memory-mapped. others: what else the file holds. sha256: of the file."""

    path: Path
    weights: dict[str, Tensor]
    others: dict[str, Any]
    sha256: str


def read_release_file(path: str | Path) -> ReleaseFile:
    """Read a file of the release, or one that is the model's state dict alone.

    Raises CheckpointError for a file that is missing, damaged, of another kind, or asks for more than plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file {path}")
    _require_whole(path)
    content = _restricted_load(path)
    state = content.get(MODEL, content) if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and DECODER in content:
        found = f"{path} holds the release's pixel decoder ({DECODER}), which is not converted"
        raise CheckpointError(f"{found}: ours is another network. Train one with `dexworld train decoder`")
    if not isinstance(state, Mapping) or not state or not all(isinstance(each, Tensor) for each in state.values()):
        entries = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path} holds no state dict under {MODEL!r}, as the release's do; found: {entries}")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    others = {} if state is content else {name: value for name, value in content.items() if name != MODEL}
    return ReleaseFile(path, _unwrapped(state, path), others, digest)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict that `torch.save` wrote, in its format before version 1.6 too. Raises CheckpointError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the restricted reader trips over in a foreign file
        raise CheckpointError(f"{path} can't be read as plain weights: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(each, Tensor) for each in content.values()):
        raise CheckpointError(f"{path} holds no state dict")
    return dict(content)


def _require_whole(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError) as error:
        wanted = "a file that torch.save of version 1.6 or later wrote"
        raise CheckpointError(f"{path} is truncated, damaged, or not {wanted}; copy it again ({error})") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of its record {damaged} is wrong; copy it again")


def _restricted_load(path: Path) -> Any:
    """The file's content: tensors, mapped not read, and plain values."""
    try:
        refused = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        content = None if refused else torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # whatever the restricted reader trips over in a foreign file
        raise CheckpointError(f"{path} can't be read as plain weights: {error}") from error
    if refused:
        asked = f"besides tensors and plain values it asks for {', '.join(sorted(refused))}, which could run code"
        raise CheckpointError(f"{path} is not read: {asked}. Ask its author for a file with the state dict alone")
    return content


def _unwrapped(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        while name.startswith(tuple(f"{wrapper}." for wrapper in WRAPPERS)):
            name = name.partition(".")[2]
        if name in result:
            raise CheckpointError(f"{path}: two tensors are named {name} once the prefixes of wrappers are taken off")
        result[name] = value
    return result
