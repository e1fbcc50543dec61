"""How many processes a machine, or the part of it that is ours, is good for."""

import os
import sys

import pytest

from dexworld.data import parallel


def test_cores_are_never_more_than_the_affinity_allows():
    assert 1 <= parallel.available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"": "250000 100000", "job": "max 100000", "job/step": "max 100000"}, 3),
        ({"job": "100000 100000", "job/step": "400000 100000"}, 1),
        ({"job/step": "50000 100000"}, 1),
        ({"job": "max 100000"}, sys.maxsize),
        ({"job": "damaged"}, sys.maxsize),
        ({}, sys.maxsize),
    ],
    ids=["of the whole container", "of a group above", "less than a core", "none", "damaged", "no file"],
)
def test_a_control_groups_quota_of_time_counts_as_cores(tmp_path, quotas, cores):
    root = tmp_path / "cgroup"
    (root / "job" / "step").mkdir(parents=True)
    for name, text in quotas.items():
        (root / name / "cpu.max").write_text(f"{text}\n")
    (tmp_path / "self").write_text("4:memory:/elsewhere\n0::/job/step\n")
    assert parallel._quota(tmp_path / "self", root) == cores
    assert parallel._quota(tmp_path / "absent", root) == sys.maxsize
