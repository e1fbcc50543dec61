"""Files that tell when they were damaged; settings of a folder; shares of work."""

import errno
import io
import json
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUM = "crc32"
NAMED = 6  # differences that a message lists
LONGEST = 60  # characters of a value in a message
# What NumPy and zipfile raise for archives with damaged bytes; RuntimeError: "encrypted", or packed in an unknown way.
_UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, OverflowError, SyntaxError,
    tokenize.TokenError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def check_writable(folder: Path) -> None:
    """Raise OSError naming a folder, which may not exist yet, unless files can be written into it."""
    standing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not standing.is_dir():
        raise OSError(errno.EEXIST if standing == folder else errno.ENOTDIR, "", str(folder))
    if not os.access(standing, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "", str(folder))


def is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder, which may not exist yet."""
    try:
        check_writable(folder)
    except OSError:
        return False
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError naming an unreadable file, FileNotFoundError for a missing one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError, OSError) as error:  # too deep, a number of 5,000 digits, a folder
        raise ValueError(f"{path} is not readable JSON ({error}); it is damaged, write it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}, expected an object")
    return content


def with_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """JSON values with a checksum of them, so that a damaged file that still parses is not believed."""
    return {**content, CHECKSUM: _checksum(content)}


def check_checksum(content: dict[str, Any], path: Path) -> None:
    """Raises ValueError when `content` is not what `with_checksum` was given; what has no checksum passes."""
    if CHECKSUM in content and content[CHECKSUM] != _checksum(content):
        raise ValueError(f"{path} is not as it was written: its checksum differs; write it again")


def _checksum(content: dict[str, Any]) -> int:
    values = {key: value for key, value in content.items() if key != CHECKSUM}
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def size_and_checksum(path: Path) -> dict[str, int]:
    """Bytes and CRC-32 of a file, read in blocks."""
    value = 0
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 22), b""):
            value = zlib.crc32(block, value)
    return {"bytes": path.stat().st_size, CHECKSUM: value}


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
        if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{strange[0]} is no array")
        return arrays, zlib.crc32(content)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: can't be read ({type(error).__name__}: {error})") from error


def check_same_settings(path: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise ValueError naming what differs between the settings that a folder's index holds and those of now.

    path: of the index. found: as JSON gave them. settings: of now; tuples compare equal to the lists that JSON has.
    """
    now = json.loads(json.dumps(dict(settings)))
    if found == now:
        return
    texts = differences(found, now)
    named = ", ".join(texts[:NAMED]) + (f" and {len(texts) - NAMED} more" if len(texts) > NAMED else "")
    raise ValueError(f"{path} was begun with other settings: {named}; choose another folder, or delete this one")


def differences(found: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`a.b was 1, now 2` for every value that differs, by name."""
    texts = []
    for name in sorted({*found, *now}):
        before, after = found.get(name), now.get(name)
        if name in found and name in now and before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            texts += differences(before, after, f"{prefix}{name}.")
        else:
            texts.append(f"{prefix}{name} was {_shown(found, name)}, now {_shown(now, name)}")
    return texts


def _shown(settings: Mapping[str, Any], name: str) -> str:
    text = repr(settings[name]) if name in settings else "absent"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count` equal shares, written "index/count" on the command line."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard {self.index}/{self.count} must be i/n with 0 <= i < n, e.g. 0/4 to 3/4")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that "i/n" means. Raises ValueError on anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found:
            raise ValueError(f"shard {text!r} must be written i/n, e.g. 0/4 for the first of four")
        return cls(int(found[1]), int(found[2]))

    def of(self, items: Sequence) -> list:
        """The items of this share, in order."""
        return list(items[self.index :: self.count])
