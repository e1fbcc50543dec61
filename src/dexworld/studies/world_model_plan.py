"""What training a world model of a study takes, before anything runs."""

from dataclasses import replace
from math import ceil
from typing import Any

from dexworld.models.config import DexWMConfig
from dexworld.studies.study import Plan, Table, Variant
from dexworld.training.cost import trained_parameters
from dexworld.training.estimate import DataPlan, PlanConfig, gpu_hours, windows_per_epoch
from dexworld.training.recipes import RECIPES, with_recipe
from dexworld.training.train_config import TrainConfig
from dexworld.training.train_world_model import RunConfig


def world_model_plan(table: Table, variant: Variant, machines: PlanConfig) -> Plan:
    """Of one training, or of one for each recipe on paper. Hours and parameters are known of DexWM alone."""
    model, steps, batch, hours = table.model_of(variant), 0, 0, 0.0
    known = isinstance(model, DexWMConfig)
    for training, count in _phases(table, variant, model):
        steps, batch = steps + count, training.batch_size
        hours += gpu_hours(model, training, machines, count * batch) if known else 0.0
    return Plan(steps, batch, trained_parameters(model) if known else None, hours if known else None)


def _phases(table: Table, variant: Variant, model: Any) -> list[tuple[TrainConfig, int]]:
    """Settings and steps: of one training, or of one for each recipe on paper."""
    recipes = [table.sizes.budgets[name] for name in variant.budget]
    if not isinstance(recipes[0], str):
        return [(table.training_of(variant, 0), table.steps_of(variant))]
    phases, data = [], [table.sizes.data[name] for name in variant.data]
    for recipe in map(str, recipes):
        config = with_recipe(recipe, RunConfig())
        changes = variant.training(model, config.training) if callable(variant.training) else variant.training
        training = replace(config.training, **changes)
        plans = [each for each in data if isinstance(each, DataPlan)]
        per_epoch = sum(windows_per_epoch(each, config.sampling, training, model) for each in plans)
        phases.append((training, ceil(RECIPES[recipe].epochs * per_epoch / training.batch_size)))
    return phases
