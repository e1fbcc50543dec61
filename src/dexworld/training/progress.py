"""What a run tells while it goes on: TensorBoard, a line of JSON for each report, a progress bar or log lines."""

import json
import logging
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)
SHOWN = ("loss", "latents", "learning_rate", "samples_per_second", "tflops", "mfu")


class TrainingLog:
    """Writes `folder`/tensorboard and `folder`/metrics.jsonl; use as a context manager.

    On a terminal a progress bar shows the last figures, elsewhere each report is a log line. start: step to go on from;
    what a killed run reported beyond it is dropped, so that the curve has every step once.
    """

    def __init__(self, folder: Path, steps: int, start: int = 0, console: Console | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.steps, self.path = steps, folder / "metrics.jsonl"
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= start]
            self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        self.console = console or Console(stderr=True)
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID = self.bar.add_task("training", total=steps, completed=start, figures="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        self.board.close()

    def advance(self, step: int) -> None:
        """Move the bar to `step`."""
        self.bar.update(self.task, completed=step)

    def report(self, step: int, figures: dict[str, float]) -> None:
        """Record scalars by name."""
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **rounded}) + "\n")
        shown = {name: value for name, value in figures.items() if name in SHOWN or name.startswith("validation/")}
        text = "  ".join(f"{name.removeprefix('validation/')} {value:.4g}" for name, value in shown.items())
        if any(name.startswith("validation/") for name in figures):
            logger.info("step %d of %d: %s", step, self.steps, text)
            if self.console.is_terminal:
                self.bar.console.log(f"step {step}: {text}")
        else:
            self.bar.update(self.task, completed=step, figures=text)
            if not self.console.is_terminal:
                logger.info("step %d of %d: %s", step, self.steps, text)


def _step(line: str) -> int:
    """The step of a line of metrics.jsonl; beyond every run when a kill cut the line short."""
    try:
        return int(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return 2**62
