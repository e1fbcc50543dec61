"""One command at a time writes into a folder: a second one is refused, whatever machine it runs on.

The owner holds a file lock on `.owner` in the folder and touches that file every `BEAT_S` seconds. The lock dies with
its owner. Where a file system keeps no locks, or not between machines, the file's age tells that its owner is gone.
"""

import json
import logging
import os
import platform
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dexworld.data.locks import is_file_of, lock
from dexworld.errors import UsageError

logger = logging.getLogger(__name__)
NAME = ".owner"
BEAT_S, GONE_S = 20.0, 90.0


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder, made if it is missing, until the context ends. Raises UsageError naming the command that owns it.

    A folder that was made and is still empty at the end is removed.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path, ended = folder / NAME, threading.Event()
    descriptor: int | None = None
    try:
        with _stops_later() as stops:
            descriptor = _taken(path, stops)
            threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
        yield
    finally:
        if descriptor is not None:
            with _stops_later():
                ended.set()
                path.unlink(missing_ok=True)
                os.close(descriptor)
                if new:
                    with suppress(OSError):  # it holds something
                        folder.rmdir()


@contextmanager
def _stops_later() -> Iterator[list[int]]:
    """Around what SIGINT and SIGTERM may not interrupt: they arrive at its end. Yields those that came so far."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield came
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: came.append(number)) for number in numbers]
    try:
        yield came
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


def _taken(path: Path, stops: list[int]) -> int:
    """A descriptor that holds the lock of the file, which now names this process. stops: a signal ends the waiting."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not lock(descriptor, wait=False) or _lives(path, stops):
                raise UsageError(_refusal(path))
            if is_file_of(path, descriptor):  # else the owner left, and took the file with it
                command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
                since = datetime.now(UTC).isoformat(timespec="seconds")
                owner = {"host": platform.node(), "pid": os.getpid(), "since": since, "command": command}
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(owner).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _owner(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        owner = json.loads(path.read_bytes())
        return owner if isinstance(owner, dict) else {}
    return {}


def _lives(path: Path, stops: list[int]) -> bool:
    """Whether the owner that the file names lives, although this process got its lock: on another machine.

    A job that was requeued elsewhere waits here until its predecessor has given no sign of life for `GONE_S` seconds.
    """
    owner = _owner(path)
    if not owner or owner.get("host") == platform.node():
        return False
    waited = False
    with suppress(FileNotFoundError):  # it left
        seen = path.stat().st_mtime
        while path.stat().st_mtime == seen and not stops:
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".now-") as now:  # the file system's own clock
                rest = GONE_S - (os.stat(now.name).st_mtime - seen)
            if rest <= 0:
                return False
            if not waited:
                logger.warning("%s: waiting %.0f s for a sign of life of its owner, %s", path.parent, rest, owner)
            waited = True
            time.sleep(min(rest, 1.0))
        return True
    return False


def _refusal(path: Path) -> str:
    owner = {"command": "another command", "pid": "?", "host": "?", "since": "?"} | _owner(path)
    who = "`{command}` (process {pid} on {host}, since {since})".format(**owner)
    several = os.environ.get("SLURM_NTASKS", "1") != "1"
    hint = ". Several tasks of Slurm started this command: start one, or start it by torchrun" if several else ""
    return f"{path.parent}: {who} is writing into it; wait for it, or choose another folder{hint}"


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with suppress(OSError):
            os.utime(path)
