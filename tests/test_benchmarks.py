"""The benchmark scripts run at their smallest size and write the documented keys."""

import json
import subprocess
import sys
from pathlib import Path

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
