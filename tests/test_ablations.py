"""The ablation study: its figures in closed form, and the whole of it at its smallest size."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dexworld.data.recordings import EpisodeWriter
from dexworld.track import Track
from square_fixtures import square_episode, square_frames

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from ablation_runs import BY_NAME, VARIANTS, StudyConfig, paper_weight  # noqa: E402
from ablations import figures_at, main, seed_interval  # noqa: E402


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


def test_a_figure_takes_its_moment_of_the_rollout():
    figures = {figure.name: figure for figure in figures_at(4.0)}
    sums = {"mse": np.arange(40.0).reshape(2, 20), "copy_last_mse": np.ones((2, 20))}
    assert figures["error_1s"].sums(sums, 5.0)[0].tolist() == [4.0, 24.0]
    assert figures["error_end"].sums(sums, 5.0)[0].tolist() == [19.0, 39.0]


def test_the_papers_weight_is_rescaled_with_sigma_and_picture():
    assert paper_weight((224, 392), 2.0) == 100.0
    assert paper_weight((112, 196), 2.0) == pytest.approx(25.0)  # an empty map of a quarter of the size costs 4 times
    assert paper_weight((224, 392), 4.0) == pytest.approx(25.0)


def test_every_variant_is_compared_with_one_of_the_same_budget_or_says_otherwise():
    config = StudyConfig()
    for variant in VARIANTS:
        for other in variant.against:
            same = config.training_of(variant, 0).steps == config.training_of(BY_NAME[other], 0).steps
            assert same or variant.name in ("few-total", "pretrained", "fine-tuned")
    steps = {name: config.training_of(BY_NAME[name], 0).steps for name in ("pretrained", "fine-tuned", "few-total")}
    assert steps["few-total"] == steps["pretrained"] + steps["fine-tuned"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two datasets of a bright square, the hand, on a dark table: scenes to train on and validation scenes."""
    made = []
    for name, seeds in (("robot", range(4)), ("held-out", range(900_000, 900_003))):
        folder = tmp_path_factory.mktemp(name)
        writer = EpisodeWriter(folder, {"made by": "tests"})
        for seed in seeds:
            writer.write(f"{seed:08d}", wandering_episode(seed))
        writer.finish()
        made.append(folder)
    return made


def wandering_episode(seed: int, length: int = 40) -> Track:
    generator = np.random.default_rng(seed)
    corner = np.clip(30 + np.cumsum(generator.integers(-4, 5, (length, 2)), axis=0), 2, 80)  # u, v
    return square_episode(seed, corner, square_frames(corner))


SMALL = """--width 16 --depth 1 --steps 2 --pretrain-steps 1 --finetune-steps 1 --batch-size 2 --few-episodes 2
    --evaluator-steps 1 --evaluator-size debug --encoder-frames 20 --resamples 50"""


def study(folders: list[Path], output: Path, options: str) -> dict:
    robot, held_out = folders
    chosen = f"{SMALL} {options}".split()
    main(["--output", str(output), "--data", str(robot), "--held-out", str(held_out), *chosen])
    return json.loads((output / "results.json").read_text(encoding="utf-8"))["variants"]


def test_the_study_runs_goes_on_and_shows_what_is_missing(folders, tmp_path):
    # The robot's own episodes stand in for pre-training video.
    rows = study(folders, tmp_path, f"--pretraining {folders[0]} --variants base few fine-tuned --seeds 0 1")
    assert rows["base"]["seeds"] == [0, 1]
    assert rows["base"]["episodes"] == 3
    assert rows["base"]["error_end"]["low"] < rows["base"]["error_end"]["value"]
    assert rows["pretrained"]["seeds"] == [0, 1], "fine-tuning needs its ancestor"
    assert len(rows["fine-tuned"]["minus_few"]["pck20_end"]["by_seed"]) == 2
    assert "minus_few-total" not in rows["fine-tuned"]
    assert rows["no-residual"]["seeds"] == []
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "| no-residual | missing |" in table
    assert "| fine-tuned - few-total | missing |" in table

    base = tmp_path / "runs" / "base-0" / "results.json"
    before = base.stat().st_mtime_ns
    rows = study(folders, tmp_path, "--variants base paper-hand-consistency raw-actions --seeds 0 1")
    assert base.stat().st_mtime_ns == before, "a finished run is kept"
    for name in ("paper-hand-consistency", "raw-actions", "fine-tuned"):
        assert rows[name]["seeds"] == [0, 1], name

    with pytest.raises(ValueError, match=r"settings\.steps was 2, now 3"):
        study(folders, tmp_path, "--steps 3")


def test_pre_training_needs_video(folders, tmp_path):
    with pytest.raises(ValueError, match="pretrained needs pre-training video"):
        study(folders, tmp_path, "--variants pretrained --seeds 0")
