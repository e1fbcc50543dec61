"""What is measured of every model of a study: sums of each held-out episode, by name, that figures are made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dexworld.data.datasets import open_dataset
from dexworld.data.resize import resized
from dexworld.evaluation.guard import Split, check_seeds
from dexworld.evaluation.ledger import Ledger
from dexworld.evaluation.open_loop import OpenLoopConfig, evaluate_open_loop
from dexworld.evaluation.open_loop_metrics import Sums
from dexworld.evaluation.tasks import TasksConfig, evaluate_tasks
from dexworld.models.keypoint_head import KeypointEvaluator
from dexworld.models.world_model import load_world_model
from dexworld.sim.kitchen.kitchen_tasks import Task
from dexworld.studies.study import RATE_HZ, SECONDS


@dataclass(frozen=True)
class Subject:
    """A trained model that is measured: its folder, who reads keypoints from its latents, where episodes are kept.

    held_out: folders of the held-out data by name. seed: the first held-out scene of the split. task_episodes: to plan,
    of each task.
    """

    model: Path
    evaluator: KeypointEvaluator
    held_out: Mapping[str, Path]
    folder: Path
    split: Split
    seed: int
    task_episodes: int


@dataclass(frozen=True)
class OpenLoopMeasure:
    """Roll-outs on held-out video, as `dexworld evaluate open-loop` makes them, with their controls.

    held_out: name of the video; all but the robot's stands before the sums' names (`human/mse`).
    """

    held_out: str = "robot"

    def __call__(self, subject: Subject) -> Sums:
        """Sums (E, T). Raises SeedError for scenes that the model was trained on, ValueError where it predicts NaN."""
        model, config = (
            load_world_model(subject.model),
            OpenLoopConfig(round(SECONDS * RATE_HZ), RATE_HZ, resamples=1),
        )
        dataset = resized(open_dataset(subject.held_out[self.held_out]), model.config.image_size)
        for provenance in (model.provenance, subject.evaluator.provenance):
            check_seeds(dataset.seeds, provenance, subject.split)
        ledger = Ledger(subject.folder / f"{self.held_out}.jsonl", asdict(config) | {"data": dataset.fingerprint})
        episodes = (dataset[index] for index in range(len(dataset)))
        evaluate_open_loop(model, episodes, config, keypoints=subject.evaluator.keypoints, ledger=ledger)
        rows, prefix = list(ledger.results()), "" if self.held_out == "robot" else f"{self.held_out}/"
        shared = [key for key in rows[0] if all(key in row for row in rows)]
        return {prefix + key: np.array([row[key] for row in rows]) for key in shared}


@dataclass(frozen=True)
class TaskMeasure:
    """Planning on held-out scenes, as `dexworld evaluate tasks` does it, with its controls.

    Of a task `reach` come `reach_success`, 1 where the model solved an episode, and `reach_kinematics`, the rate of
    kinematics alone.
    """

    tasks: tuple[Task, ...] = ("reach", "grasp", "place")

    def __call__(self, subject: Subject) -> Sums:
        """Sums (E, 1). Raises SeedError as `OpenLoopMeasure` does."""
        own: dict[str, Any] = {"tasks": self.tasks, "episodes": subject.task_episodes}
        shared: dict[str, Any] = {"seed": subject.seed, "split": subject.split, "simulator_episodes": 0, "workers": 1}
        rows = evaluate_tasks(TasksConfig(str(subject.model), **own, **shared), subject.folder / "tasks.jsonl")
        sums: Sums = {}
        for task, row in rows.items():
            sums[f"{task}_success"] = np.isin(row["seeds"], row["succeeded_seeds"]).astype(float)[:, None]
            sums[f"{task}_kinematics"] = np.full((subject.task_episodes, 1), row["kinematics_only"])
        return sums
