import json
import sys

import numpy as np
import pytest

from dexworld.evaluation.results import write_results


def test_figures_keep_their_order_and_the_run_comes_last(tmp_path):
    path = write_results(
        tmp_path / "out", {"b": 1.5, "a": {"n": np.int64(3)}, "c": np.arange(2.0)}, seed=4, seeds=[9, 7, 8]
    )
    content = json.loads(path.read_text())
    assert path == tmp_path / "out" / "results.json"
    assert list(content) == ["b", "a", "c", "run"]
    assert content["a"] == {"n": 3}
    assert content["c"] == [0.0, 1.0]
    assert content["run"]["seed"] == 4
    assert content["run"]["seeds"] == {"first": 7, "last": 9, "count": 3}
    assert content["run"]["versions"]["python"] == sys.version.split()[0]


def test_the_command_line_is_recorded_without_the_place_it_is_installed_in(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/dexworld", "evaluate", "open-loop", "--name", "two words"])
    run = json.loads(write_results(tmp_path, {}).read_text())["run"]
    assert run["command"] == "dexworld evaluate open-loop --name 'two words'"


def test_a_nan_is_refused_by_name_and_leaves_the_old_file(tmp_path):
    path = write_results(tmp_path, {"value": 1})
    before = path.read_text()
    with pytest.raises(ValueError, match=r"reach\.success"):
        write_results(tmp_path, {"reach": {"success": float("nan")}})
    assert path.read_text() == before
    assert [item.name for item in tmp_path.iterdir()] == ["results.json"]


def test_what_json_cannot_hold_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="thing is a object"):
        write_results(tmp_path, {"thing": object()})
    with pytest.raises(ValueError, match="reserved"):
        write_results(tmp_path, {"run": 1})
