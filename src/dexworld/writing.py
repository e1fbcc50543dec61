"""Files that appear whole or not at all."""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dexworld.errors import naming


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it, on failure remove it.

    A process killed in between leaves a hidden file `.<name>.<host>-<pid>.tmp`, which readers ignore. When two
    processes write the same path, the last rename wins. Raises OSError naming `path` when the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        with naming(path):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def json_text(content: dict[str, Any]) -> str:
    """Indented JSON with a line end. Raises TypeError on values that JSON can't hold."""
    return json.dumps(content, indent=2) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with written_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON, atomically. Raises TypeError on values that JSON can't hold."""
    write_text(path, json_text(content))
