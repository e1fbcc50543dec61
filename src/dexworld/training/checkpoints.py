"""Training checkpoints: everything that a run needs to go on as if it had never stopped.

    checkpoints/step-00001000/     config.json, model.safetensors: the model, ready for `from_pretrained`
                                   training.safetensors: weights, optimiser, averages, generator states
                                   training.json: step and what the run was started with
    checkpoints/latest             the name of the newest complete one

A folder appears whole or not at all, so a kill at any moment leaves a complete checkpoint to go on from.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dexworld.data.files import read_json, write_json, written_atomically

FORMAT_VERSION = 1


class ResumeError(ValueError):
    """A checkpoint that this run can't continue; the message says why and what to do."""


@dataclass(frozen=True)
class TrainingState:
    """step: optimiser steps done. tensors: see `collect`. identity: what the run was started with."""

    step: int
    seconds: float
    tensors: dict[str, Tensor]
    identity: dict[str, Any]


def collect(
    parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, average: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Copies, on the CPU, of weights, optimiser state, averaged weights and torch's generator states, by name."""
    tensors = {f"weights/{name}": value.detach() for name, value in parameters.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for name, parameter in parameters.items():
        for key, value in optimiser.state[parameter].items():
            tensors[f"optimiser/{key}/{name}"] = value
    tensors["generator/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available() and next(iter(parameters.values())).is_cuda:
        tensors["generator/cuda"] = torch.cuda.get_rng_state()
    return {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}


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
                value.copy_(saved)
    for name, parameter in parameters.items():
        optimiser.state[parameter] = {
            key.split("/", 2)[1]: value.to(parameter.device)
            for key, value in tensors.items()
            if key.startswith("optimiser/") and key.split("/", 2)[2] == name
        }
    torch.set_rng_state(tensors["generator/cpu"])
    if "generator/cuda" in tensors and next(iter(parameters.values())).is_cuda:
        torch.cuda.set_rng_state(tensors["generator/cuda"])


def save(folder: Path, state: TrainingState, save_model: Callable[[Path], None], keep: int) -> Path:
    """Write a checkpoint below `folder`, point `latest` at it and keep only the newest `keep`. Returns its path."""
    path = folder / f"step-{state.step:08d}"
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_model(temporary)
        save_file(state.tensors, temporary / "training.safetensors")
        header = {"format_version": FORMAT_VERSION, "step": state.step, "seconds": state.seconds}
        write_json(temporary / "training.json", header | {"identity": state.identity})
        for file in temporary.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        if path.exists():  # left by a run that was killed before it moved `latest`
            shutil.rmtree(path)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    with written_atomically(folder / "latest") as pointer:
        pointer.write_text(path.name + "\n", encoding="utf-8")
    for old in sorted(folder.glob("step-*"))[:-keep]:
        if old != path:
            shutil.rmtree(old)
    return path


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
        raise ResumeError(
            f"{path} was made with other settings: {'; '.join(different)}. Go on with the settings it was "
            "started with, or choose another output folder"
        )
    try:
        tensors = load_file(path / "training.safetensors")
    except (safetensors.SafetensorError, OSError) as error:
        raise ResumeError(
            f"{path}/training.safetensors is damaged ({error}); point `latest` at an older one"
        ) from error
    return TrainingState(header["step"], header["seconds"], tensors, header["identity"])


def _differences(saved: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines like `batch_size is 8, it was 16`, for every leaf of two nested dicts that differs."""
    lines = []
    for key in {*saved, *asked}:
        was, now = saved.get(key), asked.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            lines += _differences(was, now, f"{prefix}{key}.")
        elif was != now:
            lines.append(f"{prefix}{key} is {now!r}, it was {was!r}")
    return lines
