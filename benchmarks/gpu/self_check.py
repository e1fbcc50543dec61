"""A look at the machine before minutes are spent: what is there, how fast it is, whether a step and a picture work."""

import os
import shutil
from importlib import metadata

import torch

from dexworld.models.dexwm import DexWM
from dexworld.models.world_model import preset
from dexworld.training.train_config import TrainConfig
from jobs import Figures, Slice
from training_setup import OneWindow, make_trainer, one_step, random_window

PACKAGES = ("dexworld", "numpy", "transformers", "mujoco", "gymnasium", "av", "h5py", "diffusers", "accelerate")
PACKAGES += ("tyro", "triton")


def self_check(now: Slice) -> Figures:
    """Facts and rates of the machine. Raises what a broken device or library raises."""
    machine, side, size = now.machine, now.size(8192, 128), now.size(2**31, 2**20)
    return {
        "card": machine.card,
        "memory_gib": None if machine.memory_bytes is None else machine.memory_bytes / 2**30,
        "cores": len(os.sched_getaffinity(0)),
        "driver": machine.driver,
        "torch": torch.__version__,
        "matmul_tflops": machine.matmul_tflops(side),
        "matmul": f"bfloat16, {side} x {side} x {side}",
        "copy_gb_per_second": machine.copy_gb_per_second(size),
        "disk_free_gb": shutil.disk_usage(now.work).free / 1e9,
        "step_loss": step_loss(now),
        "compiler": shutil.which("gcc") or shutil.which("cc") or "missing",
        "renderer": renderer(),
        "packages": {name: installed(name) for name in PACKAGES},
    }


def step_loss(now: Slice) -> float:
    """The loss of a bfloat16 training step of the smallest model, so that a step is known to run here."""
    config, training = preset("debug"), TrainConfig(bfloat16=True, batch_size=2)
    torch.manual_seed(0)
    model = DexWM(config).to(now.machine.device)
    window = random_window(config, 2, config.predictor.num_context + 1, now.machine.device)
    task = OneWindow(model, training, window, False)
    one_step(make_trainer(model, training, task, now.work / "self-check"))
    return float(task.losses(window, 0)["loss"].detach())


def renderer() -> str:
    """What draws the simulator's pictures, or why nothing does."""
    try:
        from dexworld.sim.render import choose_backend

        return choose_backend()
    except Exception as error:  # a driver can fail in any way
        return f"none: {error}"


def installed(name: str) -> str:
    """The version of a package, or "missing"."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
