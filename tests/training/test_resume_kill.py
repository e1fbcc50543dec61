"""A run that is killed ten times at random moments ends as one that never stopped: every bit, every sample once.

Kills are SIGKILL; the moment is a random step and a random fraction of a step, so that checkpoints are hit too.
"""

import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from process_fixtures import Run, state_of, train_tiny

from dexworld.training.checkpoints import latest
from dexworld.training.train_config import ScaleConfig

STEPS, BATCH = 60, 4
SETTINGS = {"steps": STEPS, "batch_size": BATCH, "checkpoint_every": 3, "keep_checkpoints": 2, "pause": 0.01}


def last_step(file: Path) -> int:
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    return int(lines[-1]) if lines else 0


def sitting(folder: Path, processes: int, scale: ScaleConfig, choose: random.Random, kill: bool) -> list[Path]:
    """One start of the command, killed or not; the ledgers that it left."""
    before = set(folder.glob("ledger-*"))
    pointer = latest(folder / "checkpoints") if (folder / "checkpoints").exists() else None
    target = (int(pointer.name[5:]) if pointer else 0) + choose.randint(1, 5)
    run = Run(folder / "errors", processes, train_tiny, folder, scale, **SETTINGS)
    if not kill:
        run.succeed()
        return sorted(set(folder.glob("ledger-*")) - before)
    (folder / "steps-0.txt").unlink(missing_ok=True)
    while last_step(folder / "steps-0.txt") < target and all(each.is_alive() for each in run.processes):
        time.sleep(0.001)
    time.sleep(choose.random() * 0.015)
    victims = choose.choice([[0], [1], [0, 1]]) if processes else [0]
    for rank in victims:
        run.kill(rank)
    codes = run.wait()
    assert all(codes[rank] == -9 for rank in victims), (codes, run.errors())
    for rank in set(range(len(codes))) - set(victims):
        assert codes[rank] == 1
        assert "LostProcess: a process of the run is gone" in run.errors()[rank]
    return sorted(set(folder.glob("ledger-*")) - before)


def batches_of(ledger: Path) -> dict[int, list[int]]:
    """Sample numbers by batch; the last line may be cut by a kill."""
    lines = [line.split() for line in ledger.read_text(encoding="utf-8").split("\n")[:-1]]
    return {int(line[0]): [int(number) for number in line[1:]] for line in lines}


@pytest.mark.parametrize(
    ("processes", "parallel", "kills"), [(0, "none", 10), (2, "ddp", 5)], ids=["one process", "two processes"]
)
def test_kills_change_no_bit_and_lose_or_repeat_no_sample(tmp_path, processes, parallel, kills):
    scale, choose = ScaleConfig(parallel=parallel), random.Random(processes)
    sittings = [sitting(tmp_path / "killed", processes, scale, choose, kill=True) for _ in range(kills)]
    assert int(latest(tmp_path / "killed" / "checkpoints").name[5:]) < STEPS
    sittings.append(sitting(tmp_path / "killed", processes, scale, choose, kill=False))
    Run(tmp_path / "errors", processes, train_tiny, tmp_path / "whole", scale, **SETTINGS).succeed()

    ends = [folder / "checkpoints" / f"step-{STEPS:08d}" for folder in (tmp_path / "killed", tmp_path / "whole")]
    for read in (state_of, lambda folder: load_file(folder / "model.safetensors")):
        killed, whole = (read(end) for end in ends)
        assert killed.keys() == whole.keys()
        assert not [name for name in whole if not torch.equal(killed[name], whole[name])]

    # What counts of a sitting is what came before the place where the next one went on.
    drawn = [[batches_of(ledger) for ledger in ledgers] for ledgers in sittings]
    starts = [min((min(batches, default=STEPS) for batches in each), default=STEPS) for each in drawn] + [STEPS]
    for place in reversed(range(len(drawn))):  # a sitting that was killed before its first batch
        starts[place] = min(starts[place], starts[place + 1])
    counter = Counter(
        number
        for each, start, end in zip(drawn, starts[:-1], starts[1:], strict=True)
        for batches in each
        for index, numbers in batches.items()
        if start <= index < end
        for number in numbers
    )
    assert counter == Counter(range(STEPS * BATCH))
