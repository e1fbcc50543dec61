"""The benchmark scripts run at their smallest size and write the documented keys."""

import json
import subprocess
import sys
from pathlib import Path

from dexworld.models.decoder import PixelDecoder, PixelDecoderConfig, decoder_preset
from dexworld.models.dexwm import DexWM
from dexworld.models.latent_space import LatentSpace
from dexworld.models.reference import REFERENCE, checkpoint_path
from dexworld.sim.collect import CollectConfig, collect
from dexworld.sim.explore import ExploreConfig
from dexworld.training.fitting import encoder_fingerprint

ROOT = Path(__file__).resolve().parent.parent


def run(script: str, folder: Path, *options: str) -> dict:
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--output", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def test_the_simulator_benchmark_measures_what_it_documents(tmp_path):
    results = run("simulator.py", tmp_path, "--episodes", "1", "--frames", "3", "--scenes", "1")
    for key in (
        "fk_us_per_pose",
        "physics_cpu_ms_per_frame",
        "render_cpu_ms_per_frame",
        "cpu_s_per_500_episodes",
    ):
        assert results[key] > 0, key
    assert results["backend"] in ("egl", "osmesa", "ray")
    assert results["episodes_measured"] == 1


def test_the_video_benchmark_measures_what_it_documents(tmp_path):
    results = run("video.py", tmp_path, "--clips", "8", "--presets", "debug", "--repeats", "1")
    for key in (
        "triples_per_cpu_s",
        "cpu_s_per_clip",
        "triples_per_cpu_s_224x384",
        "debug_train_step_cpu_s",
        "debug_train_clips_per_cpu_s",
        "debug_bfloat16_speedup",
        "debug_attention_speedup",
        "debug_million_parameters",
        "debug_sample_10_steps_cpu_s",
        "debug_sample_5_steps_cpu_s",
    ):
        assert results[key] > 0, key
    assert results["clip"] == "5 frames of 32 x 48"
    assert results["batch"] == 8


def test_the_loader_benchmark_measures_what_it_documents(tmp_path):
    small = ("--clips", "1", "--seconds", "5", "--height", "144", "--rounds", "1", "--batches", "1")
    results = run("loader.py", tmp_path, *small)
    for key in (
        "ratio_released",
        "ratio_pyav",
        "share_of_decode_limit",
        "ratio_released_jpeg",
        "windows_per_cpu_s_two_workers",
        "h264_prepare_cpu_ms_per_frame",
    ):
        assert results[key] > 0, key
    assert results["windows_measured"]["h264"] == 16
    assert results["released_reader"]


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
    collect(CollectConfig(tmp_path / "data", 2, 900_000, 1, explore=ExploreConfig(frames=6)))
    model = DexWM.from_pretrained(checkpoint_path(REFERENCE))
    space = LatentSpace.of(model.config, encoder_fingerprint(model.encoder))
    decoder = PixelDecoder(PixelDecoderConfig(space, decoder_preset("debug")), {"training_seeds": [0, 1]})
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
