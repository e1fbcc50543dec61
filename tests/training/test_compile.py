"""Compiled blocks: the same gradients within rounding, one code for all of them and for windows of any length."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from process_fixtures import tiny_trainer
from torch._dynamo.utils import counters

from dexworld.training import blocks
from dexworld.training.config import ScaleConfig
from dexworld.training.distributed import Processes

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


def test_windows_of_any_length_and_all_blocks_share_the_code(traced, tmp_path):
    for steps in (2, 4, 5):
        trainer = tiny_trainer(tmp_path, ALONE, ScaleConfig(compile=True), unroll_steps=steps)
        gradients(trainer, (TEACHER_FORCED, UNROLLED))
    assert counters["stats"]["unique_graphs"] == 3  # before the context, after it, its keys
