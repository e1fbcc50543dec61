"""`results.json`: what every command leaves behind, in one layout.

The figures stand at the top level, in the order given. The key "run" comes last and says what produced them.
"""

import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.writing import write_json

RUN_KEY = "run"
PACKAGES = ("dexworld", "torch", "numpy", "mujoco")


def write_results(
    folder: Path | str, figures: Mapping[str, Any], *, seed: int | None = None, seeds: Iterable[int] | None = None
) -> Path:
    """Write `folder/results.json` atomically; returns its path.

    figures: JSON-able values; NumPy scalars and arrays are converted. A figure that doesn't exist is None, never NaN.
    seed, seeds: what the run drew from, and the scene seeds it used (recorded as first, last and count).

    Raises ValueError naming the key of a NaN, an Inf or a value that JSON can't hold, and on a figure called "run".
    """
    if RUN_KEY in figures:
        raise ValueError(f"{RUN_KEY!r} is reserved for what produced the figures; name the figure otherwise")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: plain(value, key) for key, value in figures.items()}
    write_json(folder / "results.json", content | {RUN_KEY: _run_facts(seed, seeds)})
    return folder / "results.json"


def _run_facts(seed: int | None, seeds: Iterable[int] | None) -> dict[str, Any]:
    """What produced a result: command line, seeds, UTC date, versions and machine type."""
    facts: dict[str, Any] = {
        # The bare name of the program: where it is installed is nobody's business.
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    if seed is not None:
        facts["seed"] = int(seed)
    if seeds is not None:
        listed = [int(item) for item in seeds]
        facts["seeds"] = {"first": min(listed), "last": max(listed), "count": len(listed)} if listed else {"count": 0}
    return facts


def versions() -> dict[str, str]:
    """Versions of Python, of the packages that shape a figure (absent ones say so), and the machine type."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | {"machine": f"{platform.system()} {platform.machine()}"}


def plain(value: Any, where: str) -> Any:
    """`value` as JSON holds it; ValueError naming the key `where` of what can't be held."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"result {where} is {value}; write None for a figure that doesn't exist")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"result {where} is a {type(value).__name__}, which JSON can't hold")
