"""What a demonstration leaves behind: all that its page shows; drawing it needs no model and no simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dexworld.hands import NUM_TRACKED

CONTROLS: dict[str, str] = {  # keys of results.json, best first by what they know
    "expert": "Scripted expert",
    "true_simulator": "True simulator",
    "kinematics_only": "Kinematics only",
    "random": "Random motion",
    "do_nothing": "Doing nothing",
}


@dataclass(frozen=True)
class Distance:
    """One measure of how far a task is from done; smaller is better.

    start, end: before the first and after the last step. limit: success needs the end below it. unit: "m" or "rad",
    or what else the number counts.
    """

    name: str
    start: float
    end: float
    limit: float
    unit: str = "m"

    def shown(self, value: float) -> str:
        """A value of this measure as people say it: metres as centimetres, radians as degrees."""
        if self.unit == "m":
            return f"{100 * value:.1f} cm"
        if self.unit == "rad":
            return f"{np.degrees(value):.0f}°"
        return f"{value:.3g} {self.unit}".strip()


@dataclass(frozen=True)
class PlanRecord:
    """One plan: what the model imagined, what happened then, and how the search went.

    imagined: (T, H, W, 3) uint8, the decoded prediction of every planned step, or None where latents can't be decoded.
    happened: (S, H, W, 3) uint8, what the camera saw at the same moments, S <= T (an episode may end before a plan
    does). best_costs, elite_costs: (L,) of each iteration of the search: the best candidate so far and the mean of
    the elites. seconds: wall time of planning. step_seconds: simulated time between two steps.
    """

    imagined: np.ndarray | None
    happened: np.ndarray
    best_costs: Sequence[float]
    elite_costs: Sequence[float]
    seconds: float
    step_seconds: float = 1.0


@dataclass(frozen=True)
class EpisodeResult:
    """One episode as it was carried out.

    start_image, goal_image: (H, W, 3) uint8. outcome: (F, H, W, 3) uint8, the execution, at outcome_fps.
    goal_keypoints: (12, 2) pixels and goal_keypoints_shown: (12,) bool, where the model sees the hand in the goal
    image. distances: the task's measures. note: one more thing to say about this episode, in plain words. Raises
    ValueError on pictures or keypoints of another shape.
    """

    task: str
    seed: int
    success: bool
    start_image: np.ndarray
    goal_image: np.ndarray
    outcome: np.ndarray
    outcome_fps: float
    plans: tuple[PlanRecord, ...] = ()
    goal_keypoints: np.ndarray | None = None
    goal_keypoints_shown: np.ndarray | None = None
    distances: tuple[Distance, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        where = f"episode {self.task} {self.seed}"
        for name, dimensions in (("start_image", 3), ("goal_image", 3), ("outcome", 4)):
            value = getattr(self, name)
            if value.ndim != dimensions or value.shape[-1] != 3 or value.dtype != np.uint8:
                raise ValueError(f"{where}: {name} has shape {value.shape} {value.dtype}, expected RGB uint8")
        if self.goal_keypoints is not None and (
            self.goal_keypoints.shape != (NUM_TRACKED, 2)
            or self.goal_keypoints_shown is None
            or self.goal_keypoints_shown.shape != (NUM_TRACKED,)
        ):
            raise ValueError(f"{where}: goal keypoints must be (12, 2) pixels with (12,) flags")

    @property
    def seconds_per_plan(self) -> float | None:
        """Mean wall time of a plan, None where there was none."""
        return sum(plan.seconds for plan in self.plans) / len(self.plans) if self.plans else None


@dataclass(frozen=True)
class SuccessRow:
    """A task's success rate, its 95 % interval and its controls, fractions 0 to 1; a missing control is absent."""

    task: str
    success: float
    low: float
    high: float
    n: int
    controls: Mapping[str, float] = field(default_factory=dict)
    seconds_per_plan: float | None = None

    @classmethod
    def from_results(cls, task: str, figures: Mapping[str, Any]) -> "SuccessRow":
        """From a task's entry in the `results.json` of `dexworld evaluate tasks`."""
        return cls(
            task=task,
            success=figures["success"],
            low=figures["low"],
            high=figures["high"],
            n=figures["n"],
            controls={key: figures[key] for key in CONTROLS if figures.get(key) is not None},
            seconds_per_plan=figures.get("seconds_per_plan"),
        )


@dataclass(frozen=True)
class DemoResults:
    """All that a demonstration's page shows.

    episodes: those of this run, in the order to show them. success: rates measured on many held-out episodes (with the
    checkpoint's evaluation), and success_source: one sentence on where they come from.
    open_loop: the figures of `evaluate_open_loop`, or None. open_loop_source: where they come from.
    timings: wall seconds of each stage of this run. checkpoint: facts of its model card. versions: of what ran.
    command: what was typed. renderer: what drew the pictures. notices: what a reader must know first, such as a
    fallback in use.
    """

    episodes: tuple[EpisodeResult, ...]
    success: tuple[SuccessRow, ...] = ()
    success_source: str = ""
    open_loop: Mapping[str, Any] | None = None
    open_loop_source: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    renderer: str = ""
    drawn_by: str = ""
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.episodes:
            raise ValueError("a demonstration without episodes has nothing to show; run at least one")
