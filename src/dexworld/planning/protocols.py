"""The seams of planning: any dynamics, objective and solver work together through what is defined here.

Legend: N candidates, T steps of the horizon, A numbers per action (the robot's J joint targets), C observed frames, P
    patches, D latent width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dexworld.forecast import Forecast
from dexworld.hands import NUM_TRACKED
from dexworld.robots.boxes import Boxes
from dexworld.robots.observation import Observation
from dexworld.robots.robot import Robot
from dexworld.track import Track


@runtime_checkable
class Dynamics(Protocol):
    """A world model, as planning and evaluation see it.

    Optional: `needs_still_camera`, true where it can't plan with a moving camera; `decode`, images (..., H, W, 3) uint8
    of latents (..., P, D); `points`, a `PointModel`; `candidate_costs(cost, samples)`, the `model_costs` of a
    `CandidateCost` worked out by other processes.
    """

    def encode(self, images: Tensor) -> Tensor:
        """Latents (..., P, D) of images (..., H, W, 3) uint8. Raises ValueError on another image size."""

    def condition(self, track: Track) -> Any:
        """The T transitions of a track (..., T + 1) of hands and camera, as the model takes them; it has a `to`."""

    def start(self, latents: Tensor, condition: Any) -> Any:
        """A context from observed latents (C, P, D) and the condition of their track; shared by all candidates."""

    def rollout(self, context: Any, condition: Any, max_batch: int | None = None) -> Tensor:
        """Predicted latents (N, T, P, D) of candidates whose tracks (N, T + 1) begin at the last observed frame.

        max_batch: at most so many candidates at a time.
        """

    def keypoints(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels (..., 12, 2) and confidence (..., 12), 0 to 1, of the tracked keypoints in latents (..., P, D)."""


class PointModel(Protocol):
    """What finds points in latents and follows them under hands: `models.points.PointHead`, or another.

    map_size: (h, w) of its maps. image_size: (height, width) of the pictures.
    """

    map_size: tuple[int, int]
    image_size: tuple[int, int]

    def maps(self, latents: Tensor) -> Tensor:
        """Maps (N, C, h, w) of latents (N, P, D)."""

    def look(self, maps: Tensor, pixels: Tensor) -> Tensor:
        """What points (B, Q, 2) [u, v] of pictures with maps (B, C, h, w) look like, (B, Q, C)."""

    def find(self, looks: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmap logits (B, F, Q, h, w) of points (B, Q, C) in maps (B, F, C, h, w), and logits of being hidden."""

    def movable(self, looks: Tensor) -> Tensor:
        """Logits (..., 1) that points which look like (..., C) move when they are pushed."""

    def read(self, logits: Tensor) -> Tensor:
        """Pixels (..., 2) [u, v] of heatmap logits (..., h, w)."""

    def follow(self, looks: Tensor, pixels: Tensor, motion: Any) -> Forecast:
        """Where points (N, Q, C) at pixels (N, Q, 2) go under a condition (N, T)."""


@dataclass(frozen=True)
class Rollout:
    """What N candidates of T steps would do: kinematics for all, the model's prediction where it was asked for.

    joint_targets: (N, T, J), commanded to `robot`. joint_start: (J,) the targets in force now.
    pixels: (N, T, 12, 2) the tracked keypoints by forward kinematics, in pixels of the observed image.
    keypoints_base: (N, T, 42, 3) metres and hand_rotation: (N, T, 3, 3) base_from_palm, in the robot's base frame.
    latents: (N, T, P, D) or None. predicted_pixels: (N, T, 12, 2), the keypoint head on those latents, or None.
    picture: (N, h, w, 3) colours of the last predicted frame and silhouette: (N, h, w), the cells that the robot hides
        there; None unless an objective compares pictures.
    points: where the goal's points will be; None unless an objective asks for them.
    """

    robot: Robot
    joint_targets: Tensor
    joint_start: Tensor
    pixels: Tensor
    keypoints_base: Tensor
    hand_rotation: Tensor
    latents: Tensor | None = None
    predicted_pixels: Tensor | None = None
    picture: Tensor | None = None
    silhouette: Tensor | None = None
    points: Forecast | None = None


@dataclass(frozen=True)
class GoalPoints:
    """Points of the start picture, pixels (Q, 2) [u, v], where they should be, wanted (Q, 2), and weights (Q,).

    looks: (Q, C), what they look like in the goal picture; None takes what they look like in the start picture. spread:
    standard deviation of where all of them are together, pixels.
    """

    pixels: Tensor
    wanted: Tensor
    weights: Tensor
    looks: Tensor | None = None
    spread: float = 1.0

    def __post_init__(self) -> None:
        shapes = (self.pixels.shape, self.wanted.shape, (*self.weights.shape, 2))
        if self.pixels.ndim != 2 or len({tuple(shape) for shape in shapes}) > 1:
            raise ValueError(f"goal points must be (Q, 2), (Q, 2) and (Q,), not {[tuple(each) for each in shapes]}")

    @property
    def share(self) -> Tensor:
        """What each point counts of all, (Q,)."""
        return self.weights / self.weights.sum().clamp_min(1e-9)

    def only(self, chosen: Tensor) -> "GoalPoints":
        """The points with these numbers."""
        looks = None if self.looks is None else self.looks[chosen]
        return GoalPoints(self.pixels[chosen], self.wanted[chosen], self.weights[chosen], looks, self.spread)

    def within(self, corner: Tensor, size: tuple[int, int]) -> "GoalPoints":
        """The same points in a part of their picture, of `size` (height, width) from `corner` (2,) [u, v] on.

        Raises ValueError naming a pair that lies outside.
        """
        places = torch.stack([self.pixels, self.wanted]) - corner
        outside = ((places < 0) | (places >= places.new_tensor([size[1], size[0]]))).any(-1).any(0)
        if outside.any():
            pair = " to ".join("{:g},{:g}".format(*each[outside][0].tolist()) for each in (self.pixels, self.wanted))
            raise ValueError(f"goal points {pair} lie outside the {size[1]} x {size[0]} pixels that the model sees")
        return replace(self, pixels=places[0], wanted=places[1])


@dataclass(frozen=True)
class Goal:
    """What to reach, and the little of the start that some objectives compare with.

    image_size: (height, width) pixels. latents: (P, D) of the goal image, or None without a model.
    pixels: (12, 2) and confidence: (12,) tracked keypoints of the goal image. hand_rotation: (3, 3) base_from_palm,
        or None.
    picture, start_picture: (h, w, 3) colours of the goal and of the first observation, and start_silhouette: (h, w),
        the robot in the latter; None unless an objective compares pictures.
    points: what should be where; None unless an objective asks for points.
    keep_out: where the arm must not be, or None.
    """

    image_size: tuple[int, int]
    pixels: Tensor
    confidence: Tensor
    latents: Tensor | None = None
    hand_rotation: Tensor | None = None
    picture: Tensor | None = None
    start_picture: Tensor | None = None
    start_silhouette: Tensor | None = None
    points: GoalPoints | None = None
    keep_out: Boxes | None = None

    def __post_init__(self) -> None:
        if tuple(self.pixels.shape) != (NUM_TRACKED, 2) or tuple(self.confidence.shape) != (NUM_TRACKED,):
            raise ValueError(
                f"goal keypoints have shapes {tuple(self.pixels.shape)} and {tuple(self.confidence.shape)}, "
                f"expected ({NUM_TRACKED}, 2) and ({NUM_TRACKED},)"
            )
        for name in ("pixels", "confidence", "latents", "hand_rotation"):
            value = getattr(self, name)
            if value is not None and not torch.isfinite(value).all():
                raise ValueError(f"goal {name} holds NaN or Inf")


@dataclass(frozen=True)
class Gaussian:
    """A diagonal Gaussian over plans: mean and std (T, A). Raises ValueError on NaN or a negative spread."""

    mean: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        if self.mean.shape != self.std.shape or self.mean.ndim != 2:
            raise ValueError(f"mean {tuple(self.mean.shape)} and std {tuple(self.std.shape)} must both be (T, A)")
        if not torch.isfinite(self.mean).all() or not torch.isfinite(self.std).all() or (self.std < 0).any():
            raise ValueError("the planner's initial mean and std must be finite, and std not negative")


@dataclass(frozen=True)
class IterationStatistics:
    """One iteration of a solver: costs of its best and of its elites (mean), and candidates evaluated."""

    best: float
    elite_mean: float
    evaluated: int


@dataclass(frozen=True)
class Plan:
    """The outcome of a search.

    actions: (T, A) and their cost. distribution: where the search ended, for a warm start. elites: (E, T, A) the best
    candidates ever seen, best first, and elite_costs (E,). history: one entry per iteration. complete: False where a
    deadline ended the search.
    """

    actions: Tensor
    cost: float
    distribution: Gaussian
    elites: Tensor
    elite_costs: Tensor
    history: tuple[IterationStatistics, ...]
    complete: bool = True

    @property
    def evaluated(self) -> int:
        """Number of candidates whose cost was asked for."""
        return sum(step.evaluated for step in self.history)


# Costs (N,) of candidates (N, T, A), lower is better. Differentiable if a gradient solver is to use it.
CostFunction = Callable[[Tensor], Tensor]


class Solver(Protocol):
    """Searches for the cheapest plan."""

    def solve(
        self,
        cost_function: CostFunction,
        initial: Gaussian,
        bounds: Tensor,
        generator: torch.Generator,
        proposals: Tensor | None = None,
    ) -> Plan:
        """Search from `initial` within bounds (A, 2); `proposals` (E, T, A) are candidates to consider at once.

        Never returns anything outside the bounds, or worse than the best candidate it evaluated.
        """


class Policy(Protocol):
    """What acts: in the simulator, behind a server, on a robot."""

    def reset(self, goal_image: np.ndarray, *, seed: int | None = None) -> None:
        """Start an episode with a goal image (H, W, 3) uint8; `seed` fixes whatever is random in it."""

    def act(self, observation: Observation) -> np.ndarray:
        """Absolute joint targets (J,) within the limits for the next step."""


@dataclass(frozen=True)
class PlanStatistics:
    """One call of `act`: what it took and what the search found.

    seconds: wall time. horizon: steps planned. history: the model-based search; kinematic_history: the cheap search
    before it, if any. candidates: evaluated by both; model_candidates: of them, by the world model. cost: of the chosen
    plan; terms: its weighted parts by name. clamped: input joints moved back inside their limits. complete: False where
    the deadline ended the search.
    """

    seconds: float
    horizon: int
    history: tuple[IterationStatistics, ...]
    kinematic_history: tuple[IterationStatistics, ...]
    candidates: int
    model_candidates: int
    cost: float
    terms: dict[str, float] = field(default_factory=dict)
    clamped: int = 0
    complete: bool = True
