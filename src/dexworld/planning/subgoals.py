"""Sub-goals that a search finds: stages of the hand that bring points to their goal, as a world model says.

A blind search over a few moves doesn't find that closing the fingers, lifting and opening them again brings a thing
somewhere. Here a search plays a row of stages through the model's forecast, and looks for where they should happen.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dexworld.planning.approach import at_height
from dexworld.planning.candidates import CandidateCost, Scene
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.point_tracker import PointTracker
from dexworld.planning.protocols import Gaussian, Plan
from dexworld.robots.hand_ik import hand_joints
from dexworld.robots.observation import Observation


class Stage(NamedTuple):
    """A pose of the hand: its share of the way from where a thing is taken to where it goes, how far raised, whether
    closed; and the share of their way that the points have gone then, None if that doesn't matter.
    """

    way: float
    raised: float
    closed: bool
    points: float | None


TAKE_AND_PUT = (
    Stage(0, 1, False, 0),  # above
    Stage(0, 0, False, 0),  # around
    Stage(0, 0, True, 0),  # closed
    Stage(0, 1, True, None),  # lifted
    Stage(1, 1, True, None),  # carried
    Stage(1, 0, True, 1),  # set down
    Stage(1, 0, False, 1),  # opened
    Stage(1, 1, False, 1),  # raised
    Stage(1, 2, False, 1),  # out of the way
)
LEFT_PX = 10.0  # a point that is nearer than this to where it was was not taken
_FOLLOWED = 4  # points that a search follows
_BELOW = 0.105  # metres from where the hand would hold a thing at the start down to the thing
_RAISED = (-0.02, 0.0, 0.10)  # metres along the world's axes, at first
_STD = ((0.015, 0.015, 0.025), (0.02, 0.02, 0.02), (0.02, 0.02, 0.02))  # metres: of taking, way and raising
_PRIOR = 0.002  # cost of one standard deviation; half a pixel
_FARTHEST = 0.2  # metres from the first guess


class SubgoalPolicy(MPCPolicy):
    """Plans over `stages` of the hand instead of single moves, one stage a move, and plans the rest anew after each.

    What is searched are three vectors: where the hand takes the thing, the way to its goal, and how it is raised. They
    begin at a guess from the picture's geometry: the thing lies `_BELOW` the hand. The robot's `grip` says how the hand
    takes things. The model's forecast of the points judges them, and later says whether the thing was taken.

    Raises ValueError where the robot has no grip or the objective has no points.
    """

    def __init__(self, *args: Any, stages: Sequence[Stage] = TAKE_AND_PUT, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stages = tuple(stages)
        if self.robot.grip is None or not self.objective.needs_points:
            raise ValueError("sub-goals need a robot with a `grip` and an objective on points: PointGoal()")

    def reset(self, goal_image: np.ndarray | None = None, *, then: Sequence[np.ndarray] = (), **options: Any) -> None:
        """As `MPCPolicy.reset`. then: goal pictures that follow; each begins when the one before it is reached."""
        super().reset(goal_image, **options)
        self._then, self._stage = tuple(then), -1
        self._guessed: Tensor | None = None

    @property
    def stage(self) -> int:
        """The stage that the last `act` went to; -1 before the first."""
        return self._stage

    @property
    def arrived(self) -> bool:
        """Whether the goal's points were found where they should be, and the hand holds nothing."""
        return self.reached and not self.stages[self._stage].closed

    @torch.no_grad()
    def _observe(self, observation: Observation, scene: Scene) -> None:
        super()._observe(observation, scene)
        if self._then and self.arrived:
            self.reset(self._then[0], then=self._then[1:])
            super()._observe(observation, scene)

    def _track_points(self, latents: Tensor, image: Tensor, scene: Scene) -> None:
        """Only the best points. What is seen where it was, and not with the hand that closed on it, wasn't taken."""
        new = self._points is None
        super()._track_points(latents, image, scene)
        tracker, points = self._points, self.goal.points
        assert tracker is not None
        assert points is not None
        if new:
            best = points.weights.topk(min(_FOLLOWED, len(points.weights))).indices
            points = points.only(best)
            self._goal, self._first = replace(self.goal, points=points), points.pixels
            self._points = PointTracker(tracker.head, latents, points)
        elif self.stages[self._stage].closed:
            left = (tracker.pixels - self._first).norm(dim=-1) < LEFT_PX
            away = (tracker.expected - self._first).norm(dim=-1) > 2 * LEFT_PX
            if (left & away).float().mean() > 0.5:
                self._stage, self._guessed = -1, None

    def _ahead(self, scene: Scene, underway: Tensor) -> Scene:
        raise ValueError("sub-goals are planned from what is seen, while the robot stands still: send no `underway`")

    def _search(self, scene: Scene, initial: Gaussian) -> tuple[Plan, CandidateCost, Plan | None]:
        """Where the stages that are left should happen."""
        self._stage = min(self._stage + 1, len(self.stages) - 1)
        stages, like, points = self.stages[self._stage :], scene.joint_targets, self.goal.points
        assert points is not None
        rows = like.new_tensor([[1.0, stage.way, stage.raised] for stage in stages])  # of taking, way and raising
        if self._guessed is None:
            assert self._points is not None
            self._first, self._found = self._points.pixels, like.new_zeros(3, 3)
            self._guessed = self._guess(scene)
        reference = self._hands(scene, stages, rows @ (self._guessed + self._found))
        space = HandSpaceSolver(self.solver, iterations=3).bind(self.robot, scene.world_from_base, self.goal.keep_out)
        judged = [number for number, stage in enumerate(stages) if stage.points is not None]
        share = like.new_tensor([stages[number].points for number in judged])[:, None, None]
        wanted = torch.lerp(self._first.expand(len(judged), -1, -1), points.wanted.expand(len(judged), -1, -1), share)
        cost, cheap = self._cost_function(scene, self.objective), self.objective.part(needs_model=False)
        bounds, std = self.robot.limits.to(like), like.new_tensor(_STD)
        free = like.new_tensor([not any(stage.closed for stage in self.stages[: self._stage]), True, True])[:, None]

        def decode(samples: Tensor) -> Tensor:
            shift = torch.einsum("sk,nkd->nsd", rows, (samples - self._found) * free)
            return space.joints(reference, bounds, shift.diff(dim=1, prepend=torch.zeros_like(shift[:, :1])))

        def judge(samples: Tensor) -> Tensor:
            rollout = cost.predict(cost.kinematic_rollout(decode(samples)))
            assert rollout.points is not None
            far = (rollout.points.pixels[:, judged] - wanted[:, None]).norm(dim=-1).mean(dim=2)  # (N, S, Q)
            far = (far * points.weights).sum(-1).mean(-1) / points.weights.sum() / self.goal.image_size[0]
            return far + cheap(rollout, self.goal) + _PRIOR * (samples / std).square().sum((1, 2))

        def judge_in_time(samples: Tensor) -> Tensor:
            return self._deadline.costs(lambda some: judge(samples[some]), len(samples))

        space_bounds = like.new_tensor([[-_FARTHEST, _FARTHEST]] * 3)
        start = Gaussian(self._found, std)
        found = self._deadline.search(self.solver, judge_in_time, start, space_bounds, self._generator)
        actions = decode(found.actions[None])
        self._found = torch.where(free > 0, found.actions, self._found)
        spread = Gaussian(actions[0], torch.zeros_like(actions[0]))
        return (
            replace(found, actions=actions[0], distribution=spread, elites=actions, elite_costs=found.elite_costs[:1]),
            cost,
            None,
        )

    def _hands(self, scene: Scene, stages: Sequence[Stage], wrists: Tensor) -> Tensor:
        """Joint targets (S, J) of the stages, with the wrist at (S, 3) in the world."""
        grip, joints, found = self.robot.grip, scene.joint_targets, []
        assert grip is not None
        base, bounds = scene.world_from_base, self.robot.limits.to(joints)
        rotation = base[:3, :3].T @ joints.new_tensor(grip.world_from_palm)
        for stage, wrist in zip(stages, (wrists - base[:3, 3]) @ base[:3, :3], strict=True):
            fingers = joints.new_tensor(grip.closed if stage.closed else grip.opened)
            joints = torch.cat([joints[self.robot.arm], fingers])
            joints = hand_joints(self.robot, joints[None], bounds, wrist[None], rotation[None], 15, self.goal.keep_out)[
                0
            ]
            found.append(joints)
        return torch.stack(found)

    def _guess(self, scene: Scene) -> Tensor:
        """Wrist that takes the thing, its way and raising, (3, 3) metres in the world: on the rays of the points."""
        grip, points = self.robot.grip, self.goal.points
        assert grip is not None
        assert points is not None
        centre, base = points.pixels.new_tensor(grip.centre), scene.world_from_base
        pose = self.robot.forward(scene.joint_targets)
        height = (base[:3, :3] @ (pose.wrist + pose.hand_rotation @ centre) + base[:3, 3])[2] - _BELOW
        both = torch.stack([points.share @ pixels for pixels in (self._first, points.wanted)])
        ends = at_height(scene, both, height)
        held = ends[0] - centre.new_tensor(grip.world_from_palm) @ centre
        return torch.stack([held, ends[1] - ends[0], centre.new_tensor(_RAISED)])
