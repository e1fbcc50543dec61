"""Candidates of a search judged by several processes or machines, by Ray Serve (extra `ray-serve`).

Each replica has the world model. What a plan's candidates have in common goes to the replicas once, through Ray's
object store; then joint targets go out and costs come back.
"""

import logging
import math
from dataclasses import fields, is_dataclass, replace
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from dexworld.data.parallel import RayCluster, RayMissingError
from dexworld.evaluation.policy_setup import checked_rollouts
from dexworld.models.world_model import load_world_model
from dexworld.planning.candidates import CandidateCost
from dexworld.planning.point_tracker import PointTracker
from dexworld.robots.robot import Robot

logger = logging.getLogger(__name__)
_TIMEOUT_S = 60.0  # for one part of a population


class CandidateReplica:
    """Judges candidates in a process of its own. It keeps what the last plan's candidates have in common."""

    def __init__(self, checkpoint: str, planner: str, robot: Robot, device: str) -> None:
        self.device, self.robot = torch.device(device), robot
        self.dynamics: Any = checked_rollouts(load_world_model(checkpoint).to(self.device), planner, "a session")
        self._plan = ""
        self._cost: CandidateCost | None = None

    def costs(self, plan: str, shared: list[Any], samples: np.ndarray) -> np.ndarray:
        """Costs (N,) of joint targets (N, T, J). shared: the reference of what candidates of `plan` have in common.

        As arrays: a part of a tensor would be sent with all of it.
        """
        import ray

        with torch.no_grad():
            if plan != self._plan:
                objective, goal, scene, points, config, began = _on(self.device, ray.get(shared[0]))
                context = None if began is None else self.dynamics.start(*began)
                if points is not None:
                    points.head = self.dynamics.points
                models = {"dynamics": self.dynamics, "context": context, "points": points}
                self._cost = CandidateCost(self.robot, objective, goal, scene, **models, config=config)
                self._plan = plan
            assert self._cost is not None
            return self._cost.model_costs(torch.tensor(samples, device=self.device)).cpu().numpy()


class CandidateReplicas:
    """So many replicas on a Ray cluster; a context manager. `costs` is equal to one process's up to rounding.

    Raises RayMissingError where Ray Serve isn't installed.
    """

    def __init__(self, address: str, count: int, checkpoint: str, planner: str, robot: Robot, device: str) -> None:
        self.count, self._cluster = count, RayCluster(address, count)
        try:
            from ray import serve
        except ImportError as error:
            self._cluster.close()
            raise RayMissingError('Ray Serve is not installed; pip install "dexworld[ray-serve]"') from error
        self._serve, self._name = serve, f"dexworld-{uuid4().hex[:8]}"
        self._known: WeakKeyDictionary[CandidateCost, tuple[str, list[Any]]] = WeakKeyDictionary()
        options = {"num_cpus": 1, "num_gpus": int(device.startswith("cuda"))}
        shape = {"num_replicas": count, "max_ongoing_requests": 1, "ray_actor_options": options}
        deployed = serve.deployment(CandidateReplica, **shape)
        try:
            serve.start(proxy_location="Disabled")  # nothing of it listens for HTTP
            bound = deployed.bind(checkpoint, planner, robot, device.partition(":")[0])
            self._handle = serve.run(bound, name=self._name, route_prefix=None)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the replicas."""
        self._serve.delete(self._name)
        self._cluster.close()

    def __enter__(self) -> "CandidateReplicas":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def costs(self, cost: CandidateCost, samples: Tensor) -> Tensor:
        """`cost.model_costs(samples)`, (N,), by all replicas; a part whose replica is lost is judged here."""
        import ray.exceptions

        plan, shared = self._shared(cost)
        parts = samples.split(math.ceil(len(samples) / self.count))
        answers = [self._handle.costs.remote(plan, shared, part.cpu().numpy()) for part in parts]
        found = []
        for answer, part in zip(answers, parts, strict=True):
            try:
                found.append(torch.tensor(answer.result(timeout_s=_TIMEOUT_S)))
            except (ray.exceptions.RayActorError, TimeoutError) as error:
                logger.warning("a replica is lost, %d candidates are judged here: %s", len(part), error)
                found.append(cost.model_costs(part).cpu())
        return torch.cat(found).to(samples.device)

    def _shared(self, cost: CandidateCost) -> tuple[str, list[Any]]:
        """A plan's name, and the reference of what its candidates have in common; in a list Ray leaves it as it is."""
        import ray

        if cost not in self._known:
            began = None if cost.context is None else (cost.context.latents, cost.context.condition)
            common = (cost.objective, cost.goal, cost.scene, cost.points, cost.config, began)
            self._known[cost] = uuid4().hex, [ray.put(_on(torch.device("cpu"), common))]
        return self._known[cost]


class Begun:
    """What a context is made of, and the context once somebody asks for it here."""

    def __init__(self, latents: Tensor, condition: Any) -> None:
        self.latents, self.condition, self.context = latents, condition, None


class ReplicatedModel:
    """A world model whose candidates replicas judge; everything else is the model's own."""

    def __init__(self, model: Any, replicas: CandidateReplicas) -> None:
        self.model, self.candidate_costs = model, replicas.costs

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # asked for before it is set, as when unpickling
            raise AttributeError(name)
        return getattr(self.model, name)

    def start(self, latents: Tensor, condition: Any) -> Begun:
        """A context that replicas make; it is made here only for a roll-out."""
        return Begun(latents, condition)

    def rollout(self, context: Begun, condition: Any, max_batch: int | None = None) -> Tensor:
        """As the model's, (N, T, P, D): of the one plan that is chosen."""
        if context.context is None:
            context.context = self.model.start(context.latents, context.condition)
        return self.model.rollout(context.context, condition, max_batch)


def _on(device: torch.device, value: Any) -> Any:
    """The same value with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_on(device, each) for each in value)
    if isinstance(value, PointTracker):
        moved = PointTracker.__new__(PointTracker)
        moved.__dict__ |= {name: _on(device, each) for name, each in value.__getstate__().items()}
        return moved
    if is_dataclass(value) and not isinstance(value, type):
        given = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        return replace(value, **{name: _on(device, each) for name, each in given.items()})
    return value
