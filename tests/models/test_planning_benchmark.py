"""The planning benchmark runs at its smallest size, agrees with itself and writes the documented keys."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "planning.py"


def test_the_planning_benchmark_compares_equal_results_and_measures_memory(tmp_path):
    options = ["--dim", "64", "--repeats", "1", "--candidates", "2", "--memory-dim", "64", "--memory-candidates", "64"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--output", str(tmp_path), *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["max_difference_3step_d64"] < 1e-4
    assert results["speedup_3step_d64"] > 1.0
    assert results["speedup_3step_d64_first"] > 1.0
    assert results["tiny_candidate_steps_per_cpu_s_float32"] > 0
    assert results["tiny_candidate_steps_per_cpu_s_bfloat16"] > 0
    assert results["peak_growth_mb"] < 0.5 * results["per_candidate_copy_mb"]
