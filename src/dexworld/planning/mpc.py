"""Model predictive control: plan, send the first step, look again, plan the rest.

Unlike the release, re-planning feeds the world model the executed motion instead of zeros, and widens the search again.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dexworld.hands import NUM_TRACKED
from dexworld.planning.candidates import CandidateCost, Scene, require_decoder
from dexworld.planning.deadline import Deadline
from dexworld.planning.gradient import KinematicStart
from dexworld.planning.hand_space import HandSpaceSolver
from dexworld.planning.mpc_config import MPCConfig
from dexworld.planning.objectives import Objective, WeightedSum, as_sum
from dexworld.planning.point_goal import clicked_points, moved_points
from dexworld.planning.point_tracker import PointTracker
from dexworld.planning.protocols import Dynamics, Gaussian, Goal, GoalPoints, Plan, PlanStatistics, Rollout, Solver
from dexworld.planning.robot_in_picture import fingertips, silhouette_in_goal, silhouette_now
from dexworld.planning.scene_colours import colour_cells
from dexworld.planning.search import Archive, white_noise
from dexworld.robots.boxes import Boxes
from dexworld.robots.observation import Observation, crop_margins, cropped_image
from dexworld.robots.robot import Robot
from dexworld.track import Track


def _kept(cost: CandidateCost, initial: Gaussian) -> Plan:
    """The plan that keeps the joint targets in force."""
    kept, archive = cost.scene.joint_targets.expand_as(initial.mean)[None], Archive(1)
    archive.record(archive.add(kept, cost(kept)), 1)
    return archive.plan(initial.std)


@dataclass(frozen=True)
class _Frame:
    """A frame, seen or expected: latents (P, D) or None, joints (J,), camera pose (4, 4); and its step."""

    latents: Tensor | None
    joint_positions: Tensor
    world_from_camera: Tensor
    step: int


class MPCPolicy:
    """Plans to a goal image with a world model, and re-plans after every step.

    dynamics may be None if no objective term needs a model and `reset` is given the goal's keypoints. seed: of the
    search, for every `reset`. `statistics` holds a `PlanStatistics` per `act` since the reset, `plan` the last plan.
    """

    def __init__(
        self,
        dynamics: Dynamics | None,
        robot: Robot,
        objective: Objective,
        solver: Solver,
        config: MPCConfig = MPCConfig(),
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dynamics, self.robot, self.solver, self.config = dynamics, robot, solver, config
        self.objective = as_sum(objective)
        if self.objective.needs_model and dynamics is None:
            raise ValueError("this objective needs a world model: give the policy a dynamics")
        if self.objective.needs_decoder:
            require_decoder(dynamics)
        if self.objective.needs_points and not hasattr(dynamics, "points"):
            raise ValueError("this objective follows points, and the world model has none: `dexworld train points`")
        self.seed, self.device = seed, torch.device(device)
        self.statistics: list[PlanStatistics] = []
        self.plan: Plan | None = None
        self._deadline = Deadline(None)
        self._last_s = 0.0  # what follows a search
        self._begin = -1
        self._imagined: Rollout | None = None
        self._goal: Goal | None = None
        self._clicks: GoalPoints | None = None

    @property
    def goal(self) -> Goal:
        """The goal, as the objectives see it. Raises ValueError before the first reset, and where it is nothing but
        points, before the first `act`.
        """
        if self._goal is None:
            raise ValueError("the policy has no goal yet: call reset(goal_image) first")
        return self._goal

    @torch.no_grad()
    def reset(
        self,
        goal_image: np.ndarray | None = None,
        *,
        goal_pixels: np.ndarray | None = None,
        hand_rotation: np.ndarray | None = None,
        goal_points: tuple[np.ndarray, np.ndarray] | None = None,
        seed: int | None = None,
    ) -> None:
        """Start an episode.

        goal_image (H, W, 3) uint8, of the observations' size; None with `goal_points`, where no term of the objective
        compares with a picture. goal_pixels (12, 2): the goal's tracked keypoints, NaN where unknown; by default the
        keypoint head finds them in the goal image. hand_rotation (3, 3): the wanted base_from_palm, if an objective
        asks for one. goal_points: pixels (Q, 2) [u, v] in the first observation and where these points should be,
        (Q, 2); by default those that moved are found in the goal image. seed: replaces the policy's. Raises ValueError
        on a wrong image, on points that are no pairs, and on a goal that the objective can't or doesn't read.
        """
        comparing = ", ".join(term.name for _, term in self.objective.terms if term.needs_picture)
        if goal_image is None and (goal_points is None or comparing):
            why = f"the objective compares {comparing} with one" if comparing else "or goal_points"
            raise ValueError(f"a goal picture is needed: {why}")
        if goal_image is not None and goal_points is not None and not comparing:
            raise ValueError("give a goal picture or goal_points, not both: this objective reads nothing but points")
        self._clicks = None if goal_points is None else clicked_points(*goal_points, self.device)
        self._rotation = None if hand_rotation is None else self._tensor(hand_rotation)
        self._goal = None if goal_image is None else self._pictured(goal_image, goal_pixels)
        self._points: PointTracker | None = None
        self._history: list[_Frame] = []
        self._now = self._begin = -1  # steps at which the last frame was seen, and the last plan begins
        self.plan, self._imagined, self.statistics = None, None, []
        self._generator = torch.Generator().manual_seed(self.seed if seed is None else seed)

    def _pictured(self, image: np.ndarray, goal_pixels: np.ndarray | None) -> Goal:
        """The goal that a picture (H, W, 3) shows, see `reset`."""
        if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
            raise ValueError(f"goal image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
        corner = self._corner(image.shape)
        if self.config.image_size is not None:
            image = cropped_image(image, self.config.image_size)
        latents = None if self.dynamics is None else self.dynamics.encode(self._image(image))
        if goal_pixels is not None:
            given = torch.as_tensor(np.asarray(goal_pixels, dtype=np.float32), device=self.device)
            known = torch.isfinite(given).all(-1) if tuple(given.shape) == (NUM_TRACKED, 2) else torch.zeros(0)
            pixels, confidence = given.nan_to_num(0.0, 0.0, 0.0) - corner, known.float()
        elif self.dynamics is not None and latents is not None:
            pixels, confidence = self.dynamics.keypoints(latents)
        else:
            raise ValueError("without a dynamics nobody finds the goal's keypoints: give goal_pixels")
        compares = self.objective.needs_decoder or self.objective.needs_points
        picture = colour_cells(self._image(image)) if compares else None
        size = (image.shape[0], image.shape[1])
        points = None if self._clicks is None else self._clicks.within(corner, size)
        return Goal(size, pixels, confidence, latents, self._rotation, picture, points=points)

    def _corner(self, whole: tuple[int, ...]) -> Tensor:
        """Pixels (2,) [u, v] of an observed picture of (height, width) that the model's picture begins at."""
        top, left = crop_margins(whole, self.config.image_size or (whole[0], whole[1]))
        return torch.tensor([left, top], dtype=torch.float32, device=self.device)

    def act(self, observation: Observation, underway: np.ndarray | None = None) -> np.ndarray:
        """Joint targets (J,) for the next step, within the limits.

        underway: joint targets (U, J) of the steps that the robot carries out before this plan begins. The plan is then
        for the state after them: the hand's by kinematics, everything else's by the model. The last plan began when
        this observation was made, or with U = 0 a step before.

        Measured joints or targets outside their limits are moved back and counted in the statistics. Raises ValueError
        before a reset, if the image isn't of the goal's size, and if `underway` isn't finite or of another shape.
        """
        began, limit = time.perf_counter(), self.config.deadline_s
        self._deadline = Deadline(None if limit is None else limit - self._last_s)
        steps = 0 if underway is None else len(underway)
        self._begin = steps if self._begin < 0 else self._begin + max(1, steps)
        self._now = self._begin - steps
        scene, clamped = self.watch(observation)
        seen = self._history, self._points
        if underway is not None and steps:
            scene = self._ahead(scene, self._checked(underway))
        horizon = max(1, self.config.horizon - (self._begin if self.config.replan == "shrink" else 0))
        initial = self._initial(scene, horizon, max(1, steps))

        plan, cost, kinematic = self._search(scene, initial)
        self._history, self._points = seen
        searched = time.perf_counter()
        self.plan, self._imagined = plan, cost.imagine(plan.actions)
        entry = PlanStatistics(
            seconds=searched - began,
            horizon=horizon,
            history=plan.history,
            kinematic_history=kinematic.history if kinematic else (),
            candidates=plan.evaluated + (kinematic.evaluated if kinematic else 0),
            model_candidates=cost.model_candidates,
            cost=plan.cost,
            terms=cost.explain(self._imagined),
            clamped=clamped,
            complete=plan.complete,
        )
        self.statistics.append(entry)
        self._last_s = time.perf_counter() - searched
        return self.robot.clamp(plan.actions[0]).cpu().numpy().astype(np.float64)

    def watch(self, observation: Observation) -> tuple[Scene, int]:
        """Look without planning, as `act` begins: `points` are looked for. The scene, and the joints moved back."""
        whole = observation.image.shape
        if self.config.image_size is not None:
            observation = observation.cropped(self.config.image_size)
        size = (observation.image.shape[0], observation.image.shape[1])
        if self._goal is None and self._clicks is not None:
            unknown, points = (
                torch.zeros(NUM_TRACKED, device=self.device),
                self._clicks.within(self._corner(whole), size),
            )
            self._goal = Goal(size, unknown[:, None].expand(-1, 2), unknown, None, self._rotation, points=points)
        if size != self.goal.image_size:
            seen, wanted = ("{}x{}".format(*each) for each in (size, self.goal.image_size))
            raise ValueError(f"observation image is {seen}, the goal image {wanted}: they must be of one size")
        scene, clamped = self._scene(observation)
        self._observe(observation, scene)
        return scene, clamped

    def _search(self, scene: Scene, initial: Gaussian) -> tuple[Plan, CandidateCost, Plan | None]:
        """The plan, what judged it, and the cheap search before it, if any."""
        bounds = self.robot.limits.to(scene.joint_targets)
        start, kinematic = self._kinematic_start(initial, scene, bounds)
        cost = self._cost_function(scene, self.objective)
        steps = len(initial.mean)
        proposals = self._proposals(initial) if start is not initial else self._approaches(scene, bounds, steps)
        if self.reached:
            return _kept(cost, start), cost, kinematic
        solver = self._solver(self.solver, scene)
        return self._deadline.search(solver, cost, start, bounds, self._generator, proposals), cost, kinematic

    @torch.no_grad()
    def _ahead(self, scene: Scene, underway: Tensor) -> Scene:
        """The scene after joint targets (U, J); what the model expects until then joins history and points."""
        cost = self._cost_function(scene, self.objective)
        rollout, joints = cost.imagine(underway), cost.expected_positions(underway)
        latents = [None] * len(joints) if rollout.latents is None else rollout.latents[0]
        frames = zip(latents, joints, strict=True)
        expected = [_Frame(*each, scene.world_from_camera, self._now + 1 + step) for step, each in enumerate(frames)]
        if self._points is not None and self.dynamics is not None:
            self._points = copy.copy(self._points)
            track = self._executed([self._history[-1], *expected], scene, (1, 1 + len(expected)))
            self._points.moved(self.dynamics.condition(track))
        self._history = [*self._history, *expected][-self.config.max_history :]
        return replace(scene, joint_positions=joints[-1], joint_targets=underway[-1])

    def _checked(self, underway: np.ndarray) -> Tensor:
        """Joint targets (U, J) within the limits."""
        if underway.ndim != 2 or underway.shape[1] != len(self.robot.joints) or not np.isfinite(underway).all():
            raise ValueError(f"underway must be finite and (U, {len(self.robot.joints)}), not {underway.shape}")
        return self.robot.clamp(self._tensor(underway))

    @property
    def points(self) -> Tensor | None:
        """Where the goal's points were last seen, pixels (Q, 2); None when the objective asks for none."""
        return None if self._points is None else self._points.pixels

    @property
    def reached(self) -> bool:
        """Whether the goal's points are where they should be, within `reached_px`. Without points it is never known."""
        tracker, points = self._points, self.goal.points
        return tracker is not None and points is not None and tracker.left(points.wanted) < self.config.reached_px

    @property
    def imagined(self) -> Rollout:
        """What the last plan was expected to do, as a rollout of one candidate. Raises ValueError before `act`."""
        if self._imagined is None:
            raise ValueError("nothing was planned yet: call act first")
        return self._imagined

    def _tensor(self, value: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(value, dtype=np.float32), device=self.device)

    def _image(self, image: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(image)).to(self.device)

    def _scene(self, observation: Observation) -> tuple[Scene, int]:
        """The observation as tensors, with joints inside their limits, and how many had to be moved."""
        positions, targets = self._tensor(observation.joint_positions), self._tensor(observation.joint_targets)
        inside = self.robot.clamp(positions), self.robot.clamp(targets)
        clamped = int((inside[0] != positions).sum() + (inside[1] != targets).sum())
        seen = (observation.world_from_base, observation.world_from_camera, observation.intrinsics)
        base, camera, intrinsics = (self._tensor(value) for value in seen)
        return Scene(*inside, base, camera, intrinsics, self.goal.image_size), clamped

    @torch.no_grad()
    def _observe(self, observation: Observation, scene: Scene) -> None:
        """Add a frame to the history; the first one becomes the goal's start."""
        image, latents = self._image(observation.image), None
        if self.dynamics is not None and self.objective.needs_model:
            latents = self.dynamics.encode(image)
        if latents is not None and self.objective.needs_points:
            self._track_points(latents, image, scene)
        frame = _Frame(latents, scene.joint_positions, scene.world_from_camera, self._now)
        if self._history and self.objective.needs_model and getattr(self.dynamics, "needs_still_camera", False):
            moved = (self._history[0].world_from_camera - frame.world_from_camera).abs().max()
            if float(moved) > 1e-4:
                raise ValueError("actions in a window's first frame can't be planned with a camera that moves")
        if not self._history:
            boxes = self._tensor(np.asarray(self.config.keep_out)).view(-1, 2, 3)
            around = Boxes(boxes[:, 0], boxes[:, 1], scene.world_from_base) if len(boxes) else None
            self._goal = replace(self.goal, keep_out=around)
        if not self._history and self.objective.needs_decoder:
            silhouette = silhouette_now(self._cheap(scene))
            self._goal = replace(self.goal, start_picture=colour_cells(image), start_silhouette=silhouette)
        # The model's frames are one step apart; what was seen before a longer gap is of no use to it.
        last = self._history[-1].step if self._history else -1
        before = [each for each in self._history if each.step < self._now] if last >= self._now - 1 else []
        self._history = [*before, frame][-self.config.max_history :]

    def _cheap(self, scene: Scene) -> CandidateCost:
        return CandidateCost(self.robot, self.objective.part(needs_model=False), self.goal, scene)

    def _track_points(self, latents: Tensor, image: Tensor, scene: Scene) -> None:
        """Look for the goal's points; in the first frame find out which they are."""
        dynamics: Any = self.dynamics
        if self._points is not None:
            last = _Frame(None, scene.joint_positions, scene.world_from_camera, self._now)
            self._points.moved(dynamics.condition(self._executed([self._history[-1], last], scene, (1, 2))))
            self._points.observe(latents, silhouette_now(self._cheap(scene)))
            return
        head, goal = dynamics.points, self.goal
        points = goal.points
        if points is None:
            assert goal.latents is not None
            assert goal.picture is not None
            changed = (goal.picture - colour_cells(image)).abs().mean(-1)
            cost = self._cheap(scene)
            robots = silhouette_now(cost), silhouette_in_goal(cost, self._initial(scene, 1))
            points = moved_points(head, latents, goal.latents, changed, *robots, fingertips(cost))
        self._goal, self._points = replace(goal, points=points), PointTracker(head, latents, points)

    @torch.no_grad()
    def _context(self, scene: Scene, dynamics: Dynamics) -> Any:
        """The model's context: observed latents and the motion that was really executed between them."""
        latents = torch.stack([frame.latents for frame in self._history if frame.latents is not None])
        track = self._executed(self._history, scene, (len(self._history),))
        return dynamics.start(latents, dynamics.condition(track))

    def _executed(self, frames: Sequence[_Frame], scene: Scene, shape: tuple[int, ...]) -> Track:
        """The track of what was really done in these frames, with batch dimensions and T in `shape`."""
        joints = torch.stack([frame.joint_positions for frame in frames])
        cameras = torch.stack([frame.world_from_camera for frame in frames])
        where = scene.world_from_base, cameras.view(*shape, 4, 4), scene.intrinsics
        return self.robot.track(joints.view(*shape, -1), *where)

    def _cost_function(self, scene: Scene, objective: WeightedSum) -> CandidateCost:
        dynamics = self.dynamics if objective.needs_model else None
        context = self._context(scene, dynamics) if dynamics is not None and objective.needs_rollout else None
        models: dict[str, Any] = {"dynamics": dynamics, "context": context, "points": self._points}
        options: dict[str, Any] = {"config": self.config.model, "deadline": self._deadline}
        return CandidateCost(self.robot, objective, self.goal, scene, **models, **options)

    def _initial(self, scene: Scene, horizon: int, later: int = 1) -> Gaussian:
        """Around the targets in force at first, so that a grasp keeps its grip; then around the rest of the last plan,
        which began `later` steps before.
        """
        std = scene.joint_targets.new_full((horizon, len(self.robot.joints)), self.config.finger_std)
        std[:, self.robot.arm] = self.config.arm_std
        if self.plan is None or len(self.plan.actions) < 2:
            return Gaussian(scene.joint_targets.expand(horizon, -1).clone(), std)
        shift = torch.arange(later, later + horizon).clamp_max(len(self.plan.actions) - 1)
        found = self.plan.distribution.std[shift]
        return Gaussian(self.plan.actions[shift], torch.maximum(found, self.config.rewiden * std))

    def _kinematic_start(self, initial: Gaussian, scene: Scene, bounds: Tensor) -> tuple[Gaussian, Plan | None]:
        """The distribution that the model-based search starts from, and the cheap search that gave it, if any."""
        start, objective = self.config.kinematic_start, self.objective.part(needs_model=False)
        if start is None or not self.objective.needs_model or not objective.guides(self.goal):
            return initial, None
        cost = self._cost_function(scene, objective)
        deadline = self._deadline.part(start.TIME_SHARE)
        plan = deadline.search(self._solver(start.solver, scene), cost, initial, bounds, self._generator)
        return Gaussian(plan.actions, start.STD_SHARE * initial.std), plan

    def _solver(self, solver: Solver, scene: Scene) -> Solver:
        """A search along the world's axes must know the robot, and where its base stands."""
        if not isinstance(solver, HandSpaceSolver):
            return solver
        return solver.bind(self.robot, scene.world_from_base, self.goal.keep_out)

    def _proposals(self, initial: Gaussian) -> Tensor:
        """The original mean and a few samples of the original distribution, to join the search's first population."""
        noise = white_noise((KinematicStart.MIXED, *initial.mean.shape), self._generator, initial.mean)
        return torch.cat([initial.mean[None], initial.mean + initial.std * noise])

    @torch.no_grad()
    def _approaches(self, scene: Scene, bounds: Tensor, steps: int) -> Tensor | None:
        """Pushes that the goal's points suggest, (N, T, J), for a search in hand space."""
        points, solver = self.goal.points, self._solver(self.solver, scene)
        if not isinstance(solver, HandSpaceSolver):  # a search that takes no translations
            return None
        if self.config.approach is None or self._points is None or points is None:
            return None
        found = (self.robot, scene, points, self._points.pixels, steps, self._generator)
        shifts = self.config.approach.displacements(*found).clamp(-solver.farthest, solver.farthest)
        return solver.joints(scene.joint_targets.expand(steps, -1), bounds, shifts)
