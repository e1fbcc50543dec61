"""Workers that die, hang, fail or find the disk full: the rest goes on, and what was lost is named."""

import pytest
from scripted_packs import Scripted

from dexworld.data.prepare.plan import Pack
from dexworld.data.prepare.processes import DiskFullError, Patience, in_processes, in_this_process
from dexworld.data.prepare.work import PackAgain, PackDone, PackFailed

PACKS = [Pack(number, (f"a{number}", f"b{number}"), (1, 1)) for number in range(3)]


def run_scripted(script, folder, once=False, workers=2, patience=None):
    events = []
    in_processes(Scripted(script, folder, once), PACKS, events.append, workers, patience)
    return {kind: [event for event in events if isinstance(event, kind)] for kind in (PackDone, PackAgain, PackFailed)}


def test_a_pack_whose_worker_is_killed_or_fails_once_is_written_by_another(tmp_path):
    events = run_scripted({0: "kill", 2: "fail"}, tmp_path, once=True)
    assert sorted(event.pack for event in events[PackDone]) == [0, 1, 2]
    assert sorted(event.pack for event in events[PackAgain]) == [0, 2]


def test_a_pack_that_kills_every_worker_is_reported_with_its_ids_and_the_rest_goes_on(tmp_path):
    events = run_scripted({0: "kill"}, tmp_path)
    assert sorted(event.pack for event in events[PackDone]) == [1, 2]
    (killed,) = events[PackFailed]
    assert killed.ids == ("a0", "b0")
    assert "signal 9, as when memory runs out), 2 times" in killed.reason


def test_a_pack_that_hangs_is_given_up(tmp_path):
    events = run_scripted({1: "hang"}, tmp_path, workers=3, patience=Patience(seconds=1.5, per_frame=0))
    (hung,) = events[PackFailed]
    assert hung.pack == 1
    assert "made no progress" in hung.reason


def test_a_full_disk_ends_the_preparation_at_once(tmp_path):
    with pytest.raises(DiskFullError, match="make room and start again"):
        run_scripted({0: "full"}, tmp_path)
    with pytest.raises(DiskFullError, match="make room and start again"):
        in_this_process(Scripted({0: "full"}, tmp_path), PACKS, lambda event: None)
