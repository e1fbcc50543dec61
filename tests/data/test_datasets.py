"""Every folder that a command wrote opens by one call, or says what to do first."""

import pytest
from droid_fixtures import write_episode
from egodex_fixtures import make_clip, write_clip
from prepare_fixtures import config_of, write_source

from dexworld.data.datasets import open_dataset
from dexworld.data.prepare.job import prepare
from dexworld.data.source import Dataset


def test_recordings_and_the_store_made_of_them_open_alike(tmp_path):
    source = write_source(tmp_path / "source", 3)
    prepare(config_of(source, tmp_path / "store", assemble=False))
    with pytest.raises(FileNotFoundError, match=r"no finished store.*run the same `dexworld prepare` again"):
        open_dataset(tmp_path / "store")
    prepare(config_of(source, tmp_path / "store"))
    recorded, stored = open_dataset(source, verify=True), open_dataset(tmp_path / "store", verify=True)
    assert isinstance(recorded, Dataset)
    assert isinstance(stored, Dataset)
    assert (stored.ids, stored.lengths, stored.seeds) == (recorded.ids, recorded.lengths, recorded.seeds)


@pytest.mark.parametrize(
    ("kind", "write"),
    [("egodex", lambda folder: write_clip(folder / "part1" / "stack", 0, make_clip(0))), ("droid", write_episode)],
)
def test_recordings_of_hands_and_grippers_are_to_be_prepared_first(tmp_path, kind, write):
    write(tmp_path / "raw")
    with pytest.raises(ValueError, match=rf"layout '{kind}'.*run `dexworld prepare"):
        open_dataset(tmp_path / "raw")


def test_what_is_no_dataset_says_what_makes_one(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match="`dexworld collect` records one"):
            open_dataset(folder)
