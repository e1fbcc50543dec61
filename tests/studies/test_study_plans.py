"""What a study takes is planned before anything runs: steps, parameters and hours, or why they are not known."""

import importlib.util
import re
from dataclasses import replace

import pytest

from dexworld import cli
from dexworld.studies.declared_figures import FIGURES
from dexworld.studies.declared_tables import TABLES
from dexworld.studies.study_plan import plan_text

DECLARED = TABLES | FIGURES


@pytest.mark.parametrize("name", DECLARED)
def test_on_paper_a_table_is_planned_and_not_run(name, capsys, tmp_path):
    words = ["reproduce", name, "--output", str(tmp_path / "out"), "--scale", "paper"]
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "add `--dry-run True`" in capsys.readouterr().err
    cli.main([*words, "--dry-run", "True"])
    said = capsys.readouterr().out
    assert "EgoDex, 829 h" in said
    assert "4,096" in said  # windows in a batch
    assert not (tmp_path / "out").exists()


def test_the_largest_model_of_figure_5_takes_the_hours_that_train_dry_run_says(capsys, tmp_path):
    cli.main(["reproduce", "figure5", "--output", str(tmp_path), "--scale", "paper", "--dry-run", "True"])
    planned = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("XL "))
    cli.main(["train", "--recipe", "pretrain_egodex_droid", "--dry-run", "True", "--output", str(tmp_path)])
    said = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert planned[4] == said["steps"][1]
    assert float(planned[8].replace(",", "")) == pytest.approx(float(said["GPU-hours"][1].replace(",", "")), rel=1e-3)


def test_hours_of_policies_are_planned_and_what_is_not_known_is_left_out_with_the_reason(monkeypatch):
    table = TABLES["table4"]("paper")
    rows = {line.split("  ")[0]: line.split() for line in plan_text(table, ["behaviour cloning"], [0]).splitlines()}
    assert 0 < float(rows["behaviour cloning"][7]) < 1
    assert rows["behaviour cloning"][4] == "64"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = plan_text(table, ["Diffusion Policy", "random"], [0])
    assert "GPU-hours of Diffusion Policy are left out: Diffusion Policy needs diffusers" in said
    assert "nan" not in said
    known = float(re.search(r"([\d,]+) GPU-hours of training in all", said)[1].replace(",", ""))
    assert known == pytest.approx(1697, abs=2)  # of DexWM, whose model `random` has


@pytest.mark.parametrize("wrong", [{"initial": None}, {"data": ("nothing",)}])
def test_a_control_needs_a_model(wrong):
    table = TABLES["table4"]("miniature")
    with pytest.raises(ValueError, match=r"table4: do nothing (trains nothing; name the variant|wants the data)"):
        replace(table, variants=(*table.variants[:-1], replace(table.variants[-1], **wrong)))
