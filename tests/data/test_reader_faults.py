"""No reader gives wrong data without a word. The table in docs/data.md is this one: run the file to write it there."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from reader_faults import READERS

DOCS, MARKS = Path(__file__).parents[2] / "docs" / "data.md", ("<!-- faults -->\n", "<!-- end of faults -->\n")
# What comes of each fault: "right", or the cause that a refusal or a warning must name.
TABLE: dict[str, dict[str, str]] = {
    "rotated": {
        "EgoDex": "right",
    },
}


def looked_at(reader: str, folder: Path, caplog, truth) -> tuple[str, str]:
    """The outcome and what was said of it."""
    caplog.clear()
    try:
        found = READERS[reader].read(folder)
    except (ValueError, FileNotFoundError) as error:
        return "refused", str(error)
    refused = found.pop("refused", "")
    wrong = [name for name, arrays in found.items() if not same(arrays, truth[name])]
    if wrong or (found.keys() != truth.keys() and not refused):
        return ("warned" if caplog.text else "silent"), f"{wrong} of {[*found]}, {refused} {caplog.text}"
    return ("refused", refused) if refused else ("right", caplog.text)


def same(arrays, truth) -> bool:
    """Equal labels, and pictures up to what compressing them once more does."""
    if arrays.keys() != truth.keys() or any(arrays[name].shape != truth[name].shape for name in truth):
        return False
    pictures = np.abs(arrays["pictures"].astype(float) - truth["pictures"]).mean(axis=(-3, -2, -1)).max()
    return pictures < 2.5 and all(
        np.allclose(arrays[name], truth[name], atol=1e-4) for name in set(truth) - {"pictures"}
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound dataset of each layout and what is read of it."""
    root, made = tmp_path_factory.mktemp("sound"), {}

    def of(reader):
        if reader not in made:
            (root / reader / "data").mkdir(parents=True)
            READERS[reader].write(root / reader / "data")
            made[reader] = root / reader / "data", READERS[reader].read(root / reader / "data")
        return made[reader]

    return of


@pytest.mark.parametrize(
    ("reader", "fault"), [(name, fault) for name, each in READERS.items() for fault in each.faults]
)
def test_a_fault_is_read_right_or_told(reader, fault, sound, tmp_path, caplog):
    folder, truth = sound(reader)
    shutil.copytree(folder, tmp_path / "data")
    READERS[reader].faults[fault](tmp_path / "data")
    word, said = looked_at(reader, tmp_path / "data", caplog, truth)
    print("CELL", fault, "|", reader, "|", word, "|", said[:400].replace("\n", " "))
