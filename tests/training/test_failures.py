"""What goes wrong on real machines: training stops with a clear message, and its last checkpoint is good."""

import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from process_fixtures import CountedTask, Run, tiny_trainer, train_tiny

from dexworld.data.latent_cache import StaleCacheError
from dexworld.models.dexwm import DexWM
from dexworld.training import checkpoints
from dexworld.training.checkpoints import latest
from dexworld.training.distributed import Processes
from dexworld.training.train_config import ScaleConfig
from dexworld.training.train_world_model import train
from dexworld.training.trainer import OutOfMemory

ALONE = Processes()
SPOILED = slice(48, 60)  # frames of episode 4


def spoil_an_episode(cache):
    cache.latents[SPOILED] = np.nan


def assert_goes_on_from(folder: Path, step: int) -> None:
    """The newest checkpoint is of that step, its model loads, and a run goes on from it to its end."""
    path = latest(folder / "checkpoints")
    assert path.name == f"step-{step:08d}"
    assert all(torch.isfinite(value).all() for value in load_file(path / "training.safetensors").values())
    DexWM.from_pretrained(path)
    trainer = tiny_trainer(folder, ALONE)
    assert trainer.resume()
    assert trainer.step == step
    assert trainer.run()


@pytest.mark.parametrize("count", [0, 2])
def test_nan_in_the_share_of_one_process_stops_all_before_a_weight_changes(tmp_path, count):
    run = Run(tmp_path / "errors", count, train_tiny, tmp_path, spoil=spoil_an_episode)
    assert run.wait() == [1] * max(count, 1)
    for rank, error in enumerate(run.errors()):
        assert "TrainingDiverged: the loss is NaN or Inf at step" in error
        assert "Latents are not finite in cache, episode 4, frame" in error
        assert (f"-rank-{rank}.safetensors" in error) == (count > 0)
    saved = [load_file(path)["rows"] for path in sorted(tmp_path.glob("diverged-*"))]
    assert any(SPOILED.start <= row < SPOILED.stop for rows in saved for row in rows.flatten().tolist())
    step = latest(tmp_path / "checkpoints")
    if step is not None:
        assert_goes_on_from(tmp_path, int(step.name[5:]))


@pytest.mark.parametrize("message", ["CUDA out of memory", None], ids=["device", "main memory"])
def test_out_of_memory_says_what_to_change_and_leaves_the_checkpoint(tmp_path, monkeypatch, message):
    original = CountedTask.batch

    def batch(self, index, device):
        if index == 3:
            if message is None:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ...")
            raise torch.OutOfMemoryError(message)
        return original(self, index, device)

    monkeypatch.setattr(CountedTask, "batch", batch)
    with pytest.raises(OutOfMemory, match=r"step 3 .* 4 samples .*--recompute full.*--accumulation.*step-00000002"):
        tiny_trainer(tmp_path, ALONE).run()
    monkeypatch.undo()
    assert_goes_on_from(tmp_path, 2)


def test_a_dead_process_is_noticed_and_one_process_can_go_on_alone(tmp_path):
    run = Run(tmp_path / "errors", 2, train_tiny, tmp_path, pause=0.05)
    while not (tmp_path / "checkpoints" / "latest").exists() and all(each.is_alive() for each in run.processes):
        time.sleep(0.005)
    started = time.monotonic()
    run.kill(1)
    assert run.wait() == [1, -9]
    assert time.monotonic() - started < 60
    error = run.errors()[0]
    assert "LostProcess: a process of the run is gone or stopped answering" in error
    assert "it goes on from the last checkpoint" in error
    assert_goes_on_from(tmp_path, int(latest(tmp_path / "checkpoints").name[5:]))


def test_an_error_in_one_process_is_not_waited_for_by_the_other(tmp_path):
    run = Run(tmp_path / "errors", 2, fails_in_the_second, tmp_path)
    assert run.wait() == [1, 1]
    assert "LostProcess" in run.errors()[0]
    assert "ValueError: the disc is gone" in run.errors()[1]


def fails_in_the_second(folder: Path) -> None:
    if os.environ["RANK"] == "1":

        def batch(self, index, device):
            raise ValueError("the disc is gone")

        CountedTask.batch = batch
    train_tiny(folder)


def test_a_disk_that_takes_no_more_stops_the_run_and_the_checkpoint_before_survives(tmp_path):
    run = Run(tmp_path / "errors", 0, writes_until_full, tmp_path)
    assert run.wait() == [1]
    error = run.errors()[0]
    assert "CheckpointNotWritten: no checkpoint of step 4" in error
    assert "step-00000002 is whole, and the same command goes on from it" in error
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["latest", "step-00000002"]
    assert_goes_on_from(tmp_path, 2)


def writes_until_full(folder: Path, parallel: str = "none") -> None:
    """At step 4 a single process may write 4 kB a file, as on a full disk; of several, the first one fails."""
    original = checkpoints._write

    def written(path, state, save_model):
        if state.step == 4 and parallel != "none":
            raise OSError(28, "No space left on device")
        if state.step == 4:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            original(path, state, save_model)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    checkpoints._write = written
    train_tiny(folder, ScaleConfig(parallel=parallel), keep_checkpoints=1)


def test_a_full_disk_of_the_first_process_stops_all_with_its_message(tmp_path):
    run = Run(tmp_path / "errors", 2, writes_until_full, tmp_path, "fsdp")
    assert run.wait() == [1, 1]
    for error in run.errors():
        assert "CheckpointNotWritten: no checkpoint of step 4" in error
        assert "step-00000002 is whole" in error
    assert latest(tmp_path / "checkpoints").name == "step-00000002"


def test_what_killed_runs_left_of_a_checkpoint_is_removed(tmp_path):
    left = tmp_path / "checkpoints" / ".step-00000001.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    assert tiny_trainer(tmp_path, ALONE, steps=2).run()
    assert not left.exists()


def test_a_damaged_cache_is_named_before_a_step_and_made_anew_where_it_was_damaged(
    disc_data, small_run, model_config, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(disc_data, data, ignore=shutil.ignore_patterns("latents"))
    config = small_run(data, tmp_path / "run")
    train(config, model_config)
    end = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    [shard] = data.glob("latents/*/shards/00000.npy")
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(StaleCacheError, match=r"shards are missing or truncated .*delete them and cache\.json"):
        train(config, model_config)
    assert latest(tmp_path / "run" / "checkpoints").name == "step-00000010"
    shard.unlink()
    (shard.parent.parent / "cache.json").unlink()
    shutil.rmtree(tmp_path / "run")
    train(config, model_config)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == end
