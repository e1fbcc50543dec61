"""No reader gives wrong data without a word. Run this file to write its table into docs/data.md."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]  # the fixtures, where the table is written

from reader_faults import READERS

ORDER = list(READERS["triplets"].faults)
DOCS, BEGIN, END = Path(__file__).parents[2] / "docs" / "data.md", "<!-- faults -->\n", "<!-- end of faults -->"


def outcome(reader: str, folder: Path, truth: dict, caplog) -> tuple[str, str]:
    """`right`, `refused`, `warned` or `silent`, and what was said."""
    caplog.clear()
    try:
        found = READERS[reader].read(folder)
    except (ValueError, FileNotFoundError) as error:
        return "refused", str(error)
    refused = str(found.pop("refused", ""))
    wrong = [name for name, arrays in found.items() if not same(arrays, truth[name])]
    if wrong or (found.keys() != truth.keys() and not refused):
        return (
            "warned" if caplog.text else "silent"
        ), f"of {[*found]}, {wrong} come out wrong. {refused} {caplog.text}"
    return ("refused", refused) if refused else ("right", caplog.text)


def same(arrays: dict, truth: dict) -> bool:
    """Equal labels, and pictures equal up to what compressing them once more does."""
    if arrays.keys() != truth.keys() or any(arrays[name].shape != truth[name].shape for name in truth):
        return False
    labels = [name for name in truth if name != "pictures"]
    pictures = np.abs(arrays["pictures"].astype(float) - truth["pictures"]).mean(axis=(-3, -2, -1)).max()
    return pictures < 2.5 and all(np.allclose(arrays[name], truth[name], atol=1e-4) for name in labels)


def table() -> str:
    """What comes of every fault, in Markdown; a dash where a layout can't have it."""
    faults = sorted({fault for reader in READERS.values() for fault in reader.faults}, key=ORDER.index)
    rows = [["fault", *READERS], ["---"] * (len(READERS) + 1)]
    for fault in faults:
        outcomes = [reader.faults.get(fault, ("", "–"))[1] for reader in READERS.values()]
        rows.append([fault, *(each.partition(":")[0] for each in outcomes)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound dataset of a layout, and what is read of it; each is written once."""
    root, made = tmp_path_factory.mktemp("sound"), {}

    def of(reader):
        folder = root / reader / "data"
        if reader not in made:
            folder.mkdir(parents=True)
            READERS[reader].write(folder)
            made[reader] = READERS[reader].read(folder)
            assert "refused" not in made[reader]
        return folder, made[reader]

    return of


@pytest.mark.parametrize(
    ("reader", "fault"), [(name, fault) for name, each in READERS.items() for fault in each.faults]
)
def test_a_fault_is_read_right_or_named(reader, fault, sound, tmp_path, caplog):
    folder, truth = sound(reader)
    shutil.copytree(folder, tmp_path / "data")
    inflict, expected = READERS[reader].faults[fault]
    inflict(tmp_path / "data")
    word, said = outcome(reader, tmp_path / "data", truth, caplog)
    expected, _, cause = expected.partition(": ")
    assert word == expected, said
    assert re.search(cause, said), said


def test_the_table_of_the_docs_is_what_comes_of_the_faults():
    written = DOCS.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert written == table(), f"run {Path(__file__).name} to write the table"


if __name__ == "__main__":
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")
