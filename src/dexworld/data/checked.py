"""Files that tell when they were damaged: JSON with a checksum in it, NumPy archives with one per member."""

import io
import json
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUM = "crc32"
# What NumPy and zipfile raise for archives with damaged bytes; RuntimeError: "encrypted", or packed in an unknown way.
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, OverflowError, SyntaxError,
    tokenize.TokenError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """JSON values with a checksum of them, so that a damaged file that still parses is not believed."""
    return {**content, CHECKSUM: _checksum(content)}


def check_checksum(content: dict[str, Any], path: Path) -> None:
    """Raises ValueError when `content` is not what `with_checksum` was given; what has no checksum passes."""
    if CHECKSUM in content and content[CHECKSUM] != _checksum(content):
        raise ValueError(f"{path} is not as it was written: its checksum differs; write it again")


def _checksum(content: dict[str, Any]) -> int:
    others = {key: value for key, value in content.items() if key != CHECKSUM}
    return zlib.crc32(json.dumps(others, sort_keys=True).encode())


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], int]:
    """The arrays of an .npz file by name, without pickle, and the CRC-32 of the file.

    Raises ValueError naming a damaged, missing or unreadable file.
    """
    try:
        content = path.read_bytes()
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is no archive")
        arrays = {name: archive[name] for name in archive.files}
        strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if strange:
            raise ValueError(f"{strange[0]} is no array")
        return arrays, zlib.crc32(content)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: can't be read ({type(error).__name__}: {error})") from error
