"""Training states that lie in parts, one from each process (torch's distributed checkpoint), and their way back.

A state is a flat dict of tensors by name. It can be read by any number of processes, sharded or not, and written as one
safetensors file.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from dexworld.data.files import written_atomically


def write(folder: Path, tensors: dict[str, Tensor], group: Any = None) -> None:
    """Write `tensors` into `folder`: of sharded ones each process its part, of others the first process. All must call.

    group: a group of processes that talk on the CPU; None in a process that is alone.
    """
    writer = dcp.FileSystemWriter(folder, sync_files=True)
    dcp.save(dict(tensors), storage_writer=writer, process_group=group, no_dist=group is None)


def read(folder: Path, like: dict[str, Tensor], group: Any = None) -> dict[str, Tensor]:
    """The tensors of `folder` by name, on the CPU, but sharded as `like` is where it has a sharded tensor of that name.

    All processes must call this when something is sharded.
    """
    reader = dcp.FileSystemReader(folder)
    tensors: dict[str, Any] = {}
    for name, stored in reader.read_metadata().state_dict_metadata.items():
        if not isinstance(stored, TensorStorageMetadata):
            raise ValueError(f"{folder} holds {name!r}, which is no tensor")
        wanted = like.get(name)
        if isinstance(wanted, DTensor) and wanted.shape == stored.size:
            tensors[name] = torch.zeros_like(wanted, dtype=stored.properties.dtype)
        else:
            tensors[name] = torch.zeros(stored.size, dtype=stored.properties.dtype)
    together = any(isinstance(value, DTensor) for value in tensors.values())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is meant to be
        dcp.load(tensors, storage_reader=reader, process_group=group if together else None, no_dist=not together)
    return tensors


def to_one_file(folder: Path, path: Path) -> None:
    """Write the state in `folder` as one safetensors file, in a process that is alone."""
    tensors = read(folder, {})
    with written_atomically(path) as temporary:
        save_file(tensors, temporary)
