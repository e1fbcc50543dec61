"""What the benchmarks share: their command line, clocks and memory, the machine, and results.json."""

import argparse
import multiprocessing
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dexworld.evaluation.intervals import interval_values
from dexworld.evaluation.results import write_results

__all__ = [
    "cpu_seconds", "in_a_process", "interval_values", "memory_kb", "parser", "processor", "write_and_print",
    "write_results",
]  # fmt: skip


def parser(description: str | None, output: str) -> argparse.ArgumentParser:
    """An argument parser with `--output DIR` for results.json. Its description is the first line of the given one."""
    first = str(description).splitlines()[0]
    arguments = argparse.ArgumentParser(description=first, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    arguments.add_argument("--output", type=Path, default=Path(output), help="folder for results.json")
    return arguments


def write_and_print(output: Path, results: dict[str, Any]) -> None:
    """Write results.json and print its figures."""
    path = write_results(output, results)
    for name, value in results.items():
        print(f"{name:40} {value:.4g}" if isinstance(value, float) else f"{name:40} {value}")
    print(f"written to {path}")


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call, all threads of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def memory_kb(field: str) -> int:
    """A field of this process's memory, such as VmRSS (resident now) or VmHWM (at its highest). Linux only."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status holds no {field}; memory is measured on Linux only")


def in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `work` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def processor() -> str:
    """The name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
