"""World models as a kind of variant: an encoder and a keypoint evaluator that they share, training, measuring."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from dexworld.data.datasets import open_dataset
from dexworld.data.files import read_json
from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.models.latent_readers import encoder_fingerprint, open_evaluator
from dexworld.models.world_model import build_world_model, load_world_model
from dexworld.studies.study import SAMPLING, Plan, Table, Variant
from dexworld.studies.study_data import FIRST_SCENE
from dexworld.studies.study_measures import Subject
from dexworld.studies.world_model_plan import world_model_plan
from dexworld.training.distributed import Processes, local_device
from dexworld.training.estimate import PlanConfig
from dexworld.training.run_data import RunData, fit_encoder
from dexworld.training.sources import open_data
from dexworld.training.train_evaluator import EvaluatorRunConfig, EvaluatorTrainConfig, train_evaluator
from dexworld.training.train_world_model import RunConfig, scaled_to_data, train


@dataclass(frozen=True)
class WorldModels:
    """The kind of a variant that names none: a world model of any registered kind, with its encoder and evaluator."""

    @property
    def plays(self) -> str:
        """Who plays tasks, by its name in `dexworld evaluate tasks`."""
        return "world_model"

    def shared(self, study: Any, variant: Variant) -> Path:
        """The last file of the encoder and, where the study has one, its evaluator."""
        last = "evaluator/results.json" if study.table.sizes.evaluator_steps else "encoder/config.json"
        return self.readers(study, variant) / last

    def share(self, study: Any, variant: Variant) -> None:
        """An encoder, fitted where it is one to fit, and who reads keypoints from latents of true frames."""
        place, sizes, folders = self.readers(study, variant), study.table.sizes, study.data(*study.table.readers)
        if not (place / "encoder" / "config.json").exists():
            model, datasets = build_world_model(study.table.model_of(variant)), [open_dataset(each) for each in folders]
            fit_encoder(model.encoder, datasets, sizes.encoder_frames, 0, local_device(study.device))
            model.save_pretrained(place / "encoder", {"training_seeds": _seeds(datasets)})
        steps = sizes.evaluator_steps
        if not steps:
            return
        every: dict[str, Any] = {"validate_every": steps, "checkpoint_every": 500, "log_every": max(steps // 10, 1)}
        training = EvaluatorTrainConfig(steps, **every, warmup_steps=min(200, steps // 3), bfloat16=sizes.bfloat16)
        own: dict[str, Any] = {"checkpoint": str(place / "encoder"), "size": sizes.evaluator_size}
        own |= {"device": study.device, "training": training}
        train_evaluator(EvaluatorRunConfig(folders, place / "evaluator", **own))

    def train(self, study: Any, variant: Variant, seed: int) -> dict[str, Any]:
        """From new weights, or from another variant's model. What was cut off goes on from its last checkpoint."""
        folder, training = study.folder(variant.name, seed), study.table.training_of(variant, seed)
        start = study.folder(variant.initial, seed) / "model" if variant.initial else folder / "start"
        own: dict[str, Any] = {"sampling": SAMPLING, "validation_fraction": 0.0, "training": training}
        own |= {"device": study.device, "initial": str(start)}
        config = RunConfig(data=study.data(*variant.data), output=folder, **own)
        if not (start / "config.json").exists():
            self._new_model(study, variant, config).save_pretrained(start, {"training_seeds": []})
        return what_it_took(partial(train, config), load_world_model, training)

    def measure(self, study: Any, variant: Variant, seed: int) -> Sums:
        """With the evaluator of its encoder."""
        return self._measured(study, variant, seed, study.folder(variant.name, seed) / "model")

    def plan(self, table: Table, variant: Variant, machines: PlanConfig) -> Plan:
        """See `world_model_plan`."""
        return world_model_plan(table, variant, machines)

    def readers(self, study: Any, variant: Variant) -> Path:
        """The folder of the variant's encoder and of the evaluator of its latents."""
        config = study.table.model_of(variant)
        key = json.dumps([config.encoder.identity(), config.image_size])
        return study.output / "readers" / f"{config.encoder.kind}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"

    def _new_model(self, study: Any, variant: Variant, config: RunConfig) -> Any:
        """A model of new weights with the shared encoder, its actions scaled to the data."""
        encoder = load_world_model(self.readers(study, variant) / "encoder").encoder
        torch.manual_seed(config.training.seed)  # the modules draw their first weights from torch's generator
        model = build_world_model(study.table.model_of(variant))
        model.encoder.load_state_dict(encoder.state_dict())
        data, device = RunData.open(config), local_device(study.device)
        own, fingerprint = model.encoder.to(device), encoder_fingerprint(encoder)
        source, _ = open_data(config, config.training, data, own, fingerprint, device, Processes())
        return scaled_to_data(model, source, data, config)

    def _measured(self, study: Any, variant: Variant, seed: int, model: Path, policy: Path | None = None) -> Sums:
        """What the table's measures find. model, policy: folders, as in `Subject`."""
        sizes, first = study.table.sizes, FIRST_SCENE[study.split]
        evaluator = _evaluator(self.readers(study, variant)) if sizes.evaluator_steps else None
        place = study.folder(variant.name, seed)
        played = (sizes.task_episodes, self.plays, policy, seed)
        subject, sums = Subject(model, evaluator, study.held_out, place, study.split, first, *played), Sums()
        for measure in study.table.measures:
            sums |= measure(subject)
        return sums


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
