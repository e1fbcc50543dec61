"""A policy behind a socket: every connection has its own goal, history and seed."""

import logging
import math
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dexworld.baselines.goal_policy import LearnedPolicy
from dexworld.evaluation.policy_setup import learned_policies, policy_setup
from dexworld.models.reference import REFERENCE
from dexworld.models.world_model import load_world_model
from dexworld.options import from_dict
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.policies import make_policy
from dexworld.planning.presets import Planner, PlannerOptions
from dexworld.planning.sentence_goal import sentence_points
from dexworld.planning.subgoals import SubgoalPolicy
from dexworld.robots.boxes import Box
from dexworld.robots.environment import Workplace
from dexworld.robots.find_robot import find_robot
from dexworld.robots.observation import Observation
from dexworld.serving.camera_input import CameraInput
from dexworld.serving.candidate_replicas import CandidateReplicas, ReplicatedModel

logger = logging.getLogger(__name__)
STEP_SECONDS = 1.0  # of one joint target, as the models were trained
_STANDING = ("world_from_camera", "world_from_base", "intrinsics")  # may be left out while they don't change
_LARGEST = 1e6  # metres, radians, pixels
_MOST_UNDERWAY = 16  # steps
_GOALS = {"image", "text", "clicks", "then", "seed"}


@dataclass(frozen=True)
class PolicyConfig:
    """Which policy, for which robot."""

    checkpoint: str = REFERENCE
    """World model: folder or hub id; `reference` is the shipped one."""
    policy: Literal["world_model", "kinematics_only", "diffusion_policy", "bc", "do_nothing", "random"] = "world_model"
    """`world_model` plans; `diffusion_policy` and `bc` take --policy-checkpoint; the others are controls."""
    policy_checkpoint: str | None = None
    """Folder or hub id of a policy that `dexworld train policy` made, on the latents of --checkpoint."""
    task: str = "reach"
    """What the planner's preset is made for: reach, grasp, place, push, pick_place, push_around."""
    planner: Planner = "cpu"
    """Planner preset; `paper` is {T, N, K, L} = {3, 512, 10, 10}, `realtime` is `cpu` with half its rounds."""
    planning: PlannerOptions = field(default_factory=PlannerOptions)
    robot: str = "franka-allegro"
    """Who acts: franka-allegro, franka-gripper, the name of a robot that dexworld ships a description of, a description
    that names its own model, or a MJCF or URDF file with --description."""
    description: Path | None = None
    """TOML file that says what the file's hand is, and how fast it may move."""
    camera: Path | None = None
    """File with the camera's intrinsics (docs/cameras.md). Clients then send pictures as the camera takes them."""
    hand_eye: Path | None = None
    """File with where that camera is mounted; clients then send no `world_from_camera`."""
    boxes: Path | None = None
    """JSON file with `keep_out`, a list of boxes that the arm stays out of, and `workspace`, a box that the robot stays
    in: two corners each, low and high, metres in the world."""
    ray: str | None = None
    """Address of a Ray cluster whose replicas judge candidates: `local`, `auto` or ray://host:port."""
    replicas: int = 2
    """Replicas on that cluster, of one CPU or GPU each."""
    seed: int = 0
    """Of the search, for sessions that give none."""


@dataclass(frozen=True)
class _Surroundings:
    keep_out: tuple[Box, ...] = ()
    workspace: Box | None = None


class PolicyService:
    """Loads the models once, for every session. Sessions plan one after the other.

    Raises ValueError for checkpoints, tasks and robots that don't go together.
    """

    def __init__(self, config: PolicyConfig, device: torch.device | str = "cpu") -> None:
        from dexworld.data.files import read_json
        from dexworld.robots.safety import joint_limits

        surroundings = _Surroundings()
        if config.boxes is not None:
            surroundings = from_dict(_Surroundings, read_json(config.boxes), str(config.boxes))
        self.config, self.turn, self.device = config, threading.Lock(), torch.device(device)
        robot = find_robot(config.robot, config.description)
        self.place = Workplace(robot, surroundings.keep_out, surroundings.workspace)
        self.limits = joint_limits(self.place.robot)
        self.model: Any = load_world_model(config.checkpoint).to(self.device)
        self.camera = CameraInput.read(config.camera, config.hand_eye, self.model.config.image_size, robot)
        on_hand = self.camera is not None and self.camera.on_hand
        self._learned = learned_policies([config.policy_checkpoint] if config.policy_checkpoint else [], self.model)
        policy = self.policy()  # what doesn't go together is said now
        # A camera on the hand is elsewhere when the plan arrives.
        self.ahead = isinstance(policy, MPCPolicy) and not isinstance(policy, SubgoalPolicy) and not on_hand
        self._replicas: CandidateReplicas | None = None
        if config.ray is not None:
            if config.policy != "world_model":
                raise ValueError(f"--ray shares the candidates of a search, and {config.policy} has none")
            parts = (config.checkpoint, config.planner, self.place.robot, str(self.device))
            self._replicas = CandidateReplicas(config.ray, config.replicas, *parts)
            self.model = ReplicatedModel(self.model, self._replicas)

    def close(self) -> None:
        """End the replicas, if there are some."""
        if self._replicas is not None:
            self._replicas.close()

    def policy(self) -> Any:
        """A new policy."""
        config, model = self.config, self.model

        def encode(images: torch.Tensor) -> torch.Tensor:  # learned policies are small, and stay on the CPU
            return model.encode(images.to(self.device)).cpu()

        learned = {name: LearnedPolicy(each, encode, self.place.robot) for name, each in self._learned.items()}
        options = {"planning": config.planning, "seed": config.seed, "learned": learned, "device": self.device}
        setup = policy_setup(config.task, model, config.planner, self.place, "a session", **options)
        return make_policy(config.policy, setup)

    def metadata(self) -> dict[str, Any]:
        """What a client is told when it connects; the limits are those that the server keeps to."""
        height, width = self.model.config.image_size if self.camera is None else self.camera.size
        config = self.config
        names = {"policy": config.policy, "checkpoint": config.checkpoint, "robot": config.robot, "task": config.task}
        facts = {"joints": list(self.limits.names), "image_size": [height, width], "step_seconds": STEP_SECONDS}
        return names | facts | {"limits": asdict(self.limits), "clock": True, "underway": self.ahead}

    def session(self) -> "PolicySession":
        """The state of a new connection."""
        return PolicySession(self)


class PolicySession:
    """One client's policy, goal and last observation."""

    def __init__(self, service: PolicyService) -> None:
        self._service, self._policy = service, service.policy()
        self._known: dict[str, np.ndarray] = {}
        self._goal: dict[str, Any] | None = None
        self._begun = False
        self._waypoints: Any = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """`actions` (T, J), absolute joint targets, for an observation; `time` for a `ping`.

        Keys are the fields of `Observation`; also openpi's `state` for the joint positions and `prompt` for a goal of
        words. `goal` holds `image`, `text` or `clicks`, and optionally `then` and `seed`. `underway` (U, J) are joint
        targets of the steps that the robot carries out before this chunk begins. Raises ValueError for what is missing
        or has another shape.
        """
        if "ping" in message:
            return {"time": time.time()}
        observation = self._observation(message)
        goal = message.get("goal", {"text": message["prompt"]} if "prompt" in message else None)
        if goal is not None and not _same(goal, self._goal):
            self._goal, self._begun = _checked_goal(goal), False
        if self._goal is None:
            raise ValueError("there is no goal yet: send `goal` with `image`, `text` or `clicks`, or a `prompt`")
        with self._service.turn:
            if not self._begun:
                self._begin(self._goal, observation)
            return self._act(observation, message)

    def close(self) -> None:
        """Let the policy's memory go."""
        self._policy = None

    def _observation(self, message: dict[str, Any]) -> Observation:
        values = {name: message[name] for name in Observation.__dataclass_fields__ if name in message}
        if "state" in message:
            values.setdefault("joint_positions", message["state"])
        for name in set(values) - {"image"}:
            values[name] = _array(name, values[name]).astype(float)
        self._known |= {name: values[name] for name in _STANDING if name in values}
        targets = self._known.get("joint_targets", values.get("joint_positions"))
        values = self._known | ({} if targets is None else {"joint_targets": targets}) | values
        if self._service.camera is not None:
            values = self._service.camera.filled(values, set(message))
        observation = Observation.from_dict(values)
        joints = len(self._service.limits.names)
        if len(observation.joint_positions) != joints:
            who = f"{self._service.config.robot} has {joints} joints"
            raise ValueError(f"{who}, the observation {len(observation.joint_positions)}; is this another robot?")
        return observation

    def _begin(self, goal: dict[str, Any], observation: Observation) -> None:
        """Start an episode with this goal, from this observation."""
        from dexworld.robots.safety import Clearance, Margins, WaypointFilter

        service, policy = self._service, self._policy
        if service.camera is not None:
            goal = service.camera.goal(goal)
        options: dict[str, Any] = {"seed": int(goal.get("seed", service.config.seed))}
        if "image" in goal:
            options["goal_image"] = goal["image"]
        else:
            if not isinstance(policy, MPCPolicy):
                raise ValueError(f"{service.config.policy} takes a picture as its goal, no words and no clicks")
            clicks = goal.get("clicks")
            if clicks is None:
                clicks = sentence_points(service.model, observation.image, goal["text"], service.device)
            options["goal_points"] = tuple(clicks)
        if goal.get("then"):
            if not isinstance(policy, SubgoalPolicy):
                raise ValueError("`then` needs a planner with sub-goals: --task pick_place")
            options["then"] = goal["then"]
        policy.reset(**options)
        place, margins = service.place, Margins()
        clearance = Clearance(
            place.robot, observation.world_from_base, place.keep_out, place.workspace, margins.distance
        )
        self._waypoints, self._begun = WaypointFilter(service.limits, clearance, STEP_SECONDS), True

    def _act(self, observation: Observation, message: dict[str, Any]) -> dict[str, Any]:
        start, ahead = observation.joint_targets, {}
        if "underway" in message:
            if not self._service.ahead:
                raise ValueError(f"{self._service.config.policy} acts on what it sees: send no `underway`")
            underway = _array("underway", message["underway"]).astype(float)
            if underway.ndim != 2 or not 1 <= len(underway) <= _MOST_UNDERWAY:
                raise ValueError(f"underway must be (U, J), U at most {_MOST_UNDERWAY}, not {underway.shape}")
            start, ahead = underway[-1], {"underway": underway}
        actions = np.asarray(self._policy.act(observation, **ahead))[None]
        facts: dict[str, Any] = {"step_seconds": STEP_SECONDS, "execute": 1, "joints": list(self._service.limits.names)}
        plan = getattr(self._policy, "plan", None)
        if plan is not None:
            actions = self._service.place.robot.clamp(plan.actions).double().cpu().numpy()
            done = {"rounds": len(plan.history), "candidates": plan.evaluated, "complete": plan.complete}
            facts["search"] = done
        actions, interventions = self._waypoints.checked(start, actions)
        if interventions:
            logger.warning("safety: waypoints are changed: %s", interventions)
        self._known["joint_targets"] = actions[0]  # until the client says which are in force
        echoed = {name: message[name] for name in ("sequence", "observed_at") if _is_number(message.get(name))}
        return {"actions": actions} | facts | echoed | {"interventions": interventions}


def _checked_goal(goal: Any) -> dict[str, Any]:
    """A goal whose parts have the types that they must have."""
    if not isinstance(goal, dict) or len({"image", "text", "clicks"} & set(goal)) != 1 or set(goal) - _GOALS:
        raise ValueError("a goal is a map with one of `image`, `text` and `clicks`, and optionally `then` and `seed`")
    if not isinstance(goal.get("text", ""), str):
        raise ValueError("the goal's text must be a text")
    pictures, then = [goal["image"]] if "image" in goal else [], goal.get("then", [])
    for picture in [*pictures, *(then if isinstance(then, list) else [then])]:
        if not (isinstance(picture, np.ndarray) and picture.dtype == np.uint8):
            raise ValueError("goal pictures must be arrays (H, W, 3) uint8, and `then` a list of some")
    if "clicks" in goal and (_array("clicks", goal["clicks"]).ndim != 3 or goal["clicks"].shape[::2] != (2, 2)):
        raise ValueError("clicks must be an array (2, Q, 2): pixels [u, v] now, and where they should be")
    seed = goal.get("seed", 0)
    if not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ValueError(f"the goal's seed must be a whole number from 0 to {2**31 - 1}")
    return goal


def _array(name: str, value: Any) -> np.ndarray:
    """A numeric array, or a list of numbers as one."""
    found = np.asarray(value) if isinstance(value, list) else value
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise ValueError(f"{name} must be an array of numbers, not a {type(value).__name__}")
    if np.abs(np.nan_to_num(found)).max(initial=0) > _LARGEST:
        raise ValueError(f"{name} holds a number beyond {_LARGEST:g}")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _same(one: Any, other: Any) -> bool:
    """Whether two goals hold the same values; a goal that is sent again doesn't begin anew."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return type(one) is type(other) and not isinstance(one, np.ndarray) and one == other
