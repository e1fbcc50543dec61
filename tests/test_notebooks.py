"""The notebooks run from top to bottom, here with small numbers and without a kernel."""

import json
from pathlib import Path

import pytest
import torch

NOTEBOOKS = Path(__file__).resolve().parent.parent / "examples" / "notebooks"
SMALL = {
    "first_steps": {"FRAMES": 4, "STEPS": 2, "SAMPLES": 12, "ITERATIONS": 1},
    "your_own_data": {"EPISODES": 2, "FRAMES": 12, "STEPS": 2, "PRESET": "debug"},
}


def cells(name):
    return json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": name}
    try:
        for number, cell in enumerate(each for each in cells(name) if each["cell_type"] == "code"):
            exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), names)
            if number == 0:
                assert set(SMALL[name]) <= set(names)
                names |= SMALL[name]
    finally:
        torch.set_grad_enabled(True)
    assert names["imagined"].images.shape[0] == 1


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_notebook_is_stored_without_outputs(name):
    code = [cell for cell in cells(name) if cell["cell_type"] == "code"]
    assert code[0]["metadata"]["tags"] == ["parameters"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
