"""Training checkpoints: everything that a run needs to go on as if it had never stopped.

    checkpoints/step-00001000/     config.json, model.safetensors: the model, ready for `from_pretrained`
                                   training.safetensors: weights, optimiser, averages, generator states
                                   training.json: step and what the run was started with
    checkpoints/latest             the name of the newest complete one

A folder appears whole or not at all, so a kill at any moment leaves a complete checkpoint to go on from. The first
process gathers and writes the whole state: a run may go on with other processes, and another way to share the model.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dexworld.data.files import read_json, write_json, written_atomically
from dexworld.models.checkpoint import write_tensors
from dexworld.training.distributed import Processes, whole

FORMAT_VERSION = 1
STATE_FILE = "training.safetensors"


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


def collect(
    parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, average: dict[str, Tensor], keep: bool
) -> dict[str, Tensor]:
    """Weights, optimiser state, averaged weights and torch's generator states by name, whole copies on the CPU.

    All processes must call this when something is sharded. keep: false in processes that don't need the result.
    """
    tensors = {f"weights/{name}": value.detach() for name, value in parameters.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for name, parameter in parameters.items():
        tensors |= {f"optimiser/{key}/{name}": value for key, value in optimiser.state[parameter].items()}
    tensors["generator/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and next(iter(parameters.values())).is_cuda:
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    collected = {}
    for name, value in tensors.items():
        gathered = whole(value.detach())  # one at a time: a GPU holds one whole tensor more
        if keep:
            collected[name] = gathered.cpu().clone().contiguous()
    return collected


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

    All processes call this and the first one writes. Raises CheckpointNotWritten in all of them when it can't: the
    checkpoints before stay.
    """
    path, problem = folder / f"step-{state.step:08d}", ""
    if processes.is_first:
        try:
            _write(path, state, save_model)
        except (OSError, safetensors.SafetensorError) as error:
            problem = " ".join(str(error).split())[:500] or type(error).__name__
    problem = processes.gather(problem)[0]
    if problem:
        before = latest(folder)
        left = f"{before} is whole, and the same command goes on from it" if before else "there is none before it"
        raise CheckpointNotWritten(f"no checkpoint of step {state.step} in {folder}: {problem}. Make room; {left}")
    if processes.is_first:
        for old in {*sorted(folder.glob("step-*"))[:-keep]} - {path}:
            shutil.rmtree(old)
    return path


def _write(path: Path, state: TrainingState, save_model: Callable[[Path], None]) -> None:
    """Write all files to a temporary folder, sync them, and rename it. What killed runs left there is removed."""
    for left in path.parent.glob(".step-*.tmp"):
        shutil.rmtree(left)
    temporary = path.parent / f".{path.name}.tmp"
    temporary.mkdir(parents=True)
    try:
        save_model(temporary)
        write_tensors(temporary / STATE_FILE, state.tensors)
        header = {"format_version": FORMAT_VERSION, "step": state.step, "seconds": state.seconds}
        write_json(temporary / "training.json", header | {"identity": state.identity})
        for file in filter(Path.is_file, temporary.rglob("*")):
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        if path.exists():  # left by a run that was killed before it moved `latest`
            shutil.rmtree(path)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
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


def load(path: Path, identity: dict[str, Any]) -> TrainingState:
    """Read a training state. Raises ResumeError when it is damaged, of another version or of another run."""
    header = read_json(path / "training.json")
    if header.get("format_version") != FORMAT_VERSION:
        raise ResumeError(f"{path} is of version {header.get('format_version')}, this dexworld reads {FORMAT_VERSION}")
    different = sorted(_differences(header.get("identity", {}), identity))
    if different:
        listed = "; ".join(different)
        raise ResumeError(f"{path} was made with other settings: {listed}. Go on with those, or choose another output")
    try:
        tensors = load_file(path / STATE_FILE)
    except (safetensors.SafetensorError, OSError) as error:
        raise ResumeError(f"{path / STATE_FILE} is damaged ({error}); point `latest` at an older one") from error
    return TrainingState(header["step"], header["seconds"], tensors, header["identity"])


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
