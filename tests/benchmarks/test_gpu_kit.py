"""benchmarks/gpu: the rehearsal of all four plans, and what a slice of time does with jobs, weights and failures."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dexworld.models.config import PRESETS
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import preset
from dexworld.video.model.dwm import DWM

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "benchmarks" / "gpu"
PLANS = ("measure", "dexwm-small", "dwm-small", "encoder")


@pytest.fixture
def kit(monkeypatch):
    """A function that imports a module of the kit; none stays behind."""
    before = set(sys.modules)
    for folder in (ROOT / "tools", ROOT / "benchmarks", KIT):
        monkeypatch.syspath_prepend(folder)
    yield importlib.import_module
    folders = {str(ROOT / "tools"), str(ROOT / "benchmarks"), str(KIT)}
    for name in set(sys.modules) - before:
        if str(Path(getattr(sys.modules[name], "__file__", None) or "").parent) in folders:
            del sys.modules[name]


@pytest.fixture
def now(kit, tmp_path):
    """A rehearsed slice with a minute left."""
    machine, jobs = kit("machine"), kit("jobs")
    end = time.time() + 60
    return jobs.Slice(machine.Machine("cpu"), tmp_path / "out", tmp_path / "work", end, True, deadline=end)


def entries_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["jobs"]


def test_all_four_plans_are_rehearsed_on_the_cpu(tmp_path):
    # A minute of one core; more of them on a machine that others use, so that no job is left out.
    command = [sys.executable, str(KIT / "run.py"), *PLANS, "--rehearse", "--minutes", "24"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr
    for plan in PLANS:
        folder = tmp_path / "out" / plan
        wrong = {name: entry for name, entry in entries_of(folder).items() if entry["state"] != "done"}
        assert not [name for name in wrong if "lite0" not in name], wrong  # the extra `cnn` may be missing
        assert len(list(folder.iterdir())) <= 8
        page = (folder / "gpu.md").read_text(encoding="utf-8")
        assert page.startswith(f"## {plan}: ")
        assert "A rehearsal on a CPU" in page
    found = entries_of(tmp_path / "out" / "measure")
    for name, figures in {
        "self-check": "matmul_tflops copy_gb_per_second disk_free_gb",
        "training: xl, cached, compiled": "samples_per_second tflops mfu_of_matmul",
        "planning: paper, 10 x 512": "seconds_a_plan exact_limit_s times_the_limit",
        "plain forward: nine frames": "plain_over_fast plain_s_of_a_plan_of_10_x_512",
        "loading: h264": "windows_per_second times_what_xl_eats",
        "video training: 2b": "step_s clips_per_second tflops",
        "video sampling: small": "step_s_a_clip clip_s_at_its_steps_estimated",
    }.items():
        assert all(found[name][key] > 0 for key in figures.split()), (name, found[name])
    assert sum(found["video training: 2b"]["time_shares"].values()) == pytest.approx(1.0)
    assert DexWM.from_pretrained(unpacked(tmp_path, "dexwm-small")).config.points is not None
    assert DWM.from_pretrained(unpacked(tmp_path, "dwm-small")).provenance["training_seeds"]


def unpacked(tmp_path: Path, plan: str) -> Path:
    """The model that a plan left, put together by the script."""
    target = tmp_path / f"unpacked-{plan}"
    subprocess.run([sys.executable, KIT / "packed_weights.py", tmp_path / "out" / plan, target], check=True)
    return target


def test_the_job_of_most_value_per_second_comes_first_among_those_that_fit_and_whose_needs_are_met(kit):
    jobs = kit("jobs")
    nothing = lambda now: {}  # noqa: E731
    plan = [
        jobs.Job("data", 1, 10, nothing, again=True),
        jobs.Job("train", 100, 10, nothing, ("data",), again=True),
        jobs.Job("quick", 4, 20, nothing),
        jobs.Job("slow", 50, 100, nothing),
    ]
    entries: dict = {}

    def chosen(seconds, tried=()):
        found = jobs.next_job(plan, entries, tried, seconds)
        return found and found.name

    assert chosen(200) == "slow"
    assert chosen(99) == "quick"
    assert chosen(15) == "data"
    assert chosen(5) is None
    entries["data"] = {"state": "done"}
    assert chosen(15, tried=["data"]) == "train"
    assert chosen(15) == "data"  # a new slice: data of its own before it trains
    entries["quick"] = {"state": "failed"}
    assert [job.name for job in jobs.open_jobs(plan, entries, ["slow"])] == ["data", "train", "quick"]


def test_a_job_leaves_the_others_what_they_need(kit):
    jobs = kit("jobs")
    first, second = (jobs.Job(name, 1, 30, dict) for name in ("first", "second"))
    assert jobs.deadline_of(first, [first, second], end=100, now=0) == 70
    assert jobs.deadline_of(first, [first], end=100, now=0) == 100
    assert jobs.deadline_of(first, [first, second], end=50, now=0) == 30  # its own least comes first
    assert jobs.deadline_of(first, [first, second], end=20, now=0) == 20


def test_recordings_stop_in_time_and_what_was_finished_stays(now, monkeypatch):
    from dexworld.sim.collect_scenes import SceneRange, collect_objects
    from dexworld.sim.kitchen.object_scenes import PairConfig
    from dexworld.video.clips.clip import ClipShape
    from dexworld.video.clips.synthetic_clips import SyntheticConfig, record_triplets

    scenes = SceneRange(now.work / "pairs", 3, 60_100, 1)
    assert len(collect_objects(scenes, PairConfig(frames=2), progress=now.until(0.0))) == 1
    clips = SyntheticConfig(now.work / "clips", 3, 60_100, shape=ClipShape(5, 32, 48), workers=1)
    assert len(record_triplets(clips, now.until(0.0))) == 1


def test_weights_come_back_in_parts_of_half_precision(kit, tmp_path, monkeypatch):
    packed = kit("packed_weights")
    torch.manual_seed(0)
    model = DexWM(preset("debug"))
    for value in model.encoder.buffers():
        value.fill_(1.0)
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(packed, "PART_BYTES", 70_000)
    sizes = packed.pack(tmp_path / "model", tmp_path / "out", tmp_path / "work")
    assert sizes["weights_parts"] == len(list((tmp_path / "out").glob("weights-*"))) > 1
    assert sizes["weights_mb"] < 0.6 * (tmp_path / "model" / "model.safetensors").stat().st_size / 1e6
    again = DexWM.from_pretrained(packed.unpack(tmp_path / "out", tmp_path / "again"))
    for name, value in model.state_dict().items():
        exact = name.startswith("encoder.")
        torch.testing.assert_close(again.state_dict()[name], value if exact else value.half().to(value.dtype))
    (tmp_path / "out" / "weights-1").write_bytes(b"other")
    with pytest.raises(ValueError, match="not those that were written"):
        packed.unpack(tmp_path / "out", tmp_path / "again")
    monkeypatch.setattr(packed, "MOST_PARTS", 1)
    with pytest.raises(ValueError, match="can come back"):
        packed.pack(tmp_path / "model", tmp_path / "out", tmp_path / "work")


def test_a_stage_goes_on_until_it_is_finished_and_the_next_one_begins_with_its_weights(kit, now):
    stages, packed = kit("stages"), kit("packed_weights")
    assert stages.stage_number(now) == 0
    now.number, now.entries["train"] = 1, {"state": "done", "slice": 0, "stage": 0, "finished": False}
    assert stages.stage_number(now) == 1  # another machine: the folder of the stage is gone
    stages.stage_folder(now, 0).mkdir(parents=True)
    assert stages.stage_number(now) == 0
    now.entries["train"]["finished"] = True
    assert stages.stage_number(now) == 1
    assert stages.initial_of(now, 1) is None  # nothing came back
    DexWM(preset("debug")).save_pretrained(now.work / "model")
    now.output.mkdir()
    packed.pack(now.work / "model", now.output, now.work)
    stages.stage_folder(now, 1).mkdir(parents=True)
    first = stages.initial_of(now, 1)
    assert (first / "model.safetensors").exists()
    (now.output / "config.json").unlink()
    assert stages.initial_of(now, 1) == first


def test_steps_are_chosen_to_fit_the_time_and_kept_for_a_run_that_goes_on(kit, now):
    stages = kit("stages")
    runs = []

    def run(folder, steps, seconds):
        runs.append((steps, seconds))
        folder.mkdir(parents=True, exist_ok=True)
        rates = [1.0, 20.0, 1.0, 10.0]  # samples a second: 0.1 s and 0.2 s for a step of two
        (folder / "metrics.jsonl").write_text("".join(f'{{"samples_per_second": {each}}}\n' for each in rates))
        results = {"steps": steps, "finished": False, "seconds": 7.0, "validation": {}}
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    large = replace(now, rehearsed=False)
    _, figures = stages.run_in_time(large, now.work / "train", run, samples=2, reserve=15.0)
    assert runs[0] == (stages.TIMED_STEPS, None)
    assert runs[1][0] == pytest.approx(0.9 * 45 / 0.15, abs=2)
    assert runs[1][1] == pytest.approx(45, abs=1)
    assert figures["train_s"] == 7.0
    stages.run_in_time(large, now.work / "train", run, samples=2, reserve=15.0)
    assert runs[2][0] == runs[1][0]
    assert runs[2][1] == pytest.approx(52, abs=1)  # all sittings together


@pytest.mark.parametrize(("size", "pflop"), [("s", 0.87), ("b", 2.27), ("l", 6.95), ("xl", 9.24)])
def test_the_exact_limit_of_the_papers_plan_is_the_known_one(kit, size, pflop):
    found = kit("measure_planning").rollout_flops(preset(f"paper-{size}"), 512 * 10 * 3) / 1e15
    assert found == pytest.approx(pflop, rel=0.06 if size == "s" else 0.03)


def test_the_limit_counts_what_the_fast_roll_out_does(kit):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from dexworld.models.rollout import rollout, start
    from dexworld.training.cost import head_flops

    planning, count = kit("planning"), kit("measure_planning").rollout_flops
    config = replace(PRESETS["paper-s"], encoder=replace(PRESETS["paper-s"].encoder, dim=64))
    config = replace(config, predictor=replace(config.predictor, dim=64, depth=2, heads=2), image_size=(112, 196))
    predictor = planning.make_predictor(config.predictor, 64)
    tokens = predictor.tokens
    context = start(predictor, torch.randn(1, 1, tokens, 64), planning.make_motion(1, 0), constant=True)
    motion = planning.make_motion(4, 3)
    predictor.requires_grad_(True)  # attention then goes through products that the counter sees
    with sdpa_kernel(SDPBackend.MATH):
        rollout(predictor, context, motion)
        with FlopCounterMode(display=False) as counter:
            rollout(predictor, context, motion)
    expected = count(config, 4 * 3) - 4 * 3 * head_flops(config)
    assert tokens == config.grid[0] * config.grid[1]
    # The keys of the last step are not needed; modulations of actions are left out.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.15)


def test_kernels_are_sorted_by_what_they_do(kit):
    kind_of = kit("machine").kind_of
    assert kind_of("nvjet_hsh_128x256_64x4_1x2_h_bz_coopB_TNT") == "matrix products"
    assert kind_of("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64") == "matrix products"
    assert kind_of("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits>") == "attention"
    assert kind_of("Memcpy DtoD (Device -> Device)") == "copies"
    assert kind_of("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>") == "optimiser"
    assert kind_of("triton_poi_fused_addcmul_native_layer_norm_0") == "norms and pointwise"


def plan_of_one_job(tmp_path: Path, body: str) -> list[str]:
    """A copy of the kit whose plan `measure` has a job that does `body`, and another one, and its command line."""
    copy = tmp_path / "benchmarks" / "gpu"
    copy.mkdir(parents=True)
    for folder in (KIT, ROOT / "benchmarks"):
        for path in folder.glob("*.py"):
            (copy if folder == KIT else copy.parent).joinpath(path.name).symlink_to(path)
    (copy / "plan_measure.py").unlink()
    for name in ("run.py", "slice_of_time.py"):  # they look for the others beside themselves
        (copy / name).unlink()
        (copy / name).write_text((KIT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    text = f"import os, time\nfrom jobs import Job\n\n\ndef bad(now):\n    {body}\n\n\ndef jobs(options):\n"
    text += '    return [Job("bad", 9, 20, bad), Job("good", 1, 20, lambda now: {"figure": 1})]\n'
    (copy / "plan_measure.py").write_text(text, encoding="utf-8")
    options = ["measure", "--rehearse", "--output", str(tmp_path / "out")]
    return [sys.executable, str(copy / "run.py"), *options]


def test_a_job_that_takes_its_process_with_it_is_named_and_the_others_are_done(tmp_path):
    command = plan_of_one_job(tmp_path, "os._exit(7)")
    done = subprocess.run([*command, "--minutes", "2"], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    found = entries_of(tmp_path / "out")
    assert found["bad"]["state"] == "failed"
    assert "exit code 7" in found["bad"]["error"]
    assert found["good"]["figure"] == 1
    assert "- bad: not measured, failed" in (tmp_path / "out" / "gpu.md").read_text(encoding="utf-8")


def test_a_stopped_kit_ends_at_once_and_keeps_what_is_finished(tmp_path):
    command = plan_of_one_job(tmp_path, "open(now.work / 'there', 'w').close(); time.sleep(100)")
    process = subprocess.Popen([*command, "--minutes", "3"], stderr=subprocess.PIPE, text=True)
    waiting = time.time() + 100
    while not (tmp_path / "out-work" / "there").exists():
        assert time.time() < waiting
        assert process.poll() is None
        time.sleep(0.1)
    begin = time.time()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert time.time() - begin < 8
    assert "Traceback" not in process.stderr.read()
    assert entries_of(tmp_path / "out")["self-check"]["state"] == "done"


def test_a_folder_that_travels_holds_code_without_weights_and_says_its_commit(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "av-18-py3.whl").write_bytes(b"wheel")
    folder = tmp_path / "travels"
    command = [sys.executable, str(KIT / "pack.py"), str(folder), "--wheels", str(tmp_path / "wheels")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(folder.rglob("*.safetensors"))
    assert (folder / "wheels" / "av-18-py3.whl").exists()
    assert (folder / "commit.txt").read_text(encoding="utf-8").strip()
    code = "import dexworld, importlib.metadata as m; print(dexworld.__file__, m.distribution('dexworld').version)"
    alone = {**os.environ, "PYTHONPATH": str(folder / "site")}
    shown = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True, check=True).stdout
    assert shown.startswith(str(folder))
    assert subprocess.run(["bash", "-n", str(folder / "start.sh")], check=False).returncode == 0
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "exists" in again.stderr
