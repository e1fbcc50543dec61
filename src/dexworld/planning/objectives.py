"""What a good plan looks like: terms that score rollouts against a goal, and their weighted sums.

Each term maps a rollout of N candidates and a goal to costs (N,). `2.0 * TermA() + TermB()` builds a `WeightedSum`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dexworld.geometry import geodesic_angle
from dexworld.hands import NUM_TRACKED
from dexworld.planning.protocols import Goal, Rollout

RIGHT_TRACKED = list(range(NUM_TRACKED // 2, NUM_TRACKED))  # robots have a right hand


@dataclass(frozen=True)
class TimeWeights:
    """How much each predicted step counts.

    Step t of T weighs decay ** (T - 1 - t), normalised over `horizon` steps, or over T if that is None. decay 0 is
    the last step only, 1 the plain mean. The release uses 0.6 and the weights of three steps also when fewer remain.
    """

    decay: float = 0.6
    horizon: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1:
            raise ValueError(f"time weights need a decay between 0 and 1, not {self.decay}")

    def mean(self, per_step: Tensor) -> Tensor:
        """Weighted mean (N,) of values (N, T)."""
        steps = per_step.shape[-1]
        total = max(self.horizon or steps, steps)
        ages = torch.arange(total - 1, -1, -1, device=per_step.device, dtype=per_step.dtype)
        weights = per_step.new_tensor(self.decay) ** ages  # 0 ** 0 is 1
        weights = weights / weights.sum()
        return per_step @ weights[-steps:]


RELEASE_TIME = TimeWeights(0.6, horizon=3)
FINAL = TimeWeights(0.0)
EVEN = TimeWeights(1.0)


class Objective(ABC):
    """A cost, labelled by `name` in statistics.

    It may need predicted latents (`needs_latents`), and pictures (`needs_decoder`) or keypoints
    (`needs_keypoint_head`) of them, or where the goal's points go (`needs_points`). `needs_picture`: it compares with
    what a goal picture shows.
    """

    name: str
    needs_picture: bool = False
    needs_latents: bool = False
    needs_decoder: bool = False
    needs_keypoint_head: bool = False
    needs_points: bool = False

    @property
    def needs_rollout(self) -> bool:
        """Whether latents must be predicted."""
        return self.needs_latents or self.needs_keypoint_head

    @property
    def needs_model(self) -> bool:
        """Whether the world model must run."""
        return self.needs_rollout or self.needs_points

    def guides(self, goal: Goal) -> bool:
        """Whether this term tells, without the model, where to go. Limits and smoothness don't: they favour rest."""
        return False

    @abstractmethod
    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        """Costs (N,) of the rollout's candidates."""

    def __rmul__(self, weight: float) -> "WeightedSum":
        return WeightedSum(((float(weight), self),))

    def __add__(self, other: "Objective") -> "WeightedSum":
        return WeightedSum((*as_sum(self).terms, *as_sum(other).terms))


@dataclass(frozen=True)
class WeightedSum(Objective):
    """A weighted sum of terms. Raises ValueError on two terms of one name and on a bad weight."""

    terms: tuple[tuple[float, Objective], ...]

    def __post_init__(self) -> None:
        names = [term.name for _, term in self.terms]
        if len(set(names)) != len(names):
            raise ValueError(f"objective terms must have different names, got {names}")
        for weight, term in self.terms:
            if not weight >= 0 or weight == float("inf"):
                raise ValueError(f"weight of {term.name!r} is {weight}; it must be finite and not negative")
        for need in ("needs_picture", "needs_latents", "needs_decoder", "needs_keypoint_head", "needs_points"):
            object.__setattr__(self, need, any(getattr(term, need) for _, term in self.terms))

    def __rmul__(self, weight: float) -> "WeightedSum":
        return WeightedSum(tuple((weight * inner, term) for inner, term in self.terms))

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        """Total cost (N,)."""
        zero = rollout.joint_targets.new_zeros(len(rollout.joint_targets))
        return sum(self.each(rollout, goal).values(), start=zero)

    def each(self, rollout: Rollout, goal: Goal) -> dict[str, Tensor]:
        """Every term's weighted cost (N,), by name."""
        return {term.name: weight * term(rollout, goal) for weight, term in self.terms}

    def part(self, *, needs_model: bool) -> "WeightedSum":
        """The terms that need the world model, or those that don't."""
        return WeightedSum(tuple(entry for entry in self.terms if entry[1].needs_model == needs_model))

    def guides(self, goal: Goal) -> bool:
        """Whether any term tells, without the model, where to go."""
        return any(term.guides(goal) for _, term in self.terms)


def as_sum(objective: Objective) -> WeightedSum:
    """A single term as a sum with weight 1; a sum as it is."""
    return objective if isinstance(objective, WeightedSum) else 1.0 * objective


@dataclass(frozen=True)
class LatentDistance(Objective):
    """Mean squared distance of predicted latents to the goal's (the first term of the cost in DexWM, section 4.4)."""

    name: str = "latents"
    time: TimeWeights = RELEASE_TIME

    needs_picture = True
    needs_latents = True

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        if rollout.latents is None or goal.latents is None:
            raise ValueError(f"objective {self.name!r} needs latents of plan and goal: plan with a dynamics")
        return self.time.mean((rollout.latents - goal.latents).square().mean(-1).mean(-1))


@dataclass(frozen=True)
class KeypointPixels(Objective):
    """Distance of the hand's tracked keypoints to the goal's, in square pixels (paper: weight mu = 0.001).

    source: `kinematics` takes the candidate's keypoints from forward kinematics; `model` from the keypoint head on
        the predicted latents, as the paper does. The goal's always come from the goal image.
    robust_px: errors grow linearly beyond this many pixels (pseudo-Huber), so that one wrong goal keypoint can't
        dominate; None is the plain square.
    by_confidence: goal keypoints below `min_confidence` don't count, the others weigh by their confidence. If none
        counts the term is 0.
    """

    name: str = "keypoints"
    time: TimeWeights = RELEASE_TIME
    source: Literal["kinematics", "model"] = "kinematics"
    robust_px: float | None = None
    by_confidence: bool = True
    min_confidence: float = 0.3

    needs_picture = True

    def __post_init__(self) -> None:
        if self.source not in ("kinematics", "model"):
            raise ValueError(f"keypoint source is {self.source!r}; choose 'kinematics' or 'model'")
        if self.robust_px is not None and self.robust_px <= 0:
            raise ValueError(f"robust_px must be above 0 pixels, not {self.robust_px}")
        object.__setattr__(self, "needs_keypoint_head", self.source == "model")

    def guides(self, goal: Goal) -> bool:
        """Whether a search without the model can start by it: the goal has keypoints, kinematics those of a plan."""
        return not self.needs_keypoint_head and bool((self._weights(goal) > 0).any())

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        pixels = rollout.pixels if self.source == "kinematics" else rollout.predicted_pixels
        if pixels is None:
            raise ValueError(f"objective {self.name!r} needs the keypoint head: plan with a dynamics")
        error = (pixels[..., RIGHT_TRACKED, :] - goal.pixels[RIGHT_TRACKED]).square().mean(-1)  # (N, T, K)
        if self.robust_px is not None:
            error = 2 * self.robust_px**2 * ((1 + error / self.robust_px**2).sqrt() - 1)
        weights = self._weights(goal).expand_as(error)
        return self.time.mean((error * weights).sum(-1) / weights.sum(-1).clamp_min(1e-9))

    def _weights(self, goal: Goal) -> Tensor:
        confidence = goal.confidence[RIGHT_TRACKED]
        if not self.by_confidence:
            return torch.ones_like(confidence)
        return torch.where(confidence >= self.min_confidence, confidence, 0.0)


@dataclass(frozen=True)
class HandOrientation(Objective):
    """Angle in radians between the palm and the goal's, in the robot's base frame.

    The release compares rotation vectors in the world frame, which depends on where the kitchen stands and breaks
    near pi; the geodesic angle has neither fault. Paper's weight for grasping: 0.4.
    """

    name: str = "orientation"
    time: TimeWeights = RELEASE_TIME

    def guides(self, goal: Goal) -> bool:
        """Whether the goal says how the hand is turned."""
        return goal.hand_rotation is not None

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        if goal.hand_rotation is None:
            raise ValueError(f"objective {self.name!r} needs the goal's hand rotation: give it to the policy's reset")
        return self.time.mean(geodesic_angle(rollout.hand_rotation, goal.hand_rotation))


@dataclass(frozen=True)
class JointLimits(Objective):
    """Squared intrusion into a margin before the joint limits, 0 outside it and 1 at the limit, meaned over joints.

    margin: share of each joint's range.
    """

    margin: float = 0.05
    name: str = "limits"
    time: TimeWeights = EVEN

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        limits = rollout.robot.limits.to(rollout.joint_targets)
        low, high = limits[:, 0], limits[:, 1]
        room = torch.minimum(rollout.joint_targets - low, high - rollout.joint_targets) / (high - low)
        intrusion = ((self.margin - room) / self.margin).clamp_min(0.0)
        return self.time.mean(intrusion.square().mean(-1))


@dataclass(frozen=True)
class KeepOut(Objective):
    """Metres that the robot's arm goes into the goal's `keep_out` boxes, deepest place; 0 without boxes.

    A command into what stands around the robot is not carried out: the arm is pushed aside.
    """

    name: str = "keep_out"
    time: TimeWeights = EVEN

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        targets = rollout.joint_targets
        if goal.keep_out is None:
            return targets.new_zeros(len(targets))
        return self.time.mean(goal.keep_out.depth(rollout.robot.forward(targets).links).clamp_min(0.0))


@dataclass(frozen=True)
class Smoothness(Objective):
    """Squared joint travel per step from the current targets on, arm and fingers meaned apart and added."""

    name: str = "travel"
    finger_share: float = 0.2
    time: TimeWeights = EVEN

    def __call__(self, rollout: Rollout, goal: Goal) -> Tensor:
        targets = rollout.joint_targets
        start = rollout.joint_start.expand_as(targets[:, :1])
        travel = torch.cat([start, targets], dim=1).diff(dim=1).square()  # (N, T, J)
        arm, fingers = travel[..., rollout.robot.arm], travel[..., rollout.robot.fingers]
        per_step = arm.mean(-1)
        if fingers.shape[-1]:
            per_step = per_step + self.finger_share * fingers.mean(-1)
        return self.time.mean(per_step)
