"""What a study takes, before anything runs: its jobs, their steps and data, and GPU-hours on paper."""

from collections.abc import Sequence

from dexworld.studies.study import Recording, Table
from dexworld.studies.study_runs import kind_of
from dexworld.training.estimate import DataPlan, PlanConfig


def plan_text(table: Table, names: Sequence[str], seeds: Sequence[int], machines: PlanConfig = PlanConfig()) -> str:
    """The plan of these variants as a text: data, a line for each variant, and GPU-hours in all.

    A model that another one starts from is counted once. Hours assume a share of a GPU's peak, as `train --dry-run`
    does; measuring is not counted. Where operations are not known, hours are left out, and a line says why.
    """
    wanted = [table.variant(name) for name in table.with_ancestors(names)]
    rows, total = [("variant", "data", "steps", "batch", "parameters", "GPU-hours", "starts from")], 0.0
    notes = []
    for variant in wanted:
        plan = kind_of(variant).plan(table, variant, machines)
        counts = (f"{plan.steps:,}", f"{plan.batch:,}") if plan.steps else ("-", "-")
        parameters = "-" if plan.parameters is None else f"{plan.parameters / 1e6:,.1f} M"
        hours = "-" if plan.gpu_hours is None else f"{plan.gpu_hours:,.4g}"
        if plan.why:
            notes.append(f"GPU-hours of {variant.name} are left out: {plan.why}")
        total += len(seeds) * (plan.gpu_hours or 0.0)
        data = " + ".join(variant.data) or "-"
        rows.append((variant.name, data, *counts, parameters, hours, variant.initial or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    recordings = [f"{name}: {_described(each)}" for name, each in table.sizes.data.items()]
    recordings += [f"held out, {name}: {_described(each)}" for name, each in table.sizes.held_out.items()]
    jobs = f"{len(wanted)} variants x {len(seeds)} seeds = {len(wanted) * len(seeds)} models"
    assumed = f"{machines.mfu:.0%} of {machines.peak_tflops:g} TFLOP/s"
    hours_text = f"{total:,.4g} GPU-hours of training in all, assuming {assumed}; measuring is not counted"
    return "\n".join([f"{table.name}: {table.title}", jobs, "", *recordings, "", *lines, "", *notes, hours_text]) + "\n"


def _described(data: Recording | DataPlan) -> str:
    if isinstance(data, DataPlan):
        return f"{data.name}, {data.hours:,g} h, {data.clips:,} clips"
    return f"{data.episodes:,} simulated episodes, {data.kind}"
