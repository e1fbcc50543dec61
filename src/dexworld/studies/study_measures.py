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
from dexworld.evaluation.tasks import TasksConfig, evaluate_tasks, figure_names
from dexworld.models.world_model import load_world_model
from dexworld.planning.policies import POLICIES
from dexworld.sim.kitchen.kitchen_tasks import Task
from dexworld.studies.study import RATE_HZ, SECONDS

SCENES_EACH = 10  # of a seed for each of its episodes; some scenes give none


@dataclass(frozen=True)
class Subject:
    """A trained model or policy that is measured: its folder, who reads keypoints from its latents, where episodes are
    kept.

    model: beside a policy, one with its encoder. evaluator: a `KeypointEvaluator`, None where the study trains none.
    held_out: folders of the held-out data by name. seed: the first held-out scene of the split. task_episodes: to play,
    of each task. plays: who plays them, as in `Variant`. policy: folder of a learned one. training_seed: of the run.
    """

    model: Path
    evaluator: Any
    held_out: Mapping[str, Path]
    folder: Path
    split: Split
    seed: int
    task_episodes: int
    plays: str = "world_model"
    policy: Path | None = None
    training_seed: int = 0


@dataclass(frozen=True)
class OpenLoopMeasure:
    """Roll-outs on held-out video, as `dexworld evaluate open-loop` makes them, with their controls.

    held_out: name of the video; all but the robot's stands before the sums' names (`human/mse`).
    """

    held_out: str = "robot"

    def __call__(self, subject: Subject) -> Sums:
        """Sums (E, T). Raises SeedError for scenes that the model was trained on, ValueError where it predicts NaN, and
        for what rolls nothing out: a policy or a control.
        """
        if subject.plays != "world_model":
            raise ValueError(f"{subject.folder.name} is played by {subject.plays}; roll-outs need a world model")
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
    """Tasks on held-out scenes, played as `dexworld evaluate tasks` does it.

    beside: who plays as well. apart: each seed has scenes of its own, so that the episodes of all can be counted
    together.

    Of a task `reach` come `reach_success`, 1 where an episode was solved, and, with kinematics alone beside,
    `reach_kinematics`, its rate.
    """

    tasks: tuple[Task, ...] = ("reach", "grasp", "place")
    beside: tuple[str, ...] = tuple(POLICIES)
    apart: bool = False

    def __call__(self, subject: Subject) -> Sums:
        """Sums (E, 1). Raises SeedError as `OpenLoopMeasure` does."""
        first = subject.seed + (SCENES_EACH * subject.task_episodes * subject.training_seed if self.apart else 0)
        own: dict[str, Any] = {"tasks": self.tasks, "episodes": subject.task_episodes}
        own |= {"policies": tuple(dict.fromkeys((subject.plays, *self.beside)))}
        own |= {"policy_checkpoint": () if subject.policy is None else (str(subject.policy),)}
        shared: dict[str, Any] = {"seed": first, "split": subject.split, "simulator_episodes": 0, "workers": 1}
        rows = evaluate_tasks(TasksConfig(str(subject.model), **own, **shared), subject.folder / "tasks.jsonl")
        sums, (_, prefix) = Sums(), figure_names(subject.plays)
        for task, row in rows.items():
            solved = np.isin(row["seeds"], row[f"{prefix}succeeded_seeds"])
            sums[f"{task}_success"] = solved.astype(float)[:, None]
            if "kinematics_only" in self.beside:
                sums[f"{task}_kinematics"] = np.full((subject.task_episodes, 1), row["kinematics_only"])
        return sums
