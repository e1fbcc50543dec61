"""Messages are openpi's bytes, and what is no message is refused before anything is made of it."""

import msgpack
import numpy as np
import pytest

from dexworld_client.packing import MessageError, packed, unpacked

# What openpi's packer makes of {"state": float32 [1, 2], "prompt": "go", "n": float32 3}, by the published layout.
DATA = b"\xc4\x04data\xc4\x08\x00\x00\x80?\x00\x00\x00@"
ARRAY = b"\x84\xc4\x0b__ndarray__\xc3" + DATA + b"\xc4\x05dtype\xa3<f4\xc4\x05shape\x91\x02"
NUMBER = b"\x83\xc4\x0d__npgeneric__\xc3\xc4\x04data\xcb@\x08\x00\x00\x00\x00\x00\x00\xc4\x05dtype\xa3<f4"
OPENPI = b"\x83\xa5state" + ARRAY + b"\xa6prompt\xa2go\xa1n" + NUMBER


def test_bytes_of_openpis_packer_are_read_and_written():
    found = unpacked(OPENPI)
    np.testing.assert_array_equal(found["state"], np.float32([1, 2]))
    assert found["state"].dtype == np.float32
    assert (found["prompt"], found["n"], type(found["n"])) == ("go", 3.0, np.float32)
    assert packed({"state": np.float32([1, 2]), "prompt": "go", "n": np.float32(3)}) == OPENPI


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64", ">f4"])
def test_an_array_comes_back_as_it_was(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for sent in (array, array[:, ::2], array[:0], np.asarray(array[1, 1, 1])):
        found = unpacked(packed({"x": [sent]}))["x"][0]
        assert (found.dtype, found.shape) == (sent.dtype, sent.shape)
        np.testing.assert_array_equal(found, sent)
        found[...] = 0  # its own memory


@pytest.mark.parametrize(
    "value", [np.array([{}]), np.array(["a"]), np.zeros(1, complex), np.zeros(1, "V4"), object(), {1j}]
)
def test_what_may_not_be_sent_is_refused(value):
    with pytest.raises(MessageError, match="can't be sent"):
        packed({"x": value})


def array_message(data=b"\0" * 8, dtype="<f4", shape=(2,), **more):
    return msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape, **more})


MALFORMED = {
    "object": array_message(dtype="|O"),
    "void": array_message(dtype="|V8"),
    "complex": array_message(dtype="<c8"),
    "text": array_message(dtype="<U2"),
    "subarray": array_message(dtype="(2,)<f4"),
    "no dtype": array_message(dtype=7),
    "too large": array_message(shape=(2**40, 2**40)),
    "too small": array_message(shape=(1,)),
    "negative": array_message(shape=(-1, -2)),
    "fraction": array_message(shape=(2.0,)),
    "shape": array_message(shape="2"),
    "dimensions": array_message(data=b"\0" * 4, shape=(1,) * 65),
    "text data": array_message(data="abcdefgh"),
    "no data": msgpack.packb({b"__ndarray__": True}),
    "number": msgpack.packb({b"__npgeneric__": True, b"data": 10**19, b"dtype": "|i1"}),
    "number of text": msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
    "cut": OPENPI[:-3],
    "trailing": OPENPI + b"\0",
    "extension": msgpack.packb(msgpack.ExtType(5, b"abc")),
    "keys": msgpack.packb({1: 2}),
    "deep": b"\x91" * 5000 + b"\x90",
    "many": b"\xdd\xff\xff\xff\xff",
    "long": b"\xdb\xff\xff\xff\xff",
    "utf-8": b"\xa2\xff\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_message_is_refused(name):
    with pytest.raises(MessageError):
        unpacked(MALFORMED[name])
