"""What a demonstration leaves behind: all that its page shows. Drawing it needs no model and no simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dexworld.hands import NUM_TRACKED
from dexworld.report.media import rgb


@dataclass(frozen=True)
class PlanRecord:
    """One plan.

    imagined: (T, H, W, 3) uint8, the prediction of every planned step, or None where latents can't be decoded.
    happened: (S, H, W, 3) uint8, what the camera saw at the same moments, S <= T. best_costs, elite_costs: (L,) the
    best candidate so far and the mean of the elites in each iteration of the search. seconds: wall time of planning.
    step_seconds: simulated time between two steps.
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
    image. distances: metres to the goal before the first and after the last step; success needs less than `limit`.
    Raises ValueError on pictures or keypoints of another shape.
    """

    task: str
    seed: int
    success: bool
    start_image: np.ndarray
    goal_image: np.ndarray
    outcome: np.ndarray
    outcome_fps: float
    goal_keypoints: np.ndarray
    goal_keypoints_shown: np.ndarray
    distances: tuple[float, float]
    limit: float
    plans: tuple[PlanRecord, ...] = ()

    def __post_init__(self) -> None:
        where = f"episode {self.task} {self.seed}"
        for name, dimensions in (("start_image", 3), ("goal_image", 3), ("outcome", 4)):
            rgb(getattr(self, name), dimensions, f"{where}: {name}")
        shapes = (self.goal_keypoints.shape, self.goal_keypoints_shown.shape)
        if shapes != ((NUM_TRACKED, 2), (NUM_TRACKED,)):
            raise ValueError(f"{where}: goal keypoints must be (12, 2) pixels with (12,) flags, not {shapes}")

    @property
    def seconds_per_plan(self) -> float | None:
        """Mean wall time of a plan, None where there was none."""
        return sum(plan.seconds for plan in self.plans) / len(self.plans) if self.plans else None


@dataclass(frozen=True)
class DemoResults:
    """All that a demonstration's page shows.

    episodes: those of this run, in the order to show them. measured: the checkpoint's `evaluation.json`: "tasks" and
    "open_loop" as the two `dexworld evaluate` write them, and a sentence about each ("tasks_source", ...). timings:
    wall seconds of each stage. checkpoint: facts of its model card. command: what was typed. renderer: what drew the
    pictures. drawn_by: what drew the imagined ones. notices: what a reader must know first.
    """

    episodes: tuple[EpisodeResult, ...]
    measured: Mapping[str, Any] = field(default_factory=dict)
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
