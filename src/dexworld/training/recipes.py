"""Named ways to train: the paper's pre-training and fine-tuning, and the release's, which differs from its paper.

A recipe fills in whatever a run leaves at its default; what is given on the command line stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np

from dexworld.data.datasets import open_dataset
from dexworld.data.loader import first_readable
from dexworld.models.world_model import preset
from dexworld.training.run_data import split_by_scene
from dexworld.training.train_config import SamplingConfig, TrainConfig
from dexworld.training.train_world_model import RunConfig
from dexworld.training.window_task import window_strategies


@dataclass(frozen=True)
class Recipe:
    """batch: windows in an optimiser step, over all processes and accumulated ones. epochs: passes over all (clip,
    segment) pairs. run, sampling, training: fields of the configs of those names.
    """

    batch: int
    epochs: float
    run: Mapping[str, Any]
    sampling: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)


_LOSSES: dict[str, Any] = {"hand_consistency": 100.0, "true_keypoints": 0.0}  # paper, section 3.3
_LOSSES |= {"keypoint_frames": 8, "sigma_px": 2.0}
_LOSSES |= {"ema": 0.0, "bfloat16": True, "warmup_steps": 0, "clip": None}
_PRETRAINING = _LOSSES | {"teacher_forced": 1.0, "learning_rate": 1e-4}
_FINE_TUNING = _LOSSES | {"teacher_forced": 0.0, "unroll_steps": 8, "learning_rate": 1e-5}
_ONLINE = {"preset": "paper-xl", "latents": "online"}
_ONLINE_OFFICIAL = {"preset": "official-xl", "latents": "online"}

RECIPES = {
    # DexWM paper, appendix C.1: "Adam with an initial learning rate of 1e-4, which is reduced to 1e-7 over 40 epochs
    # via a cosine", batch 4096.
    "pretrain_egodex_droid": Recipe(
        batch=4096,
        epochs=40,
        run=_ONLINE | {"augment": True},
        sampling={"windows": "paper"},
        training=_PRETRAINING | {"final_learning_rate": 1e-3, "weight_decay": 0.0},
    ),
    # The same appendix: "for 50 epochs with a batch size of 8, using the Adam optimizer and a learning rate of 1e-5",
    # multistep. It does not say how many windows of a clip make an epoch; one, as in the release.
    "finetune_robocasa": Recipe(
        batch=8,
        epochs=50,
        run=_ONLINE,
        sampling={"windows": "paper", "segments": 1},
        training=_FINE_TUNING | {"final_learning_rate": 1.0, "weight_decay": 0.0},
    ),
    # The released configurations: AdamW with decay 1e-5 of all parameters; one-cycle schedule without warm-up from 1e-4
    # to 4e-9; clipped indices.
    "pretrain_egodex_droid_official": Recipe(
        batch=4096,
        epochs=40,
        run=_ONLINE_OFFICIAL | {"augment": True},
        sampling={"windows": "official"},
        training=_PRETRAINING | {"final_learning_rate": 4e-5, "weight_decay": 1e-5, "decay_vectors": True},
    ),
    # 20 epochs instead of the paper's 50; from 1e-5 to 4e-7; eight steps from one frame of the whole clip.
    "finetune_robocasa_official": Recipe(
        batch=8,
        epochs=20,
        run=_ONLINE_OFFICIAL,
        sampling={"windows": "official"},
        training=_FINE_TUNING | {"final_learning_rate": 0.04, "weight_decay": 1e-5, "decay_vectors": True},
    ),
}


def with_recipe(name: str, config: RunConfig) -> RunConfig:
    """`config` with the recipe's values where it has its defaults; its steps follow from the data and the epochs.

    Raises ValueError for an unknown name or a batch that the accumulation doesn't divide, and what opening data raises.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; choose from {', '.join(RECIPES)}")
    recipe, parts = RECIPES[name], config.training.accumulation
    if recipe.batch % parts:
        raise ValueError(f"accumulation is {parts}; it must divide the recipe's batch of {recipe.batch}")
    values = {"batch_size": recipe.batch // parts, **recipe.training}
    training = _filled(config.training, TrainConfig(), values)
    sampling = _filled(config.sampling, SamplingConfig(), recipe.sampling)
    filled = _filled(replace(config, training=training, sampling=sampling), RunConfig(), recipe.run)
    if not config.data or config.training.steps != TrainConfig().steps:
        return filled
    steps = ceil(recipe.epochs * windows_in_epoch(filled) / (training.batch_size * parts))
    return replace(filled, training=replace(training, steps=steps))


def epochs_on_paper(name: str, config: RunConfig, given: float | None) -> float | None:
    """Epochs of a plan without data: those given, else the recipe's, else (steps are given) None."""
    if given is not None or config.data or config.training.steps != TrainConfig().steps:
        return given
    return RECIPES[name].epochs


def windows_in_epoch(config: RunConfig) -> int:
    """(clip, segment) pairs of the clips that `config` trains on, for `paper` and `official` windows."""
    context, unrolled = preset(config.preset).num_context, config.training.teacher_forced == 0.0
    strategy = window_strategies(context, config.training, config.sampling)[int(unrolled)]
    if not hasattr(strategy, "parts"):
        raise ValueError("windows of the 'stride' kind have no epochs; give the run's steps")
    datasets = [open_dataset(folder) for folder in config.data]
    chosen, _ = split_by_scene(datasets, 0.0 if config.validation_data else config.validation_fraction)
    windows = 0
    for dataset, episodes in zip(datasets, chosen, strict=True):
        lengths, fps = np.asarray(dataset.lengths)[episodes], first_readable(dataset).fps
        windows += int(strategy.parts(lengths, np.full(len(lengths), fps)).sum())
    return windows


def _filled(config: Any, plain: Any, values: Mapping[str, Any]) -> Any:
    """`config` with `values` in the fields that are as in `plain`."""
    changes = {name: value for name, value in values.items() if getattr(config, name) == getattr(plain, name)}
    return replace(config, **changes)
