"""Recordings for Rerun: what every verb writes is read back by Rerun's own reader."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from dexworld import cli
from dexworld.data.source import FolderSource
from dexworld.evaluation.atomic import AtomicConfig
from dexworld.planning.protocols import IterationStatistics, PlanStatistics
from dexworld.report.demo import PlanRecord
from dexworld.report.imagine import Imagined
from dexworld.report.rerun_log import (
    MAX_EPISODES,
    log_episodes,
    log_imagined,
    log_open_loop,
    log_played,
    log_tasks,
    rerun_log,
)
from dexworld.track import ArrayFrames
from hand_fixtures import curled_hands, hand_track

pytest.importorskip("rerun", reason="the extra `viz` is not installed; `make interop` has it")
HEIGHT, WIDTH = 32, 48


def entries(path):
    """How many rows each entity of a recording has."""
    from rerun.chunk import RrdReader

    rows: dict[str, int] = {}
    for chunk in RrdReader(str(path)).stream():
        name = chunk.entity_path.removeprefix("/").replace("\\", "")
        rows[name] = rows.get(name, 0) + chunk.num_rows
    return rows


@pytest.fixture
def episode():
    """Three frames of two hands, with pictures."""
    track = hand_track(curled_hands(3), HEIGHT, WIDTH)
    return replace(track, fps=5.0, frames=ArrayFrames(np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)))


@pytest.fixture
def source(episode, tmp_path):
    class Episodes(FolderSource):
        kind = "mine"

        def __getitem__(self, index):
            return episode

    return Episodes(tmp_path / "mine", tuple(f"{index:02d}" for index in range(MAX_EPISODES + 2)), ())


def test_a_dataset_becomes_frames_hands_and_cameras_of_its_first_episodes(source, tmp_path):
    with rerun_log(tmp_path / "new" / "data.rrd") as log:
        log_episodes(log, source)
    found = entries(tmp_path / "new" / "data.rrd")
    assert found["episode 00/camera/image"] == 3
    assert found["episode 09/camera"] == 6  # pose and lens
    assert found["episode 00/left hand"] == found["episode 00/right hand/bones"] == 3
    assert not any(name.startswith("episode 10") for name in found)


def test_a_planned_episode_becomes_what_was_seen_imagined_and_found(make_episode, moving_disc, episode, tmp_path):
    history = (IterationStatistics(2.0, 3.0, 8), IterationStatistics(1.0, 2.0, 8))
    made = PlanStatistics(0.5, 3, history, (), 16, 16, 1.0, {"latents": 0.4, "pixels": 0.6})
    plans = tuple(PlanRecord(each, each, 0.5, statistics=made) for each in moving_disc[1:3])
    with rerun_log(tmp_path / "plan.rrd") as log:
        log_played(log, make_episode("reach", 900_001, plans=plans, seen=episode))
    found = entries(tmp_path / "plan.rrd")
    assert {name: found[f"reach 900001/{name}"] for name in ("cost", "terms/latents", "imagined", "film", "goal")} == {
        **dict.fromkeys(("cost", "terms/latents", "imagined"), 2),
        "film": len(moving_disc),
        "goal": 1,
    }
    assert found["reach 900001/right hand"] == 3


def test_imagined_motions_become_pictures_with_the_commanded_hand(episode, tmp_path):
    points = np.ones((1, 3, 12, 2))
    pictures = np.zeros((1, 3, HEIGHT, WIDTH, 3), np.uint8)
    seen = np.ones((1, 3, 12), bool)
    imagined = Imagined(("left",), pictures[0, 0], pictures, True, points, seen, points, np.ones((1, 2)), 5.0, "mine")
    with rerun_log(tmp_path / "imagine.rrd") as log:
        log_imagined(log, imagined, episode, 0, AtomicConfig(steps=2))
    found = entries(tmp_path / "imagine.rrd")
    assert found["left/camera/image"] == found["left/right hand"] == found["left/camera/image/told"] == 3
    assert found["left/change"] == 2


def test_evaluations_become_curves(source, tmp_path):
    played = {"distances": [0.4, 0.2], "seconds": [1.5], "success": True, "moves": []}
    with rerun_log(tmp_path / "tasks.rrd") as log:
        log_tasks(log, [{"seed": 4, "reason": "no object"}, {"task": "reach", "seed": 5, "played": {"random": played}}])
    assert entries(tmp_path / "tasks.rrd")["reach 5/random/distance to the goal, metres"] == 2
    with rerun_log(tmp_path / "open.rrd") as log:
        log_open_loop(log, {"curves": {"mse_ratio": [0.5, None, 0.7], "seconds": [1, 2, 3]}}, source, 1.0)
    found = entries(tmp_path / "open.rrd")
    assert found["curves/mse_ratio"] == 2
    assert "curves/seconds" not in found
    assert found["episode 00/camera/image"] == 3


def test_a_command_that_fails_or_stops_leaves_no_file(tmp_path):
    with pytest.raises(AttributeError, match="frames"), rerun_log(tmp_path / "half.rrd") as log:
        log.track("half", None)
    assert not list(tmp_path.iterdir())
    with rerun_log(None) as log:
        assert log is None


@pytest.mark.parametrize(
    ("name", "said"), [("a.txt", "end in .rrd"), ("folder.rrd", "is a folder"), ("file/a.rrd", "is no folder")]
)
def test_a_file_that_cannot_be_written_is_told_before_any_work(tmp_path, capsys, name, said):
    (tmp_path / "folder.rrd").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        cli.main(["imagine", "--output", str(tmp_path / "out"), "--rerun", str(tmp_path / name)])
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_without_the_extra_a_command_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(SystemExit):
        cli.main(["imagine", "--output", str(tmp_path / "out"), "--rerun", str(tmp_path / "a.rrd")])
    assert "pip install 'dexworld[viz]'" in capsys.readouterr().err
