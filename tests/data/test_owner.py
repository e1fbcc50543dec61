"""One command at a time writes into a folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dexworld.data.owner import GONE_S, NAME, owned
from dexworld.errors import UsageError

HOLD = "import sys, time; from pathlib import Path; from dexworld.data.owner import owned\n"
HOLD += "with owned(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def hold(folder) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_until_the_first_is_gone_however_it_went(tmp_path):
    folder = tmp_path / "run"
    first = hold(folder)
    with (
        pytest.raises(UsageError, match=rf"{folder}: `-c .*process {first.pid} on .* is writing into it"),
        owned(folder),
    ):
        pass
    first.kill()
    first.wait()
    with owned(folder):
        assert json.loads((folder / NAME).read_text())["pid"] == os.getpid()


def test_what_was_written_stays_and_the_mark_goes(tmp_path):
    with owned(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["file"]
    with owned(tmp_path / "unused"):
        assert (tmp_path / "unused").is_dir()
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(("age", "lives"), [(0.0, True), (GONE_S - 0.5, False), (GONE_S + 5, False)])
def test_an_owner_on_another_machine_lives_as_long_as_its_mark_is_touched(tmp_path, age, lives):
    mark = tmp_path / NAME
    mark.write_text(json.dumps({"host": "another", "pid": 1, "since": "today", "command": "dexworld train"}))
    os.utime(mark, (time.time() - age,) * 2)
    if lives:
        threading.Timer(0.3, os.utime, [mark]).start()
        with (
            pytest.raises(UsageError, match=r"`dexworld train` \(process 1 on another, since today\)"),
            owned(tmp_path),
        ):
            pass
    else:
        with owned(tmp_path):
            pass
        assert not mark.exists()


def test_a_damaged_mark_of_nobody_is_no_obstacle(tmp_path):
    (tmp_path / NAME).write_bytes(b"\x00{")
    with owned(tmp_path):
        pass


@pytest.mark.parametrize("moment", ["truncate", "close"])
def test_a_stop_while_a_folder_is_taken_or_left_leaves_no_mark(tmp_path, monkeypatch, moment):
    """A signal arrives inside the system call that stands in the middle of either."""
    call = getattr(os, moment)

    def interrupted(*arguments):
        call(*arguments)
        signal.raise_signal(signal.SIGTERM)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, interrupted)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyboardInterrupt), owned(tmp_path / "run"):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "run").exists()


def test_a_stop_ends_the_wait_for_an_owner_on_another_machine(tmp_path):
    mark = tmp_path / NAME
    mark.write_text(json.dumps({"host": "another", "pid": 1, "since": "today", "command": "dexworld train"}))
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), owned(tmp_path):
        pass
    assert time.monotonic() - begin < GONE_S / 10
    assert mark.exists()
