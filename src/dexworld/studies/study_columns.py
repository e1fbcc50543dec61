"""Columns of a study's tables: which sums of the measured episodes are reported, when, and over what."""

import itertools
from typing import Any

from dexworld.studies.study import SECONDS, Figure


def at_moments() -> tuple[Figure, ...]:
    """Errors against copying the start frame and visible keypoints that are found, at one second and at the end."""
    moments = {"1s": 1.0, "end": SECONDS}
    error = [Figure(f"error_{name}", f"error, {at:g} s", "mse", "copy_last_mse", at) for name, at in moments.items()]
    title = f"error where objects moved, {SECONDS:g} s"
    objects = Figure("object_error_end", title, "object_mse", "copy_last_object_mse", SECONDS)
    control = [
        Figure(f"shuffled_error_{name}", f"error with another's actions, {at:g} s", "shuffled_mse", "copy_last_mse", at)
        for name, at in moments.items()
    ]
    keypoints, possible = [], []
    for pixels, (name, at) in itertools.product((20, 10), moments.items()):
        key, title = f"pck{pixels}", f"PCK@{pixels}, {at:g} s"
        more: dict[str, Any] = {"in_table": pixels == 20, "paper": f"PCK@{pixels} {name}"}
        keypoints.append(Figure(f"{key}_{name}", title, f"{key}_visible", "in_view", at, 100.0, 1, **more))
    kinds = {"copy_last_": "the start frame", "true_latents_": "true frames"}
    for kind, pixels, (name, at) in itertools.product(kinds, (20, 10), moments.items()):
        key, title = f"{kind}pck{pixels}", f"PCK@{pixels} of {kinds[kind]}, {at:g} s"
        more = {"of_variant": False, "in_table": pixels == 20}
        possible.append(Figure(f"{key}_{name}", title, f"{key}_visible", "in_view", at, 100.0, 1, **more))
    return (*error, objects, *keypoints, *control, *possible)


def as_in_the_paper(held_out: str = "robot", before: str = "") -> tuple[Figure, ...]:
    """The columns of the paper's tables, of held-out video of that name: error and PCK@20 at the end and on average.

    The paper's "L2" is a mean absolute error in its code. Errors over those of copying the start frame are ours.
    before: stands before the titles.
    """
    moments, made = {"end": (f"at {SECONDS:g} s", SECONDS), "avg": ("average", None)}, []
    sums = "" if held_out == "robot" else f"{held_out}/"
    for key, (at, seconds) in moments.items():
        own: dict[str, Any] = {"seconds": seconds, "paper": f"{held_out} error {at}"}
        made.append(Figure(f"{held_out}_mae_{key}", f"{before}embedding error, {at}", f"{sums}mae", None, **own))
    for key, (at, seconds) in moments.items():
        own = {"seconds": seconds, "scale": 100.0, "digits": 1, "paper": f"{held_out} PCK@20 {at}"}
        found, title = (f"{sums}pck20_visible", f"{sums}in_view"), f"{before}PCK@20, {at}"
        made.append(Figure(f"{held_out}_pck20_{key}", title, *found, **own))
    for kind, what in {"": "", "object_": " where objects moved"}.items():
        copied, title = (f"{sums}{kind}mse", f"{sums}copy_last_{kind}mse"), f"{before}error{what}, {SECONDS:g} s"
        made.append(Figure(f"{held_out}_{kind}ratio_end", title, *copied, SECONDS))
    for kind, what in {"copy_last": "start frame", "true_latents": "true frames"}.items():
        found, title = (f"{sums}{kind}_pck20_visible", f"{sums}in_view"), f"{before}PCK@20 of the {what}, average"
        made.append(Figure(f"{held_out}_{kind}_pck20", title, *found, None, 100.0, 1, of_variant=False))
    return tuple(made)


def success_rates(*tasks: str) -> tuple[Figure, ...]:
    """Percent of the episodes of each task that planning with the model solves; kinematics alone beside it."""
    ours = [Figure(f"{task}_success", f"{task}, %", f"{task}_success", None, None, 100.0, 0) for task in tasks]
    alone = [
        Figure(
            f"{task}_kinematics", f"{task} by kinematics alone, %", f"{task}_kinematics", None, None, 100.0, 0, False
        )
        for task in tasks
    ]
    return (*ours, *alone)
