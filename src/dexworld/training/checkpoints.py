"""Training checkpoints: everything that a run needs to go on as if it had never stopped.

    checkpoints/step-00001000/     config.json, model.safetensors: the model, ready for `from_pretrained`
                                   training.safetensors: weights, optimiser, averages, generator states;
                                   or the same in training/, a part from each process
                                   training.json: step and what the run was started with
    checkpoints/latest             the name of the newest complete one

A folder appears whole or not at all, so a kill at any moment leaves a complete checkpoint to go on from. Neither the
number of processes nor the way the model is spread over them has to be the same again.
"""

import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor, distribute_tensor

from dexworld.data.files import read_json, write_json, written_atomically
from dexworld.training.distributed import Processes

FORMAT_VERSION = 1
SHARDED = "training"  # folder of a state in parts


class ResumeError(ValueError):
    """A checkpoint that this run can't continue; the message says why and what to do."""


class CheckpointNotWritten(OSError):
    """A checkpoint that could not be written; the ones before it are untouched."""


@dataclass(frozen=True)
class TrainingState:
    """identity: what the run was started with."""

    step: int  # optimiser steps done
    seconds: float
    tensors: dict[str, Tensor]
    identity: dict[str, Any]


def named(
    parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, average: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Weights, averaged weights and optimiser state by name, as they are in memory."""
    tensors = {f"weights/{name}": value.detach() for name, value in parameters.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for name, parameter in parameters.items():
        tensors |= {f"optimiser/{key}/{name}": value for key, value in optimiser.state[parameter].items()}
    return tensors


def collect(
    parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, average: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Weights, optimiser state, averaged weights and torch's generator states, by name.

    Copies on the CPU; what is sharded over processes stays as it is in memory.
    """
    tensors = named(parameters, optimiser, average)
    tensors["generator/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and next(iter(parameters.values())).is_cuda:
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    return {
        name: value.detach() if isinstance(value, DTensor) else value.detach().cpu().clone().contiguous()
        for name, value in tensors.items()
    }


def restore(
    tensors: dict[str, Tensor],
    parameters: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> None:
    """Put back what `collect` took, bit by bit. Raises ResumeError naming a tensor that is missing or does not fit."""
    with torch.no_grad():
        for kind, values in (("weights", parameters), ("average", average)):
            for name, value in values.items():
                saved = tensors.get(f"{kind}/{name}")
                if saved is None or saved.shape != value.shape:
                    raise ResumeError(f"the checkpoint's {kind} of {name!r} don't fit this model; train it anew")
                value.copy_(_spread_like(value, saved))
    states: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for path, value in tensors.items():
        kind, key, name = (*path.split("/", 2), "")[:3]
        if kind == "optimiser" and name in states:
            states[name][key] = _spread_like(parameters[name], value)
    optimiser.state.update({parameter: states[name] for name, parameter in parameters.items()})
    torch.set_rng_state(tensors["generator/cpu"])
    if "generator/cuda" in tensors and next(iter(parameters.values())).is_cuda:
        torch.cuda.set_rng_state(tensors["generator/cuda"])


def _spread_like(like: Tensor, saved: Tensor) -> Tensor:
    """`saved` on the device of `like`, and sharded as it is where the shapes are the same."""
    saved = saved.to(like.device)
    if isinstance(like, DTensor) and not isinstance(saved, DTensor) and saved.shape == like.shape:
        return distribute_tensor(saved, like.device_mesh, like.placements, src_data_rank=None)
    return saved


def save(
    folder: Path,
    state: TrainingState,
    save_model: Callable[[Path], None],
    keep: int,
    processes: Processes = Processes(),
) -> Path:
    """Write a checkpoint below `folder`, point `latest` at it and keep only the newest `keep`. Returns its path.

    All processes call this; the first one writes, and each its part of a sharded state. Raises CheckpointNotWritten, in
    all of them, when one can't write: the checkpoints before stay.
    """
    path = folder / f"step-{state.step:08d}"
    temporary = folder / f".{path.name}.tmp"
    parts = any(isinstance(value, DTensor) for value in state.tensors.values())
    problem = _tried(lambda: _cleared(folder, temporary)) if processes.is_first else ""
    if parts and not any(processes.gather(problem)):
        problem = _tried(lambda: write_parts(temporary / SHARDED, state.tensors, processes.control))
        problem = next(filter(None, processes.gather(problem)), "")
    if processes.is_first:
        problem = problem or _tried(lambda: _written(temporary, path, state, save_model, parts))
        shutil.rmtree(temporary, ignore_errors=True)
    problem = next(filter(None, processes.gather(problem)), "")
    if problem:
        before = latest(folder)
        left = f"{before} is whole, and the same command goes on from it" if before else "there is none before it"
        raise CheckpointNotWritten(f"no checkpoint of step {state.step} in {folder}: {problem}. Make room; {left}")
    if processes.is_first:
        for old in {*sorted(folder.glob("step-*"))[:-keep]} - {path}:
            shutil.rmtree(old)
    return path


def _tried(work: Callable[[], None]) -> str:
    """Do it; what went wrong with the disk, or an empty string."""
    try:
        work()
    except (OSError, safetensors.SafetensorError, CheckpointException) as error:
        return " ".join(str(error).split())[:500] or type(error).__name__
    return ""


def _cleared(folder: Path, temporary: Path) -> None:
    """Make the empty folder `temporary`, and remove what killed runs left beside it."""
    for left in folder.glob(".step-*.tmp"):
        shutil.rmtree(left)
    temporary.mkdir(parents=True)


def _written(
    temporary: Path, path: Path, state: TrainingState, save_model: Callable[[Path], None], parts: bool
) -> None:
    """The first process's files, all on disk before the folder gets its name."""
    save_model(temporary)
    if not parts:
        save_file(state.tensors, temporary / f"{SHARDED}.safetensors")
    header = {"format_version": FORMAT_VERSION, "step": state.step, "seconds": state.seconds}
    write_json(temporary / "training.json", header | {"identity": state.identity})
    for file in filter(Path.is_file, temporary.rglob("*")):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    if path.exists():  # left by a run that was killed before it moved `latest`
        shutil.rmtree(path)
    os.rename(temporary, path)
    with written_atomically(path.parent / "latest") as pointer:
        pointer.write_text(path.name + "\n", encoding="utf-8")


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint below `folder`, or None. Raises ResumeError when `latest` points nowhere."""
    pointer = folder / "latest"
    if not pointer.exists():
        return None
    path = folder / pointer.read_text(encoding="utf-8").strip()
    if not (path / "training.json").exists():
        raise ResumeError(
            f"{pointer} points to {path.name}, which is missing or incomplete; write another step into it"
        )
    return path


def load(
    path: Path, identity: dict[str, Any], like: dict[str, Tensor] | None = None, processes: Processes = Processes()
) -> TrainingState:
    """Read a training state. Raises ResumeError when it is damaged, of another version or of another run.

    like: see `read_parts`; all processes must call this where something is sharded.
    """
    header = read_json(path / "training.json")
    if header.get("format_version") != FORMAT_VERSION:
        raise ResumeError(f"{path} is of version {header.get('format_version')}, this dexworld reads {FORMAT_VERSION}")
    different = sorted(_differences(header.get("identity", {}), identity))
    if different:
        listed = "; ".join(different)
        raise ResumeError(f"{path} was made with other settings: {listed}. Go on with those, or choose another output")
    parts = (path / SHARDED).is_dir()
    file = path / (SHARDED if parts else f"{SHARDED}.safetensors")
    try:
        tensors = read_parts(file, like or {}, processes.control) if parts else load_file(file)
    except (safetensors.SafetensorError, OSError, CheckpointException, EOFError) as error:
        raise ResumeError(f"{file} is damaged ({error}); point `latest` at an older one") from error
    return TrainingState(header["step"], header["seconds"], tensors, header["identity"])


def write_parts(folder: Path, tensors: dict[str, Tensor], group: Any = None) -> None:
    """Write `tensors` into `folder`: of sharded ones each process its part, of others the first process. All must call.

    group: a group of processes that talk on the CPU; None in a process that is alone.
    """
    writer = dcp.FileSystemWriter(folder, sync_files=True)
    dcp.save(dict(tensors), storage_writer=writer, process_group=group, no_dist=group is None)


def read_parts(folder: Path, like: dict[str, Tensor], group: Any = None) -> dict[str, Tensor]:
    """The tensors of `folder` by name, on the CPU, but sharded as `like` is where it has a sharded tensor of that name.

    Any number of processes may read what others wrote; all must call this when something is sharded.
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


def _differences(saved: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines like `batch_size is 8, it was 16`, for every leaf of two nested dicts that differs; absent is None."""
    lines = []
    for key in {*saved, *asked}:
        was, now = saved.get(key), asked.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines += _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            lines.append(f"{prefix}{key} is {now!r}, it was {was!r}")
    return lines
