"""Messages: msgpack with numpy arrays, as openpi's servers and clients exchange them. Nothing is ever unpickled."""

import re
from typing import Any

import msgpack
import numpy as np

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_MOST = {"max_map_len": 256, "max_array_len": 4096, "max_str_len": 65_536, "max_ext_len": 0}


class MessageError(ValueError):
    """A message that is none, or holds what may not be sent."""


def packed(message: Any) -> bytes:
    """Bytes of maps, lists, texts, numbers, numpy arrays and numpy numbers. Raises MessageError for anything else."""
    try:
        return msgpack.packb(message, default=_encoded)
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"can't be sent: {error}") from error


def unpacked(data: bytes) -> Any:
    """What `packed` packed. Raises MessageError, also for arrays whose bytes don't have their type and shape."""
    try:
        return msgpack.unpackb(data, object_hook=_decoded, **_MOST)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise MessageError(f"message can't be read: {error or type(error).__name__}") from error


def _encoded(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, (np.ndarray, np.generic)):
        raise MessageError(f"a {type(value).__name__} can't be sent")
    dtype = _dtype(value.dtype.str).str
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": dtype, b"shape": value.shape}
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": dtype}


def _decoded(value: dict[Any, Any]) -> Any:
    if b"__npgeneric__" in value:
        return _dtype(value[b"dtype"]).type(value[b"data"])
    if b"__ndarray__" in value:
        return np.frombuffer(value[b"data"], _dtype(value[b"dtype"])).reshape(value[b"shape"]).copy()
    return value


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise MessageError(f"arrays of type {name!r:.40} are not taken")
    return np.dtype(name)
