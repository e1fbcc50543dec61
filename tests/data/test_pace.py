"""How far long work is, in a log file."""

import logging

import pytest

from dexworld.cli.bars import counted
from dexworld.data import pace
from dexworld.training.fit import TrainingLog


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_minute_says_done_total_rate_and_time_left(clock, caplog):
    caplog.set_level(logging.INFO)
    for _ in counted("clips")(range(5)):
        clock[0] += 40
    lines = ["clips: 5 to do", "clips: 2 of 5, 1.5 a minute, 2.0 min left", "clips: 4 of 5, 1.5 a minute, 0.7 min left"]
    assert [line.strip() for line in caplog.messages] == lines


def test_training_says_how_long_it_takes_and_speaks_once_a_minute_between_its_reports(clock, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    log = TrainingLog(tmp_path, steps=100, start=10)
    for step in range(11, 16):
        clock[0] += 30
        log.advance(step)
        if step == 13:
            log.report(step, {"loss": 0.5})
    assert [line.strip() for line in caplog.messages] == [
        "training steps: 90 to do",
        "training steps: 12 of 100, 2 a minute, 44.0 min left",
        "step 13 of 100, 2 a minute, 43.5 min left: loss 0.5",
        "training steps: 15 of 100, 2 a minute, 42.5 min left",
    ]
