"""More than two thousand damaged files of every layout: no crash, no hang, no silent skip, no bad value in a batch.

What one case must hold is said in `fuzz_worker.py`; `DEXWORLD_FUZZ_CASES=2000` runs as many of each layout.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from fuzz_layouts import OWN

CASES = int(os.environ.get("DEXWORLD_FUZZ_CASES", "240"))  # of each layout
GROUPS = (  # one process each: starting one takes as long as a hundred cases
    ("egodex", "droid", "robocasa"),
    ("lerobot", "droid-lerobot", "latents"),
    ("episodes", "prepared", "prepared-jpeg"),
)
IDLE = {"unfit", "unchanged"}  # cases that damaged nothing
GOOD = {"detected", "harmless", "plausible"}
MEMORY = 700 << 20  # bytes that a process may ever have used; PyTorch and PyArrow alone take half of it
PROCESSES = 20  # of one group, before its crashes are plenty


def outcomes_of(layouts: tuple[str, ...], folder: Path) -> list[dict]:
    """What came of each case; a process that dies is a case of its own, and the next goes on behind it."""
    cases: list[dict] = []
    command = [sys.executable, str(Path(__file__).with_name("fuzz_worker.py")), str(folder), ",".join(layouts)]
    for _ in range(PROCESSES):
        now = [*command, str(CASES), str(len(cases))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(now, capture_output=True, text=True, env=environment, timeout=3000)
        case: dict = {}
        for line in map(json.loads, ended.stdout.splitlines()):
            if "peak" in line:
                assert line["peak"] < MEMORY, f"{layouts} took {line['peak'] / 2**20:.0f} MiB"
                return cases
            case |= line
            if "outcome" in line:
                cases.append(case)
                case = {}
        assert case, f"the process ended outside of a case: {ended.stderr[-2000:]}"
        cases.append(case | {"outcome": f"ended by {ended.returncode}", "detail": ended.stderr[-1500:]})
        shutil.rmtree(folder)
    return cases


@pytest.mark.parametrize("layouts", GROUPS, ids=" ".join)
def test_damage_is_named_or_harmless_and_reaches_neither_neighbours_nor_batches(layouts, tmp_path):
    cases = outcomes_of(layouts, tmp_path / "data")
    bad = [case for case in cases if case["outcome"] not in GOOD | IDLE]
    lines = "\n".join(" | ".join(map(str, case.values())) for case in bad)
    assert not bad, f"{len(bad)} of {len(cases)} cases:\n{lines}"
    assert len(cases) == CASES * len(layouts)
    idle = sum(case["outcome"] in IDLE for case in cases)
    assert len(cases) - idle >= 0.93 * len(cases)  # 9 x 240 x 0.93 > 2,000
    for layout in layouts:
        found = Counter(case["outcome"] for case in cases if case["layout"] == layout)
        own, damaged = layout in OWN or layout == "latents", sum(found[outcome] for outcome in GOOD)
        assert found["detected"] >= (0.85 if own else 0.4) * damaged, found
        assert not own or not found["plausible"], found
