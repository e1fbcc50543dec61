"""What training a world model of a study takes, before anything runs."""

from dataclasses import replace
from math import ceil
from typing import Any

from dexworld.models.config import DexWMConfig
from dexworld.studies.study import Plan, Table, Variant
from dexworld.training.cost import trained_parameters
from dexworld.training.estimate import DataPlan, PlanConfig, gpu_hours, window_flops, windows_per_epoch
from dexworld.training.recipes import RECIPES, with_recipe
from dexworld.training.train_config import LoopConfig, TrainConfig
from dexworld.training.train_world_model import RunConfig


def world_model_plan(table: Table, variant: Variant, machines: PlanConfig) -> Plan:
    """Of one training, or of one for each recipe on paper. Hours and parameters are known of DexWM's form alone."""
    model = table.model_of(variant)
    phases: list[tuple[Any, int]] = phases_of(table, variant, model)
    plan = Plan(sum(count for _, count in phases), phases[-1][0].batch_size, None, None)
    if not isinstance(model, DexWMConfig):
        return replace(plan, why=f"no closed form is known for a {type(model).__name__}")
    parts = (
        gpu_hours(window_flops(model, training), machines, count * training.batch_size) for training, count in phases
    )
    return replace(plan, parameters=trained_parameters(model), gpu_hours=sum(parts))


def phases_of(
    table: Table, variant: Variant, model: Any, settings: type[Any] = TrainConfig
) -> list[tuple[LoopConfig, int]]:
    """Settings and steps: of one training, or of one for each recipe on paper."""
    recipes = [table.sizes.budgets[name] for name in variant.budget]
    if not isinstance(recipes[0], str):
        return [(table.training_of(variant, 0, settings), table.steps_of(variant))]
    phases, data = list[tuple[LoopConfig, int]](), [table.sizes.data[name] for name in variant.data]
    for recipe in map(str, recipes):
        config = with_recipe(recipe, RunConfig())
        changes = variant.training(model, config.training) if callable(variant.training) else variant.training
        training = replace(config.training, **changes)
        plans = [each for each in data if isinstance(each, DataPlan)]
        per_epoch = sum(windows_per_epoch(each, config.sampling, training, model) for each in plans)
        phases.append((training, ceil(RECIPES[recipe].epochs * per_epoch / training.batch_size)))
    return phases
