"""One way to train: whatever is trained, `fit` joins the processes, resumes, trains, validates and writes.

<output>/model            the model, ready for `from_pretrained`, with its provenance
<output>/checkpoints      training state; start the same command again to go on
<output>/metrics.jsonl    the curve; the same in <output>/tensorboard
<output>/results.json     steps, seconds, validation figures
"""

import hashlib
import json
import logging
import platform
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

import dexworld
from dexworld.data.pace import Pace
from dexworld.training.distributed import Processes, choose, joined, local_device
from dexworld.training.train_config import ScaleConfig
from dexworld.training.trainer import Trainer
from dexworld.writing import write_json, write_text

logger = logging.getLogger(__name__)
SHOWN = ("loss", "latents", "learning_rate", "samples_per_second", "tflops", "mfu")


def fit(
    prepare: Callable[[torch.device, Processes], tuple[Trainer[Any], dict[str, Any]]],
    device: str = "auto",
    scale: ScaleConfig = ScaleConfig(),
) -> Path:
    """Train what `prepare` makes, or go on with a run that was stopped, and return the folder of the model.

    prepare: called with this process's device and the processes of the run; returns a trainer and the provenance of
    its model. Raises what it raises, and what `Trainer.resume` and `Trainer.run` do. Under torchrun all processes call
    this and share the batches.
    """
    choose(scale.parallel)
    own_device = local_device(device)
    with joined(own_device, scale.timeout_seconds) as processes:
        if not processes.is_first:
            logging.getLogger("dexworld").setLevel(logging.WARNING)  # the first process logs what all do
        return run_trainer(*prepare(own_device, processes))


def run_trainer(trainer: Trainer[Any], provenance: dict[str, Any], packages: tuple[str, ...] = ()) -> Path:
    """Resume, train, validate, write the model and results.json; returns the model's folder. The first process writes.

    provenance: what only this kind of run knows; command, steps, time, figures and versions are added here. packages:
    further ones whose versions matter.
    """
    trainer.resume()
    if trainer.processes.is_first:
        log = TrainingLog(trainer.folder, trainer.config.steps, trainer.step)
        trainer.report, trainer.on_step = log.report, log.advance
        with closing(log.board):
            finished = trainer.run()
    else:
        finished = trainer.run()
    figures = trainer.figures or trainer.validate()
    names = ("dexworld", "torch", "numpy", *packages)
    results = {"steps": trainer.step, "finished": finished, "seconds": round(trainer.seconds, 1)}
    provenance = {
        **provenance,
        "command": shlex.join(without_folders(word) for word in sys.argv),  # a model card shows it
        **results,
        "processes": trainer.processes.count,
        "figures": figures,
        "code": code_version(),
        "versions": {**{name: version(name) for name in names}, "python": platform.python_version()},
    }
    folder = trainer.folder / "model"
    with trainer.averaged() as model:
        if trainer.processes.is_first:
            model.save_pretrained(folder, provenance)
            write_json(trainer.folder / "results.json", {**results, "validation": figures})
    return folder


def code_version() -> str:
    """A digest of the package's source files, the same for equal code wherever it lies; 16 hexadecimal digits."""
    root = Path(dexworld.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def without_folders(word: str) -> str:
    """A word without the folders of an absolute path: a model card is no place for them. `a=/b/c` becomes `a=c`."""
    start, sign, path = word.rpartition("=")
    return f"{start}{sign}{Path(path).name}" if Path(path).is_absolute() else word


class TrainingLog:
    """Writes scalars to `folder`/tensorboard and `folder`/metrics.jsonl, and logs a line of them.

    start: step to go on from; what a killed run reported beyond it is dropped, so that the curve has every step once.
    """

    def __init__(self, folder: Path, steps: int, start: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.steps, self.path = steps, folder / "metrics.jsonl"
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= start]
            write_text(self.path, "".join(line + "\n" for line in kept))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        self.pace = Pace()
        self.advance(start)

    def advance(self, step: int) -> None:
        """Log a line when the last one is a minute ago."""
        self.pace.update("training steps", step, self.steps)

    def report(self, step: int, figures: dict[str, float]) -> None:
        """Record scalars by name."""
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **rounded}) + "\n")
        shown = {name: value for name, value in figures.items() if name in SHOWN or name.startswith("validation/")}
        text = "  ".join(f"{name.removeprefix('validation/')} {value:.4g}" for name, value in shown.items())
        rest = self.pace.rest("training steps", step, self.steps)
        self.pace.logged = time.monotonic()
        logger.info("step %d of %d, %s: %s", step, self.steps, rest, text)


def _step(line: str) -> int:
    """The step of a line of metrics.jsonl; beyond every run when a kill cut the line short."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return 2**62
