"""The DWM paper's tables: what each row's model is told, and each table at its smallest size."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from triplet_fixtures import make_clip

from dexworld import cli
from dexworld.studies import video_tables
from dexworld.studies.study import Recording
from dexworld.studies.study_data import collect_all
from dexworld.studies.study_runs import Study
from dexworld.studies.video_tables import PRIOR, VIDEO_TABLES
from dexworld.video.clips.clip import ClipShape
from dexworld.video.clips.triplet_files import write_triplet
from dexworld.video.clips.triplets import finish_triplets, open_triplets
from dexworld.video.judge.evaluate_videos import EvaluateConfig
from dexworld.video.model.video_task import VideoTask

HELD_OUT = 913_000  # first validation scene of these tables
SCENE = {"static"}
TOLD = {
    "ceiling": {"first frame", "later frames"},
    "static copy": SCENE,
    PRIOR: SCENE,
    "CVX SDEdit": SCENE,
    "CVX SDEdit, weaker": SCENE,
    "CVX-Fun fine-tuned": SCENE,
    "InterDyn": {"first frame", "place of hands"},
    "DWM": {"static", "place of hands", "colour of hands"},
    "no hands": SCENE,
    "AdaLN (global)": {"static", "keypoints"},
    "AdaLN (per-frame)": {"static", "keypoints"},
    "mask": {"static", "place of hands"},
    "mesh": {"static", "place of hands", "colour of hands"},
    "moving": {"static", "place of hands", "colour of hands"},
    "fixed": {"static", "place of hands", "colour of hands"},
    "both": {"static", "place of hands", "colour of hands"},
}
ROWS = [(name, variant) for name, make in VIDEO_TABLES.items() for variant in make("miniature").variants]


def changed_clips(clip):
    """The clip with each thing changed that a model may be told of it, or may not."""
    interaction = {name: clip.interaction.copy() for name in ("first frame", "later frames")}
    interaction["first frame"][0] = 255 - interaction["first frame"][0]
    interaction["later frames"][1:] = 255 - interaction["later frames"][1:]
    changed = {name: replace(clip, interaction=video) for name, video in interaction.items()}
    changed["static"] = replace(clip, static=255 - clip.static)
    changed["place of hands"] = replace(clip, hands=np.roll(clip.hands, 12, axis=2))
    changed["colour of hands"] = replace(clip, hands=clip.hands[..., [1, 0, 2]])
    points = clip.track.columns["keypoints_world"] + np.float32(0.05)
    changed["keypoints"] = replace(clip, track=clip.track.with_columns(keypoints_world=points))
    return changed


@pytest.mark.parametrize(("table", "variant"), ROWS, ids=[f"{name}: {variant.name}" for name, variant in ROWS])
def test_a_row_is_told_what_it_says_and_nothing_else(table, variant, make_dwm, square_clips):
    model = make_dwm(output_scale=0.5, condition=variant.kind.condition)
    model.provenance = {"training": {"goal": "inpainting"}}
    for weights in model.backbone.parameters():
        if not weights.any():  # as if the layers that let hands in were trained
            torch.nn.init.normal_(weights, std=0.5)
    method, clip = variant.kind.shows(model), square_clips[0]
    video = method.generate([clip], [0])[0]
    seen = {name for name, other in changed_clips(clip).items() if (method.generate([other], [0])[0] != video).any()}
    assert seen == TOLD[variant.name]


@pytest.mark.parametrize("scale", ["miniature", "small", "paper"])
@pytest.mark.parametrize("name", VIDEO_TABLES)
def test_a_table_travels_to_other_processes_and_compares_models_of_one_budget(name, scale, tmp_path):
    study = Study(VIDEO_TABLES[name](scale), tmp_path)
    assert pickle.loads(pickle.dumps(study)) == study
    table = study.table
    trained = [each for each in table.variants if each.budget and each.name != PRIOR]
    assert len({table.steps_of(each) for each in trained}) == 1
    assert {each.initial for each in table.variants} == {None, PRIOR}
    for each in table.variants:
        if each.paper:
            assert len(table.paper.rows[each.paper]) == len(table.paper.columns)


def test_the_papers_numbers_stand_beside_ours():
    printed = VIDEO_TABLES["dwm-main"]("miniature").paper
    assert printed.value("DWM", "moving PSNR") == 25.03
    assert printed.value("CVX-Fun fine-tuned", "fixed SSIM") == 0.780
    assert printed.value("InterDyn", "fixed PSNR") == 19.33
    assert printed.value("InterDyn", "moving PSNR") is None
    assert VIDEO_TABLES["dwm-data"]("miniature").paper.value("TRUMANS only", "fixed LPIPS") == 0.304
    assert VIDEO_TABLES["dwm-hands"]("miniature").paper.value("mesh", "moving PSNR") == 24.15


@pytest.mark.parametrize("name", VIDEO_TABLES)
def test_on_paper_a_table_is_planned_and_not_run(name, capsys, tmp_path):
    words = ["reproduce", name, "--output", str(tmp_path / "out"), "--scale", "paper"]
    cli.main([*words, "--dry-run", "True"])
    said = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert said["moving: TRUMANS, 23.3 h, 13,721 clips"]
    assert "8,000" in said[{"dwm-main": "DWM", "dwm-data": "both", "dwm-hands": "mesh"}[name]]
    assert said[PRIOR].split()[-3:] == ["M", "0", "-"]  # published weights
    with pytest.raises(SystemExit):
        cli.main(words)
    assert not (tmp_path / "out").exists()


def write_triplets(place, seeds):
    for seed in seeds:
        write_triplet(place, make_clip(f"{seed:08d}", seed, frames=5, height=32, width=48))
    finish_triplets(place, {"made by": "tests"}, {f"{seed:08d}": seed for seed in seeds})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All data of a table, small and made up."""
    root = tmp_path_factory.mktemp("data")
    starts = {"moving": 0, "fixed": 100, "held-out-moving": HELD_OUT, "held-out-fixed": HELD_OUT + 200}
    for name, first in starts.items():
        write_triplets(root / name, range(first, first + 3))
    return root


@pytest.fixture
def small(monkeypatch):
    """Every table with its smallest model."""

    def shrunk(make):
        def table(scale):
            made = make(scale)
            often = [replace(each, training={**each.training, "checkpoint_every": 1}) for each in made.variants]
            return replace(made, sizes=replace(made.sizes, preset="debug", batch_size=2), variants=tuple(often))

        return table

    for name, make in list(VIDEO_TABLES.items()):
        monkeypatch.setitem(video_tables.VIDEO_TABLES, name, shrunk(make))


def run(data, output, table, *options):
    output.mkdir(exist_ok=True)
    if not (output / "data").exists():
        (output / "data").symlink_to(data)
    cut = ("--steps", "3", "--episodes", "3", "--workers", "1", "--device", "cpu", "--resamples", "50")
    cli.main(["reproduce", table, "--output", str(output), *cut, *options])
    return json.loads((output / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", VIDEO_TABLES)
def test_a_table_is_trained_measured_and_shown(name, data, small, tmp_path):
    seeds = ("0", "1") if name == "dwm-main" else ("0",)
    results = run(data, tmp_path, name, "--seeds", *seeds)
    rows, table = results["variants"], VIDEO_TABLES[name]("miniature")
    assert results["run"]["seeds"] == {"first": HELD_OUT, "last": HELD_OUT + 202, "count": 6}
    for variant in table.variants:
        row = rows[variant.name]
        assert row["seeds"] == list(map(int, seeds))
        assert row["steps"] == (3 if variant.budget else 0)
        assert (row["parameters"] > 0) == bool(variant.budget)
        assert all(row[figure.name]["value"] is not None for figure in table.figures)
        assert {f"minus_{other}" for other in variant.against} <= set(row)
    copy = rows["static copy"]["moving_psnr"]["by_seed"]
    assert copy == [copy[0]] * len(seeds), "one codec, whatever the seed"
    still, ceiling = (rows[name]["moving_psnr_inside"]["value"] for name in ("static copy", "ceiling"))
    assert still < ceiling
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ("paper: 24.15" if name == "dwm-hands" else "paper: 25.03") in page
    assert "Gradient distance" in page
    assert "PCK" not in page


def test_a_study_that_was_stopped_in_training_and_in_measuring_ends_with_the_same_numbers(
    data, small, tmp_path, monkeypatch
):
    words = ("dwm-main", "--seeds", "0", "--variants", "DWM", "static copy")
    whole = run(data, tmp_path / "whole", *words)
    batch, stops = VideoTask.batch, ["training", "measuring"]

    def stopping(self, index, device):
        if index == 2 and self.config.goal == "interaction" and "training" in stops:
            stops.remove("training")
            raise KeyboardInterrupt
        return batch(self, index, device)

    monkeypatch.setattr(VideoTask, "batch", stopping)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(data, tmp_path / "stopped", *words)
    made = tmp_path / "stopped" / "runs" / "DWM-0"
    assert (made / "checkpoints").exists()
    assert not (made / "measured.json").exists()
    monkeypatch.setattr(video_tables.ClipMeasure, "__call__", measuring(video_tables.ClipMeasure.__call__, stops))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(data, tmp_path / "stopped", *words)
    assert (made / "moving.jsonl").exists()
    assert stops == []
    assert without_times(run(data, tmp_path / "stopped", *words)) == without_times(whole)


def measuring(measure, stops):
    """`measure`, stopped once after the moving clips of a trained model."""

    def stopping(self, model, method, held_out, folder, split):
        if self.held_out == "fixed" and folder.name == "DWM-0" and "measuring" in stops:
            stops.remove("measuring")
            raise KeyboardInterrupt
        return measure(self, model, method, held_out, folder, split)

    return stopping


def without_times(results):
    rows = {
        name: {key: value for key, value in row.items() if not key.endswith(("_cpu_s", "_seconds"))}
        for name, row in results["variants"].items()
    }
    return {key: value for key, value in results.items() if key != "run"} | {"variants": rows}


def test_figures_are_those_of_video_evaluate(data, small, tmp_path):
    rows = run(data, tmp_path, "dwm-main", "--seeds", "0", "--variants", "DWM")["variants"]
    output, model = tmp_path / "evaluation", tmp_path / "runs" / "DWM-0" / "model"
    words = ["--checkpoint", str(model), "--data", str(data / "held-out-fixed"), "--split", "validation"]
    cli.main(["video", "evaluate", *words, "--seed", str(EvaluateConfig().seed), "--output", str(output)])
    found = json.loads((output / "results.json").read_text(encoding="utf-8"))["methods"]
    for measure in ("psnr", "ssim", "psnr_inside", "psnr_outside", "gradient_distance_inside"):
        assert rows["DWM"][f"fixed_{measure}"]["value"] == pytest.approx(found["dwm_codec"][measure])
    assert rows["DWM"]["fixed_static_copy_psnr_inside"]["value"] == pytest.approx(found["static_copy"]["psnr_inside"])


def test_triplets_are_recorded_once_and_of_one_split(tmp_path):
    shape = ClipShape(5, 32, 48)
    recordings = {"fixed": Recording("triplets", 1, 60_000, {"camera": "fixed", "shape": shape})}
    collect_all(recordings, tmp_path, workers=1)
    folder = open_triplets(tmp_path / "fixed")
    assert dict(folder.seeds) == {"00060000": 60_000}
    static = folder[0].static.astype(float)
    assert np.abs(static - static[:1]).mean() < 3, "a repeated first frame, but for the video's compression"
    before = folder.fingerprint
    collect_all(recordings, tmp_path, workers=1)
    assert open_triplets(tmp_path / "fixed").fingerprint == before
    with pytest.raises(ValueError, match="holds training scenes, not those from 913000 on"):
        collect_all({"fixed": replace(recordings["fixed"], seed=HELD_OUT)}, tmp_path, workers=1)
