"""Studies: figures in closed form, what tables declare, and each declared table at its smallest size."""

import json
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dexworld import cli
from dexworld.data.recordings import EpisodeWriter
from dexworld.evaluation.intervals import seed_interval
from dexworld.models.world_model import model_class, preset
from dexworld.planning.policies import POLICIES
from dexworld.report.study_page import write_study_page
from dexworld.studies import declared_figures, declared_tables
from dexworld.studies.declared_figures import FIGURES
from dexworld.studies.declared_tables import TABLES, paper_weight
from dexworld.studies.study import Published, Variant, changed
from dexworld.studies.study_columns import at_moments
from dexworld.studies.study_figures import markdown, of_figure, summary
from dexworld.studies.study_measures import TaskMeasure
from dexworld.studies.study_runs import Study, kind_of
from dexworld.track import Track
from square_fixtures import square_episode, square_frames

FIRST = 908_000  # first validation scene of a study
DECLARED = TABLES | FIGURES


def test_the_interval_over_three_seeds_is_students():
    interval = seed_interval(np.array([1.0, 2.0, 3.0]))
    assert interval.value == 2.0
    assert interval.high - 2.0 == pytest.approx(4.303 / 3**0.5)  # standard deviation 1, two degrees of freedom
    assert 2.0 - interval.low == pytest.approx(4.303 / 3**0.5)


def test_one_seed_has_a_figure_but_no_interval():
    interval = seed_interval(np.array([0.7]))
    assert interval.value == 0.7
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


def test_a_figure_takes_its_moment_of_the_rollout_or_all_of_it():
    figures = {figure.name: figure for figure in at_moments()}
    sums = {"mse": np.arange(40.0).reshape(2, 20), "copy_last_mse": np.full((2, 20), 2.0)}
    assert of_figure(figures["error_1s"], sums)[0].tolist() == [4.0, 24.0]
    top, bottom = of_figure(replace(figures["error_end"], seconds=None), sums)
    assert (top.tolist(), bottom.tolist()) == ([190.0, 590.0], [40.0, 40.0])
    assert of_figure(replace(figures["error_end"], denominator=None), sums)[1].tolist() == [1.0, 1.0]


def test_the_papers_weight_is_rescaled_with_sigma_and_picture():
    assert paper_weight((224, 392), 2.0) == 100.0
    assert paper_weight((112, 196), 2.0) == pytest.approx(25.0)  # an empty map of a quarter of the size costs 4 times
    assert paper_weight((224, 392), 4.0) == pytest.approx(25.0)


def test_every_ablation_is_compared_with_one_of_the_same_budget_or_says_otherwise():
    table = TABLES["ablations"]("miniature")
    for variant in table.variants:
        for other in variant.against:
            same = table.steps_of(variant) == table.steps_of(table.variant(other))
            assert same or variant.name in ("few-total", "pretrained", "fine-tuned")
    steps = {name: table.steps_of(table.variant(name)) for name in ("pretrained", "fine-tuned", "few-total")}
    assert steps["few-total"] == steps["pretrained"] + steps["fine-tuned"]


def test_a_field_that_a_config_does_not_have_is_refused_by_name():
    config = changed(preset("clip"), {"predictor": {"depth": 1}, "action_scale": (1.0, 1.0, 1.0)})
    assert (config.predictor.depth, config.predictor.dim, config.action_scale) == (1, 128, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="PredictorConfig has no width"):
        changed(preset("clip"), {"predictor": {"width": 1}})


@pytest.mark.parametrize(
    "wrong", [{"against": ("nobody",)}, {"data": ("nothing",)}, {"budget": ("none",)}, {"initial": "nobody"}]
)
def test_a_table_refuses_a_variant_that_names_what_is_not_there(wrong):
    table = TABLES["figure5"]("miniature")
    with pytest.raises(ValueError, match=r"figure5: S wants the \w+ \['(nobody|nothing|none)'\]"):
        replace(table, variants=(replace(table.variants[0], **wrong),))


def test_a_printed_number_is_found_by_row_and_column():
    printed = TABLES["table1"]("miniature").paper
    assert printed.value("EgoDex", "human error at 4 s") == 0.67
    assert printed.value("EgoDex+DROID", "robot PCK@20 average") == 17
    assert printed.value("DexWM", "robot PCK@20 average") is None
    assert Published("").value(None, None) is None


@pytest.mark.parametrize("scale", ["miniature", "small"])
@pytest.mark.parametrize("name", DECLARED)
def test_a_study_travels_to_other_processes_and_every_model_of_it_exists(name, scale, tmp_path):
    study = Study(DECLARED[name](scale), tmp_path)
    assert pickle.loads(pickle.dumps(study)) == study
    for variant in study.table.variants:
        kind = (variant.preset or "dexwm").removesuffix("-clip").removesuffix("-tiny")
        assert model_class(study.table.model_of(variant)).kind == kind
        assert kind_of(variant).plays in POLICIES
        if variant.budget:
            assert study.table.training_of(variant, 1).seed == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["table9"], "no table 'table9'; choose from table1"),
        (["table1", "--seeds", "1", "1"], "1 to 10 different ones"),
    ],
)
def test_a_table_or_seeds_that_make_no_sense_are_a_mistake(words, says, capsys, tmp_path):
    with pytest.raises(SystemExit):
        cli.main(["reproduce", *words, "--output", str(tmp_path)])
    assert says in capsys.readouterr().err


def wandering_episode(seed: int, length: int = 40) -> Track:
    generator = np.random.default_rng(seed)
    corner = np.clip(30 + np.cumsum(generator.integers(-4, 5, (length, 2)), axis=0), 2, 80)  # u, v
    targets = 0.01 * np.tile(corner[:, :1], 23)  # of the reference robot's joints
    joints = {"joint_positions": targets, "joint_targets": targets}
    return square_episode(seed, corner, square_frames(corner), joints)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All data of a study as episodes of a bright square, the hand, on a dark table."""
    root = tmp_path_factory.mktemp("data")
    held_out = {"held-out-robot": FIRST, "held-out-human": FIRST + 200}
    for name, first in {"robot": 0, "few": 0, "human": 20, "gripper": 30, **held_out}.items():
        writer = EpisodeWriter(root / name, {"made by": "tests"})
        for seed in range(first, first + 2):
            writer.write(f"{seed:08d}", wandering_episode(seed))
        writer.finish()
    return root


@pytest.fixture
def small(monkeypatch):
    """Every table with its smallest models; of the tasks one."""

    def shrunk(make):
        def table(scale):
            made = make(scale)
            model = made.sizes.model if made.name == "figure5" else {"predictor": {"dim": 16, "depth": 1}}
            sizes = replace(made.sizes, model=model, evaluator_size="debug", encoder_frames=20, batch_size=2)
            sizes = replace(sizes, policy_size="debug", task_episodes=1)
            measures = tuple(
                replace(each, tasks=("reach",)) if isinstance(each, TaskMeasure) else each for each in made.measures
            )
            figures = tuple(each for each in made.figures if not each.name.startswith(("grasp", "place", "push")))
            return replace(made, sizes=sizes, measures=measures, figures=figures)

        return table

    for tables in (declared_tables.TABLES, declared_figures.FIGURES):
        for name, make in list(tables.items()):
            monkeypatch.setitem(tables, name, shrunk(make))


def study(data: Path, output: Path, table: str, *options: str) -> dict:
    """Run a table at its smallest size, and what it wrote."""
    output.mkdir(exist_ok=True)
    if not (output / "data").exists():
        (output / "data").symlink_to(data)
    cut = ("--steps", "2", "--episodes", "2", "--workers", "1", "--device", "cpu", "--resamples", "50")
    cli.main(["reproduce", table, "--output", str(output), *cut, *options])
    return json.loads((output / "results.json").read_text(encoding="utf-8"))["variants"]


SOME = {
    "table1": ("human", "human, fine-tuned", "none, fine-tuned"),
    "table2": ("with", "without"),
    "table3": ("DexWM", "DexWM, in the picture", "NWM*", "action-free"),
    "table4": ("DexWM, no video", "Diffusion Policy", "behaviour cloning"),
    "figure5": ("S", "B"),
    "figure6": ("pca-fine",),
    "figure7": ("DexWM", "DexWM, in the picture"),
    "figure9": ("DexWM", "DexWM, in the picture"),
    "ablations": ("base", "paper-hand-consistency", "raw-actions"),
}


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_table_is_trained_measured_and_shown(name, data, small, tmp_path):
    rows = study(data, tmp_path, name, "--seeds", "0", "--variants", *SOME[name])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for variant in SOME[name]:
        assert rows[variant]["seeds"] == [0]
        assert rows[variant]["parameters"] > 0
        assert rows[variant]["steps"] == 2
        figures = [figure.name for figure in (TABLES | FIGURES)[name]("miniature").figures]  # shrunk
        assert all("object" in key for key in figures if rows[variant][key]["value"] is None)
        assert len(rows[variant]["train_cpu_s"]) == 1
    assert "arXiv 2512.13644" in page
    assert "A quick look" in page
    assert ("<video" in page) == (name in FIGURES)
    if name == "table1":
        assert rows["human, fine-tuned"]["minus_none, fine-tuned"]["robot_mae_end"]["by_seed"][0] is not None
        assert "paper: 0.67" in page
    if name == "figure6":
        assert 0 <= rows["pca-fine"]["reach_success"]["value"] <= 100


def test_policies_and_controls_play_the_planners_episodes_and_each_seed_has_its_own(data, small, tmp_path):
    chosen = ("DexWM", "behaviour cloning", "do nothing")
    rows = study(data, tmp_path, "table4", "--seeds", "0", "1", "--variants", *chosen)
    assert rows["DexWM, both videos"]["seeds"] == [0, 1], "DexWM starts from it"
    played = {}
    for name in chosen:
        assert rows[name]["reach_success"]["episodes"] == 2
        for seed in (0, 1):
            lines = (tmp_path / "runs" / f"{name}-{seed}" / "tasks.jsonl").read_text(encoding="utf-8").splitlines()
            results = [json.loads(line)["result"] for line in lines[1:]]
            played[name, seed] = [row["seed"] for row in results if "played" in row]
            assert {who for row in results for who in row.get("played", {})} == {
                kind_of(TABLES["table4"]("miniature").variant(name)).plays
            }
        assert played[name, 0] == played["DexWM", 0]
        assert played[name, 1] == played["DexWM", 1]
    assert not set(played["DexWM", 0]) & set(played["DexWM", 1])
    assert (rows["do nothing"]["steps"], rows["do nothing"]["reach_success"]["value"]) == (0, 0.0)
    assert 0 <= rows["DexWM"]["minus_do nothing"]["reach_success"]["p"] <= 1
    assert "6</" in (tmp_path / "page.html").read_text(encoding="utf-8"), "trained models, without controls"


def test_pairs_are_tested_on_the_episodes_of_all_seeds_together(tmp_path):
    table = TABLES["table4"]("miniature")
    outcomes = {
        "DexWM": ((1, 1, 1, 1, 0), (1, 1, 1, 0, 0)),
        "Diffusion Policy": ((0, 0, 0, 1, 0), (0, 0, 0, 0, 1)),
    }
    ours = Study(table, tmp_path)
    for name, by_seed in outcomes.items():
        for seed, solved in enumerate(by_seed):
            folder = ours.folder(name, seed)
            folder.mkdir(parents=True)
            spent = dict.fromkeys(("steps", "parameters", "train_cpu_s", "train_seconds", "measure_cpu_s"), 1)
            (folder / "measured.json").write_text(json.dumps(spent), encoding="utf-8")
            np.savez(folder / "sums.npz", **{each.numerator: np.array(solved)[:, None] for each in table.figures})
    rows = summary(ours, [0, 1], 50)
    # Six episodes only DexWM solves, one only the policy: 2 (1 + 7) / 2^7. Wilson's interval of 7 of 10 is textbook.
    assert rows["DexWM"]["minus_Diffusion Policy"]["grasp_success"]["p"] == 0.125
    assert rows["DexWM"]["minus_Diffusion Policy"]["grasp_success"]["value"] == pytest.approx(50)
    rate = rows["DexWM"]["grasp_success"]
    assert (rate["value"], rate["episodes"], rate["by_seed"]) == (70, 10, [80, 60])
    assert (rate["low"], rate["high"]) == pytest.approx((39.68, 89.22), abs=0.01)
    page = write_study_page(tmp_path, table, rows, [0, 1], [], "dexworld").read_text(encoding="utf-8")
    for shown in ("p = 0.12", "n = 10", "paper: 58", "McNemar"):
        assert shown in page
    assert "p = 0.12" in markdown(table, rows, [0, 1])


def test_a_study_goes_on_and_shows_what_is_missing(data, small, tmp_path):
    rows = study(data, tmp_path, "ablations", "--variants", "few", "fine-tuned", "--seeds", "0", "1")
    assert rows["pretrained"]["seeds"] == [0, 1], "fine-tuning needs its ancestor"
    assert rows["few"]["error_end"]["low"] < rows["few"]["error_end"]["value"]
    assert len(rows["fine-tuned"]["minus_few"]["pck20_end"]["by_seed"]) == 2
    assert "minus_few-total" not in rows["fine-tuned"]
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| no-residual | missing |" in table
    assert "| fine-tuned - few-total | missing |" in table

    few = tmp_path / "runs" / "few-0" / "measured.json"
    before = few.stat().st_mtime_ns
    study(data, tmp_path, "ablations", "--variants", "few", "--seeds", "0", "1")
    assert few.stat().st_mtime_ns == before, "a finished run is kept"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--steps", "3"], "sizes.budgets.steps was 2, now 3"),
        (["--variants", "nobody"], "ablations has no variant 'nobody'; choose from base"),
        (["--split", "evaluation"], "split was 'validation', now 'evaluation'"),
    ],
)
def test_a_study_refuses_other_settings_and_what_it_does_not_have(options, says, data, small, tmp_path, capsys):
    study(data, tmp_path, "ablations", "--variants", "unroll-2", "--seeds", "0")
    with pytest.raises(SystemExit):
        study(data, tmp_path, "ablations", *options)
    assert says in capsys.readouterr().err


def test_a_figure_takes_the_models_of_table_3_and_trains_what_is_missing(data, small, tmp_path, capsys):
    study(data, tmp_path / "table3", "table3", "--variants", "DexWM", "--seeds", "0")
    shared = ("--variants", "DexWM", "--models")
    (tmp_path / "figure9").mkdir()
    cut = ("--steps", "2", "--episodes", "2", "--workers", "1", "--device", "cpu", "--resamples", "50")
    figure9 = ["reproduce", "figure9", "--output", str(tmp_path / "figure9"), *cut]
    cli.main([*figure9, *shared, str(tmp_path / "table3"), "--seeds", "0", "1"])
    runs = tmp_path / "figure9" / "runs"
    assert [(runs / f"DexWM-{seed}" / "model").is_symlink() for seed in (0, 1)] == [True, False]
    theirs, ours = (tmp_path / name / "runs" / "DexWM-0" / "measured.json" for name in ("table3", "figure9"))
    assert json.loads(theirs.read_text())["train_seconds"] == json.loads(ours.read_text())["train_seconds"]
    assert not (runs / "DexWM-0" / "metrics.jsonl").exists()
    for table, models, more, says in (
        ("figure7", "table3", ("--steps", "3"), "sizes.budgets.steps was 2, now 3"),
        ("figure7", "table3", ("--seeds", "5"), "table3 has finished no model of DexWM; finish it first"),
        ("figure7", "nowhere", (), "holds no study.json; give the folder of table3 or figure7 or figure9"),
        ("table3", "figure9", (), "holds figure9; the models of table3 are those of no other table"),
    ):
        words = ["reproduce", table, "--output", str(tmp_path / "other"), *cut, *shared, str(tmp_path / models), *more]
        with pytest.raises(SystemExit):
            cli.main(words)
        assert says in capsys.readouterr().err


def test_a_variant_whose_package_is_missing_is_left_out_and_said(data, small, tmp_path, monkeypatch):
    make = TABLES["figure5"]

    def needing(scale):
        table = make(scale)
        return replace(table, variants=(*table.variants, Variant("X", "needs", (), needs=("cnn", "no_such_package"))))

    monkeypatch.setitem(declared_tables.TABLES, "figure5", needing)
    rows = study(data, tmp_path, "figure5", "--variants", "X", "--seeds", "0")
    assert (rows["X"]["seeds"], rows["X"]["needs"]) == ([], "cnn")
    assert "needs dexworld[cnn]" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_study_that_was_killed_ends_with_the_numbers_of_one_that_was_not(data, tmp_path):
    words = ["reproduce", "ablations", "--variants", "fine-tuned", "--seeds", "0", "--steps", "3"]
    words += ["--episodes", "2", "--workers", "1", "--device", "cpu", "--resamples", "50", "--output"]
    ended = []
    for killed in (True, False):
        output = tmp_path / f"killed-{killed}"
        output.mkdir()
        (output / "data").symlink_to(data)
        if killed:
            program = [sys.executable, "-c", "from dexworld.cli import main; main()", *words, str(output)]
            process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
            while not (output / "runs" / "pretrained-0" / "metrics.jsonl").exists():
                assert process.poll() is None
                time.sleep(0.02)
            process.kill()
            process.wait()
            assert not (output / "runs" / "pretrained-0" / "measured.json").exists()
        cli.main([*words, str(output)])
        ended.append(json.loads((output / "results.json").read_text(encoding="utf-8")))
    assert without_times(ended[0]) == without_times(ended[1])
    assert ended[0]["variants"]["fine-tuned"]["error_end"]["value"] is not None


def test_two_ray_workers_end_with_the_figures_of_one_process(data, small, tmp_path):
    pytest.importorskip("ray", reason="ray is an optional extra and not installed")
    words = ("table3", "--variants", "DexWM", "NWM*", "--seeds", "0")
    alone = study(data, tmp_path / "alone", *words)
    there = study(data, tmp_path / "there", *words, "--ray", "local", "--workers", "2")
    assert without_times({"variants": there}) == without_times({"variants": alone})
    assert there["NWM*"]["human_ratio_end"]["value"] is not None


def without_times(results: dict) -> dict:
    rows = {
        name: {key: value for key, value in row.items() if not key.endswith(("_cpu_s", "_seconds"))}
        for name, row in results["variants"].items()
    }
    return {key: value for key, value in results.items() if key != "run"} | {"variants": rows}
