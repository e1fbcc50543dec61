"""Dividing the packs of one store among processes and machines that share only its folder.

Shard i of n takes every n-th pack. Two processes that work on the same pack do no harm: what they write is equal to the
byte, and appears by renaming. Claims only spare them the double work, so losing one loses nothing.
"""

import contextlib
import logging
import os
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dexworld.data.files import read_json

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
REFRESHED_S = 30.0
EXPIRED_S = 600.0  # a claim that nobody refreshed for so long is void


@dataclass(frozen=True)
class Shard:
    """Share `index` of `count` equal shares, written "index/count" on the command line."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"shard {self.index}/{self.count} must be i/n with 0 <= i < n: the first of four is 0/4, the last 3/4"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard that "i/n" means. Raises ValueError on anything else."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found:
            raise ValueError(f"shard {text!r} must be written i/n, e.g. 0/4 for the first of four")
        return cls(int(found[1]), int(found[2]))

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items of this share, in order."""
        return list(items[self.index :: self.count])


class Claims:
    """Notes in a shared folder that say which process works on what; a context manager that gives back what it holds.

    A claim is void when its process is gone (on this host) or when nobody refreshed it for ten minutes (on any). Times
    are compared as the file system gives them, so the clocks of the hosts don't matter.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: set[Path] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def __enter__(self) -> "Claims":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        for path in list(self._held):
            self.release(path.stem)
        with contextlib.suppress(OSError):  # others' claims are still in it
            self.folder.rmdir()

    def take(self, name: str) -> bool:
        """Claim `name`; False when another live process holds it."""
        path = self.folder / f"{name}.json"
        note = self.folder / f".{name}.{socket.gethostname()}.{os.getpid()}.tmp"
        try:
            for _ in range(2):
                self.folder.mkdir(parents=True, exist_ok=True)  # another process that leaves may just have removed it
                try:
                    note.write_text(f'{{"host": "{socket.gethostname()}", "pid": {os.getpid()}}}\n', encoding="utf-8")
                    os.link(note, path)  # whole at once, and fails when it exists, on network file systems as well
                except FileExistsError:
                    if not self._void(path, note):
                        return False
                    path.unlink(missing_ok=True)
                except OSError as error:
                    logger.debug("no claims in %s (%s): a pack may be prepared twice", self.folder, error)
                    return True
                else:
                    with self._lock:
                        self._held.add(path)
                    return True
            return False
        finally:
            note.unlink(missing_ok=True)

    def release(self, name: str) -> None:
        """Give `name` back."""
        path = self.folder / f"{name}.json"
        with self._lock:
            self._held.discard(path)
        path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Claim `name` for a block; yields False when another live process holds it."""
        taken = self.take(name)
        try:
            yield taken
        finally:
            if taken:
                self.release(name)

    def _void(self, path: Path, now: Path) -> bool:
        try:
            holder, age = read_json(path), now.stat().st_mtime - path.stat().st_mtime
        except FileNotFoundError:
            return True
        except ValueError:
            return True  # damaged: only a crash of the machine leaves that
        if age > EXPIRED_S:
            return True
        return holder.get("host") == socket.gethostname() and not _alive(holder.get("pid"))

    def _refresh(self) -> None:
        while not self._closed.wait(REFRESHED_S):
            with self._lock:
                held = list(self._held)
            for path in held:
                with contextlib.suppress(FileNotFoundError):  # somebody took us for dead: double work, nothing worse
                    os.utime(path)


def _alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError, IndexError):  # a killed process that nobody waited for is no live one
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    return True
