"""A study's folder: what is trained and measured there, one job after another or side by side, and what is finished.

<output>/data           the recordings
<output>/readers/ENC    an encoder and the keypoint evaluator of its latents, shared by all variants with this encoder
<output>/runs/NAME-SEED a variant: its model or policy (trained.json: what it took), and what was measured of it
                        (measured.json)

A variant's `Kind` trains and measures it: `WorldModels`, where it names none.

Everything that a variant doesn't change is shared: the encoder and its latents, the windows of a seed (a pure function
of seed and number), the held-out episodes, the evaluator.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.files import check_same_settings, read_arrays, read_json
from dexworld.data.parallel import Workers, available_cores
from dexworld.evaluation.guard import Split
from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.evaluation.results import plain
from dexworld.studies.study import Kind, Table, Variant
from dexworld.studies.study_data import Progress, collect_all, recordings_of
from dexworld.studies.world_model_runs import WorldModels
from dexworld.training.distributed import local_device
from dexworld.writing import write_json, written_atomically


@dataclass(frozen=True)
class Job:
    """A variant and its first weights' and windows' seed; without a seed what all variants with its encoder share."""

    variant: str
    seed: int | None = None

    def __str__(self) -> str:
        return f"the encoder of {self.variant}" if self.seed is None else f"{self.variant}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """A table's folder. Begun with other sizes or another split it is refused with ValueError by `open`."""

    table: Table
    output: Path
    split: Split = "validation"
    device: str = "auto"

    @property
    def settings(self) -> dict[str, Any]:
        """What its folder is held to."""
        sizes = plain(asdict(self.table.sizes), "sizes")
        return {"table": self.table.name, "split": self.split, "sizes": sizes}

    def open(self, names: Sequence[str], workers: int = 0, progress: Progress = lambda *_: iter) -> None:
        """Hold the folder to its settings, and collect what is missing of the data that these variants need."""
        local_device(self.device)
        path = self.output / "study.json"
        if path.exists():
            check_same_settings(path, read_json(path), self.settings)
        self.output.mkdir(parents=True, exist_ok=True)
        write_json(path, self.settings)
        variants = map(self.table.variant, self.table.with_ancestors(names))
        needed = dict.fromkeys([*self.table.readers, *(name for variant in variants for name in variant.data)])
        collect_all(recordings_of(self.table.sizes, needed, self.split), self.output / "data", workers, progress)

    def waves(self, names: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, list[Job]]]:
        """What is missing of these variants and of those that they start from: jobs that don't wait for each other.

        Encoders come first, then models, then models that start from those. What needs a package that is not installed
        is left out.
        """
        runnable = [name for name in names if all(map(self.can_run, self.table.with_ancestors([name])))]
        depths = self.table.with_ancestors(runnable)
        todo = [Job(name, seed) for seed in seeds for name in depths if not self.finished(name, seed)]
        variants = {name: self.table.variant(name) for name in (job.variant for job in todo)}
        shared = {kind_of(variant).shared(self, variant): name for name, variant in variants.items()}
        missing = [Job(name) for file, name in shared.items() if file is not None and not file.exists()]
        waves = [("encoders", missing)]
        for depth in sorted(set(depths.values())):
            waves.append(("models", [job for job in todo if depths[job.variant] == depth]))
        return [(title, jobs) for title, jobs in waves if jobs]

    def run(self, jobs: Sequence[Job], workers: int = 1, ray: str | None = None) -> Iterator[int]:
        """Do the jobs of a wave side by side, and say how many are done.

        Raises the error of the first that fails; finished ones are kept.
        """
        with Workers(self, min(workers or available_cores(), len(jobs)) if ray is None else workers, ray) as pool:
            for done, _ in enumerate(pool.map(jobs, ordered=False), start=1):
                yield done

    def __call__(self, job: Job) -> None:
        """Do one job in this process."""
        variant = self.table.variant(job.variant)
        if job.seed is None:
            kind_of(variant).share(self, variant)
        elif not self.finished(job.variant, job.seed):
            self._run(variant, job.seed)

    def can_run(self, name: str) -> bool:
        """Whether the package that a variant needs is installed."""
        needs = self.table.variant(name).needs
        return needs is None or find_spec(needs[1]) is not None

    def folder(self, name: str, seed: int) -> Path:
        """Where a run lies."""
        return self.output / "runs" / f"{name}-{seed}"

    def finished(self, name: str, seed: int) -> bool:
        """Whether a run is there, measured."""
        return (self.folder(name, seed) / "measured.json").exists()

    def record(self, name: str, seed: int) -> tuple[dict[str, Any], Sums]:
        """What is known of a finished run, and its sums of each held-out episode."""
        folder = self.folder(name, seed)
        return read_json(folder / "measured.json"), read_arrays(folder / "sums.npz")[0]

    def data(self, *names: str) -> tuple[Path, ...]:
        """Folders of the data of these names."""
        return tuple(self.output / "data" / name for name in names)

    @property
    def held_out(self) -> dict[str, Path]:
        """Folders of the held-out data by name."""
        return {name: self.output / "data" / f"held-out-{name}" for name in self.table.sizes.held_out}

    def _run(self, variant: Variant, seed: int) -> None:
        """Train a variant, unless that is done, and measure it."""
        kind, folder = kind_of(variant), self.folder(variant.name, seed)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "trained.json").exists():
            trained = {"variant": variant.name, "seed": seed, **kind.train(self, variant, seed)}
            write_json(folder / "trained.json", trained)
        begin = time.process_time()
        sums = kind.measure(self, variant, seed)
        with written_atomically(folder / "sums.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **sums)  # type: ignore[arg-type]
        spent = {"measure_cpu_s": round(time.process_time() - begin, 2)}
        write_json(folder / "measured.json", read_json(folder / "trained.json") | spent)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(folder / "start", ignore_errors=True)


def kind_of(variant: Variant) -> Kind:
    """Who trains and measures a variant: by default as a world model."""
    return variant.kind or WorldModels()
