"""Several processes that train one model: who they are, what they exchange, how the model is spread over them.

`torchrun` starts the processes; everything here is torch's own. Batches are shared by rank, gradients are averaged, and
a mean over a batch is a mean over the whole batch, not one of means.
"""

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from dexworld.errors import UsageError

logger = logging.getLogger(__name__)
Parallel = Literal["none", "ddp", "fsdp"]
WAIT = timedelta(days=2)  # how long the others wait for the first one to encode a dataset or to validate
# What gloo and NCCL say when the process at the other end is gone; they have no error class for it.
_GONE = ("by peer", "connection closed", "broken pipe", "timed out", "timeout", "remote process")


class LostProcess(UsageError):
    """Another process of the run has died or stopped answering."""


@dataclass(frozen=True)
class Processes:
    """This process among those of a run; by default it is alone.

    rank: 0 .. count - 1 over all machines. control: a group on the CPU for waiting and small messages; None when alone.
    """

    rank: int = 0
    count: int = 1
    control: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes logs, checkpoints, models and caches."""
        return self.rank == 0

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the context, then all others: for files that one writes and all read."""
        if not self.is_first:
            dist.barrier(self.control)
        yield
        if self.is_first and self.control is not None:
            dist.barrier(self.control)

    def gather(self, message: str) -> list[str]:
        """The message of every process, by rank; all must call this."""
        if self.control is None:
            return [message]
        messages: list[Any] = [None] * self.count
        dist.all_gather_object(messages, message, self.control)
        return messages

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def items_each(self, items: Tensor) -> Tensor:
        """Items of all processes, at least one, divided by the number of processes.

        A sum over own items divided by this, averaged over the processes, is the mean over all items.
        """
        total = items.detach().clone().float()
        if self.count > 1:
            dist.all_reduce(total)
        return total.clamp(min=1.0) / self.count


def launched() -> bool:
    """Whether a launcher such as `torchrun` started this process as one of a group."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def choose(parallel: str) -> Parallel:
    """How the model is spread; `auto` is `ddp` under several processes. Raises ValueError for what can't work."""
    count = int(os.environ.get("WORLD_SIZE", "1")) if launched() else 1
    if parallel == "auto":
        return "ddp" if count > 1 else "none"
    if parallel == "none" and count > 1:
        raise ValueError(f"parallel is 'none', but {count} processes were started; choose 'ddp' or 'fsdp'")
    if parallel != "none" and not launched():
        raise ValueError(f"parallel is {parallel!r}, but torchrun did not start this process: see docs/training.md")
    return cast(Parallel, parallel)


def local_device(name: str) -> torch.device:
    """The device of this process. name: `auto`, `cpu`, `cuda` (each process of a machine takes its own) or `cuda:1`.

    Raises ValueError for a device that this machine doesn't have, naming those it has.
    """
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "xpu": torch.xpu.device_count()}
    counts["mps"] = int(torch.backends.mps.is_available())
    try:
        device = torch.device(("cuda" if counts["cuda"] else "cpu") if name == "auto" else name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if launched() else 0)
    if (device.index or 0) >= counts.get(device.type, 0):
        there = ", ".join(f"{kind}:{index}" for kind in counts for index in range(counts[kind])).replace("cpu:0", "cpu")
        raise ValueError(f"device is {name!r}, which this machine doesn't have; choose auto, or from {there}")
    return device


@contextmanager
def joined(device: torch.device, timeout_seconds: float) -> Iterator[Processes]:
    """The processes of this run, connected as long as the context lasts; alone when no launcher started them.

    timeout_seconds: after which an exchange of gradients without an answer counts as a lost process. After an error the
    connection is not shut down in order: the others are to notice.
    """
    if not launched():
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    control = dist.new_group(backend="gloo", timeout=WAIT)
    processes = Processes(dist.get_rank(), dist.get_world_size(), control)
    logger.info("process %d of %d on %s, %s", processes.rank, processes.count, socket.gethostname(), device)
    with lost_processes_named("before or after training"):
        yield processes
        dist.barrier(control)
    dist.destroy_process_group()


@contextmanager
def lost_processes_named(when: str) -> Iterator[None]:
    """Turn what a communication library says about a process that is gone into LostProcess."""
    try:
        yield
    except LostProcess:
        raise
    except RuntimeError as error:
        text = str(error)
        if not dist.is_initialized() or not any(sign in text.lower() for sign in _GONE):
            raise
        noticed = f"rank {dist.get_rank()} noticed: {text.splitlines()[0][:200]}"
        raise LostProcess(
            f"a process of the run is gone or stopped answering, {when} ({noticed}). Its own message says why. Start "
            "the same command again, with any number of processes: it goes on from the last checkpoint"
        ) from error


class Spread:
    """A module on this process's device, replicated (`ddp`), sharded (`fsdp`) or as it is (`none`).

    module: forward gives a dict with `loss`. blocks: the parts that are gathered one at a time (`fsdp`), each with
    names of methods that are called beside its forward. idle_parameters: whether some parameters may get no gradient
    (`ddp` has to look for them then).
    """

    def __init__(
        self, module: nn.Module, parallel: Parallel, blocks: dict[nn.Module, tuple[str, ...]], idle_parameters: bool
    ) -> None:
        self.parallel = parallel
        if parallel == "ddp":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the name that replaces it is too new for torch 2.11
                options: dict[str, Any] = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
                module = DistributedDataParallel(module, find_unused_parameters=idle_parameters, **options)
        elif parallel == "fsdp":
            # Keys and values are two halves of one product; nothing is changed in place.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            frozen = {each for each in module.parameters() if not each.requires_grad}
            for block, methods in blocks.items():
                fully_shard(block)
                for name in methods:
                    register_fsdp_forward_method(block, name)
            fully_shard(module, ignored_params=frozen)
        self.module = module

    def __call__(self, *inputs: Any) -> dict[str, Tensor]:
        """The module's losses."""
        return self.module(*inputs)

    def exchanging(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of one of several batches; gradients are exchanged with the last only."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(last)
        if isinstance(self.module, DistributedDataParallel) and not last:
            return self.module.no_sync()
        return nullcontext()


def own_part(value: Tensor) -> Tensor:
    """The part of a tensor that lies in this process; the tensor itself unless it is sharded."""
    return value.to_local() if isinstance(value, DTensor) else value


def whole(value: Tensor) -> Tensor:
    """The whole of a tensor; all processes must call this when it is sharded."""
    return value.full_tensor() if isinstance(value, DTensor) else value
