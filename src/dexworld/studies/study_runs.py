"""A study's folder: what is trained and measured there, one job after another or side by side, and what is finished.

<output>/data           the recordings
<output>/readers/ENC    an encoder and the keypoint evaluator of its latents, shared by all variants with this encoder
<output>/runs/NAME-SEED a variant: its model or policy (trained.json: what it took), and what was measured of it
                        (measured.json)

Everything that a variant doesn't change is shared: the encoder and its latents, the windows of a seed (a pure function
of seed and number), the held-out episodes, the evaluator.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dexworld.baselines.goal_policy import GoalPolicy
from dexworld.data.datasets import open_dataset
from dexworld.data.files import check_same_settings, read_arrays, read_json
from dexworld.data.parallel import Workers, available_cores
from dexworld.evaluation.guard import Split
from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.evaluation.results import plain
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.models.latent_readers import encoder_fingerprint, open_evaluator
from dexworld.models.world_model import build_world_model, load_world_model
from dexworld.studies.study import SAMPLING, Table, Variant
from dexworld.studies.study_data import FIRST_SCENE, Progress, collect_all, recordings_of
from dexworld.studies.study_measures import Subject
from dexworld.training.distributed import Processes, local_device
from dexworld.training.run_data import RunData, fit_encoder
from dexworld.training.sources import open_data
from dexworld.training.train_evaluator import EvaluatorRunConfig, EvaluatorTrainConfig, train_evaluator
from dexworld.training.train_policy import PolicyRunConfig, train_policy
from dexworld.training.train_world_model import RunConfig, scaled_to_data, train
from dexworld.writing import write_json, written_atomically

UNTRAINED = {"steps": 0, "train_seconds": 0.0, "train_cpu_s": 0.0, "parameters": 0}  # what a control took


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
        readers = {self._readers(self.table.variant(job.variant)): job.variant for job in todo}
        last = "evaluator/results.json" if self.table.sizes.evaluator_steps else "encoder/config.json"
        missing = [Job(name) for place, name in readers.items() if not (place / last).exists()]
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
            self._make_readers(variant)
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
        if not steps:
            return
        every: dict[str, Any] = {"validate_every": steps, "checkpoint_every": 500, "log_every": max(steps // 10, 1)}
        training = EvaluatorTrainConfig(steps, **every, warmup_steps=min(200, steps // 3), bfloat16=sizes.bfloat16)
        own: dict[str, Any] = {"checkpoint": str(place / "encoder"), "size": sizes.evaluator_size}
        own |= {"device": self.device, "training": training}
        train_evaluator(EvaluatorRunConfig(folders, place / "evaluator", **own))

    def _run(self, variant: Variant, seed: int) -> None:
        """Train a variant, unless that is done, and measure it."""
        folder = self.folder(variant.name, seed)
        if not (folder / "trained.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            took = self._train(variant, seed) if variant.trains else UNTRAINED
            write_json(folder / "trained.json", {"variant": variant.name, "seed": seed, **took})
        begin = time.process_time()
        sums = self._measured(variant, seed)
        with written_atomically(folder / "sums.npz") as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **sums)  # type: ignore[arg-type]
        spent = {"measure_cpu_s": round(time.process_time() - begin, 2)}
        write_json(folder / "measured.json", read_json(folder / "trained.json") | spent)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        shutil.rmtree(folder / "start", ignore_errors=True)

    def _train(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Train a variant's world model or policy, and say what it took."""
        folder, training = self.folder(variant.name, seed), self.table.training_of(variant, seed)
        own: dict[str, Any] = {"data": self.data(*variant.data), "output": folder, "training": training}
        own |= {"validation_fraction": 0.0, "device": self.device}
        start = self.folder(variant.initial, seed) / "model" if variant.initial else folder / "start"
        if variant.policy is None:
            config = RunConfig(**own, initial=str(start), sampling=SAMPLING)
            if not (start / "config.json").exists():
                self._new_model(variant, config).save_pretrained(start, {"training_seeds": []})
            fit, load = partial(train, config), load_world_model
        else:
            encoder, size = str(self._readers(variant) / "encoder"), self.table.sizes.policy_size
            policy: Any = {"checkpoint": encoder, "form": variant.policy, "size": size}
            fit, load = partial(train_policy, PolicyRunConfig(**own, **policy)), GoalPolicy.from_pretrained
        cpu, wall = time.process_time(), time.monotonic()
        trained = load(fit())
        share = (time.process_time() - cpu) / (time.monotonic() - wall)
        seconds = read_json(folder / "results.json")["seconds"]  # of training alone, all sittings together
        parameters = sum(each.numel() for each in trained.parameters() if each.requires_grad)
        content = {"steps": training.steps, "train_seconds": seconds, "train_cpu_s": round(share * seconds, 2)}
        return content | {"parameters": parameters, "training": asdict(training)}

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
        folder, readers = self.folder(variant.name, seed), self._readers(variant)
        model, policy = folder / "model", None
        if not variant.trains:
            model = self.folder(str(variant.initial), seed) / "model"
        elif variant.policy is not None:
            model, policy = readers / "encoder", model
        held_out = {name: self.output / "data" / f"held-out-{name}" for name in self.table.sizes.held_out}
        evaluator = _evaluator(readers) if self.table.sizes.evaluator_steps else None
        subject = Subject(model, evaluator, held_out, folder, self.split, FIRST_SCENE[self.split],
                          self.table.sizes.task_episodes, variant.plays, policy, seed)  # fmt: skip
        sums: Sums = {}
        for measure in self.table.measures:
            sums |= measure(subject)
        return sums


@lru_cache(maxsize=1)
def _evaluator(place: Path) -> KeypointEvaluator:
    return open_evaluator(place / "evaluator" / "model", load_world_model(place / "encoder").encoder)


def _seeds(datasets: Sequence[Any]) -> list[list[int]]:
    return [[dataset.seeds[0], dataset.seeds[-1]] for dataset in datasets]
