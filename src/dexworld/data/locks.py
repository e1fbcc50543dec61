"""Locks between processes that write into one folder, held by the operating system and released when a process dies.

A file is written under a hidden name that its writer locks, then renamed. What a killed writer left is overwritten by
the next one.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)
Whole = Callable[[Path], bool]  # whether a file needs no writing
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextmanager
def claimed(path: Path, wait: bool = True, whole: Whole = Path.exists) -> Iterator[Path | None]:
    """Yield a hidden path to write in place of `path`; on success flush it and rename it.

    Yields None when `path` is whole, or when another process is writing it and `wait` is False. With `wait`, stays
    until that process has finished, or takes over when it died.
    """
    descriptor = _claim(path, wait, whole)
    if descriptor is None:
        yield None
        return
    part = hidden(path)
    try:
        yield part
        os.fsync(descriptor)
        os.replace(part, path)
    finally:
        os.close(descriptor)  # which releases the lock


def write_missing(
    paths: Iterable[Path],
    write: Callable[[Path, Path], None],
    finished: Callable[[Path], None] = lambda path: None,
    whole: Whole = Path.exists,
) -> None:
    """Write the files that are missing, together with any other processes that do the same.

    write: makes a file under the hidden path that comes second. finished: is called once for each whole file. Files
    that others are writing come last, in case their writers die.
    """
    for wait in (False, True):
        others = []
        for path in paths:
            with claimed(path, wait, whole) as part:
                if part is not None:
                    write(path, part)
            if whole(path):
                finished(path)
            else:
                others.append(path)
        paths = others


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: others that ask for it wait."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def hidden(path: Path) -> Path:
    """The name that `path` has while it is written."""
    return path.with_name(f".{path.name}.part")


def _claim(path: Path, wait: bool, whole: Whole) -> int | None:
    """A descriptor that holds the lock of the hidden file; None when `path` is whole or somebody else's."""
    part = hidden(path)
    while not whole(path):
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
        locked = lock(descriptor, wait)
        if locked and is_file_of(part, descriptor):
            if not whole(path):
                return descriptor
            part.unlink(missing_ok=True)  # finished by another between the two looks
        os.close(descriptor)
        if not locked:
            return None
    return None


def is_file_of(path: Path, descriptor: int) -> bool:
    """Whether a path still names an open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def lock(descriptor: int, wait: bool) -> bool:
    """Lock an open file; False when another process holds it. Where there are no locks, True with a warning."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _warn_of_missing_locks()
    return True


@cache
def _warn_of_missing_locks() -> None:
    logger.warning("this file system has no file locks: give each process a share of its own (--shard i/n)")
