"""Messages: msgpack with numpy arrays, as openpi's servers and clients exchange them. Nothing is ever unpickled."""

import math
import re
from typing import Any

import msgpack
import numpy as np

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_DIMENSIONS = 8


class MessageError(ValueError):
    """A message that is none, or holds what may not be sent."""


def packed(message: Any) -> bytes:
    """Bytes of maps, lists, texts, numbers, numpy arrays and numpy numbers. Raises MessageError for anything else."""
    try:
        return msgpack.packb(message, default=_encoded)
    except (TypeError, ValueError, OverflowError) as error:
        raise MessageError(f"can't be sent: {error}") from error


def unpacked(data: bytes) -> Any:
    """What `packed` packed. Raises MessageError; data types and shapes are compared with the bytes before any use."""
    limits = {"max_map_len": 256, "max_array_len": 4096, "max_str_len": 65_536, "max_ext_len": 0}
    try:
        return msgpack.unpackb(data, object_hook=_decoded, **limits)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise MessageError(f"message can't be read: {error or type(error).__name__}") from error


def _encoded(value: Any) -> dict[bytes, Any]:
    if isinstance(value, (np.ndarray, np.generic)) and not _DTYPE.fullmatch(value.dtype.str):
        raise MessageError(f"arrays of {value.dtype} can't be sent")
    if isinstance(value, np.ndarray):
        facts = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
        return {b"__ndarray__": True, **facts}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise MessageError(f"a {type(value).__name__} can't be sent")


def _decoded(value: dict[Any, Any]) -> Any:
    if b"__npgeneric__" in value:
        return _dtype(value[b"dtype"]).type(value[b"data"])
    if b"__ndarray__" not in value:
        return value
    data, dtype, shape = value[b"data"], _dtype(value[b"dtype"]), value[b"shape"]
    sizes = shape if isinstance(shape, list) else [-1]
    if len(sizes) > _DIMENSIONS or not all(type(size) is int and size >= 0 for size in sizes):
        raise MessageError(f"an array has the shape {shape!r:.80}")
    if not isinstance(data, bytes) or math.prod(sizes) * dtype.itemsize != len(data):
        raise MessageError(f"an array of {dtype} and shape {sizes} doesn't have the bytes that it needs")
    return np.frombuffer(data, dtype).reshape(sizes).copy()


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise MessageError(f"arrays of type {name!r:.40} are not taken")
    return np.dtype(name)
