"""More than two thousand damaged files of every layout: no crash, no hang, no silent skip, no bad value in a batch.

What one case must hold is said in `fuzz_cases.py`; `DEXWORLD_FUZZ_CASES=2000` runs as many of each layout.
"""

import os
from collections import Counter

from fuzz_cases import FuzzCase
from fuzz_layouts import LAYOUTS, OWN

from dexworld.data.parallel import Workers

CASES = int(os.environ.get("DEXWORLD_FUZZ_CASES", "240"))  # of each layout
IDLE = {"unfit", "unchanged"}  # cases that damaged nothing
GOOD = {"detected", "harmless", "plausible"}
MEMORY = 700 << 20  # bytes that a process may ever have used; PyTorch and PyArrow alone take half of it


def test_damage_is_named_or_harmless_and_reaches_neither_neighbours_nor_batches(tmp_path):
    layouts = [*LAYOUTS, "latents"]
    found = {name: Counter[str]() for name in layouts}
    bad, most = [], 0
    with Workers(FuzzCase(tmp_path), workers=2) as workers:
        for case in workers.outcomes([(name, number) for name in layouts for number in range(CASES)]):
            outcome, detail, peak = case.result or ("ended", str(case.error), 0)
            found[case.item[0]][outcome] += 1
            most = max(most, peak)
            if outcome not in GOOD | IDLE:
                bad.append(f"{case.item} {outcome}: {detail}")
    assert not bad, f"{len(bad)} cases:\n" + "\n".join(bad)
    assert most < MEMORY, f"a process took {most / 2**20:.0f} MiB"
    idle = sum(each[outcome] for each in found.values() for outcome in IDLE)
    assert idle <= 0.07 * CASES * len(layouts)  # 9 x 240 x 0.93 > 2,000
    for layout, each in found.items():
        own, damaged = layout in OWN or layout == "latents", sum(each[outcome] for outcome in GOOD)
        assert each["detected"] >= (0.85 if own else 0.4) * damaged, (layout, each)
        assert not own or not each["plausible"], (layout, each)
