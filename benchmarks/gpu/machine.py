"""The device that everything runs on, and the only place that calls CUDA: clocks, memory, rates, where time goes."""

import gc
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from common import processor
from dexworld.training.distributed import local_device

# Kinds of operations, by what stands in the names of kernels (CUDA) or operators (CPU); the first that matches counts.
KINDS = (
    ("attention", r"flash|fmha|attention|sdpa"),
    ("optimiser", r"adam|multi_tensor|foreach|lerp"),
    ("matrix products", r"gemm|nvjet|cutlass|cublas|wgmma|::mm$|::bmm|addmm|::linear|matmul|conv"),
    ("copies", r"memcpy|memset|copy_|::cat|catarray|_to_copy|index_put|gather"),
)
OTHER, IDLE = "norms and pointwise", "no kernel"


class Machine:
    """A GPU or the CPU. name: as `local_device` takes it; `auto` is a GPU where there is one."""

    def __init__(self, name: str = "auto") -> None:
        self.device = local_device(name)
        self.is_gpu = self.device.type == "cuda"

    @property
    def card(self) -> str:
        """What computes."""
        return torch.cuda.get_device_name(self.device) if self.is_gpu else processor()

    @property
    def memory_bytes(self) -> int | None:
        """Of the GPU; None on a CPU."""
        return torch.cuda.get_device_properties(self.device).total_memory if self.is_gpu else None

    @property
    def driver(self) -> str:
        """The version of CUDA that torch was built for."""
        return f"CUDA {torch.version.cuda}" if self.is_gpu else "no GPU"

    def wait(self) -> None:
        """Until the GPU has done what it was given."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def clean(self) -> None:
        """Give back what the last job held, and forget its compiled code and its peak."""
        torch._dynamo.reset()
        gc.collect()
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def peak_gib(self) -> float | None:
        """The most that was held since the last `clean`; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.is_gpu else None

    def seconds(self, work: Callable[[], object], repeats: int = 3, warm: Callable[[], object] | None = None) -> float:
        """Median wall time of a call. One call of `warm`, by default `work` itself, comes before and isn't counted."""
        (warm or work)()
        times = []
        for _ in range(repeats):
            self.wait()
            begin = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    def matmul_tflops(self, side: int) -> float:
        """Measured 10^12 operations a second of a product of two square bfloat16 matrices."""
        left, right = torch.randn(2, side, side, device=self.device).to(torch.bfloat16).unbind()
        return 2 * side**3 / self.seconds(lambda: left @ right, repeats=10) / 1e12

    def copy_gb_per_second(self, size: int) -> float:
        """Measured 10^9 bytes a second, read and written, of a copy of `size` bytes on the device."""
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * size / self.seconds(lambda: target.copy_(source), repeats=10) / 1e9

    def time_shares(self, work: Callable[[], object]) -> dict[str, float]:
        """Where one call spends its time: shares of its wall time by kind of kernel, and those without any kernel.

        On a CPU: shares of operators' time.
        """
        wall = self.seconds(work, repeats=1)
        kinds = [torch.profiler.ProfilerActivity.CPU]
        kinds += [torch.profiler.ProfilerActivity.CUDA] if self.is_gpu else []
        with torch.profiler.profile(activities=kinds) as profile:
            work()
            self.wait()
        spent = dict.fromkeys([*(kind for kind, _ in KINDS), OTHER], 0.0)
        for event in profile.key_averages():
            spent[kind_of(event.key)] += self._own_seconds(event)
        busy = sum(spent.values())
        if not self.is_gpu:
            wall = busy
        total = max(wall, busy, 1e-12)
        return {kind: each / total for kind, each in spent.items()} | {IDLE: (total - busy) / total}

    def _own_seconds(self, event: Any) -> float:
        """Of a profiler's event: on a GPU of kernels, not of what launched or surrounds them; on a CPU of operators."""
        if not self.is_gpu:
            return event.self_cpu_time_total / 1e6
        around = getattr(event, "is_user_annotation", False) or "#" in event.key
        kernel = event.device_type == torch.autograd.DeviceType.CUDA and not around
        return event.self_device_time_total / 1e6 if kernel else 0.0


def kind_of(name: str) -> str:
    """The kind of operation that a kernel's or operator's name tells."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, name, re.IGNORECASE)), OTHER)
