"""What a study takes, before anything runs: its jobs, their steps and data, and GPU-hours on paper."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from dexworld.models.config import DexWMConfig
from dexworld.studies.study import Recording, Table, Variant
from dexworld.training.cost import trained_parameters
from dexworld.training.estimate import DataPlan, PlanConfig, gpu_hours, windows_per_epoch
from dexworld.training.recipes import RECIPES, with_recipe
from dexworld.training.train_config import TrainConfig
from dexworld.training.train_world_model import RunConfig


def plan_text(table: Table, names: Sequence[str], seeds: Sequence[int], machines: PlanConfig = PlanConfig()) -> str:
    """The plan of these variants as a text: data, a line for each variant, and GPU-hours in all.

    A model that another one starts from is counted once. Hours assume a share of a GPU's peak, as `train --dry-run`
    does; measuring is not counted.
    """
    wanted = [table.variant(name) for name in table.with_ancestors(names)]
    rows, total = [("variant", "data", "steps", "batch", "parameters", "GPU-hours", "starts from")], 0.0
    for variant in wanted:
        model, hours, steps, batch = table.model_of(variant), 0.0, 0, 0
        for training, count in _phases(table, variant, model):
            steps, batch = steps + count, training.batch_size
            known = isinstance(model, DexWMConfig)
            hours += gpu_hours(model, training, machines, count * batch) if known else float("nan")
        total += len(seeds) * hours
        parameters = f"{trained_parameters(model) / 1e6:,.1f} M" if isinstance(model, DexWMConfig) else "-"
        counts = (f"{steps:,}", f"{batch:,}", parameters, f"{hours:,.4g}", variant.initial or "-")
        rows.append((variant.name, " + ".join(variant.data), *counts))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    data = [f"{name}: {_described(each)}" for name, each in table.sizes.data.items()]
    data += [f"held out, {name}: {_described(each)}" for name, each in table.sizes.held_out.items()]
    jobs = f"{len(wanted)} variants x {len(seeds)} seeds = {len(wanted) * len(seeds)} models"
    assumed = f"{machines.mfu:.0%} of {machines.peak_tflops:g} TFLOP/s"
    hours_text = f"{total:,.4g} GPU-hours of training in all, assuming {assumed}; measuring is not counted"
    return "\n".join([f"{table.name}: {table.title}", jobs, "", *data, "", *lines, "", hours_text]) + "\n"


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


def _described(data: Recording | DataPlan) -> str:
    if isinstance(data, DataPlan):
        return f"{data.name}, {data.hours:,g} h, {data.clips:,} clips"
    return f"{data.episodes:,} simulated episodes, {data.kind}"
