"""Compiled blocks: the same gradients within rounding, one code for all of them and for windows of any length."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from process_fixtures import Run, advance, state_of, tiny_trainer, train_tiny
from torch._dynamo.utils import counters

from dexworld.models.dexwm import DexWM
from dexworld.training import blocks
from dexworld.training.checkpoints import latest
from dexworld.training.distributed import Processes, joined
from dexworld.training.train_config import ScaleConfig
from dexworld.training.train_world_model import train

ALONE = Processes()
TEACHER_FORCED, UNROLLED = 0, 5  # batches of either phase


@pytest.fixture
def traced(monkeypatch):
    """Everything but the C++ compiler: graphs are captured, differentiated and run by torch."""
    monkeypatch.setattr(blocks, "COMPILER", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def gradients(trainer, indices):
    """Loss and gradients of batches one after the other."""
    results = []
    for index in indices:
        batch, _ = trainer.task.batch(index, torch.device("cpu"))
        trainer.optimiser.zero_grad()
        loss = trainer.spread(batch, index)["loss"]
        loss.backward()
        results.append(
            {"loss": loss.detach(), **{name: each.grad.clone() for name, each in trainer.parameters.items()}}
        )
    return results


def assert_close(found, expected):
    for left, right in zip(found, expected, strict=True):
        for name, value in right.items():
            torch.testing.assert_close(left[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_compiled_blocks_give_the_same_gradients_in_both_phases(traced, recompute, tmp_path):
    order = (TEACHER_FORCED, UNROLLED)
    plain = gradients(tiny_trainer(tmp_path, ALONE), order)
    trainer = tiny_trainer(tmp_path, ALONE, ScaleConfig(compile=True, recompute=recompute))
    assert_close(gradients(trainer, order), plain)
    assert counters["stats"]["unique_graphs"] == 3
    assert not counters["graph_break"]


def test_the_real_compiler_gives_the_same_gradients_from_three_graphs(tmp_path):
    torch._dynamo.reset()
    order = (TEACHER_FORCED, UNROLLED)
    plain = gradients(tiny_trainer(tmp_path, ALONE), order)
    trainer = tiny_trainer(tmp_path, ALONE, ScaleConfig(compile=True))
    counters.clear()  # of the line that was compiled to see whether a compiler is there
    assert_close(gradients(trainer, order), plain)
    assert counters["stats"]["unique_graphs"] == 3
    torch._dynamo.reset()


def test_windows_of_any_length_and_all_blocks_share_the_code(traced, tmp_path):
    for steps in (2, 4, 5):
        trainer = tiny_trainer(tmp_path, ALONE, ScaleConfig(compile=True), unroll_steps=steps)
        gradients(trainer, (TEACHER_FORCED, UNROLLED))
    assert counters["stats"]["unique_graphs"] == 3  # before the context, after it, its keys
    gradients(tiny_trainer(tmp_path, ALONE, ScaleConfig(compile=True), batch_size=1), (TEACHER_FORCED, UNROLLED))
    assert counters["stats"]["unique_graphs"] <= 6  # an axis of length 1 is a case of its own
    assert not counters["graph_break"]


def test_a_compiled_run_goes_from_data_to_a_model(traced, disc_data, small_run, model_config, tmp_path):
    config = small_run(disc_data, tmp_path / "run")
    config = replace(config, training=replace(config.training, steps=3, teacher_forced=0.5, checkpoint_every=3))
    models = [
        DexWM.from_pretrained(train(each, model_config))
        for each in (replace(config, scale=ScaleConfig(compile=True)), replace(config, output=tmp_path / "plain"))
    ]
    assert counters["stats"]["unique_graphs"] == 3
    weights, plain = (each.state_dict() for each in models)
    for name, value in plain.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_compiled_blocks_spread_over_processes_and_a_run_goes_on_with_or_without_them(tmp_path):
    Run(tmp_path / "errors", 0, train_tiny, tmp_path / "plain").succeed()
    sittings = [(0, "none", False, 2), (2, "fsdp", True, 5), (2, "ddp", True, 6)]
    for count, parallel, compiled, steps in sittings:
        scale = ScaleConfig(parallel=parallel, compile=compiled)
        run = Run(tmp_path / "errors", count, train_traced, tmp_path / "parts", scale, steps)
        assert not any(run.wait(400.0)), run.errors()
    found, expected = (state_of(latest(tmp_path / name / "checkpoints")) for name in ("parts", "plain"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def train_traced(folder: Path, scale: ScaleConfig, steps: int) -> None:
    blocks.COMPILER = "aot_eager"
    with joined(torch.device("cpu"), 300.0) as processes:
        trainer = tiny_trainer(folder, processes, scale)
        trainer.resume()
        advance(trainer, steps)
        assert (counters["stats"]["unique_graphs"] == 3) == scale.compile


def test_names_of_weights_stay_and_validation_runs_what_it_always_ran(traced, tmp_path):
    trainer = tiny_trainer(tmp_path, ALONE, ScaleConfig(compile=True))
    plain = tiny_trainer(tmp_path, ALONE)
    assert trainer.model.state_dict().keys() == plain.model.state_dict().keys()
    window, _ = trainer.task.batch(TEACHER_FORCED, torch.device("cpu"))
    with torch.no_grad():
        left, right = (each.task.losses(window, TEACHER_FORCED) for each in (trainer, plain))
    assert all(torch.equal(left[name], right[name]) for name in right)
    assert not counters["stats"]["unique_graphs"]


def test_a_machine_without_a_compiler_is_named_before_anything_is_trained(monkeypatch, tmp_path):
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    torch._dynamo.reset()
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    with fresh_cache(), pytest.raises(ValueError, match=r"can't compile for cpu.*C\+\+ compiler"):
        tiny_trainer(tmp_path, ALONE, ScaleConfig(compile=True))
    torch._dynamo.reset()
