"""Every policy that evaluation plays, by name: the planner with a world model, its controls, and learned policies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from dexworld.planning.controls import SIMULATOR_SEARCH, DoNothing, RandomTargets, Replay, TrueSimulator
from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.presets import SUBGOALS, PlannerOptions, kinematics_only, task_preset
from dexworld.planning.protocols import Dynamics, Policy, Solver
from dexworld.robots.environment import Environment, SimulatedEnvironment, Workplace


@dataclass(frozen=True)
class PolicySetup:
    """What policies are made of.

    task, planner: name the planner's preset. planning: what differs from the preset. environment: with the robot, or a
    robot's workplace; `true_simulator` searches in it. dynamics: the world model. changes: of the planner's
    `MPCConfig`, for the model. search: the solver of `true_simulator`. expert_moves: (T, J) joint targets of a script
    that solves the episode. learned: policies by one of the names `LEARNED`. device: of the dynamics and the planner.
    """

    task: str
    environment: Environment | Workplace
    dynamics: Dynamics | None = None
    planner: str = "cpu"
    planning: PlannerOptions = field(default_factory=PlannerOptions)
    seed: int = 0
    changes: dict[str, Any] = field(default_factory=dict)
    search: Solver = SIMULATOR_SEARCH
    expert_moves: np.ndarray | None = None
    learned: Mapping[str, Policy] = field(default_factory=dict)
    device: torch.device | str = "cpu"


def world_model(setup: PolicySetup, subgoals: bool = True) -> MPCPolicy:
    """The planner with the world model; subgoals: whether it may use them where the task's preset has some."""
    dynamics = _dynamics(setup, "world_model")
    preset = task_preset(setup.planner, setup.task, hasattr(dynamics, "points"), subgoals)
    preset = setup.planning.applied(preset)
    return preset.policy(dynamics, setup.environment.robot, seed=setup.seed, device=setup.device, **setup.changes)


def _kinematics_only(setup: PolicySetup) -> Policy:
    known = {name: setup.changes[name] for name in ("image_size", "keep_out") if name in setup.changes}
    dynamics = _dynamics(setup, "kinematics_only")
    return kinematics_only(setup.task, dynamics, setup.environment.robot, setup.seed, device=setup.device, **known)


def _true_simulator(setup: PolicySetup) -> Policy:
    if not isinstance(setup.environment, SimulatedEnvironment):
        raise ValueError("a search in the true simulator needs an environment with get_state and set_state")
    return TrueSimulator(setup.environment, setup.search)


def _expert(setup: PolicySetup) -> Policy:
    if setup.expert_moves is None:
        raise ValueError("this episode has no expert")
    return Replay(setup.expert_moves)


def _learned(name: str, setup: PolicySetup) -> Policy:
    if name not in setup.learned:
        raise ValueError(f"policy {name!r} needs a checkpoint that `dexworld train policy` made")
    return setup.learned[name]


LEARNED = ("diffusion_policy", "bc")
POLICIES: dict[str, Callable[[PolicySetup], Policy]] = {
    "world_model": world_model,
    "no_subgoals": partial(world_model, subgoals=False),
    "do_nothing": lambda setup: DoNothing(),
    "random": lambda setup: RandomTargets(setup.environment.robot, setup.seed),
    "kinematics_only": _kinematics_only,
    "true_simulator": _true_simulator,
    "expert": _expert,
    **{name: partial(_learned, name) for name in LEARNED},
}


def comparable(name: str, setup: PolicySetup) -> bool:
    """Whether this policy differs from the others in this task: `no_subgoals` only where the planner has sub-goals,
    learned ones and the expert only where there are some.
    """
    if name in LEARNED:
        return name in setup.learned
    if name == "expert":
        return setup.expert_moves is not None
    return name != "no_subgoals" or (
        setup.task in SUBGOALS and setup.planner != "paper" and hasattr(setup.dynamics, "points")
    )


def make_policy(name: str, setup: PolicySetup) -> Policy:
    """The policy of that name. Raises ValueError with the names there are, and where the setup lacks what it needs."""
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} is unknown; choose from {', '.join(POLICIES)}")
    return POLICIES[name](setup)


def _dynamics(setup: PolicySetup, policy: str) -> Dynamics:
    if setup.dynamics is None:
        raise ValueError(f"policy {policy!r} needs a model: it reads the goal picture")
    return setup.dynamics
