"""Work in processes: results in order, errors and deaths by item, nothing left running; and how many are worth it."""

import multiprocessing
import os
import signal
import sys
import time
from functools import partial

import pytest
from scripted_job import NeverArrives, Scripted, StoppedInImport, imports, wait_in_processes, write_and_wait

from dexworld.data import parallel
from dexworld.data.parallel import GRACE_S, DiskFullError, WorkerDied, Workers, parallel_map

SQUARES = [number * number for number in range(20)]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items_or_as_they_are_done(workers, monkeypatch):
    monkeypatch.setattr(parallel, "AHEAD", 2)
    job = Scripted({})
    assert list(parallel_map(job, range(20), workers)) == SQUARES
    assert sorted(parallel_map(job, range(20), workers, ordered=False)) == SQUARES


def test_workers_are_used_again_after_a_map_that_was_left_early():
    with Workers(Scripted({}), 2) as workers:
        results = workers.map(iter(range(20)))
        assert next(results) == 0
        results.close()
        assert list(workers.map(range(20))) == SQUARES


def test_items_are_taken_when_a_worker_is_free():
    taken = []

    def items():
        for number in range(6):
            taken.append(number)
            yield number

    with Workers(Scripted({}), 2) as workers:
        for count, _ in enumerate(workers.outcomes(items(), ordered=False), 1):
            assert len(taken) <= count + 2
    assert taken == list(range(6))


def test_an_item_that_kills_its_processes_costs_only_itself_and_is_named():
    with Workers(Scripted({1: "kill", 2: "fail"}), 2) as workers:
        found = [each.result if each.error is None else str(each.error) for each in workers.outcomes(range(4))]
    assert [found[0], found[3]] == [0, 9]
    assert "signal 9, as when memory runs out), while at 1" in found[1]
    assert found[2] == "a defect"


def test_the_first_error_of_a_map_is_raised():
    with pytest.raises(WorkerDied, match="while at 3"):
        list(parallel_map(Scripted({3: "kill"}), range(6), 2))
    for workers in (1, 2):
        with pytest.raises(RuntimeError, match="a defect"):
            list(parallel_map(Scripted({3: "fail"}), range(6), workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_the_work_at_once(workers):
    with (
        Workers(Scripted({0: "full"}), workers) as pool,
        pytest.raises(DiskFullError, match="make room and start again"),
    ):
        list(pool.outcomes(range(4)))


def test_processes_that_can_not_start_are_an_error_and_no_item_is_blamed():
    with pytest.raises(RuntimeError, match="no worker process can be started"):
        list(parallel_map(NeverArrives(), [1, 2, 3], 2))


def test_a_worker_that_is_asked_to_end_while_it_imports_ends_without_a_word(capfd):
    with pytest.raises(RuntimeError, match="no worker process can be started"):
        list(parallel_map(StoppedInImport(), [1, 2, 3], 2))
    with Workers(imports, 2) as pool:
        assert all(isinstance(outcome.error, WorkerDied) for outcome in pool.outcomes(["a", "b"]))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_a_main_process_that_is_stopped_or_killed_and_leave_no_half_file(tmp_path, number):
    main = multiprocessing.get_context("spawn").Process(
        target=wait_in_processes, args=(partial(write_and_wait, folder=tmp_path),)
    )
    main.start()
    while len(pids := [path.read_text() for path in tmp_path.glob("*.pid")]) < 2 or "" in pids:
        time.sleep(0.02)
    begin = time.monotonic()
    os.kill(main.pid, number)
    main.join()
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() - begin < GRACE_S, "a worker outlived its main process"
        time.sleep(0.02)
    assert not [path.name for path in tmp_path.iterdir() if path.suffix != ".pid"]


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
)
def test_a_control_groups_quota_of_time_counts_as_cores(tmp_path, quotas, cores):
    root = tmp_path / "cgroup"
    (root / "job" / "step").mkdir(parents=True)
    for name, text in quotas.items():
        (root / name / "cpu.max").write_text(f"{text}\n")
    (tmp_path / "self").write_text("4:memory:/elsewhere\n0::/job/step\n")
    assert parallel._quota(tmp_path / "self", root) == cores
    assert parallel._quota(tmp_path / "absent", root) == sys.maxsize
