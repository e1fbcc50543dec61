"""Training checkpoints: everything that a run needs to go on as if it had never stopped.

    checkpoints/step-00001000/     config.json, model.safetensors: the model, ready for `from_pretrained`
                                   training.safetensors: weights, optimiser, averages, generator states
                                   training.json: step and what the run was started with
    checkpoints/latest             the name of the newest complete one

A folder appears whole or not at all, so a kill at any moment leaves a complete checkpoint to go on from. The first
process gathers and writes the whole state: a run may go on with other processes, and another way to share the model.
"""

import json
import logging
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

from dexworld.data.files import read_json
from dexworld.models.checkpoint import write_tensors
from dexworld.training.distributed import Processes, whole
from dexworld.writing import write_json, write_text

logger = logging.getLogger(__name__)
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
    write_text(path.parent / "latest", path.name + "\n")


def latest(folder: Path) -> Path | None:
    """The checkpoint below `folder` to go on from, or None where there is no step.

    It is what `latest` names, or the newest whole step where that file is lost, empty or names none. Raises ResumeError
    where no step is whole.
    """
    named = _named(folder)
    if named and (folder / named / "training.json").is_file():
        return folder / named
    steps = sorted(folder.glob("step-*"))
    if not steps and not named:
        return None
    newest = next((path for path in reversed(steps) if _is_whole(path)), None)
    if newest is None:
        what = f"`latest` names {named!r}, and none of {len(steps)} steps is whole"
        raise ResumeError(f"{folder}: {what}; choose another output, or delete that folder to start over")
    return newest


def _named(folder: Path) -> str:
    """What `latest` names; an empty text when it is lost or empty."""
    pointer = folder / "latest"
    return pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""


def _is_whole(path: Path) -> bool:
    """Whether a step holds its header and the whole of its state."""
    try:
        read_json(path / "training.json")
        with safetensors.safe_open(path / STATE_FILE, "pt"):
            return True
    except (ValueError, OSError, safetensors.SafetensorError):
        return False


def load(path: Path, identity: dict[str, Any]) -> TrainingState:
    """Read a training state. Raises ResumeError when it is damaged, of another version or of another run."""
    header = read_json(path / "training.json")
    if header.get("format_version") != FORMAT_VERSION:
        raise ResumeError(f"{path} is of version {header.get('format_version')}, this dexworld reads {FORMAT_VERSION}")
    _refuse_others(path, header.get("identity", {}), identity)
    if (named := _named(path.parent)) != path.name:
        lost = f"`latest` names {named!r}, which is missing or incomplete" if named else "`latest` is lost or empty"
        logger.warning("%s: %s; going on from the newest whole step, %s", path.parent, lost, path.name)
    try:
        tensors = load_file(path / STATE_FILE)
    except (safetensors.SafetensorError, OSError) as error:
        raise ResumeError(f"{path / STATE_FILE} is damaged ({error}); point `latest` at an older one") from error
    return TrainingState(header["step"], header["seconds"], tensors, header["identity"])


def check_settings(folder: Path, known: dict[str, Any]) -> None:
    """Refuse to go on with other settings than the run in `folder`, before anything heavy: as far as they are known.

    Raises ResumeError.
    """
    path = latest(folder)
    if path is not None:
        saved = read_json(path / "training.json").get("identity", {})
        _refuse_others(path, {name: saved.get(name) for name in known}, json.loads(json.dumps(known)))


def _refuse_others(path: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    if different := sorted(_differences(saved, asked)):
        listed = "; ".join(different)
        raise ResumeError(f"{path} was made with other settings: {listed}. Go on with those, or choose another output")


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
