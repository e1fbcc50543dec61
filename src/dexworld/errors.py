"""Errors that a user can mend, which the command line shows in one line, and warnings that are said once."""

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)
# What a system refuses in the middle of writing. Libraries tell of it without the path, or in their own errors.
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_NUMBER = re.compile(r"(?:os error|errno)\W{0,4}(\d+)", re.IGNORECASE)  # safetensors; Arrow and HDF5


class UsageError(RuntimeError):
    """Something outside dexworld is missing or set wrongly; the message says what to do."""


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Around what writes a file: a full disk and its like are raised as OSError that names `path`, whoever noticed."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        found = _NUMBER.search(str(error))
        number = getattr(error, "errno", None) or (int(found[1]) if found else None)
        if number not in _WRITING:
            raise
        raise OSError(number, os.strerror(number), os.fspath(path)) from error


_warned: set[tuple[str, str]] = set()


def warn_once(where: str, kind: str, message: str) -> None:
    """Log a warning of a kind of oddity in one folder or file, the first time that it is found there."""
    if (where, kind) not in _warned:
        _warned.add((where, kind))
        logger.warning("%s: %s", where, message)
