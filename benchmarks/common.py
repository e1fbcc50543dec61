"""What the benchmarks share: the `--output` option, and results.json in the layout of the dexworld commands."""

import argparse
from pathlib import Path

from dexworld.evaluation.results import write_results

__all__ = ["parser", "write_results"]


def parser(description: str, output: str) -> argparse.ArgumentParser:
    """An argument parser with `--output DIR`, into which the benchmark writes results.json."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    arguments.add_argument("--output", type=Path, default=Path(output), help="folder for results.json")
    return arguments
