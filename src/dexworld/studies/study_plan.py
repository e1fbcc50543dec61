"""What a study takes, before anything runs: its jobs, their steps and data, and GPU-hours on paper."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

from dexworld.baselines.goal_policy import GoalPolicyConfig
from dexworld.models.config import DexWMConfig
from dexworld.models.latent_space import LatentSpace
from dexworld.robots.franka_allegro import JOINTS
from dexworld.studies.study import Recording, Table, Variant
from dexworld.training.cost import policy_cost, trained_parameters
from dexworld.training.estimate import DataPlan, PlanConfig, gpu_hours, window_flops, windows_per_epoch
from dexworld.training.recipes import RECIPES, with_recipe
from dexworld.training.train_config import LoopConfig
from dexworld.training.train_world_model import RunConfig


def plan_text(table: Table, names: Sequence[str], seeds: Sequence[int], machines: PlanConfig = PlanConfig()) -> str:
    """The plan of these variants as a text: data, a line for each variant, and GPU-hours in all.

    A model that another one starts from is counted once. Hours assume a share of a GPU's peak, as `train --dry-run`
    does; measuring is not counted. Where operations are not known, hours are left out, and a line says why.
    """
    wanted = [table.variant(name) for name in table.with_ancestors(names)]
    rows, total = [("variant", "data", "steps", "batch", "parameters", "GPU-hours", "starts from")], 0.0
    notes = []
    for variant in wanted:
        numbers, start = ("-",) * 4, variant.initial or "-"
        if variant.trains:
            model = table.model_of(variant)
            phases, cost = _phases(table, variant, model), _cost(table, variant, model)
            counts = (f"{sum(count for _, count in phases):,}", f"{phases[-1][0].batch_size:,}")
            if isinstance(cost, str):
                notes.append(f"GPU-hours of {variant.name} are left out: {cost}")
                numbers = (*counts, "-", "-")
            else:
                hours = sum(
                    gpu_hours(cost[1](training), machines, count * training.batch_size) for training, count in phases
                )
                numbers, total = (*counts, f"{cost[0] / 1e6:,.1f} M", f"{hours:,.4g}"), total + len(seeds) * hours
        rows.append((variant.name, " + ".join(variant.data) or "-", *numbers, start))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    data = [f"{name}: {_described(each)}" for name, each in table.sizes.data.items()]
    data += [f"held out, {name}: {_described(each)}" for name, each in table.sizes.held_out.items()]
    jobs = f"{len(wanted)} variants x {len(seeds)} seeds = {len(wanted) * len(seeds)} models"
    assumed = f"{machines.mfu:.0%} of {machines.peak_tflops:g} TFLOP/s"
    hours_text = f"{total:,.4g} GPU-hours of training in all, assuming {assumed}; measuring is not counted"
    return "\n".join([f"{table.name}: {table.title}", jobs, "", *data, "", *lines, "", *notes, hours_text]) + "\n"


def _cost(table: Table, variant: Variant, model: Any) -> tuple[int, Callable[[Any], float]] | str:
    """Trained parameters, and operations of training on a sample with given settings; or why they are not known."""
    if variant.policy is not None:
        form: Any = variant.policy
        config = GoalPolicyConfig.sized(LatentSpace.of(model, ""), len(JOINTS), form, table.sizes.policy_size)
        try:
            parameters, flops = policy_cost(config, model)
        except ImportError as error:
            return str(error)
        return parameters, lambda training: flops
    if not isinstance(model, DexWMConfig):
        return f"no closed form is known for a {type(model).__name__}"
    return trained_parameters(model), partial(window_flops, model)


def _phases(table: Table, variant: Variant, model: Any) -> list[tuple[LoopConfig, int]]:
    """Settings and steps: of one training, or of one for each recipe on paper."""
    recipes = [table.sizes.budgets[name] for name in variant.budget]
    if not isinstance(recipes[0], str):
        return [(table.training_of(variant, 0), table.steps_of(variant))]
    phases, data = list[tuple[LoopConfig, int]](), [table.sizes.data[name] for name in variant.data]
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
