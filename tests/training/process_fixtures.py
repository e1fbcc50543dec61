"""Runs of several processes for tests: forked from one that has imported torch, so that a process costs little."""

import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from dexworld.data.frame_labels import FrameLabels
from dexworld.data.latent_cache import LatentCache
from dexworld.data.windows import DEFAULT_COLUMNS, WindowSampler
from dexworld.models.config import DexWMConfig, EncoderConfig, KeypointHeadConfig, PredictorConfig
from dexworld.models.world_model import build_world_model
from dexworld.track import TASK_BYTES
from dexworld.training.distributed import joined
from dexworld.training.train_config import ScaleConfig, TrainConfig
from dexworld.training.trainer import Trainer
from dexworld.training.window_task import WindowTask
from kind_fixtures import config_of

EPISODES, FRAMES = 8, 12
CONTEXT = multiprocessing.get_context("forkserver")
# Installed modules only: the server does not know the path of the tests.
CONTEXT.set_forkserver_preload(["dexworld.training.train_world_model", "torch._dynamo"])


RECORD = np.dtype(
    [
        ("keypoints_world", "<f4", (42, 3)),
        ("world_from_camera", "<f4", (4, 4)),
        ("object_motion", "<f4"),
        ("keypoints_valid", "?", (42,)),
        ("keypoints_shown", "?", (42,)),
        ("body_world", "<f4", (18, 3)),
        ("body_valid", "?", (18,)),
        ("task_utf8", "u1", (TASK_BYTES,)),
    ]
)


def tiny_model(kind: str = "dexwm"):
    torch.manual_seed(0)
    config = DexWMConfig(
        image_size=(56, 56),
        encoder=EncoderConfig(dim=8, patch=14, downsample=2),
        predictor=PredictorConfig(dim=16, depth=2, heads=2, num_context=3),
        keypoint_head=KeypointHeadConfig(dim=16, depth=1, heads=2, cell=4),
    )
    return build_world_model(config_of(kind, config))


def tiny_cache() -> LatentCache:
    """Latents of episodes in which the number of visible keypoints differs, so that shares of a batch differ too."""
    generator = np.random.default_rng(0)
    total = EPISODES * FRAMES
    keypoints = generator.uniform(-0.2, 0.2, (total, 42, 3)).astype(np.float32)
    keypoints[..., 2] = 1.0
    records = np.zeros(total, RECORD)
    records["keypoints_world"], records["world_from_camera"] = keypoints, np.eye(4)
    records["keypoints_valid"] = generator.random((total, 42)) < generator.random((total, 1))
    records["keypoints_shown"] = records["keypoints_valid"]
    records["body_world"], records["body_valid"] = keypoints[:, :18] / 2, True
    records["task_utf8"][:, :2] = np.repeat(np.arange(97, 97 + EPISODES), FRAMES)[:, None]
    intrinsics = np.tile(np.array([[100, 0, 28], [0, 100, 28], [0, 0, 1]], np.float32), (EPISODES, 1, 1))
    labels = FrameLabels(records, np.arange(EPISODES + 1) * FRAMES, intrinsics, np.full(EPISODES, 5.0))
    return LatentCache(Path("cache"), generator.standard_normal((total, 4, 8)).astype(np.float16), labels)


def tiny_training(**changes) -> TrainConfig:
    defaults = {"steps": 6, "batch_size": 4, "unroll_steps": 2, "warmup_steps": 1, "learning_rate": 3e-3}
    defaults |= {"stride_weights": (1.0, 1.0), "log_every": 1, "checkpoint_every": 2}
    return TrainConfig(**(defaults | {"hand_consistency": 0.1, "true_keypoints": 0.1} | changes))


class CountedTask(WindowTask):
    """Writes, for every batch that this process draws, the numbers of its samples into a ledger of its own."""

    ledger: Path

    def batch(self, index, device):
        batch, size = super().batch(index, device)
        numbers = self.source.numbers
        with open(self.ledger, "a", encoding="utf-8") as file:
            file.write(f"{index} {' '.join(map(str, numbers))}\n")
        return batch, size


class NumberedSampler(WindowSampler):
    """Remembers the numbers of the samples that it drew last."""

    def batch(self, step, size):
        self.numbers = list(range(step * size, (step + 1) * size))[self.rank :: self.world_size]
        assert self.sampler.draw(step, size).share(self.rank, self.world_size).numbers.tolist() == self.numbers
        return super().batch(step, size)


def tiny_trainer(folder: Path, processes, scale=ScaleConfig(), spoil=None, kind="dexwm", **changes) -> Trainer:
    model, config, cache = tiny_model(kind), tiny_training(**changes), tiny_cache()
    if spoil is not None:
        spoil(cache)
    windows = partial(NumberedSampler, [cache], seed=0, rank=processes.rank, world_size=processes.count)
    windows = partial(windows, columns=getattr(model, "columns", DEFAULT_COLUMNS))
    task = CountedTask(model, config, windows, items_each=processes.items_each)
    folder.mkdir(parents=True, exist_ok=True)
    task.ledger = folder / f"ledger-{os.getpid()}.txt"
    options = {"blocks": model.blocks, "idle_parameters": False}
    return Trainer(model, config, task, folder, processes=processes, scale=scale, **options)


def advance(trainer: Trainer, step: int) -> None:
    """Go on up to `step` and write a checkpoint there, as a run does whose time is over."""
    while trainer.step < step:
        losses, _ = trainer._train_step()
        trainer.step += 1
        if trainer.report:
            trainer.report(trainer.step, {name: float(value) for name, value in losses.items()})
    trainer.save()


def curve_into(folder: Path):
    """A `Trainer.report` that writes lines of step, loss and norm of the gradient."""

    def report(step, figures):
        with open(folder / "curve.txt", "a", encoding="utf-8") as file:
            file.write(f"{step} {figures['loss']!r} {figures['gradient_norm']!r}\n")

    return report


def train_tiny(folder: Path, scale=ScaleConfig(), resume=True, pause=0.0, curve=None, **changes) -> None:
    """Train the tiny model as one of the processes; steps are written into `folder`/steps-<rank>."""
    with joined(torch.device("cpu"), 20.0) as processes:
        trainer = tiny_trainer(folder, processes, scale, **changes)
        if resume:
            trainer.resume()

        def on_step(step):
            with open(folder / f"steps-{processes.rank}.txt", "a", encoding="utf-8") as file:
                file.write(f"{step}\n")
            time.sleep(pause)

        trainer.on_step = on_step
        if processes.is_first:
            trainer.report = curve_into(folder)
        trainer.run()


def _child(rank, count, port, work, error_file, arguments, options):
    torch.set_num_threads(1)
    os.environ.pop("OMP_NUM_THREADS", None)
    if count:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    try:
        work(*arguments, **options)
    except BaseException:
        Path(error_file).write_text(traceback.format_exc(), encoding="utf-8")
        sys.stdout.flush()
        os._exit(1)
    Path(f"{error_file}.cpu").write_text(str(time.process_time()))
    os._exit(0)


class Run:
    """Processes 0 .. count - 1 at work; count 0 is one without a launcher."""

    def __init__(self, errors: Path, count: int, work, *arguments, **options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        errors.mkdir(parents=True, exist_ok=True)
        self.files = [errors / f"error-{rank}.txt" for rank in range(max(count, 1))]
        for file in self.files:
            file.unlink(missing_ok=True)
        self.processes = [
            CONTEXT.Process(target=_child, args=(rank, count, port, work, str(file), arguments, options))
            for rank, file in enumerate(self.files)
        ]
        for process in self.processes:
            process.start()

    def kill(self, rank: int) -> None:
        os.kill(self.processes[rank].pid, signal.SIGKILL)

    def wait(self, seconds: float = 120.0) -> list[int]:
        """Exit codes by rank; -9 for a process that was killed."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.1))
            if process.is_alive():
                process.kill()
                process.join()
        return [process.exitcode for process in self.processes]

    def errors(self) -> list[str]:
        return [file.read_text(encoding="utf-8") if file.exists() else "" for file in self.files]

    def succeed(self) -> None:
        assert self.wait() == [0] * len(self.processes), self.errors()


def state_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The training state of a checkpoint."""
    return load_file(checkpoint / "training.safetensors")
