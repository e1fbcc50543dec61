"""No reader gives wrong data without a word. Run this file to write its table into docs/data.md."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]  # the fixtures, where the table is written

from reader_faults import READERS

DOCS, BEGIN, END = Path(__file__).parents[2] / "docs" / "data.md", "<!-- faults -->\n", "<!-- end of faults -->"
RIGHT = "right"
# What comes of each fault by reader: "right", or a refusal or a warning with the words that name the cause.
NO_VIDEO = "refused: mp4: (holds no video stream|can't be opened)"
TABLE: dict[str, dict[str, str]] = {
    "rotated": {
        "EgoDex": RIGHT,
        "DROID": RIGHT,
        "DROID (LeRobot)": RIGHT,
        "LeRobot v3": RIGHT,
        "triplets": RIGHT,
        "hand files": RIGHT,
        "goal pictures": RIGHT,
    },
    "trimmed": {
        "EgoDex": RIGHT,
        "DROID": RIGHT,
        "DROID (LeRobot)": RIGHT,
        "LeRobot v3": RIGHT,
        "triplets": RIGHT,
        "hand files": RIGHT,
    },
    "uneven": {
        "EgoDex": RIGHT,
        "DROID": RIGHT,
        "DROID (LeRobot)": "refused: uneven",
        "LeRobot v3": "refused: uneven",
        "triplets": RIGHT,
        "hand files": RIGHT,
    },
    "scaled units": {
        "EgoDex": "refused: the poses aren't in metres",
        "DROID": "refused: cartesian_position holds values beyond 6.5",
        "DROID (LeRobot)": "refused: cartesian_position holds values beyond 6.5",
        "LeRobot v3": "refused: in millimetres",
        "RoboCasa": "refused: keypoint_pose holds values beyond 100",
        "triplets": "refused: in millimetres",
        "hand files": "refused: in millimetres",
    },
    "swapped sides": {
        "EgoDex": "refused: left and right are exchanged",
        "LeRobot v3": "refused: left and right are exchanged",
        "triplets": "refused: left and right are exchanged",
        "hand files": "refused: left and right are exchanged",
    },
    "transposed sizes": {
        "EgoDex": "refused: height and width are exchanged",
        "DROID": "refused: height and width are exchanged",
        "DROID (LeRobot)": RIGHT,
        "LeRobot v3": RIGHT,
        "RoboCasa": "refused: height and width are exchanged",
        "triplets": "refused: height and width are exchanged",
        "hand files": "refused: give the height first",
        "goal pictures": "refused: must be of one size",
    },
    "missing columns": {
        "EgoDex": "refused: rightIndexFingerTip is missing",
        "DROID": "refused: gripper_position is missing",
        "DROID (LeRobot)": "refused: no column .*cartesian_position",
        "LeRobot v3": "refused: no column hand",
        "RoboCasa": "refused: robot0_base_pos is missing",
        "triplets": "refused: holds no keypoints_valid",
        "hand files": "refused: holds no valid flags",
        "goal pictures": "refused: neither a goal picture .* nor goal.txt",
    },
    "extra columns": {
        "EgoDex": RIGHT,
        "DROID": RIGHT,
        "DROID (LeRobot)": RIGHT,
        "LeRobot v3": RIGHT,
        "RoboCasa": RIGHT,
        "triplets": RIGHT,
        "hand files": "refused: unknown keys pred_cam_t",
        "goal pictures": RIGHT,
    },
    "wrong pointers": {
        "EgoDex": "refused: 10 frames, but 9 poses",
        "DROID": "refused: 12345678.mp4: the video of camera ext2 is missing",
        "DROID (LeRobot)": "refused: no data file of chunk 0, file 7",
        "LeRobot v3": "refused: file-000.parquet: episode 2",
        "RoboCasa": "refused: demo_9: named by mask/train, but not there",
        "triplets": "refused: 4 files of 2 triplets are missing: .*c.mp4",
        "hand files": r"refused: keypoints must be \(9, 2, 21, 3\)",
    },
    "truncated video": {
        "EgoDex": NO_VIDEO,
        "DROID": NO_VIDEO,
        "DROID (LeRobot)": NO_VIDEO,
        "LeRobot v3": NO_VIDEO,
        "triplets": NO_VIDEO,
        "hand files": NO_VIDEO,
        "goal pictures": "refused: goal.jpg: .*ends early",
    },
    "truncated labels": {
        "EgoDex": "refused: 0.hdf5: can't be read",
        "DROID": "refused: trajectory.h5: can't be read",
        "DROID (LeRobot)": "refused: file-000.parquet: ",
        "LeRobot v3": "refused: file-000.parquet: ",
        "RoboCasa": "refused: a.hdf5: can't be read",
        "triplets": "refused: a.npz: can't be read",
        "hand files": "refused: film.npz: can't be read",
    },
}


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
    """The table in Markdown; a dash where a layout can't have the fault."""
    rows = [["fault", *READERS], ["---"] * (len(READERS) + 1)]
    rows += [[fault, *(cells.get(name, "–").split(":")[0] for name in READERS)] for fault, cells in TABLE.items()]
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
    READERS[reader].faults[fault](tmp_path / "data")
    word, said = outcome(reader, tmp_path / "data", truth, caplog)
    expected, _, cause = TABLE[fault][reader].partition(": ")
    assert word == expected, said
    assert re.search(cause, said), said


def test_the_table_has_every_fault_and_is_the_one_in_the_docs():
    faults = {name: set(reader.faults) for name, reader in READERS.items()}
    assert {name: {fault for fault, cells in TABLE.items() if name in cells} for name in READERS} == faults
    written = DOCS.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert written == table(), f"run {Path(__file__).name} to write the table"


if __name__ == "__main__":
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")
