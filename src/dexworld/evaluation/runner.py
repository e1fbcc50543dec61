"""Play one episode with a policy, and keep what a report needs to show."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dexworld.planning.mpc import MPCPolicy
from dexworld.planning.protocols import Policy
from dexworld.robots.environment import Environment
from dexworld.robots.observation import Observation


@dataclass(frozen=True)
class Played:
    """One episode as it went.

    distances: metres before the first move, after each move, and after holding still. frames: the environment's film,
    and `step_frames`, the picture after each move, when they were asked for. seconds: planning time of every move.
    observations: what the policy saw before each move, when a film was asked for.
    """

    success: bool
    distances: tuple[float, ...]
    seconds: tuple[float, ...] = ()
    frames: tuple[np.ndarray, ...] = ()
    step_frames: tuple[np.ndarray, ...] = ()
    moves: tuple[np.ndarray, ...] = field(default=(), repr=False)
    observations: tuple[Observation, ...] = field(default=(), repr=False)


def play(
    policy: Policy,
    environment: Environment,
    seed: int,
    options: dict[str, Any] | None = None,
    film: bool = False,
    after_plan: Callable[[Any], None] | None = None,
    goal_points: tuple[np.ndarray, np.ndarray] | None = None,
) -> Played:
    """One episode of `policy` with the environment's `seed` and `options`; `after_plan` is called after every `act`.

    goal_points: the goal, instead of the episode's picture; see `MPCPolicy.reset`.
    """
    _, info = environment.reset(seed=seed, options={**(options or {}), "film": True} if film else options)
    if goal_points is None:
        policy.reset(info["goal_image"], seed=seed)
    elif isinstance(policy, MPCPolicy):
        policy.reset(goal_points=goal_points, seed=seed)
    else:
        raise ValueError("points are no goal for this policy: it takes a picture")
    step_frames, seconds, moves, observations = [], [], [], []
    distances = [environment.distance()]
    done = False
    while not done:
        observation = environment.observe()
        targets = policy.act(observation)
        if isinstance(policy, MPCPolicy):
            seconds.append(policy.statistics[-1].seconds)
        if after_plan is not None:
            after_plan(policy)
        moves.append(targets)
        values, _, terminated, truncated, _ = environment.step(targets)
        done = terminated or truncated
        distances.append(environment.distance())
        if film:
            step_frames.append(values["image"])
            observations.append(observation)
    success = environment.success()
    distances.append(environment.distance())
    frames = tuple(environment.film) if film else ()
    seen = tuple(observations)
    return Played(success, tuple(distances), tuple(seconds), frames, tuple(step_frames), tuple(moves), seen)
