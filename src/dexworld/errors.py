"""Errors that a user can mend: the command line shows their message in one line."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

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
