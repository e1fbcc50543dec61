"""From joint targets to costs: what a solver calls for every population of candidates.

Terms that only need kinematics are computed for all candidates. The world model runs for the `model_budget` of them
that those terms like best, and the others get the worst model cost so far. None, as in the paper, runs it for all.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dexworld.geometry import invert, project
from dexworld.hands import TRACKED
from dexworld.planning.deadline import Deadline
from dexworld.planning.objectives import Objective, as_sum
from dexworld.planning.point_tracker import PointTracker
from dexworld.planning.protocols import Dynamics, Goal, Rollout
from dexworld.planning.scene_colours import colour_cells, silhouette
from dexworld.robots.robot import HandPose, Robot, keypoint_track
from dexworld.track import Track

EXPLORED = 0.25  # share of the model's budget that a population's first rows get whatever their cost


@dataclass(frozen=True)
class Scene:
    """What is fixed while candidates are compared: the robot's state and its camera.

    joint_positions, joint_targets: (J,) measured and commanded. world_from_base, world_from_camera: (4, 4).
    intrinsics: (3, 3) for images of image_size (height, width).
    """

    joint_positions: Tensor
    joint_targets: Tensor
    world_from_base: Tensor
    world_from_camera: Tensor
    intrinsics: Tensor
    image_size: tuple[int, int]


@dataclass(frozen=True)
class ModelConfig:
    """How candidates are put to the world model.

    model_budget: candidates of one population that the model sees; None is all.
    max_batch: largest number of candidates in one call of the model, to bound memory; None is no bound.
    contact_deadband: a finger that an object stopped lags behind its target. Commands between where it is and its
        present target are expected not to move it, so that the model sees a kept grasp as a hand at rest.
    """

    model_budget: int | None = None
    max_batch: int | None = None
    contact_deadband: bool = True

    def __post_init__(self) -> None:
        for name in ("model_budget", "max_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 candidate or None, not {value}")


class CandidateCost:
    """Cost of candidate joint targets (N, T, J), as `CostFunction` asks. Built anew for every plan.

    dynamics, context: the world model and its context; both None plans on kinematics alone, and then the objective
    must not need a model (ValueError). points: where the goal's points are now, for objectives on points. deadline:
    candidates that the model has no time for cost Inf. `model_candidates` counts those that it ran for.
    """

    def __init__(
        self,
        robot: Robot,
        objective: Objective,
        goal: Goal,
        scene: Scene,
        *,
        dynamics: Dynamics | None = None,
        context: Any = None,
        points: PointTracker | None = None,
        config: ModelConfig = ModelConfig(),
        deadline: Deadline | None = None,
    ) -> None:
        self.robot, self.goal, self.scene = robot, goal, scene
        self._deadline = deadline or Deadline(None)
        self.dynamics, self.context, self.points, self.config = dynamics, context, points, config
        self.objective = as_sum(objective)
        self.cheap, self.model = self.objective.part(needs_model=False), self.objective.part(needs_model=True)
        if self.model.terms and dynamics is None:
            names = ", ".join(term.name for _, term in self.model.terms)
            raise ValueError(f"objective terms {names} need a world model, and this search has none")
        self.model_candidates = 0
        self._worst_model_cost = -math.inf
        with torch.no_grad():
            self._start = robot.forward(scene.joint_positions[None])
        self._camera_from_base = invert(scene.world_from_camera) @ scene.world_from_base

    def __call__(self, samples: Tensor) -> Tensor:
        """Costs (N,) of joint targets (N, T, J)."""
        rollout = self.kinematic_rollout(samples)
        cheap = self.cheap(rollout, self.goal)
        if not self.model.terms:
            return cheap
        chosen = self._screened(cheap)
        if chosen is None:
            return cheap + self._in_time(rollout, len(samples))
        model = self._in_time(_select(rollout, chosen), len(chosen))
        finite = model.detach()[torch.isfinite(model.detach())]
        self._worst_model_cost = max([self._worst_model_cost, *finite.tolist()])
        rest = torch.full_like(cheap, self._worst_model_cost if len(finite) else math.inf)
        return cheap + rest.index_copy(0, chosen, model)

    def _in_time(self, rollout: Rollout, count: int) -> Tensor:
        """Model costs (N,) of a kinematic rollout of N = `count` candidates, as many as the deadline allows."""

        def some(part: slice) -> Tensor:
            self.model_candidates += part.stop - part.start
            return self._model_costs(rollout if part == slice(0, count) else _select(rollout, part))

        return self._deadline.costs(some, count)

    @torch.no_grad()
    def imagine(self, actions: Tensor) -> Rollout:
        """The rollout of one plan (T, J) as a batch of one, with the model's latents if a term needs them."""
        rollout = self.kinematic_rollout(actions[None])
        return self.predict(rollout) if self.model.terms else rollout

    @torch.no_grad()
    def explain(self, rollout: Rollout) -> dict[str, float]:
        """Every term's weighted cost of an imagined plan, by name."""
        return {name: float(value[0]) for name, value in self.objective.each(rollout, self.goal).items()}

    def kinematic_rollout(self, samples: Tensor) -> Rollout:
        """What forward kinematics says of joint targets (N, T, J)."""
        joints = len(self.robot.joints)
        if samples.ndim != 3 or samples.shape[-1] != joints:
            raise ValueError(f"candidates have shape {tuple(samples.shape)}, expected (N, T, {joints})")
        pose = self.robot.forward(self.expected_positions(samples))
        pixels, _ = self._project(pose.keypoints[..., list(TRACKED), :])
        return Rollout(self.robot, samples, self.scene.joint_targets, pixels, pose.keypoints, pose.hand_rotation)

    def expected_positions(self, targets: Tensor) -> Tensor:
        """Where joints commanded to (..., J) are expected to be at the end of the step."""
        if not self.config.contact_deadband:
            return targets
        measured = self.scene.joint_positions
        lag = self.scene.joint_targets - measured
        lag[self.robot.arm] = 0.0
        moved = targets - measured
        return measured + moved - torch.minimum(torch.maximum(moved, lag.clamp_max(0.0)), lag.clamp_min(0.0))

    def model_costs(self, samples: Tensor) -> Tensor:
        """Costs (N,) of joint targets (N, T, J) by the terms that need the model alone."""
        return self.model(self.predict(self.kinematic_rollout(samples)), self.goal)

    def _model_costs(self, rollout: Rollout) -> Tensor:
        """The same of a kinematic rollout, by other processes where the dynamics has some."""
        elsewhere = getattr(self.dynamics, "candidate_costs", None)
        if elsewhere is None or torch.is_grad_enabled():
            return self.model(self.predict(rollout), self.goal)
        return elsewhere(self, rollout.joint_targets)

    def predict(self, rollout: Rollout) -> Rollout:
        """The rollout with what the terms ask the world model for: latents, keypoints, pictures, points."""
        assert self.dynamics is not None
        condition = self.dynamics.condition(self._track(rollout))
        if self.model.needs_points and self.points is not None:
            rollout = replace(rollout, points=self.points.follow(condition, len(rollout.joint_targets)))
        if not self.model.needs_rollout:
            return rollout
        latents = self.dynamics.rollout(self.context, condition, self.config.max_batch)
        rollout = replace(rollout, latents=latents)
        if self.model.needs_keypoint_head:
            rollout = replace(rollout, predicted_pixels=self.dynamics.keypoints(latents)[0])
        if self.model.needs_decoder:
            decode, parts = require_decoder(self.dynamics), latents.split(self.config.max_batch or len(latents))
            picture = torch.cat([colour_cells(decode(part[:, -1])) for part in parts])
            pose = self.robot.forward(self.expected_positions(rollout.joint_targets[:, -1]))
            rollout = replace(rollout, picture=picture, silhouette=self.silhouette(pose))
        return rollout

    def silhouette(self, pose: HandPose) -> Tensor:
        """Cells (N, h, w) of the picture that the robot covers in poses (N)."""
        centres, radii = self.robot.outline(pose)
        pixels, depth = self._project(centres)
        return silhouette(pixels, depth, radii, self.scene.intrinsics[0, 0], self.scene.image_size)

    def _track(self, rollout: Rollout) -> Track:
        """The candidates' tracks (N, T + 1), from where the robot is now."""
        start = self._start.keypoints.to(rollout.keypoints_base).expand(len(rollout.joint_targets), 1, -1, -1)
        keypoints = torch.cat([start, rollout.keypoints_base], dim=1)  # (N, T + 1, 42, 3)
        place = (self.scene.world_from_base, self.scene.world_from_camera, self.scene.intrinsics)
        return keypoint_track(keypoints, self._start.valid, *place)

    def _screened(self, cheap: Tensor) -> Tensor | None:
        """Indices of the candidates that the model is run for; None is all.

        Where no cheap term says where to go (a goal image without the hand), the first rows of the population are
        taken: cheap terms would only favour standing still.
        """
        budget = self.config.model_budget
        if budget is None or budget >= len(cheap):
            return None
        with torch.no_grad():
            free = round(EXPLORED * budget) if self.cheap.guides(self.goal) else budget
            order = cheap.detach().clone()
            order[:free] = -math.inf
            return order.topk(budget, largest=False).indices

    def _project(self, points_base: Tensor) -> tuple[Tensor, Tensor]:
        points = points_base @ self._camera_from_base[:3, :3].T + self._camera_from_base[:3, 3]
        return project(points, self.scene.intrinsics)


def require_decoder(dynamics: Dynamics | None) -> Callable[[Tensor], Tensor]:
    """The dynamics' `decode`. Raises ValueError if it has none."""
    decode = getattr(dynamics, "decode", None)
    if decode is None:
        raise ValueError("this objective compares pictures, and the dynamics has no decode(): use LatentDistance")
    return decode


def _select(rollout: Rollout, chosen: Tensor | slice) -> Rollout:
    """Only the chosen candidates of a kinematic rollout."""
    batched = ("joint_targets", "pixels", "keypoints_base", "hand_rotation")
    return replace(rollout, **{name: getattr(rollout, name)[chosen] for name in batched})
