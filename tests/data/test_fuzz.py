"""More than two thousand damaged files of every layout: no crash, no hang, no silent skip, no bad value in a batch.

What one case must hold is said in `fuzz_worker.py`; `DEXWORLD_FUZZ_CASES=2000` runs as many of each layout, and
`DEXWORLD_FUZZ_REPORT=FILE` keeps every case's outcome as JSON.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

CASES = int(os.environ.get("DEXWORLD_FUZZ_CASES", "240"))  # of each layout
GROUPS = (  # one process each: starting one takes as long as a hundred cases
    ("egodex", "droid", "robocasa"),
    ("lerobot", "droid-lerobot", "latents"),
    ("episodes", "prepared", "prepared-jpeg"),
)
IDLE = {"unfit", "unchanged"}  # cases that damaged nothing
GOOD = {"detected", "harmless", "plausible"}
OWN = {"episodes", "prepared", "prepared-jpeg", "latents"}
MEMORY = 700 << 20  # bytes that a process may ever have used; PyTorch and PyArrow alone take half of it
PROCESSES = 20  # of one group, before its crashes are plenty


def outcomes_of(layouts: tuple[str, ...], folder: Path) -> list[dict]:
    """What came of each case; a process that dies is a case of its own, and the next goes on behind it."""
    cases: list[dict] = []
    for _ in range(PROCESSES):
        command = [sys.executable, str(Path(__file__).with_name("fuzz_worker.py")), str(folder), ",".join(layouts)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(
            [*command, str(CASES), str(len(cases))], capture_output=True, text=True, env=environment, timeout=3000
        )
        begun: dict = {}
        for line in map(json.loads, ended.stdout.splitlines()):
            if "outcome" in line:
                cases.append(begun | line)
                begun = {}
            elif "peak" in line:
                assert line["peak"] < MEMORY, f"{layouts} took {line['peak'] / 2**20:.0f} MiB"
                return cases
            else:
                begun = line
        assert begun, f"the process ended outside of a case: {ended.stderr[-2000:]}"
        cases.append(begun | {"outcome": f"ended by {ended.returncode}", "detail": ended.stderr[-1500:]})
        shutil.rmtree(folder)
    return cases


@pytest.mark.parametrize("layouts", GROUPS, ids=" ".join)
def test_damage_is_named_or_harmless_and_reaches_neither_neighbours_nor_batches(layouts, tmp_path):
    cases = outcomes_of(layouts, tmp_path / "data")
    if "DEXWORLD_FUZZ_REPORT" in os.environ:
        with open(os.environ["DEXWORLD_FUZZ_REPORT"], "a", encoding="utf-8") as file:
            file.writelines(json.dumps(case) + "\n" for case in cases)
    bad = [case for case in cases if case["outcome"] not in GOOD | IDLE]
    told = "\n".join(
        " | ".join(str(case[key]) for key in ("layout", "number", "place", "kind", "outcome", "detail")) for case in bad
    )
    assert not bad, f"{len(bad)} of {len(cases)} cases:\n{told}"
    assert len(cases) == CASES * len(layouts)
    idle = sum(case["outcome"] in IDLE for case in cases)
    assert len(cases) - idle >= 0.93 * len(cases)  # 9 x 240 x 0.93 > 2,000
    for layout in layouts:
        found = Counter(case["outcome"] for case in cases if case["layout"] == layout)
        damaged = sum(found[outcome] for outcome in GOOD)
        assert found["detected"] >= (0.85 if layout in OWN else 0.4) * damaged, found
        assert layout not in OWN or not found["plausible"], found
