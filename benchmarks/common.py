"""What the benchmarks share: the `--output` option, the machine, and results.json in the layout of the commands."""

import argparse
import platform
from pathlib import Path

from dexworld.evaluation.results import write_results

__all__ = ["parser", "processor", "write_results"]


def parser(description: str, output: str) -> argparse.ArgumentParser:
    """An argument parser with `--output DIR`, into which the benchmark writes results.json."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    arguments.add_argument("--output", type=Path, default=Path(output), help="folder for results.json")
    return arguments


def processor() -> str:
    """The name of this machine's CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
