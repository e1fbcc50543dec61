"""Commands in processes of their own, forked from one that has imported what is slow, in whatever surroundings."""

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
PRELOAD = ["dexworld.cli.train", "dexworld.cli.train_readers", "dexworld.cli.inspect", "dexworld.cli.prepare"]
PRELOAD += ["dexworld.evaluation.open_loop", "dexworld.report.imagine", "dexworld.report.video_demo"]
PRELOAD += ["dexworld.video.model.train_video", "diffusers.models.transformers.cogvideox_transformer_3d"]


def _run(words: list[str], said: Path, environment: dict[str, str], missing: tuple[str, ...], below: Path) -> None:
    """A command without a terminal, as the leader of its own group of processes."""
    os.setsid()
    with open(said, "wb", buffering=0) as file, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    os.chdir(below)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, 1) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
    sys.modules.update(dict.fromkeys(missing))
    sys.argv = ["dexworld", *words]
    from dexworld.cli import main

    main(words)


@dataclass
class Command:
    """A running command: its process, and the file that holds what it said."""

    process: multiprocessing.Process
    said: Path

    @property
    def text(self) -> str:
        return self.said.read_text(errors="replace")

    def ended(self, seconds: float = 60.0) -> int:
        """The exit code; the command has to end within so many seconds."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running: {self.text[-2000:]}"
        return self.process.exitcode

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the whole group, and give the exit code."""
        if self.process.is_alive():
            os.killpg(self.process.pid, number)
        return self.ended(15.0)

    def leaves_nobody(self) -> bool:
        """Whether no process of the command's group is left, after a moment."""
        for _ in range(60):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.05)
        return False


def start(words: list, folder: Path, missing: tuple[str, ...] = (), **environment: str) -> Command:
    """Start a command that says what it says into `<folder>/said`, with a temporary folder of its own."""
    CONTEXT.set_forkserver_preload(PRELOAD)
    temporary, said = folder / "tmp", folder / "said"
    temporary.mkdir()
    said.touch()
    inside = {"TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1", **environment}
    arguments = ([str(word) for word in words], said, inside, missing, folder)
    process = CONTEXT.Process(target=_run, args=arguments)
    process.start()
    return Command(process, said)
