"""Two processes train as one does: the same curve and weights within rounding, spread in every way."""

import json
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from process_fixtures import Run, advance, curve_into, state_of, tiny_trainer, train_tiny

from dexworld.models.config import KeypointHeadConfig
from dexworld.models.decoder import DecoderConfig
from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import load_world_model
from dexworld.training.checkpoints import latest
from dexworld.training.distributed import Processes, choose, joined
from dexworld.training.train_config import ScaleConfig
from dexworld.training.train_decoder import DecoderRunConfig, DecoderTrainConfig, train_decoder
from dexworld.training.train_evaluator import EvaluatorRunConfig, EvaluatorTrainConfig, train_evaluator
from dexworld.training.train_world_model import train
from kind_fixtures import KINDS

ALONE = Processes()


def curve(folder: Path) -> np.ndarray:
    """(steps, 3): step, loss, norm of the gradient."""
    return np.array([[float(word) for word in line.split()] for line in (folder / "curve.txt").open()])


@pytest.fixture(scope="module")
def alone_of(tmp_path_factory):
    """Gives the folder of a run of one process, by kind of world model."""

    @cache
    def run(kind):
        folder = tmp_path_factory.mktemp("alone")
        Run(folder / "errors", 0, train_tiny, folder, kind=kind).succeed()
        return folder

    return run


@pytest.fixture
def alone(alone_of):
    return alone_of("dexwm")


def assert_as_alone(folder: Path, alone: Path) -> None:
    np.testing.assert_allclose(curve(folder), curve(alone), rtol=1e-5)
    ends = [latest(each / "checkpoints") for each in (folder, alone)]
    assert ends[0].name == ends[1].name == "step-00000006"
    found, expected = (state_of(end) for end in ends)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=5e-6, msg=name)
    models = [load_world_model(end).state_dict() for end in ends]
    for name, value in models[1].items():
        torch.testing.assert_close(models[0][name], value, rtol=1e-4, atol=5e-6, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_as_one(alone_of, tmp_path, parallel, kind):
    Run(tmp_path / "errors", 2, train_tiny, tmp_path, ScaleConfig(parallel=parallel), kind=kind).succeed()
    assert_as_alone(tmp_path, alone_of(kind))


def test_accumulated_gradients_are_exchanged_once_and_the_same(tmp_path):
    for name, count, parallel in (("one", 0, "none"), ("ddp", 2, "ddp"), ("fsdp", 2, "fsdp")):
        scale = ScaleConfig(parallel=parallel)
        Run(tmp_path / "errors", count, train_tiny, tmp_path / name, scale, accumulation=2, steps=4).succeed()
    for name in ("ddp", "fsdp"):
        np.testing.assert_allclose(curve(tmp_path / name), curve(tmp_path / "one"), rtol=1e-5)


def test_a_run_goes_on_with_any_number_of_processes_spread_in_any_way(alone, tmp_path):
    sittings = [(2, "fsdp"), (1, "fsdp"), (0, "none"), (2, "ddp"), (2, "fsdp"), (0, "none")]
    for step, (count, parallel) in enumerate(sittings, 1):
        scale = ScaleConfig(parallel=parallel, recompute="full" if step == 2 else "none")
        Run(tmp_path / "errors", count, stopped_after, tmp_path, step, scale).succeed()
    assert_as_alone(tmp_path, alone)
    lines = [line.split() for ledger in tmp_path.glob("ledger-*") for line in ledger.open()]
    assert sorted(int(number) for line in lines for number in line[1:]) == list(range(6 * 4))


def stopped_after(folder: Path, step: int, scale: ScaleConfig) -> None:
    with joined(torch.device("cpu"), 20.0) as processes:
        trainer = tiny_trainer(folder, processes, scale)
        trainer.resume()
        if processes.is_first:
            trainer.report = curve_into(folder)
        advance(trainer, step)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputed_blocks_give_the_same_gradients_and_keep_less(recompute, tmp_path):
    def gradients_and_bytes(scale):
        trainer = tiny_trainer(tmp_path, ALONE, scale)
        kept: dict[int, int] = {}

        def pack(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        results = []
        for index in (0, 5):  # teacher-forced, unrolled
            batch, _ = trainer.task.batch(index, torch.device("cpu"))
            trainer.optimiser.zero_grad()
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = trainer.spread(batch, index)["loss"]
            loss.backward()
            results.append({name: value.grad.clone() for name, value in trainer.parameters.items()})
        return results, sum(kept.values())

    (plain, all_bytes), (again, kept_bytes) = (
        gradients_and_bytes(ScaleConfig(recompute=each)) for each in ("none", recompute)
    )
    for expected, found in zip(plain, again, strict=True):
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert kept_bytes < 0.7 * all_bytes


def test_a_whole_run_of_two_processes_writes_each_file_once(disc_data, small_run, model_config, tmp_path):
    shutil.copytree(disc_data, tmp_path / "data", ignore=shutil.ignore_patterns("latents"))
    config = replace(small_run(tmp_path / "data", tmp_path / "run"), validation_fraction=0.2)
    Run(tmp_path / "errors", 2, train, config, model_config).succeed()
    folder = tmp_path / "run"
    model = DexWM.from_pretrained(folder / "model")
    assert model.provenance["processes"] == 2
    assert model.provenance["figures"].keys() >= {"mse_ratio_stride1_step1", "pck20_true_latents"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [line["step"] for line in lines if "loss" in line]
    assert curve == sorted(set(curve))
    assert {"samples_per_second", "tflops"} <= lines[0].keys()
    assert "mfu" not in lines[0]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert json.loads((folder / "results.json").read_text())["finished"] is True
    assert len(list((tmp_path / "data" / "latents").glob("encoder-*"))) == 1


def test_ways_to_spread_that_cannot_work_are_refused(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert choose("auto") == "none"
    with pytest.raises(ValueError, match="torchrun did not start"):
        choose("fsdp")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert choose("auto") == "ddp"
    with pytest.raises(ValueError, match="2 processes were started"):
        choose("none")
    with pytest.raises(ValueError, match="timeout_seconds"):
        ScaleConfig(timeout_seconds=0)
    with pytest.raises(ValueError, match="recompute"):
        ScaleConfig(recompute="some")


def decoder_run(data, checkpoint, output):
    training = DecoderTrainConfig(steps=3, batch_size=4, warmup_steps=1, log_every=1, validation_pictures=2)
    config = DecoderRunConfig((data,), output, checkpoint=checkpoint, workers=0, device="cpu", training=training)
    train_decoder(config, DecoderConfig(dim=32, depth=1, heads=2, mlp_ratio=2))


def evaluator_run(data, checkpoint, output):
    training = EvaluatorTrainConfig(steps=3, batch_size=4, warmup_steps=1, log_every=1, validation_frames=2)
    config = EvaluatorRunConfig((data,), output, checkpoint=checkpoint, workers=0, device="cpu", training=training)
    train_evaluator(config, KeypointHeadConfig(dim=32, depth=1, heads=2, cell=4))


@pytest.mark.parametrize("work", [decoder_run, evaluator_run])
def test_two_processes_train_a_decoder_or_an_evaluator_as_one_does(work, disc_data, tmp_path, world_model):
    for name, count in (("one", 0), ("two", 2)):
        Run(tmp_path / "errors", count, work, disc_data, str(world_model), tmp_path / name).succeed()
    curves = []
    for name in ("one", "two"):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        curves.append([row["loss"] for row in map(json.loads, lines) if "loss" in row])
    assert len(curves[0]) == len(curves[1]) > 2
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-4)
    first, second = (state_of(next((tmp_path / name / "checkpoints").glob("step-*"))) for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name.startswith("weights/"):
            torch.testing.assert_close(second[name], value, rtol=1e-3, atol=5e-5, msg=name)
