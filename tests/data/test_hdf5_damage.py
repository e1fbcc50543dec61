"""Damage that would end or block the process is found before the HDF5 library meets it."""

import h5py
import numpy as np
import pytest

from dexworld.data.readers.hdf5 import attribute, is_plain, opened_hdf5
from dexworld.data.source import CorruptEpisodeError


@pytest.fixture
def written(tmp_path):
    """A file with texts of variable length, which lie in heaps."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(30):
            file.attrs[f"text {number}"] = "word " * number
        file["names"] = ["one", "two"]
        file["values"] = np.arange(12.0).reshape(4, 3)
    return tmp_path / "a.h5"


def test_attributes_of_changing_length_are_not_read(written):
    with h5py.File(written, "r+") as file:
        file.attrs.create("lists", [np.arange(2), np.arange(3)], shape=(2,), dtype=h5py.vlen_dtype(int))
        file.attrs["triples"] = np.zeros(2, dtype=np.dtype((float, 3)))
    with opened_hdf5(written) as file:
        assert attribute(file, "lists") is None
        assert attribute(file, "absent") is None
        assert is_plain(file.attrs.get_id("triples").get_type())


def test_a_heap_whose_free_space_has_no_size_is_refused_instead_of_walked_for_ever(written):
    content = bytearray(written.read_bytes())
    heap = content.find(b"GCOL")
    content[heap + 40 : heap + 600] = bytes(560)
    written.write_bytes(content)
    with (
        pytest.raises(CorruptEpisodeError, match=rf"a\.h5: the heap of texts at byte {heap} is damaged"),
        opened_hdf5(written),
    ):
        pass
