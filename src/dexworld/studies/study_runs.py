"""A study's folder: what is trained and measured there, one job after another or side by side, and what is finished.

<output>/data           the recordings
<output>/readers/ENC    an encoder and the keypoint evaluator of its latents, shared by all variants with this encoder
<output>/runs/NAME-SEED a variant: its model (trained.json: what it took), and what was measured of it (measured.json)

A variant's `Kind` trains and measures it. Here are those of world models.

Everything that a variant doesn't change is shared: the encoder and its latents, the windows of a seed (a pure function
of seed and number), the held-out episodes, the evaluator.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.data.datasets import open_dataset
from dexworld.data.files import check_same_settings, read_arrays, read_json
from dexworld.data.parallel import Workers, available_cores
from dexworld.evaluation.guard import Split
from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.evaluation.results import plain
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.models.latent_readers import encoder_fingerprint, open_evaluator
from dexworld.models.world_model import build_world_model, load_world_model
from dexworld.studies.study import SAMPLING, Kind, Plan, Table, Variant
from dexworld.studies.study_data import FIRST_SCENE, Progress, collect_all, recordings_of
from dexworld.studies.study_measures import Subject
from dexworld.studies.world_model_plan import world_model_plan
from dexworld.training.distributed import Processes, local_device
from dexworld.training.estimate import PlanConfig
from dexworld.training.run_data import RunData, fit_encoder
from dexworld.training.sources import open_data
from dexworld.training.train_evaluator import EvaluatorRunConfig, EvaluatorTrainConfig, train_evaluator
from dexworld.training.train_world_model import RunConfig, scaled_to_data, train
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

    def _readers(self, variant: Variant) -> Path:
        config = self.table.model_of(variant)
        key = json.dumps([config.encoder.identity(), config.image_size])
        return self.output / "readers" / f"{config.encoder.kind}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    def _make_readers(self, variant: Variant) -> None:
        """An encoder, fitted where it is one to fit, and who reads keypoints from latents of true frames."""
        place, sizes, folders = self._readers(variant), self.table.sizes, self.data(*self.table.readers)
        if not (place / "encoder" / "config.json").exists():
            model, datasets = build_world_model(self.table.model_of(variant)), [open_dataset(each) for each in folders]
            fit_encoder(model.encoder, datasets, sizes.encoder_frames, 0, local_device(self.device))
            model.save_pretrained(place / "encoder", {"training_seeds": _seeds(datasets)})
        steps = sizes.evaluator_steps
        every: dict[str, Any] = {"validate_every": steps, "checkpoint_every": 500, "log_every": max(steps // 10, 1)}
        training = EvaluatorTrainConfig(steps, **every, warmup_steps=min(200, steps // 3), bfloat16=sizes.bfloat16)
        own: dict[str, Any] = {"checkpoint": str(place / "encoder"), "size": sizes.evaluator_size}
        own |= {"device": self.device, "training": training}
        train_evaluator(EvaluatorRunConfig(folders, place / "evaluator", **own))

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

    def _train(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Train a variant's world model, and say what it took. What was cut off goes on from its last checkpoint."""
        folder, training = self.folder(variant.name, seed), self.table.training_of(variant, seed)
        start = self.folder(variant.initial, seed) / "model" if variant.initial else folder / "start"
        own: dict[str, Any] = {
            "sampling": SAMPLING,
            "validation_fraction": 0.0,
            "training": training,
            "device": self.device,
        }
        config = RunConfig(data=self.data(*variant.data), output=folder, initial=str(start), **own)
        if not (start / "config.json").exists():
            self._new_model(variant, config).save_pretrained(start, {"training_seeds": []})
        return what_it_took(partial(train, config), load_world_model, training)

    def _new_model(self, variant: Variant, config: RunConfig) -> Any:
        """A model of new weights with the shared encoder, its actions scaled to the data."""
        encoder = load_world_model(self._readers(variant) / "encoder").encoder
        torch.manual_seed(config.training.seed)  # the modules draw their first weights from torch's generator
        model = build_world_model(self.table.model_of(variant))
        model.encoder.load_state_dict(encoder.state_dict())
        data, device = RunData.open(config), local_device(self.device)
        own, fingerprint = model.encoder.to(device), encoder_fingerprint(encoder)
        source, _ = open_data(config, config.training, data, own, fingerprint, device, Processes())
        return scaled_to_data(model, source, data, config)

    def _measured(self, variant: Variant, seed: int) -> Sums:
        folder = self.folder(variant.name, seed)
        held_out = {name: self.output / "data" / f"held-out-{name}" for name in self.table.sizes.held_out}
        evaluator = _evaluator(self._readers(variant))
        subject = Subject(folder / "model", evaluator, held_out, folder, self.split, FIRST_SCENE[self.split],
                          self.table.sizes.task_episodes)  # fmt: skip
        sums: Sums = {}
        for measure in self.table.measures:
            sums |= measure(subject)
        return sums


@dataclass(frozen=True)
class WorldModels:
    """The kind of a variant that names none: a world model of any registered kind, with its encoder and evaluator."""

    def shared(self, study: Study, variant: Variant) -> Path:
        """The last file of the encoder and its evaluator."""
        return study._readers(variant) / "evaluator" / "results.json"

    def share(self, study: Study, variant: Variant) -> None:
        """Make both."""
        study._make_readers(variant)

    def train(self, study: Study, variant: Variant, seed: int) -> dict[str, Any]:
        """From new weights, or from another variant's model."""
        return study._train(variant, seed)

    def measure(self, study: Study, variant: Variant, seed: int) -> Sums:
        """With the evaluator of its encoder."""
        return study._measured(variant, seed)

    def plan(self, table: Table, variant: Variant, machines: PlanConfig) -> Plan:
        """See `world_model_plan`."""
        return world_model_plan(table, variant, machines)


def kind_of(variant: Variant) -> Kind:
    """Who trains and measures a variant."""
    return variant.kind or WorldModels()


def what_it_took(fit: Callable[[], Path], load: Callable[[Path], Any], training: Any) -> dict[str, Any]:
    """Train with `fit`, which gives the model's folder beside its results.json; what `Kind.train` says of it.

    load: reads the model. training: the settings.
    """
    cpu, wall = time.process_time(), time.monotonic()
    folder = fit()
    share = (time.process_time() - cpu) / (time.monotonic() - wall)
    seconds = read_json(folder.parent / "results.json")["seconds"]  # of training alone, all sittings together
    content = {"steps": training.steps, "train_seconds": seconds, "train_cpu_s": round(share * seconds, 2)}
    content |= {"parameters": sum(each.numel() for each in load(folder).parameters() if each.requires_grad)}
    return content | {"training": asdict(training)}


@lru_cache(maxsize=1)
def _evaluator(place: Path) -> KeypointEvaluator:
    return open_evaluator(place / "evaluator" / "model", load_world_model(place / "encoder").encoder)


def _seeds(datasets: Sequence[Any]) -> list[list[int]]:
    return [[dataset.seeds[0], dataset.seeds[-1]] for dataset in datasets]
